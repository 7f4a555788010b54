"""The verb ``prepare``: bring a benchmark onto the disk, in one layout, from the hub, a mirror or files on disk.

Archives are fetched one at a time, unpacked and removed again, so that the disk holds the videos and one archive at
most. What is done is written down in ``<root>/<benchmark>/.prepare.json``: the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from harness.advice import harness
from harness.benchmarks.benchmark import Benchmark, Source, benchmark
from harness.benchmarks.files import VIDEO_SUFFIXES, Folder, usable
from harness.benchmarks.questions import in_part, load_rows
from harness.errors import UserError
from harness.fetch import hub
from harness.fetch.archives import Archive, archive_name, check_disk, gigabytes, group_archives, unpack

if TYPE_CHECKING:
    from harness.settings.groups import Config, DataConfig, TaskConfig


VIDEO = "<video>"
SUFFIXES = {suffix.lower() for suffix in VIDEO_SUFFIXES}


def destination(path: str, rules: Sequence[dict[str, str]], split: str) -> PurePosixPath | None:
    """Where the file `path` of a download goes below the benchmark's folder; None for what is not needed.

    A rule is ``{match, to}``, optionally with the ``split`` that it is for. ``match`` is compared with the path after a
    leading slash, case-insensitively; its end ``.<video>`` stands for any suffix of a video. ``to`` may name the
    file's ``{name}`` and the ``{parent}`` folder.

    Only the last two parts of `path` are ever used, so that no archive can write outside.
    """
    pure = PurePosixPath(path.replace("\\", "/"))
    if pure.name.startswith(".") or "__MACOSX" in pure.parts or ".." in pure.parts[-2:]:
        return None
    for rule in rules:
        if rule.get("split", split) == split and _matches(f"/{pure}".replace("//", "/").lower(), rule["match"].lower()):
            return PurePosixPath(rule["to"].format(name=pure.name, parent=pure.parent.name))
    return None


def _matches(path: str, pattern: str) -> bool:
    if pattern.endswith(f".{VIDEO}"):
        stem, dot, suffix = path.rpartition(".")
        return f"{dot}{suffix}" in SUFFIXES and fnmatchcase(stem, pattern.removesuffix(f".{VIDEO}"))
    return fnmatchcase(path, pattern)


def link(source: Path, target: Path) -> None:
    """Make `target` a link to `source`: loose files on disk are not copied."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() and not target.exists():
        target.unlink()
    if not target.exists():
        target.symlink_to(source.resolve())


RECORD = ".prepare.json"
DOWNLOADS = ".downloads"
BEYOND = 1.5
"""An archive may unpack to this many times what its benchmark is known to have."""


def main(config: Config) -> int:
    """Prepare ``task`` below ``data.root``, or build the toy where the profile is the toy.

    Returns:
        0, or 1 where videos of the task are still missing afterwards.

    Raises:
        UserError: too little disk, a refused or broken download, a damaged archive.
    """
    root = Path(config.data.root)
    if config.profile == "toy":
        given = {"data.source": config.data.source, "data.mirror": config.data.mirror}
        if word := next((f"{name}={value}" for name, value in given.items() if value is not None), None):
            raise UserError(f"{word} is for a published benchmark, and the toy is built: add profile=published")
        return _build_toy(root)
    task = config.task
    job = Job(task, benchmark(task.data), root / task.data)
    job.folder.mkdir(parents=True, exist_ok=True)
    if config.data.source:
        job.from_disk(Path(config.data.source))
    else:
        for source in job.asked.split_sources(task.split):
            job.from_hub(source, config.data.mirror)
        # Only now: what one source has left here may be a part of an archive that another run began.
        shutil.rmtree(job.downloads, ignore_errors=True)
    return _summary(task, root, config.words)


