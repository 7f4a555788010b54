"""Where the loop's videos come from: decoded ahead under a cell's sampling policy, or as features stored before."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.digest import file_digest
from harness.run.answer import open_sampled
from harness.store import SeenFrames

if TYPE_CHECKING:
    from harness.settings.cell import Cell
    from harness.settings.groups import RunConfig
    from harness.video.features import FeatureKey
    from harness.video.sampling import FramePlan


@dataclass(frozen=True)
class OpenVideo:
    """A video that is about to be shown to a model."""

    path: Path
    digest: str
    plan: FramePlan
    backend: str
    features: Any = None  # of an earlier run; then no frame is decoded
    video: Any = None  # else what `windows` reads, see `harness.video`

    def windows(self, size: int) -> Generator[Any]:
        """The chosen frames in order, uint8 [<=size, H, W, 3] each."""
        yield from self.video.windows(size)

    @cached_property
    def seen(self) -> SeenFrames:
        """The chosen frames, as they are recorded."""
        return SeenFrames(tuple(map(int, self.plan.indices)), tuple(map(float, self.plan.timestamps)))

    def facts(self) -> dict[str, Any]:
        """What each answer to a question about it says of it."""
        return {
            "video_digest": self.digest,
            "sampling_fps": float(self.plan.sampling_fps),
            "second_per_grid": float(self.plan.second_per_grid),
            "frames": self.seen.digest,
            "backend": self.backend,
        }


class Frames:
    """Videos of a cell: the next `run.prefetch` ones are decoded in the background, in at most `run.prefetch_gb` of
    memory; features come from and go to `run.feature_dir` where it is set.

    Args:
        cells: the siblings that see them. Where a method needs pixels or the encoder's attention as well, features
            are not stored.
        run: settings of the run.
    """

    def __init__(self, cells: Sequence[Cell], run: RunConfig) -> None:
        cell, more = cells[0], any(cell.method.needs_frames or cell.method.needs_attention for cell in cells)
        self._video, self._run = cell.video, run
        self._store = _Stored(cell, run) if run.feature_dir and not more else None
        self._digests: dict[Path, str] = {}

    def open(self, paths: Sequence[Path]) -> Generator[OpenVideo | Exception]:
        """Each path's video, or the exception that opening it raised, in order."""
        stored = {path for path in paths if self._store and self._store.holds(path)}
        with self._ahead([path for path in paths if path not in stored]) as fresh:
            for path in paths:
                if path not in stored:
                    video = next(fresh)
                elif self._store and (held := self._store.find(path)):
                    yield held
                    continue
                else:  # evicted meanwhile
                    video = self._open_or_say(path)
                if isinstance(video, Exception):
                    yield video
                else:
                    yield OpenVideo(path, self._digests[path], video.plan, video.backend, video=video)

    def keep(self, opened: OpenVideo, features: Any) -> None:
        """Store a video's features for later runs, where that is wanted."""
        if self._store is not None:
            self._store.keep(opened, features)

    @contextlib.contextmanager
    def _ahead(self, paths: Sequence[Path]) -> Iterator[Iterator[Any]]:
        from harness.video.prefetch import Prefetch

        if self._run.prefetch < 1:
            yield map(self._open_or_say, paths)
            return
        bound = int(self._run.prefetch_gb * 1e9)
        with Prefetch(paths, self._open, window=self._video.window, ahead=self._run.prefetch, max_bytes=bound) as ahead:
            yield iter(ahead)

    def _open_or_say(self, path: Path) -> Any:
        try:
            return self._open(path)
        except Exception as error:
            return error

    def _open(self, path: Path) -> Any:
        with contextlib.suppress(OSError):  # opening says better what is wrong
            self._digests[path] = file_digest(path)
        return open_sampled(path, self._video)


class _Stored:
    """A model's features under one sampling policy, in `run.feature_dir`."""

    def __init__(self, cell: Cell, run: RunConfig) -> None:
        from harness.video.features import FeatureFolder, FeatureKey
        from harness.video.sampling import sampling_policy

        limit = None if run.feature_dir_gb is None else int(run.feature_dir_gb * 1e9)
        self._folder = FeatureFolder(str(run.feature_dir), limit)
        self._backend = cell.video.backend
        transformers = importlib.metadata.version("transformers")
        self._key = FeatureKey(
            video="",
            policy=sampling_policy(cell.video),
            backend=cell.video.backend,
            weights=cell.weights,
            dtype=cell.model.dtype,
            encoder=f"{cell.model.adapter} {cell.versions['adapter']} transformers {transformers}",
            decoding=int(cell.versions["decoding"]),
        )

    def holds(self, path: Path) -> bool:
        """Whether a video's features are there; they may be gone when they are wanted."""
        return path.is_file() and self._key_of(file_digest(path)) in self._folder

    def find(self, path: Path) -> OpenVideo | None:
        """A video with its stored features."""
        from harness.models.features import VideoFeatures
        from harness.video.sampling import FramePlan

        if not path.is_file():
            return None
        digest = file_digest(path)
        held = self._folder.find(self._key_of(digest))
        if held is None:
            return None
        facts = held.facts
        plan = {**facts["plan"], **{name: tuple(facts["plan"][name]) for name in ("indices", "timestamps")}}
        deepstack = tuple(held.tensors[name] for name in sorted(held.tensors) if name != "features")
        per_grid, second_per_grid = facts["grids"]
        features = VideoFeatures(held.tensors["features"], tuple(facts["grid"]), per_grid, second_per_grid, deepstack)
        if facts.get("seconds") is not None:
            features = dataclasses.replace(features, seconds=tuple(facts["seconds"]))
        return OpenVideo(path, digest, FramePlan(**plan), self._backend, features=features)

    def keep(self, opened: OpenVideo, features: Any) -> None:
        """Store a video's features."""
        from harness.video.features import Features

        facts = {
            "plan": {name: _plain(value) for name, value in dataclasses.asdict(opened.plan).items()},
            "grid": list(features.grid),
            "seconds": None if features.seconds is None else list(features.seconds),
            "grids": [features.tokens_per_grid, features.second_per_grid],
        }
        tensors = {f"deepstack{i:03}": tensor for i, tensor in enumerate(features.deepstack)}
        self._folder.add(self._key_of(opened.digest), Features({"features": features.features, **tensors}, facts))

    def _key_of(self, digest: str) -> FeatureKey:
        return dataclasses.replace(self._key, video=digest)


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value.item() if hasattr(value, "item") else value
