"""A cell: everything that can change an answer, and the identity computed from it."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.places import HOME, ROOT
from harness.settings.groups import SCHEMAS, ModelConfig, TaskConfig, VideoConfig
from harness.settings.rules import check_settings, default_of, identity_fields, rule_of
from harness.settings.weights import architecture

if TYPE_CHECKING:
    from harness.compress.method import Method

IDENTITY_VERSION = 3
"""Raise it when the meaning of an identity field changes: old answers are then never matched to new cells."""

GROUPS = ("model", "method", "video", "task")
"""Settings of which every field that is not declared `runtime` enters the identity. The weights enter by their digest,
not by their path; the task's `reforge` and `max_guide_length` through the method."""

VARIANTS = {"no_both": (False, False), "no_layer": (True, False), "no_temporal": (False, True), "full": (True, True)}
"""Ablation variant -> (temporal allocation, layer allocation); of methods that have both options."""

ANSWERING_CODE = ("harness/compress", "harness/models", "harness/video")
PROMPT_CODE = ("harness/benchmarks/subtitles.py",)
"""Code whose digest is noted with a cell. Only the declared versions enter the identity, see `declared_versions`."""


@dataclass(frozen=True)
class Cell:
    """One score of a table: a model and a method under one budget on one benchmark.

    ``context`` is the budget in tokens (None: nothing is evicted); ``weights`` the digest of the model's files;
    ``versions`` what core, method, adapter, decoding and prompt declare of themselves. ``dtype`` is the resolved one.
    """

    model: ModelConfig
    method: Method
    video: VideoConfig
    context: int | None
    task: TaskConfig
    weights: str
    versions: Mapping[str, int | str]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that can change an answer, as plain data."""
        return {name: identity_fields(getattr(self, name)) for name in GROUPS} | {
            "identity_version": IDENTITY_VERSION,
            "context": self.context,
            "weights": self.weights,
            "versions": dict(self.versions),
        }

    @cached_property
    def digest(self) -> str:
        """Eight hexadecimal digits of the identity."""
        return _digest(self.identity)

    @property
    def variant(self) -> str:
        """Name of the ablation variant, or of the method where the variants do not apply."""
        return variant_of(vars(self.method)) or self.method.name

    @cached_property
    def id(self) -> str:
        """Readable name and digest: the cell's folder below ``results/runs``."""
        method = self.method
        words = [
            f"{self.task.name}.{self.task.subset}" if self.task.subset else self.task.name,
            self.model.name,
            method.name,
            *(word for word in (getattr(method, "semantics", None), variant_of(vars(method))) if word),
            f"f{self.video.max_frames}",
            f"fps{self.video.fps:g}",
            f"c{'all' if self.context is None else self.context}",
            *([f"r{self.task.replicate}"] if self.task.replicate else []),
            self.digest,
        ]
        return "-".join(words)

    @property
    def video_key(self) -> str:
        """Cells with the same key see the same features of the same videos: they are siblings."""
        encoding = [self.versions.get("adapter"), self.versions.get("decoding")]
        data = [self.task.data, self.task.split, self.task.subset]
        return _digest([self.identity["model"], self.identity["video"], self.weights, encoding, data])

    def record(self) -> dict[str, Any]:
        """The cell as plain data for its manifest; ``code`` and ``prompts`` are digests of the code that answers."""
        return {
            "name": self.id,
            "variant": self.variant,
            "sees_question": self.method.sees_question,
            "reusable": self.method.reusable,
            **{name: dataclasses.asdict(getattr(self, name)) for name in GROUPS},
            "context": self.context,
            "weights": self.weights,
            "versions": dict(self.versions),
            "code": code_digest(*ANSWERING_CODE),
            "prompts": code_digest(f"tasks/{self.task.data}/functions.py", *PROMPT_CODE),
            "architecture": architecture(self.model),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Cell:
        """The cell of a manifest's `cell` (see `record`), with the weights and versions that it was answered with.

        A setting that the record does not know has its default, and one that the code does not know any more is left
        out. The digest tells whether the answers are still those of this code. Raises UserError where the method is
        not there any more.
        """
        groups: dict[str, Any] = {}
        for group in GROUPS:
            schema = schema_of(group, record[group].get("name"))
            names = {field.name for field in dataclasses.fields(schema) if field.init}
            groups[group] = schema(**{name: value for name, value in record[group].items() if name in names})
        weights, versions = record.get("weights", "unknown"), record.get("versions", {})
        return cls(context=record["context"], weights=weights, versions=versions, **groups)

    def now(self, weights: str) -> Cell:
        """The cell as this code would run it, with these weights; raises as `declared_versions`."""
        versions = declared_versions(self.model, self.method, self.task)
        return dataclasses.replace(self, weights=weights, versions=versions)

    def with_(self, changes: Mapping[str, Any], weights: Callable[[Cell], str]) -> Cell:
        """The cell with some settings changed, as it would be run now. Raises UserError where it cannot exist.

        Args:
            changes: setting -> value: ``video.fps``, ``context``, ``method.quirks.<name>``, or a whole group.
            weights: the digest of a cell's weights.
        """
        groups: dict[str, Any] = {name: changes.get(name, getattr(self, name)) for name in GROUPS}
        quirks: dict[str, Any] = {}
        for path, value in changes.items():
            group, _, name = path.partition(".")
            if name and name.partition(".")[0] not in {field.name for field in dataclasses.fields(groups[group])}:
                raise UserError(f"{group} {groups[group].name} has no option {name.partition('.')[0]}")
            if name.startswith("quirks."):
                quirks[name.removeprefix("quirks.")] = value
            elif name:
                groups[group] = dataclasses.replace(groups[group], **{name: value})
        if quirks:
            groups["method"] = dataclasses.replace(groups["method"], quirks={**groups["method"].quirks, **quirks})
        for name in ("model", "video", "task"):
            check_settings(groups[name], f"{name}.")
        cell = dataclasses.replace(self, context=changes.get("context", self.context), **groups)
        return cell.now(weights(cell))

    def differences(self, other: Cell) -> dict[str, tuple[Any, Any]]:
        """Settings that can change an answer and differ: ``video.fps`` -> (here, there).

        Options of two methods differ in whole: ``method``.
        """
        pairs: dict[str, tuple[Any, Any]] = {}
        for group in GROUPS:
            a, b = getattr(self, group), getattr(other, group)
            if type(a) is type(b):
                names = [field.name for field in dataclasses.fields(a) if not rule_of(field).runtime]
                pairs |= {f"{group}.{name}": (getattr(a, name), getattr(b, name)) for name in names}
            else:
                pairs[group] = (a, b)
        pairs["context"] = (self.context, other.context)
        return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def variant_of(method: Mapping[str, Any]) -> str:
    """The ablation variant of a method's options; empty for a method without both switches."""
    switches = method.get("temporal"), method.get("layers")
    return next((name for name, pair in VARIANTS.items() if pair == switches and method["name"] != "none"), "")


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def declared_versions(model: ModelConfig, method: Method, task: TaskConfig) -> dict[str, int | str]:
    """The versions that enter a cell's identity; raises UserError where there is no such adapter or benchmark.

    Each is raised by hand where answers change on purpose, so that no new method and no refactoring orphans an answer.
    """
    import harness.compress
    import harness.video
    from harness.benchmarks.benchmark import benchmark
    from harness.models.families import find_adapter

    return {
        "core": harness.compress.CORE_VERSION,
        "method": method.version,
        "adapter": find_adapter(model.adapter).version,
        "decoding": harness.video.VERSION,
        "prompt": benchmark(task.data).version,
    }


def schema_of(group: str, name: Any = None) -> type[Any]:
    """The dataclass of a group's settings; of `method` that of the method `name`, UserError where there is none."""
    if (schema := SCHEMAS[group]) is not None:
        return schema
    from harness.compress.method import method_class  # late: torch

    return method_class(str(name))


def settle_method(
    method: Method, task: TaskConfig, weights: str, words: Sequence[str] = (), problems: list[str] | None = None
) -> Method:
    """A method as it enters a cell: its task's values where it leaves them null, its position rule, and what its files
    hold. The releases set position reforge per benchmark; semantics ``paper`` has none.

    Args:
        weights: digest of the model's files, or `unknown`.
        words: settings of the command line, for the command in a message.
        problems: where it is noted that a file is missing, or not of these weights; without it that raises UserError.
    """
    options, changes = vars(method), dict[str, Any](positions=method.position_rule)
    if "reforge" in options and options["reforge"] is None:
        changes["reforge"] = task.reforge and options.get("semantics") != "paper"
    if "max_guide_length" in options and options["max_guide_length"] is None:
        changes["max_guide_length"] = task.max_guide_length
    method = dataclasses.replace(method, **changes)
    try:
        return method.settled(weights, words)
    except UserError as error:
        if problems is None:
            raise
        problems += [] if str(error) in problems else [str(error)]
        return method


def setting_key(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest's `cell` (or such a key) asks for, the same before and after a change of code.

    It holds no digests and no runtime settings. Unknown and missing settings are treated as by `Cell.from_record`;
    those of a method that is not there any more stay as they are.
    """
    key: dict[str, Any] = {"context": record.get("context")}
    for group in GROUPS:
        values = record.get(group, {})
        try:
            fields = dataclasses.fields(schema_of(group, values.get("name")))
        except UserError:
            fields = ()
        known = {f.name: values.get(f.name, default_of(f)) for f in fields if not rule_of(f).runtime}
        key[group] = known or values
    return dict(json.loads(json.dumps(key, sort_keys=True)))


def key_differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Where two setting keys differ: ``method.positions: float -> v5``."""
    lines = []
    for key in sorted({*a, *b}):
        name, old, new = f"{prefix}{key}", a.get(key), b.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += key_differences(old, new, f"{name}.")
        elif old != new:
            lines.append(f"{name}: {old} -> {new}")
    return lines


@lru_cache
def code_digest(*places: str) -> str:
    """Digest of what Python code does: comments, docstrings and layout do not count.

    `places` are files, or folders taken whole, below the root of a checkout; a file that is not there counts as absent.
    """
    digest = hashlib.sha256()
    for name in places:
        root = HOME if name.startswith("tasks/") else ROOT
        place = root / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.relative_to(root).as_posix().encode())
            if not path.exists():
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    strings = {s for s in node.body if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)}
                    node.body = [statement for statement in node.body if statement not in strings]
            digest.update(ast.dump(tree).encode())
    return digest.hexdigest()[:12]
