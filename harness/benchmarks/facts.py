"""What is known of a benchmark before its data are there: ``tasks/<benchmark>/facts.yaml``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from harness.benchmarks.root import TASKS
from harness.errors import UserError


@dataclass(frozen=True)
class Source:
    """A dataset on the hub, or a part of it.

    Args:
        hub: its id; None where the files are on no hub.
        revision: commit or branch.
        why: why the revision is a branch, or what to do without a hub.
        gated: whether its terms have to be accepted on its page first.
        include: patterns of the files to take, as in ``fnmatch``.
        size_gb: size of these files as far as known.
    """

    hub: str | None
    include: list[str]
    revision: str = "main"
    why: str = ""
    gated: bool = False
    size_gb: float | None = None


@dataclass(frozen=True)
class Facts:
    """One benchmark's facts.

    Args:
        version: of its rows and prompts; raised by hand when these change; part of a cell's identity.
        title: its name in print.
        url: its page.
        licence: under which its data are given out.
        sources: per split, where its files come from.
        layout: ``{match, to}`` in order; the first pattern that a file's path matches says where it goes.
        counts: per split, numbers of videos and questions, and of questions per value of a tag; of unfiltered rows.
        defects: known faults of the data and what the protocols do about them.
    """

    version: int
    title: str
    url: str
    licence: str
    sources: dict[str, list[Source]]
    layout: list[dict[str, str]]
    counts: dict[str, dict[str, Any]]
    defects: list[str] = field(default_factory=list)

    def split_sources(self, split: str) -> list[Source]:
        """Sources of `split`.

        Raises:
            UserError: there are none.
        """
        if split not in self.sources:
            raise UserError(f"task.split={split} is not known for {self.title}; allowed: {', '.join(self.sources)}")
        return self.sources[split]


def load_facts(benchmark: str) -> Facts:
    """The facts of `benchmark`.

    Raises:
        UserError: there is no such benchmark.
    """
    import yaml

    path = TASKS / benchmark / "facts.yaml"
    if not path.exists():
        known = sorted(p.parent.name for p in TASKS.glob("*/facts.yaml"))
        raise UserError(f"task.data={benchmark} has no tasks/{benchmark}/facts.yaml; allowed: {', '.join(known)}")
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = {f.name for f in dataclasses.fields(Facts)}
    sources = {split: [Source(**source) for source in listed] for split, listed in raw["sources"].items()}
    return Facts(**{**{key: value for key, value in raw.items() if key in names}, "sources": sources})
