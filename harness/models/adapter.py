"""What the harness needs of a model family: one adapter class each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from harness.compress.generate import Generation, generate
from harness.compress.method import Method, build_method
from harness.compress.positions import check_rule

if TYPE_CHECKING:
    import numpy as np

    from harness.models.language import Decoder


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


class Adapter(Protocol):
    """One model of one family, loaded. A new family subclasses this and implements the abstract part.

    Attributes:
        family: the name of the family, as `build_method` knows it.
        frames_per_grid: frames that share one grid of tokens.
        language: the decoder, as `compress` needs it.
        device, dtype, attention_backend: what was chosen; recorded with each run.
        eos_token_ids: tokens that end an answer.
    """

    family: str
    frames_per_grid: int
    language: Decoder
    device: torch.device
    dtype: torch.dtype
    attention_backend: str
    eos_token_ids: frozenset[int]

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
    ) -> Adapter:
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

    def encode(self, windows: Iterable[np.ndarray], n_frames: int, second_per_grid: float) -> VideoFeatures:
        """Encode a video window by window; only one window of pixels exists at a time.

        Args:
            windows: frames uint8 [<= size, height, width, 3] in order, already resized to the sampling policy.
            n_frames: how many frames there are in all.
            second_per_grid: seconds between two grids.
        """

    def prompt(self, text: str, features: VideoFeatures) -> Prompt:
        """The chat prompt that shows the video and then says `text`."""

    def position_ids(self, prompt: Prompt, rule: str) -> torch.Tensor:
        """Position ids [r, N] by a named rule."""

    def decode_text(self, token_ids: list[int]) -> str:
        """The text of new tokens, without special tokens."""

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
