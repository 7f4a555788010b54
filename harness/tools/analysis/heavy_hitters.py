"""Heavy hitters: which share of a video's tokens gets more than a hundredth of the most that one token gets.

Section 3 of the paper. a[l, j] is the attention that the text behind the video pays to video token j in layer l of the
uncompressed model: summed over the tokens of the text, mean over the heads. A token is a heavy hitter of a layer where
a[l, j] > threshold * max over j of a[l, j].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from harness.compress.attention import Heads
from harness.compress.cache import CompressedCache
from harness.compress.method import Method
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt
from harness.models.adapter import Adapter
from harness.models.features import VideoFeatures
from harness.models.language import Decoder
from harness.tools.analysis.spilled import Spill, attention_mass, spilled_attention
from harness.video.windows import regrouped

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class HeavyHitters:
    """Heavy hitters of one video and one question. L layers, K stretches of the video of so many seconds.

    Attributes:
        tokens: video tokens of each stretch [K].
        heavy: how many of them are heavy hitters, by layer [L][K].
        hidden: last hidden state [d] of the prompt, on the host.
    """

    tokens: list[int]
    heavy: list[list[int]]
    hidden: torch.Tensor


def encode_to_files(
    adapter: Adapter, windows: Iterable[np.ndarray], n_frames: int, second_per_grid: float, spill: Spill
) -> VideoFeatures:
    """`Adapter.encode`, the features in files: one window of pixels and of features is in memory at a time."""
    grids, filled = -(-n_frames // adapter.frames_per_grid), 0
    whole: list[torch.Tensor] = []
    part: VideoFeatures | None = None
    for window in regrouped(windows, adapter.window):
        part = adapter.encode(window, second_per_grid=second_per_grid)
        features = (part.features, *part.deepstack)
        if not whole:
            whole = [spill.new((grids * part.tokens_per_grid, f.shape[1]), f.dtype) for f in features]
        for of_all, of_window in zip(whole, features, strict=True):
            of_all[filled : filled + len(of_window)] = of_window
        filled += len(part.features)
    if part is None or filled != len(whole[0]):
        raise ValueError(f"{n_frames} frames were announced, but the windows held {filled} tokens' worth")
    shape = (grids, *part.grid[1:])
    video = VideoFeatures(whole[0], shape, part.tokens_per_grid, second_per_grid, tuple(whole[1:]))
    return video.with_odd_end(n_frames, adapter.frames_per_grid)


def received_attention(
    language: Decoder, prompt: Prompt, features: Sequence[torch.Tensor], spill: Spill, *, chunk_frames: int = 32
) -> tuple[torch.Tensor, torch.Tensor]:
    """What each token of the prompt gets from the text behind the video, without compression.

    Keys, values and the result lie in files; in memory are one chunk of the video and one block of its attention.

    Args:
        language: the decoder.
        prompt: with one video.
        features: each [V, d].
        spill: makes the files.
        chunk_frames: frames that pass together; they change no number but by rounding.

    Returns:
        [L, N] float32 in a file, the row of a layer not scaled in any way; the last hidden state [d].
    """
    method = Method(chunk_frames=chunk_frames)
    # The same weights, attending through files.
    language = Decoder(
        language.text_model, language.head, backend=spilled_attention, rows=language.rows, embed=language.embed
    )
    run = Prefill(language, method, prompt, features, max_new_tokens=0, record=False)
    run.cache = CompressedCache(language.num_layers, reserve=prompt.n_prompt, new_buffer=spill.buffer)
    found = spill.new((language.num_layers, prompt.n_prompt), torch.float32)
    guide = prompt.guide(None)

    def watch(layer: int, query: torch.Tensor, key: Heads, scale: float) -> None:
        assert isinstance(key, torch.Tensor)
        n_guide = guide.stop - guide.start
        attention_mass(query[:, -n_guide:], key[0], scale, found[layer])

    hidden = None
    for segment in run.segments:
        ends = segment.tokens.stop == prompt.n_prompt
        hidden = run.forward(segment, observer=watch if ends else None)
    assert hidden is not None
    return found, hidden.cpu()


def count(
    mass: torch.Tensor, prompt: Prompt, grid_seconds: Sequence[float], *, seconds: float, threshold: float
) -> tuple[list[int], list[list[int]]]:
    """Video tokens per stretch [K], and how many of them are heavy hitters, by layer [L][K].

    Args:
        mass: [L, N] from `received_attention`.
        prompt: its prompt.
        grid_seconds: when each grid is shown [G].
        seconds: length of a stretch; one in which no grid is shown has no tokens.
        threshold: share of the most that a token gets in the layer, above which it is heavy.
    """
    stretches = [int(at // seconds) for at in grid_seconds]
    tokens = [0] * (max(stretches) + 1)
    ends = torch.tensor(prompt.grid_lengths).cumsum(0).tolist()
    grids = [
        (stretch, prompt.video[stop - length : stop])
        for stretch, stop, length in zip(stretches, ends, prompt.grid_lengths, strict=True)
    ]
    for stretch, of_grid in grids:
        tokens[stretch] += len(of_grid)
    heavy = [[0] * len(tokens) for _ in mass]
    for of_layer, row in zip(heavy, mass, strict=True):
        least = threshold * max(float(row[of_grid].max()) for _, of_grid in grids)
        for stretch, of_grid in grids:
            of_layer[stretch] += int((row[of_grid] > least).sum())
    return tokens, heavy


@torch.inference_mode()
def heavy_hitters(
    adapter: Adapter,
    video: VideoFeatures,
    question: str,
    spill: Spill,
    *,
    grid_seconds: Sequence[float] | None = None,
    seconds: float = 10.0,
    threshold: float = 0.01,
    chunk_frames: int = 32,
) -> HeavyHitters:
    """The heavy hitters of a video under a question.

    Args:
        adapter: the model.
        video: from `encode_to_files`, or `Adapter.encode`.
        question: the text behind the video.
        spill: makes the files of what attention reads.
        grid_seconds: when each grid is shown [G]; as the features say if not given.
        seconds, threshold: see `count`.
        chunk_frames: see `received_attention`.
    """
    prompt = adapter.prompt(question, video)
    features = (video.features, *video.deepstack)
    mass, hidden = received_attention(adapter.language, prompt, features, spill, chunk_frames=chunk_frames)
    times = video.grid_seconds(adapter.frames_per_grid) if grid_seconds is None else grid_seconds
    tokens, heavy = count(mass, prompt, times, seconds=seconds, threshold=threshold)
    return HeavyHitters(tokens, heavy, hidden)
