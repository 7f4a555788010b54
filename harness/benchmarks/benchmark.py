"""A benchmark as its folder ``tasks/<name>/`` describes it: ``facts.yaml`` and ``functions.py``.

No other place knows a benchmark: a new folder is a new benchmark.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

import yaml

from harness.advice import harness
from harness.benchmarks.files import TASKS, Folder
from harness.benchmarks.metrics import Credit, Metric, Metrics, grouped
from harness.benchmarks.parse import PARSERS, Parser
from harness.errors import UserError

Row = dict[str, Any]
"""A row of an annotation, as it is."""


@dataclass(frozen=True)
class Item:
    """What a row asks about which video.

    ``video`` are the places below the benchmark's folder where its file may lie, ``options`` maps letters to texts,
    ``answer`` is the right letter or None (test splits), ``tags`` are the groups that the question counts in,
    ``video_s`` is the video's length in seconds where the annotation has one, ``evidence`` when the answer is to be
    seen (from, to), in seconds. Statistics cluster by ``video_id``.
    """

    question_id: str
    video_id: str
    video: tuple[str, ...]
    options: dict[str, str]
    answer: str | None
    tags: dict[str, str | list[str]]
    video_s: float | None = None
    evidence: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Source:
    """A dataset on the hub, or a part of it.

    Args:
        include: patterns of the files to take, as in ``fnmatch``.
        hub: its id; empty where the files are on no hub.
        revision: commit or branch.
        why: why the revision is a branch, or what to do without a hub.
        gated: whether its terms have to be accepted on its page first.
        size_gb: size of these files as far as known.
    """

    include: list[str]
    hub: str = ""
    revision: str = "main"
    why: str = ""
    gated: bool = False
    size_gb: float | None = None


@dataclass(frozen=True)
class Protocol:
    """A way to ask and to score. ``parser`` is the one that made the published numbers, ``title`` says what differs."""

    parser: str
    title: str = ""


@dataclass(frozen=True)
class Board:
    """A leaderboard: of which split, and where its files go."""

    split: str
    where: str


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Args:
        name: of its folder in ``tasks/`` and below the data root.
        title, url, licence: its name in print, its page, and under which licence its data are given out.
        version: of its prompts; raised by hand when a prompt changes, so that old answers are not taken for new ones.
        protocols: by name; the first decides which questions a subset is drawn from.
        metrics: as its publication defines them.
        strata: tags whose shares a subset keeps.
        together: a tag whose questions a subset takes or leaves as one.
        sources: per split, where its files come from.
        layout: ``{match, to}`` in order; the first pattern that a file's path matches says where it goes.
        counts: per split, numbers of videos and questions, and of questions per value of a tag; of unfiltered rows.
        defects: known faults of the data and what the protocols do about them.
        board: its leaderboard; ``submission`` of `functions` makes the files.
        functions: the module with ``load``, ``item`` and ``prompt``; where needed also ``evaluated``, ``submission``,
            ``PARSERS``, and ``CREDITS``, by the names that the metrics use.
    """

    name: str
    title: str
    url: str
    licence: str
    version: int
    protocols: dict[str, Protocol]
    metrics: Metrics
    strata: list[str]
    sources: dict[str, list[Source]]
    layout: list[dict[str, str]]
    counts: dict[str, dict[str, Any]]
    functions: ModuleType
    together: str | None = None
    defects: list[str] = field(default_factory=list)
    board: Board | None = None

    def load(self, folder: Folder, split: str) -> list[Row]:
        """All rows of a split's annotation.

        Raises:
            UserError: the split is not known, the annotation is missing or damaged.
        """
        if split not in self.counts:
            raise UserError(f"task.split={split} is not known for {self.name}; allowed: {', '.join(self.counts)}")
        try:
            rows: list[Row] = self.functions.load(folder, split)
        except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            raise UserError(
                f"the annotation of {self.title} below {folder.root} cannot be read ({_said(error)}): remove it, then "
                + harness("prepare", ["profile=published", f"task={folder.task}", f"data.root={folder.root}"])
            ) from error
        return rows

    def item(self, row: Row) -> Item:
        """What a row asks.

        Raises:
            UserError: it lacks something.
        """
        try:
            item: Item = self.functions.item(row)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{self.title}: a row cannot be read ({_said(error)}): {str(row)[:300]}") from error
        return item

    def prompt(self, row: Row, protocol: str, folder: Folder) -> str:
        """The text behind the video.

        Raises:
            QuestionError: the question cannot be asked under the protocol.
            UserError: the protocol is not known, or a file is missing.
        """
        self.protocol(protocol)
        prompt: str = self.functions.prompt(row, protocol, folder)
        return prompt

    def protocol(self, protocol: str) -> Protocol:
        """The protocol of this name.

        Raises:
            UserError: there is none.
        """
        if protocol not in self.protocols:
            raise UserError(
                f"task.protocol={protocol} is not known for {self.name}; allowed: {', '.join(self.protocols)}"
            )
        return self.protocols[protocol]

    def evaluated(self, row: Row, protocol: str) -> bool:
        """Whether the protocol asks this question."""
        asks: Callable[[Row, str], bool] = getattr(self.functions, "evaluated", lambda row, protocol: True)
        return asks(row, protocol)

    @property
    def parsers(self) -> dict[str, Parser]:
        """Every parser that can score the benchmark's answers, its own ones among them."""
        return PARSERS | getattr(self.functions, "PARSERS", {})

    def parser(self, protocol: str) -> Parser:
        """The parser that scores answers of a protocol. Raises as `protocol`."""
        return self.parsers[self.protocol(protocol).parser]

    def task_title(self, split: str, protocol: str) -> str:
        """A split under a protocol in print: ``MLVU test``, ``Video-MME, with subtitles``."""
        words = self.title if split == next(iter(self.counts)) else f"{self.title} {split}"
        return ", ".join(filter(None, (words, self.protocols[protocol].title)))

    def split_sources(self, split: str) -> list[Source]:
        """Sources of `split`.

        Raises:
            UserError: there are none.
        """
        if split not in self.sources:
            raise UserError(f"task.split={split} is not known for {self.title}; allowed: {', '.join(self.sources)}")
        return self.sources[split]