def prepare_embedded(profile: str, data: DataConfig) -> None:
    """Make the embedded toy's videos and annotations when they are not there; other data is not fetched.

    A toy that someone built with another seed or size is used as it is.
    """
    if profile != "toy" or data.source is not None:
        return
    from harness.toy import read_build

    found = read_build(Path(data.root))
    if found and found["complete"] and (found["build"]["seed"], found["build"]["scale"]) != (0, 1.0):
        return
    _build_toy(Path(data.root))


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
    asked: Benchmark
    folder: Path

    def from_disk(self, source: Path) -> None:
        """Take all files below `source`: archives are unpacked, loose files are linked to, nothing is removed."""
        if not source.is_dir():
            raise UserError(f"data.source={source} is not a folder; give the one that holds the archives or the files")
        paths = sorted(p for p in source.rglob("*") if p.is_file() and self.folder.resolve() not in p.resolve().parents)
        todo = [a for a in group_archives(paths) if not self._unpacked(_relative(a.name, source), a.size)]
        self._check_disk(unpacked=sum(archive.size for archive in todo), archive=0)
        for archive in todo:
            self._unpack(archive, _relative(archive.name, source), archive.size)
        placed = 0
        for path in paths:
            if archive_name(str(path)) is None and (target := self._target(path.relative_to(source).as_posix())):
                link(path, target)
                placed += 1
        print(f"{self.asked.title}: {len(todo)} archives unpacked, {placed} loose files linked from {source}")

    def from_hub(self, source: Source, mirror: str | None) -> None:
        """Download what `source` includes, one archive at a time."""
        if not source.hub:
            raise UserError(f"{self.asked.title}: {source.why}. Then add data.source=DIR to this command")
        dataset = self._pinned(source, mirror)
        files = dataset.files()
        groups: dict[str, list[hub.RemoteFile]] = {}
        for file in files:
            groups.setdefault(archive_name(file.path) or file.path, []).append(file)
        todo = {name: parts for name, parts in groups.items() if not self._have(name, parts)}
        sizes = {name: sum(part.size for part in parts) for name, parts in todo.items()}
        total = sum(sizes.values())
        print(
            f"{source.hub} at {dataset.commit[:12]}: {len(files)} files, {gigabytes(sum(f.size for f in files))}; "
            f"to fetch: {len(todo)} of {len(groups)} archives and files, {gigabytes(total)}"
        )
        self._check_disk(unpacked=total, archive=max((n for name, n in sizes.items() if archive_name(name)), default=0))
        done = 0
        for i, (name, parts) in enumerate(todo.items(), start=1):
            print(f"[{i}/{len(todo)}] {name} ({gigabytes(sizes[name])}; {gigabytes(done)} of {gigabytes(total)} done)")
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
        place = destination(path, self.asked.layout, self.task.split)
        if place and not all(map(usable, place.parts)):
            raise UserError(
                f"no file of {self.asked.title} is named like {place.name[:80]!r}; get it from its publisher"
            )
        return self.folder / place if place else None

    def _unpack(self, archive: Archive, name: str, size: int) -> None:
        known = [source.size_gb for source in self.asked.split_sources(self.task.split)]
        most = BEYOND * 1e9 * sum(size or 0 for size in known) if all(known) else math.inf
        unpack(archive, self._target, self.folder, most)
        record = self._record
        record["unpacked"][name] = size
        self._write(record)

    def _unpacked(self, name: str, size: int) -> bool:
        return bool(self._record["unpacked"].get(name) == size)

    @property
    def downloads(self) -> Path:
        """Where archives lie until they are unpacked."""
        return self.folder / DOWNLOADS

    @property
    def _record(self) -> dict[str, Any]:
        path = self.folder / RECORD
        record: dict[str, Any] = {"commits": {}, "unpacked": {}}
        return record | json.loads(path.read_text(encoding="utf-8")) if path.exists() else record

    def _write(self, record: dict[str, Any]) -> None:
        partial = self.folder / (RECORD + ".partial")
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.folder / RECORD)

    def _check_disk(self, *, unpacked: int, archive: int) -> None:
        """Videos hardly compress: an archive of n bytes unpacks to about n."""
        here = sum(p.stat().st_size for p in self.downloads.rglob("*") if p.is_file()) if archive else 0
        needed, free = max(0, unpacked + archive - here), shutil.disk_usage(self.folder).free
        print(f"disk: {gigabytes(needed)} needed, {gigabytes(free)} free at {self.folder}")
        check_disk(self.folder, needed, self.asked.title)


def _summary(task: TaskConfig, root: Path, words: Sequence[str]) -> int:
    folder = Folder(root, task.data, task.name)
    rows = load_rows(task, root)
    videos = {folder.video(item.video) for _, item in rows}
    missing = sorted(str(video) for video in videos if not video.exists())
    print(f"{task.name}: {len(rows)} questions on {len(videos)} videos, {len(missing)} videos missing")
    if note := in_part(task, len(rows), root):
        print(f"  {note}")
    for path in missing[:10]:
        print(f"  missing: {path}")
    print(f"next: {harness('verify', words)}")
    return 1 if missing else 0


def _relative(name: str, folder: Path) -> str:
    return Path(name).relative_to(folder).as_posix()
