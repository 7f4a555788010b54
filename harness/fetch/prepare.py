"""The verb ``prepare``: bring a benchmark onto the disk, in one layout, from the hub, a mirror or files on disk.

Archives are fetched one at a time, unpacked and removed again, so that the disk holds the videos and one archive at
most. What is done is written down in ``<root>/<benchmark>/.prepare.json``: the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.benchmarks.facts import Facts, Source, load_facts
from harness.benchmarks.layout import destination, link
from harness.errors import UserError
from harness.fetch import hub
from harness.fetch.archives import Archive, Member, archive_name, group_archives, members, write_member

if TYPE_CHECKING:
    from harness.config import Config, TaskConfig

RECORD = ".prepare.json"
DOWNLOADS = ".downloads"
SPARE = 1 << 30
"""Bytes of the disk that stay free."""


def main(config: Config) -> int:
    """Prepare ``task`` below ``data.root``, or build the toy where the profile is the toy.

    Returns:
        0, or 1 where videos of the task are still missing afterwards.

    Raises:
        UserError: too little disk, a refused or broken download, a damaged archive.
    """
    root = Path(config.data.root)
    if config.profile == "toy":
        return _build_toy(root)
    task = config.task
    job = Job(task, load_facts(task.data), root / task.data)
    job.folder.mkdir(parents=True, exist_ok=True)
    if config.data.source:
        job.from_disk(Path(config.data.source))
    else:
        for source in job.facts.split_sources(task.split):
            job.from_hub(source, config.data.mirror)
        # Only now: what one source has left here may be a part of an archive that another run began.
        shutil.rmtree(job.downloads, ignore_errors=True)
    return _summary(task, root)


def _build_toy(root: Path) -> int:
    from harness.toy.benchmarks import build

    try:
        build(root)
    except FileExistsError as error:
        raise UserError(f"data.root={root}: {error}; for example data.root=data/toy") from error
    print(f"toy benchmarks: {root} (for a published benchmark add profile=published)")
    return 0


@dataclass
class Job:
    """One benchmark's way onto the disk. ``folder`` is the benchmark's folder below the data root."""

    task: TaskConfig
    facts: Facts
    folder: Path

    def from_disk(self, source: Path) -> None:
        """Take all files below `source`: archives are unpacked, loose files are linked to, nothing is removed."""
        if not source.is_dir():
            raise UserError(f"data.source={source} is not a folder; give the one that holds the archives or the files")
        paths = sorted(p for p in source.rglob("*") if p.is_file() and self.folder.resolve() not in p.resolve().parents)
        todo = [a for a in group_archives(paths) if not self._unpacked(_relative(a.name, source), _size(a))]
        self._check_disk(unpacked=sum(map(_size, todo)), archive=0)
        for archive in todo:
            self._unpack(archive, _relative(archive.name, source))
        placed = 0
        for path in paths:
            if archive_name(str(path)) is None and (target := self._target(path.relative_to(source).as_posix())):
                link(path, target)
                placed += 1
        print(f"{self.facts.title}: {len(todo)} archives unpacked, {placed} loose files linked from {source}")

    def from_hub(self, source: Source, mirror: str | None) -> None:
        """Download what `source` includes, one archive at a time."""
        if source.hub is None:
            raise UserError(f"{self.facts.title}: {source.why}. Then: prepare task={self.task.name} data.source=DIR")
        dataset = self._pinned(source, mirror)
        files = dataset.files()
        groups: dict[str, list[hub.RemoteFile]] = {}
        for file in files:
            groups.setdefault(archive_name(file.path) or file.path, []).append(file)
        todo = {name: parts for name, parts in groups.items() if not self._have(name, parts)}
        sizes = {name: sum(part.size for part in parts) for name, parts in todo.items()}
        total = sum(sizes.values())
        print(
            f"{source.hub} at {dataset.commit[:12]}: {len(files)} files, {_gb(sum(f.size for f in files))}; "
            f"to fetch: {len(todo)} of {len(groups)} archives and files, {_gb(total)}"
        )
        self._check_disk(unpacked=total, archive=max((n for name, n in sizes.items() if archive_name(name)), default=0))
        done = 0
        for i, (name, parts) in enumerate(todo.items(), start=1):
            print(f"[{i}/{len(todo)}] {name} ({_gb(sizes[name])}; {_gb(done)} of {_gb(total)} done)")
            local = [dataset.fetch(part, self.downloads) for part in parts]
            if archive_name(name):
                self._unpack(group_archives(local)[0], name, sum(part.size for part in parts))
            elif target := self._target(name):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(local[0], target)
            for path in local:
                path.unlink(missing_ok=True)
            done += sizes[name]

    def _pinned(self, source: Source, mirror: str | None) -> hub.Dataset:
        """The dataset at the commit that an earlier attempt began with, so that no download mixes two."""
        record = self._record
        if commit := record["commits"].get(source.hub):
            return hub.Dataset(source, commit, mirror)
        dataset = hub.resolve(source, mirror)
        record["commits"][source.hub] = dataset.commit
        self._write(record)
        return dataset

    def _have(self, name: str, parts: list[hub.RemoteFile]) -> bool:
        if archive_name(name):
            return self._unpacked(name, sum(part.size for part in parts))
        target = self._target(name)
        return target is None or (target.exists() and target.stat().st_size == parts[0].size)

    def _target(self, path: str) -> Path | None:
        place = destination(path, self.facts.layout, self.task.split)
        return self.folder / place if place else None

    def _unpack(self, archive: Archive, name: str, size: int | None = None) -> None:
        progress = Progress(f"unpacking {Path(name).name}")
        for member in members(archive):
            target = self._target(member.path)
            if target and not (target.exists() and target.stat().st_size == member.size):
                _write(member, target, archive)
            progress.step(member.size)
        progress.close()
        record = self._record
        record["unpacked"][name] = _size(archive) if size is None else size
        self._write(record)

    def _unpacked(self, name: str, size: int) -> bool:
        return self._record["unpacked"].get(name) == size

    @property
    def downloads(self) -> Path:
        """Where archives lie until they are unpacked."""
        return self.folder / DOWNLOADS

    @property
    def _record(self) -> dict:
        path = self.folder / RECORD
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"commits": {}, "unpacked": {}}

    def _write(self, record: dict) -> None:
        partial = self.folder / (RECORD + ".partial")
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.folder / RECORD)

    def _check_disk(self, *, unpacked: int, archive: int) -> None:
        """Videos hardly compress: an archive of n bytes unpacks to about n."""
        here = sum(p.stat().st_size for p in self.downloads.rglob("*") if p.is_file()) if archive else 0
        needed, free = max(0, unpacked + archive - here), shutil.disk_usage(self.folder).free
        print(f"disk: {_gb(needed)} needed, {_gb(free)} free at {self.folder}")
        if needed + SPARE > free:
            raise UserError(
                f"{self.folder} has {_gb(free)} free; {self.facts.title} needs {_gb(needed)} more "
                f"(and {_gb(SPARE)} to spare): make room or choose another data.root"
            )


def _write(member: Member, target: Path, archive: Archive) -> None:
    try:
        write_member(member, target)
    except OSError as error:
        raise UserError(f"unpacking {archive.name} to {target} failed: {error}") from error


class Progress:
    """Bytes unpacked so far, on one line of a terminal; silent elsewhere."""

    def __init__(self, title: str) -> None:
        self._title, self._files, self._bytes, self._shown = title, 0, 0, 0.0

    def step(self, size: int) -> None:
        self._files, self._bytes = self._files + 1, self._bytes + size
        if sys.stderr.isatty() and time.monotonic() - self._shown > 0.5:
            self._shown = time.monotonic()
            print(f"\r  {self._title}: {self._files} files, {_gb(self._bytes)}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        end = "\r" if sys.stderr.isatty() else ""
        print(f"{end}  {self._title}: {self._files} files, {_gb(self._bytes)}", file=sys.stderr)


def _summary(task: TaskConfig, root: Path) -> int:
    from harness.benchmarks.questions import functions, load_rows

    module = functions(task.data)
    rows = load_rows(task, root)
    videos = {module.video_path(root, row) for row in rows}
    missing = sorted(str(video) for video in videos if not video.exists())
    print(f"{task.name}: {len(rows)} questions on {len(videos)} videos, {len(missing)} videos missing")
    for path in missing[:10]:
        print(f"  missing: {path}")
    print(f"next: python -m harness verify task={task.name} data.root={root}")
    return 1 if missing else 0


def _relative(name: str, folder: Path) -> str:
    return Path(name).relative_to(folder).as_posix()


def _size(archive: Archive) -> int:
    return sum(part.stat().st_size for part in archive.parts)


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"
