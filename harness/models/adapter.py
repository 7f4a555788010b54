"""What the harness needs of a model family: one adapter class each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch

from harness.compress.attention import choose_backend
from harness.compress.generate import Generation, generate
from harness.compress.method import Method, build_method
from harness.compress.positions import check_rule
from harness.errors import UserError
from harness.models.language import Decoder
from harness.models.loading import choose_device, choose_dtype, end_tokens, load_config, scale_rope

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class VideoFeatures:
    """A video as it enters the language model. V tokens, n per grid, hidden size d."""

    features: torch.Tensor  # [V, d] in host memory (pinned when the model is on CUDA)
    grid: tuple[int, int, int]  # grids, height, width in patches before merging
    tokens_per_grid: int  # n
    second_per_grid: float


@dataclass(frozen=True)
class Prompt:
    """A tokenised prompt [N] with its V video tokens in place."""

    input_ids: torch.Tensor
    video: slice
    grid: tuple[int, int, int]
    second_per_grid: float


class Adapter(ABC):
    """One model of one family, loaded. A family subclasses this: its facts as class attributes, and what is abstract.

    Attributes:
        version: raised by hand when prompts, features or positions of the family change; part of a cell's identity.
        family: the name of the family, as `build_method` and the checkpoints' `model_type` know it.
        frames_per_grid: frames that share one grid of tokens.
        window: frames that the vision tower sees at a time; memory only.
        position_rows: rows of position ids (3 for M-RoPE, 1 otherwise).
        text_behind_video: placeholders that follow the video's own in the prompt, and are embedded as text.
        language: the decoder, as `compress` needs it.
        device, dtype, attention_backend: what was chosen; recorded with each run.
        eos_token_ids: tokens that end an answer.
    """

    family: ClassVar[str]
    version: ClassVar[int] = 1
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
        model = AutoModelForImageTextToText.from_pretrained(
            path, config=config, dtype=number, attn_implementation=backend, device_map=device_map
        ).eval()
        return cls(model if device_map else model.to(chosen), AutoProcessor.from_pretrained(path), backend)

    @abstractmethod
    def encode_window(self, window: np.ndarray) -> tuple[torch.Tensor, tuple[int, int, int]]:
        """Tokens [t, d] of some frames uint8 [frames, height, width, 3], and their grid (see `VideoFeatures.grid`)."""

    @abstractmethod
    def position_ids(self, prompt: Prompt, rule: str) -> torch.Tensor:
        """Position ids [r, N] by a named rule."""

    def embed_text(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings [n, d] of the prompt's tokens [n] that are not the video's."""
        return self.model.model.language_model.get_input_embeddings()(ids)

    @torch.inference_mode()
    def encode(self, windows: Iterable[np.ndarray], n_frames: int, second_per_grid: float) -> VideoFeatures:
        """Encode a video window by window; only one window of pixels exists at a time.

        Args:
            windows: frames uint8 [<= size, height, width, 3] in order, already resized to the sampling policy.
            n_frames: how many frames there are in all.
            second_per_grid: seconds between two grids.
        """
        grids, buffer, grid, filled = -(-n_frames // self.frames_per_grid), None, (0, 0, 0), 0
        for window in regrouped(windows, self.window):
            tokens, grid = self.encode_window(window)
            if buffer is None:
                buffer = host_buffer(grids * len(tokens) // grid[0], tokens)
            buffer[filled : filled + len(tokens)].copy_(tokens)
            filled += len(tokens)
        if buffer is None or filled != len(buffer):
            raise ValueError(f"{n_frames} frames were announced, but the windows held {filled} tokens' worth")
        return VideoFeatures(buffer, (grids, *grid[1:]), filled // grids, second_per_grid)

    def prompt(self, text: str, features: VideoFeatures) -> Prompt:
        """The chat prompt that shows the video and then says `text`.

        Raises:
            UserError: the text holds the video's placeholder.
        """
        pad = self.model.config.video_token_id
        message = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}
        chat = self.processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        ids = self.tokenizer(chat, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
        where = (ids == pad).nonzero().flatten().tolist()
        if len(where) != 1:
            name = self.tokenizer.convert_ids_to_tokens(pad)
            raise UserError(
                f"the prompt holds {name} {len(where)} times, but it must stand for the video once: {text!r}"
            )
        start, count = where[0], len(features.features)
        placeholders = torch.full((count + self.text_behind_video,), pad)
        input_ids = torch.cat((ids[:start], placeholders, ids[start + 1 :]))
        return Prompt(input_ids, slice(start, start + count), features.grid, features.second_per_grid)

    def decode_text(self, token_ids: list[int]) -> str:
        """The text of new tokens, without special tokens."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)

    def positions(self, prompt: Prompt, rule: str | None = None) -> torch.Tensor:
        """Position ids [r, N] by a named rule (`None`: `float`)."""
        return self.position_ids(prompt, check_rule(rule or "float"))

    def method(self, config: Any) -> Method:
        """The method that a configuration asks for, on this family (see `build_method`)."""
        return build_method(config, family=self.family)

    def generate(
        self,
        prompt: Prompt,
        features: VideoFeatures,
        method: Method,
        *,
        context: int | None,
        max_new_tokens: int,
        record: bool = False,
    ) -> Generation:
        """Answer a prompt under a method and a context of so many tokens, with the method's position rule."""
        return generate(
            self.language,
            input_ids=prompt.input_ids,
            positions=self.positions(prompt, method.positions),
            features=features.features,
            video=prompt.video,
            tokens_per_grid=features.tokens_per_grid,
            method=method,
            context=context,
            max_new_tokens=max_new_tokens,
            eos=self.eos_token_ids,
            frames_per_grid=self.frames_per_grid,
            record=record,
        )


def regrouped(windows: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same frames in windows of exactly `size` frames, the last one with what is left."""
    import numpy as np

    waiting: list[np.ndarray] = []
    count = 0
    for window in windows:
        while len(window):
            part, window = window[: size - count], window[size - count :]
            waiting.append(part)
            count += len(part)
            if count == size:
                yield np.concatenate(waiting) if len(waiting) > 1 else waiting[0]
                waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting)


def host_buffer(tokens: int, like: torch.Tensor) -> torch.Tensor:
    """An empty [tokens, d] tensor in host memory, pinned where `like` [., d] is on CUDA."""
    return torch.empty(tokens, like.shape[-1], dtype=like.dtype, pin_memory=like.device.type == "cuda")
