"""How long things took in a results folder, and how long a plan takes by that. No setting is judged by another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.store import Answer, Manifest, answer_files, iter_answers, read_manifest
from harness.store.manifest import FILE as MANIFEST

Key = tuple[Any, ...]
UNKNOWN_DEVICE = "device not recorded"


@dataclass(frozen=True)
class Work:
    """What is to be done in one cell: its share in decoding and encoding, and its answers. All in video tokens."""

    cell: Mapping[str, Any]  # the cell's record
    encode_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class Rates:
    """Seconds per video token on one device: to decode and encode it, and to answer one question about it."""

    encode: Mapping[Key, float]
    answer: Mapping[Key, float]

    def seconds(self, work: Work) -> float | None:
        """How long the work takes on one such device; None where its setting was never measured."""
        encode, answer = self.encode.get(encode_key(work.cell)), self.answer.get(answer_key(work.cell))
        if (work.encode_tokens and encode is None) or (work.answer_tokens and answer is None):
            return None
        return work.encode_tokens * (encode or 0.0) + work.answer_tokens * (answer or 0.0)


def encode_key(cell: Mapping[str, Any]) -> Key:
    """What decides how long a video takes to become features."""
    video = {k: v for k, v in cell["video"].items() if k not in ("window", "timeout_s")}
    return (cell["weights"], cell["model"]["dtype"], tuple(sorted(video.items())))


def answer_key(cell: Mapping[str, Any]) -> Key:
    """What decides how long an answer takes: model, frames, context, method."""
    method = cell["method"]
    return (*encode_key(cell), cell["context"], method["name"], method.get("semantics"), cell["variant"])


def measured_rates(results: Path, wanted: Iterable[Mapping[str, Any]]) -> dict[str, Rates]:
    """The rates of every device that has answered cells of the wanted settings in this results folder.

    Args:
        wanted: records of the planned cells; folders of other settings are not read.

    Raises:
        UserError: a manifest, or answers that were read, are damaged.
    """
    encode_keys = {encode_key(cell) for cell in wanted}
    passes: dict[str, dict[Key, dict[Key, tuple[float, int]]]] = defaultdict(lambda: defaultdict(dict))
    answers: dict[str, dict[Key, list[tuple[float, int]]]] = defaultdict(lambda: defaultdict(list))
    for folder in sorted(path.parent for path in (results / "runs").glob(f"*/{MANIFEST}")):
        manifest = read_manifest(folder)
        if not _has_keys(manifest) or encode_key(manifest.cell) not in encode_keys:
            continue
        device = manifest.device or UNKNOWN_DEVICE
        for answer in (answer for path in answer_files(folder) for answer in iter_answers(path)):
            if not answer.ok or not answer.n_video or "generate" not in answer.seconds:
                continue
            answers[device][answer_key(manifest.cell)].append((answer.seconds["generate"], answer.n_video))
            _add_share(passes[device][encode_key(manifest.cell)], answer)
    return {
        device: Rates(
            {key: _per_token(found.values()) for key, found in passes[device].items()},
            {key: _per_token(found) for key, found in answers[device].items()},
        )
        for device in answers
    }


def _has_keys(manifest: Manifest) -> bool:
    return {"weights", "model", "video", "method", "context", "variant"} <= manifest.cell.keys()


def _add_share(passes: dict[Key, tuple[float, int]], answer: Answer) -> None:
    """Add an answer's share of its video's decoding and encoding. All answers of one pass over a video, whatever their
    cell, carry the same share, so equal shares of one video are one pass."""
    share = answer.seconds.get("frames", 0.0) + answer.seconds.get("encode", 0.0)
    key = (answer.video_id, share)
    seconds, _ = passes.get(key, (0.0, 0))
    passes[key] = (seconds + share, answer.n_video or 0)


def _per_token(found: Iterable[tuple[float, int]]) -> float:
    listed = list(found)
    return sum(seconds for seconds, _ in listed) / sum(tokens for _, tokens in listed)


def clock(seconds: float) -> str:
    """A time as a person says it: ``35 s``, ``12 min``, ``7.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
