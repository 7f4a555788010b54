"""Which frames were seen, once for all answers about a video: `<results>/frames/<digest>.json`.

A record is named by a digest of its content, so that one of a video under one setting serves every cell, and nothing
else can pass for it. Answers hold that name.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.errors import UserError
from harness.records import write_atomic
from harness.store.answers import Answer

SCHEMA = 1


@dataclass(frozen=True)
class SeenFrames:
    """Frames of one video, in order.

    indices: on the sampling grid of the policy. timestamps: seconds, one per frame.
    """

    indices: tuple[int, ...]
    timestamps: tuple[float, ...]

    @cached_property
    def content(self) -> bytes:
        """Of the record's file."""
        record = {"schema": SCHEMA, "frame_indices": list(self.indices), "timestamps": list(self.timestamps)}
        return json.dumps(record, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"

    @cached_property
    def digest(self) -> str:
        """The record's name: 16 hexadecimal digits."""
        return _digest(self.content)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


class FrameRecords:
    """The records of a results folder, each read or written once.

    Args:
        results: the folder that holds `runs` and `frames`.
    """

    def __init__(self, results: Path | str) -> None:
        self._folder = Path(results) / "frames"
        self._known: dict[str, SeenFrames] = {}

    @classmethod
    def beside(cls, cell_dir: Path | str) -> FrameRecords:
        """Those that the answers of a cell in `<results>/runs/<cell>` refer to."""
        return cls(Path(cell_dir).parent.parent)

    def keep(self, seen: SeenFrames) -> None:
        """Have a record on the disk; an equal one is left alone, a damaged one written anew. Raises StoreError."""
        path = self._path(seen.digest)
        if seen.digest not in self._known and not (path.is_file() and path.read_bytes() == seen.content):
            write_atomic(path, seen.content)
        self._known[seen.digest] = seen

    def find(self, digest: str) -> SeenFrames:
        """The record of this name.

        Raises:
            UserError: it is absent, or not what was written; nothing stands in for it.
        """
        if digest not in self._known:
            path = self._path(digest)
            try:
                content = path.read_bytes()
            except OSError:
                raise UserError(self._lost(digest, "is absent")) from None
            if _digest(content) != digest:
                raise UserError(self._lost(digest, "is damaged: its name is not the digest of its content"))
            record = json.loads(content)
            self._known[digest] = SeenFrames(tuple(record["frame_indices"]), tuple(record["timestamps"]))
        return self._known[digest]

    def check(self, answers: Iterable[Answer]) -> None:
        """Every answer's record is there and as it was written.

        Raises:
            UserError: one is not, with the number of these answers that refer to it.
        """
        for digest, n in Counter(answer.frames for answer in answers if answer.frames is not None).items():
            try:
                self.find(digest)
            except UserError as error:
                raise UserError(f"{n} answers of a cell refer to a record of frames that is lost: {error}") from None

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.json"

    def _lost(self, digest: str, what: str) -> str:
        runs = self._folder.parent / "runs"
        return (
            f"{self._path(digest)} {what}. Put it back: it belongs to the cells in {runs} as their answers do. Or have "
            "the questions answered anew: drop these answers and start the same command again:\n"
            f'  sed -i \'/"frames":"{digest}"/d\' {runs}/*/answers*.jsonl'
        )