def benchmark_names() -> list[str]:
    """The folders in ``tasks/``."""
    return sorted(path.parent.name for path in TASKS.glob("*/facts.yaml"))


def parser_names() -> list[str]:
    """Of every parser that any benchmark has."""
    return sorted({parser for name in benchmark_names() for parser in benchmark(name).parsers})


@cache
def benchmark(name: str) -> Benchmark:
    """The benchmark of this name.

    Raises:
        UserError: there is none, or its folder is wrong.
    """
    if name not in benchmark_names():
        raise UserError(f"task.data={name} has no folder tasks/{name}; allowed: {', '.join(benchmark_names())}")
    path = TASKS / name / "facts.yaml"
    try:
        facts = yaml.safe_load(path.read_text(encoding="utf-8"))
        functions = _functions(name)
        facts["metrics"] = _metrics(getattr(functions, "CREDITS", {}), **facts["metrics"])
        facts["protocols"] = {key: Protocol(**value) for key, value in facts["protocols"].items()}
        facts["sources"] = {key: [Source(**each) for each in listed] for key, listed in facts["sources"].items()}
        if "board" in facts:
            facts["board"] = Board(**facts["board"])
        found = Benchmark(name=name, functions=functions, **facts)
    except (TypeError, KeyError, AttributeError, yaml.YAMLError, FileNotFoundError) as error:
        raise UserError(f"{path}: {_said(error)}; tasks/README.md says what belongs into it") from error
    if unknown := {protocol.parser for protocol in found.protocols.values()} - found.parsers.keys():
        raise UserError(f"{path}: parser {', '.join(unknown)} is not known; allowed: {', '.join(found.parsers)}")
    return found


def _metrics(
    credits: dict[str, Credit],
    whole: dict[str, Any],
    groups: dict[str, str] | None = None,
    within: dict[str, Any] | None = None,
) -> Metrics:
    def metric(spec: dict[str, Any]) -> Metric:
        return Metric(**(spec | {"credit": credits[spec["credit"]]} if "credit" in spec else spec))

    return Metrics({name: metric(spec) for name, spec in whole.items()}, groups or {}, metric(within or {}))


def _functions(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"adaretake_tasks_{name}", TASKS / name / "functions.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def differences(items: Sequence[Item], asked: Benchmark, split: str) -> dict[str, str]:
    """What differs -> found and expected: questions, videos, and questions per value of a tag.

    Args:
        items: all rows of the split, unfiltered.
    """
    expected = asked.counts[split]
    numbers = {"questions": len(items), "videos": len({item.video_id for item in items})}
    wanted = {what: expected[what] for what in numbers if what in expected}
    for tag, of_values in expected.items():
        if isinstance(of_values, dict):
            groups = grouped(({"tags": item.tags} for item in items), tag)
            numbers |= {f"{tag} {value}": len(groups.get(value, [])) for value in of_values}
            wanted |= {f"{tag} {value}": n for value, n in of_values.items()}
    return {what: f"{numbers[what]} found, {n} expected" for what, n in wanted.items() if numbers[what] != n}
