"""What the harness needs of a model family: one adapter class each."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from harness.compress.attention import choose_backend
from harness.compress.generate import generate
from harness.compress.method import Candidates, Method
from harness.compress.positions import check_rule
from harness.compress.prompt import Prompt
from harness.compress.trace import Generation, digest_of
from harness.errors import QuestionError, UserError
from harness.late import inference_mode, torch
from harness.models.checkpoint import check_loaded, check_processor, check_tensors
from harness.models.features import VideoFeatures, host_buffer, whole_grids_of
from harness.models.language import Decoder
from harness.models.loading import choose_device, choose_dtype, end_tokens, load_config, scale_rope
from harness.video.windows import regrouped

if TYPE_CHECKING:
    import numpy as np


_STAND_IN = "\ue000"  # a private-use character: stands for the question while the template is rendered


def check_text(text: str) -> None:
    """A text has a tokenisation.

    Raises:
        QuestionError: it holds half of a pair of surrogates, which stands for no character.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise QuestionError(f"the question holds {text[error.start]!r}, half of a character: {text[:80]!r}") from error


def tokens_of(processor: Any, video_token_id: int, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of the prompt before the video's placeholder [a], and behind it [b].

    Tokens that steer the model, such as `<|im_end|>` or `<|video_pad|>`, come from the template alone: where `text`
    spells one, it is tokenised as the characters that it is.

    Args:
        processor: with a chat template that shows one video.
        video_token_id: the placeholder.
        text: what the user says.
    """
    tokenizer = processor.tokenizer
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    control = {*added, *tokenizer.all_special_tokens, tokenizer.convert_ids_to_tokens(video_token_id)}
    if any(token in text for token in control):
        ids = _piecewise(_render(processor, _STAND_IN), text, tokenizer, control)
    else:
        ids = tokenizer(_render(processor, text), add_special_tokens=False)["input_ids"]
    at = ids.index(video_token_id)
    return torch.tensor(ids[:at]), torch.tensor(ids[at + 1 :])


def _render(processor: Any, text: str) -> str:
    message = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}
    chat: str = processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    return chat


def _piecewise(chat: str, text: str, tokenizer: Any, control: set[str]) -> list[int]:
    """Tokens of a rendered chat with `text` in place of the stand-in; what lies between control tokens stays whole."""
    before, after = chat.split(_STAND_IN)
    start = max((before.rfind(token) + len(token) for token in control if token in before), default=0)
    stop = min((after.find(token) for token in control if token in after), default=len(after))
    said = before[start:] + text + after[:stop]
    return [
        *tokenizer(before[:start], add_special_tokens=False)["input_ids"],
        *tokenizer(said, add_special_tokens=False, split_special_tokens=True)["input_ids"],
        *tokenizer(after[stop:], add_special_tokens=False)["input_ids"],
    ]


class Adapter(ABC):
    """One model of one family, loaded. A family subclasses this: its facts as class attributes, and what is abstract.

    Attributes:
        version: raised by hand when the family's features, prompts or positions change; part of a cell's identity.
        family: the name of the family, as `Method.for_family` and the checkpoints' `model_type` know it.
        frames_per_grid: frames that share one grid of tokens.
        window: frames that the vision tower sees at a time; memory only.
        position_rows: rows of position ids (3 for M-RoPE, 1 otherwise).
        text_behind_video: placeholders that follow the video's own in the prompt, and are embedded as text.
        language: the decoder, as `compress` needs it.
        device, dtype, attention_backend: what was chosen; recorded with each run.
        eos_token_ids: tokens that end an answer.
        judges: other models that methods have loaded to choose frames, by path.
    """

    version: ClassVar[int] = 1
    family: ClassVar[str]
    frames_per_grid: ClassVar[int]
    window: int
    position_rows: ClassVar[int]
    text_behind_video: ClassVar[int] = 0

    def __init__(self, model: Any, processor: Any, backend: str) -> None:
        self.model, self.processor, self.attention_backend = model, processor, backend
        self.tokenizer = processor.tokenizer
        self.language = Decoder(
            model.model.language_model,
            model.lm_head,
            backend=backend,
            rows=self.position_rows,
            repetition_penalty=getattr(model.generation_config, "repetition_penalty", None) or 1.0,
            embed=self.embed_text,
        )
        self.device, self.dtype = self.language.device, model.dtype
        self.eos_token_ids = end_tokens(model, self.tokenizer)
        self.judges: dict[str, Any] = {}

    @classmethod
    def load(
        cls,
        path: str,
        *,
        dtype: str = "auto",
        device: str = "auto",
        device_map: str | None = None,
        attention: str = "auto",
        yarn_factor: float = 1.0,
    ) -> Self:
        """Load weights and processor from a folder or hub id.

        Args:
            dtype: `auto` (bfloat16 on an accelerator, float32 on the CPU) or the name of a torch dtype.
            device: `auto`, or a torch device such as `cuda:1`, `npu:0`, `cpu`.
            device_map: `auto` spreads the layers over all devices.
            attention: `auto`, `flash_attention_2`, `sdpa` or `eager`.
            yarn_factor: above 1, YaRN scaling of the language model's rotary embedding.

        Raises:
            UserError: weights that are missing or of another family, or a setting that this machine cannot run.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        chosen = choose_device(device)
        number = choose_dtype(dtype, chosen)
        backend = choose_backend(attention, chosen, number)
        config = load_config(path, cls.family)
        scale_rope(config.text_config, yarn_factor)
        if Path(path).is_dir():
            check_tensors(Path(path).resolve())
            check_processor(Path(path).resolve())
        model = AutoModelForImageTextToText.from_pretrained(
            path, config=config, dtype=number, attn_implementation=backend, device_map=device_map
        ).eval()
        check_loaded(model, path)
        return cls(model if device_map else model.to(chosen), AutoProcessor.from_pretrained(path), backend)

    @abstractmethod
    def encode_window(self, window: np.ndarray) -> tuple[tuple[torch.Tensor, ...], tuple[int, int, int]]:
        """Features of some frames uint8 [frames, height, width, 3], and their grid (see `VideoFeatures.grid`).

        The features are [t, d] as they enter the embeddings, followed by those of deepstack where the family has them.
        """

    def watched(self, attention: list[torch.Tensor]) -> AbstractContextManager[None]:
        """Within the context, each window that is encoded adds what its tokens got in the tower [t], on the host.

        Mean over heads and patches of the last layer that sees whole grids; UserError where that is not known.
        """
        raise UserError(f"the vision tower of {self.family} cannot be watched: set a method that does not merge by it")

    def position_ids(self, input_ids: torch.Tensor, video: VideoFeatures, rule: str) -> torch.Tensor:
        """Position ids [r, N] of a prompt [N] by a named rule; here they count tokens, whatever the rule."""
        return torch.arange(len(input_ids))[None]

    def embed_text(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings [n, d] of the prompt's tokens [n] that are not the video's."""
        embeds: torch.Tensor = self.model.model.language_model.get_input_embeddings()(ids)
        return embeds

    @inference_mode
    def encode(
        self,
        frames: np.ndarray | Iterable[np.ndarray],
        n_frames: int | None = None,
        second_per_grid: float = 1.0,
        *,
        keep_frames: bool = False,
        keep_attention: bool = False,
    ) -> VideoFeatures:
        """Encode a video window by window; only one window of pixels exists at a time.

        Args:
            frames: uint8 [T, height, width, 3]; or windows of them in order, which may be read as they are needed.
            n_frames: how many frames there are in all, where `frames` are windows.
            second_per_grid: seconds between two grids.
            keep_frames: keep the pixels, for methods that choose frames.
            keep_attention: keep what each token got in the tower, for methods that choose by it.
        """
        import numpy as np

        windows: Iterable[np.ndarray] = [frames] if isinstance(frames, np.ndarray) else frames
        if n_frames is None:
            windows = list(windows)
            n_frames = sum(len(window) for window in windows)
        pixels: list[np.ndarray] = []
        attention: list[torch.Tensor] = []
        grids, filled, grid = -(-n_frames // self.frames_per_grid), 0, (0, 0, 0)
        buffers: list[torch.Tensor] = []
        for window in regrouped(windows, self.window):
            with self.watched(attention) if keep_attention else nullcontext():
                tensors, grid = self.encode_window(window)
            if not buffers:
                buffers = [host_buffer(grids * len(tensor) // grid[0], tensor) for tensor in tensors]
            for buffer, tensor in zip(buffers, tensors, strict=True):
                buffer[filled : filled + len(tensor)].copy_(tensor)
            filled += len(tensors[0])
            if keep_frames:
                pixels.append(window)
        if not buffers or filled != len(buffers[0]):
            raise ValueError(f"{n_frames} frames were announced, but the windows held {filled} tokens' worth")
        features = VideoFeatures(
            buffers[0],
            (grids, *grid[1:]),
            filled // grids,
            second_per_grid,
            tuple(buffers[1:]),
            np.concatenate(pixels) if keep_frames else None,
            attention=torch.cat(attention) if keep_attention else None,
        )
        return features.with_odd_end(n_frames, self.frames_per_grid)

    def prompt(self, text: str, video: VideoFeatures, *, rule: str = "float", context: int | None = None) -> Prompt:
        """The chat prompt that shows the video and then says `text`, whatever control tokens that spells.

        Args:
            text: the question.
            video: from `encode`.
            rule: for position ids, one of `positions.RULES`.
            context: tokens per layer that may stay in the cache; `None` = no limit.
        """
        before, after = self.around(text)
        shown, is_video = self.video_tokens(video)
        input_ids = torch.cat((before, shown, after))
        own = is_video.nonzero().flatten()
        return Prompt(
            input_ids=input_ids,
            positions=self.position_ids(input_ids, video, check_rule(rule)),
            video=len(before) + own,
            grid_lengths=(video.tokens_per_grid,) * video.grid[0],
            frames_per_grid=self.frames_per_grid,
            context=context,
            attention=video.attention,
            text_of_video=(int(own[0]), len(shown) - 1 - int(own[-1])),
        )

    def around(self, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids of the chat prompt in front of the video [a], and behind it [b], where it says `text`."""
        return tokens_of(self.processor, self.model.config.video_token_id, text)

    def video_tokens(self, video: VideoFeatures) -> tuple[torch.Tensor, torch.Tensor]:
        """What stands for the video in a prompt: token ids [m], and which of them are the video's own (bool [m])."""
        count = len(video.features)
        ids = torch.full((count + self.text_behind_video,), self.model.config.video_token_id)
        return ids, torch.arange(len(ids)) < count

    def decode_text(self, token_ids: list[int]) -> str:
        """The text of new tokens, without special tokens."""
        return str(self.tokenizer.decode(token_ids, skip_special_tokens=True))

    def answer(
        self,
        video: VideoFeatures,
        question: str,
        method: Method,
        context: int | None = None,
        *,
        max_new_tokens: int = 128,
        min_new_tokens: int = 0,
        repetition_penalty: float | None = None,
        record: bool = False,
        repeats: bool = False,
        evidence: Sequence[tuple[float, float]] = (),
    ) -> Generation:
        """Answer a question about a video under a method and a context of so many tokens.

        `evidence` says when the answer is to be seen (from, to), in seconds, for methods that serve as a bound. With
        `repeats` the next question is the same one, under another method; what both share is then computed once.

        Raises:
            QuestionError: this question cannot be asked under this context.
            UserError: the method does not exist for this family, or needs the frames, which were not kept.
        """
        check_text(question)
        method = method.for_family(self.family)
        encoded = len(video.features)
        shown = video.grids_at(evidence)
        chosen, anew = self._chosen(video, question, method, context)
        prompt = self.prompt(question, chosen, rule=method.position_rule, context=context)
        if shown and chosen is video:
            prompt = dataclasses.replace(prompt, evidence=shown)
        video = chosen
        generation = generate(
            self.language,
            method,
            prompt,
            (video.features, *video.deepstack),
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            repetition_penalty=repetition_penalty,
            eos=self.eos_token_ids,
            record=record,
            memo=video.memo,
            repeats=repeats,
        )
        trace = generation.trace
        trace.ids_digest, trace.positions_digest = digest_of(prompt.input_ids), digest_of(prompt.positions)
        if not anew and method.needs_features:
            trace.n_encoded = encoded
        return dataclasses.replace(generation, text=self.decode_text(generation.tokens))

    def _chosen(
        self, video: VideoFeatures, question: str, method: Method, context: int | None
    ) -> tuple[VideoFeatures, bool]:
        """The video as the method wants it, all of its frames or those it selects; and whether it was encoded anew."""
        if type(method).select_frames is Method.select_frames:
            return video, False
        if method.needs_frames and video.frames is None:
            raise UserError(f"method {method.name} looks at frames, which were not kept: encode(..., keep_frames=True)")
        room = None if context is None else (context - self.prompt(question, video).n_text) // video.tokens_per_grid
        candidates = Candidates(
            video.features.view(video.grid[0], video.tokens_per_grid, -1),
            video.frames,
            self.frames_per_grid,
            question,
            self._words,
            room,
            self.device,
            video.memo,
            self.judges,
        )
        chosen = method.select_frames(candidates)
        if chosen is None:
            return video, False
        second_per_grid = video.second_per_grid * (self.frames_per_grid * video.grid[0] / len(chosen))
        seconds, grids = video.seconds_of(chosen, self.frames_per_grid), whole_grids_of(chosen, self.frames_per_grid)
        if grids is not None:
            return dataclasses.replace(video.of_grids(grids, second_per_grid), seconds=seconds), False
        assert video.frames is not None
        encoded = self.encode(video.frames[chosen.numpy()], second_per_grid=second_per_grid)
        return dataclasses.replace(encoded, seconds=seconds), True

    def _words(self, text: str) -> torch.Tensor:
        """Embeddings [m, d] of a text's tokens, on the host."""
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
        return self.language.embed(ids).detach().cpu()
