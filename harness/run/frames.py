"""Where the loop's frames come from: the video room under a cell's sampling policy, or features stored before."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.errors import VideoError
from harness.video.sampling import sampling_policy

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.models.adapter import VideoFeatures
    from harness.plan.cell import Cell
    from harness.video.features import FeatureKey
    from harness.video.sampling import FramePlan, Policy


class Frames(Protocol):
    """Opens videos ahead of need."""

    def open(self, paths: Sequence[Path]) -> Generator[Any]:
        """For each path, in order: its `harness.video` Video, or the exception that opening it raised.

        A video whose features are stored has a `StoredPlan`.
        """

    def keep(self, path: Path, video: Any, features: Any) -> None:
        """Store a video's features for later runs, where that is wanted."""


@dataclass(frozen=True)
class StoredPlan:
    """Stands in for a video's frame plan where its features are at hand, so that no frame is decoded."""

    plan: FramePlan
    features: Any
    indices: tuple[int, ...] = ()


@dataclass
class StoredVideo:
    """Stands in for a video whose features are at hand."""

    path: Path
    plan: StoredPlan
    backend: str
    info: Any = None
    height: int = 0
    width: int = 0

    def windows(self, size: int) -> Generator[Any]:
        """None."""
        yield from ()


class VideoFrames:
    """Frames of a cell's videos: the next `run.prefetch` ones are decoded in the background, in at most
    `run.prefetch_gb` of memory; features come from and go to `run.feature_dir` where it is set.
    """

    def __init__(self, cell: Cell, run: RunConfig) -> None:
        self._video, self._run = cell.video, run
        self._policy = sampling_policy(cell.video)
        self._store = _Stored(cell, run, run.feature_dir, self._policy) if run.feature_dir else None

    def open(self, paths: Sequence[Path]) -> Generator[Any]:
        """See `Frames`."""
        if self._run.prefetch < 1:
            for path in paths:
                opened: Any
                try:
                    opened = self._open(path)
                except VideoError as error:
                    opened = error
                yield opened
            return
        from harness.video.prefetch import Prefetch

        bound = int(self._run.prefetch_gb * 1e9)
        with Prefetch(paths, self._open, window=self._video.window, ahead=self._run.prefetch, max_bytes=bound) as ahead:
            yield from ahead

    def keep(self, path: Path, video: Any, features: Any) -> None:
        """See `Frames`."""
        if self._store is not None:
            self._store.keep(path, video, features)

    def _open(self, path: Path) -> Any:
        from harness.video.decode import open_video

        if self._store is not None and (stored := self._store.find(path)) is not None:
            return stored
        return open_video(path, self._policy, backend=self._video.backend, timeout_s=self._video.timeout_s)


class _Stored:
    """A model's features under one sampling policy, in `run.feature_dir`; find and keep may run in two threads."""

    def __init__(self, cell: Cell, run: RunConfig, folder: str, policy: Policy) -> None:
        from harness.video.features import FeatureFolder, FeatureKey

        self._folder = FeatureFolder(folder, None if run.feature_dir_gb is None else int(run.feature_dir_gb * 1e9))
        transformers = importlib.metadata.version("transformers")
        self._any_video = FeatureKey(
            video="",
            policy=policy,
            backend=cell.video.backend,
            weights=cell.weights,
            dtype=cell.model.dtype,
            encoder=f"{cell.model.adapter} {cell.versions['adapter']} transformers {transformers}",
            decoding=int(cell.versions["decoding"]),
        )

    def find(self, path: Path) -> StoredVideo | None:
        """The stored features of a video; an absent file has none."""
        from harness.models.adapter import VideoFeatures
        from harness.video.sampling import FramePlan

        if not path.is_file():
            return None
        held = self._folder.find(self._key(path))
        if held is None:
            return None
        facts = held.facts
        plan = {**facts["plan"], **{name: tuple(facts["plan"][name]) for name in ("indices", "timestamps")}}
        tensors = dict(held.tensors)
        first, frames = tensors.pop("features"), tensors.pop("frames", None)
        deepstack = tuple(tensors[name] for name in sorted(tensors))
        pixels = None if frames is None else frames.numpy()
        per_grid, seconds = facts["grids"]
        features = VideoFeatures(first, tuple(facts["grid"]), per_grid, seconds, deepstack, pixels)
        return StoredVideo(path, StoredPlan(FramePlan(**plan), features), self._any_video.backend)

    def keep(self, path: Path, video: Any, features: VideoFeatures) -> None:
        """Store a video's features."""
        import torch

        from harness.video.features import Features

        facts = {
            "plan": {name: _plain(value) for name, value in dataclasses.asdict(video.plan).items()},
            "grid": list(features.grid),
            "grids": [features.tokens_per_grid, features.second_per_grid],
        }
        tensors = {f"deepstack{number:03}": layer for number, layer in enumerate(features.deepstack)}
        if features.frames is not None:
            tensors["frames"] = torch.from_numpy(features.frames)
        self._folder.add(self._key(path), Features({"features": features.features, **tensors}, facts))

    def _key(self, path: Path) -> FeatureKey:
        from harness.video.digest import video_digest

        return dataclasses.replace(self._any_video, video=video_digest(path))


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value.item() if hasattr(value, "item") else value
