"""What is known of an end that is no cell of ours, as changes that can be made to a cell of ours."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.errors import UserError
from harness.evidence.imported import NOT_SAID
from harness.settings.cell import VARIANTS, Cell
from harness.settings.compose import options
from harness.settings.matrix import cells_under
from harness.settings.words import AXES
from harness.tools.bridge.factors import OF_NUMBERS, Factor, factors_between, word

FIELDS = {
    "frames": "video.max_frames", "fps": "video.fps", "long_side": "video.long_side", "resample": "video.resample",
    "decoder": "video.backend", "sampler": "video.sampler", "max_pixels": "video.max_pixels",
    "min_pixels": "video.min_pixels", "context": "context", "yarn_factor": "model.yarn_factor", "dtype": "model.dtype",
    "numerics": "model.numerics",
    "max_new_tokens": "task.max_new_tokens", "replicate": "task.replicate",
}  # fmt: skip
"""Words of `CellResult.setting` -> settings; options of a method stand under their own names."""
BARE = tuple(f"{axis}=" for axis in AXES if axis != "model")
Twin = Callable[[Cell, Mapping[str, Any]], Cell]


def declared_cell(cell: Cell, declared: Mapping[str, Any], twin: Twin, words: Sequence[str]) -> tuple[Cell, list[str]]:
    """The twin of a cell of ours under what is known of another end.

    Args:
        declared: in the words of `CellResult.setting`; a list means any of its values.
        words: settings of the command line.

    Returns:
        The twin, and what is known but cannot be made: ``model: gpt-4o``.
    """
    changes: dict[str, Any] = {}
    unknown: list[str] = []
    names = {"model": None, "method": None} | {
        key: _first(declared[key]) for key in ("model", "method") if declared.get(key, NOT_SAID) != NOT_SAID
    }
    current = cell
    for group in ("model", "method"):
        name = names[group] if group == "method" else option_of(names[group])
        if name is None or name == getattr(current, group).name:
            continue
        try:
            current = _with_option(current, group, str(name), twin, words)
        except UserError as error:
            unknown.append(f"{group}: {name} ({str(error).splitlines()[0]})")
    if current.method.name == "none":
        current = twin(current, {"context": None})
    own = set(vars(current.method)) - {"name", "temporal", "layers", "quirks"}
    for key, value in declared.items():
        path = f"method.{key}" if key in own else FIELDS.get(key)
        if path is None or value == NOT_SAID:
            continue
        now = _now(current, path)
        try:
            allowed = [_typed(each, now) for each in (value if isinstance(value, list) else [value])]
        except ValueError:
            unknown.append(f"{key}: {value}")
            continue
        if now not in allowed:
            changes[path] = allowed[0]
    if changes.get("context", 0) is None and current.method.name != "none":
        changes |= {"method": _with_option(current, "method", "none", twin, words).method}
        changes = {path: new for path, new in changes.items() if not path.startswith("method.")}
    if declared.get("variant") in VARIANTS and hasattr(current.method, "temporal"):
        changes |= dict(zip(("method.temporal", "method.layers"), VARIANTS[str(declared["variant"])], strict=True))
    if "method.semantics" in changes and "method.quirks" not in changes:
        changes["method.quirks"] = {}
    if isinstance(declared.get("quirks"), dict):
        changes["method.quirks"] = dict(declared["quirks"])
    if protocol := _protocol(current, declared):
        changes["task.protocol"] = protocol
    return _one_by_one(current, changes, unknown, twin)


def _one_by_one(cell: Cell, changes: Mapping[str, Any], unknown: list[str], twin: Twin) -> tuple[Cell, list[str]]:
    """The twin with all changes; where that cannot be, with those that can be made one after the other."""
    try:
        return twin(cell, changes), unknown
    except UserError:
        for path, value in changes.items():
            try:
                cell = twin(cell, {path: value})
            except UserError as error:
                unknown = [*unknown, str(error).splitlines()[0]]
        return cell, unknown


def option_of(name: Any) -> Any:
    """Our name of published weights: `qwen2_5_vl_7b` of ``Qwen2.5-VL-7B-Instruct``; their own where we have none."""
    squashed = re.sub(r"[^a-z0-9]", "", str(name).lower())
    fitting = [each for each in options("model") if squashed.startswith(re.sub(r"[^a-z0-9]", "", each))]
    return max(fitting, key=len, default=name) if name is not None else None


def candidates(cell: Cell, texts: Sequence[str], words: Sequence[str]) -> list[Factor]:
    """The factors of settings as one writes them: ``frames=64``, ``video.fps=1``, ``video=stock``, ``method=random``.

    A factor bears the name of its setting, or all of the word where several words are about one setting.

    Raises:
        UserError: one is no setting, or the cell has it already.
    """
    texts = list(dict.fromkeys(texts))
    found = [_candidate(cell, each, words) for each in texts]
    names = [factor.name for factor in found]
    return [
        dataclasses.replace(factor, name=text) if names.count(factor.name) > 1 else factor
        for factor, text in zip(found, texts, strict=True)
    ]


def _candidate(cell: Cell, text: str, words: Sequence[str]) -> Factor:
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"bridge.candidates: {text!r} is no setting; write frames=64 or video=stock")
    axis = key.removeprefix("matrix.")
    other = _composed(cell, [f"{axis}={value}" if axis in AXES else text], words)
    if axis in ("model", "method", "task") or key == "video":
        factors = factors_between(cell, _transplanted(cell, other, key))
        changes: dict[str, Any] = {}
        for factor in factors:
            changes |= factor.changes
        before: Any = (
            getattr(cell, key).name if key != "video" else ", ".join(f"{f.name} {word(f.before)}" for f in factors)
        )
    else:
        own = {f"method.{name}" for name in vars(cell.method)} & {f"method.{axis}"}
        paths = [*own] or ([FIELDS[axis]] if axis in FIELDS else [*AXES.get(axis, (key,))])
        changes = {path: _now(other, path) for path in paths}
        before = ", ".join(word(_now(cell, path)) for path in paths)
        changes = {path: new for path, new in changes.items() if new != _now(cell, path)}
    if not changes:
        raise UserError(f"bridge.candidates: {text} is the setting of {cell.id} already")
    return Factor(axis, before, value, changes)


def _transplanted(cell: Cell, other: Cell, group: str) -> Cell:
    changes: dict[str, Any] = {group: getattr(other, group)}
    if group == "method" and "none" in (cell.method.name, other.method.name):
        changes["context"] = other.context
    return dataclasses.replace(cell, **changes)


def _with_option(cell: Cell, group: str, name: str, twin: Twin, words: Sequence[str]) -> Cell:
    if name not in options(group):
        raise UserError(f"there is no {group} of that name here")
    other = _composed(cell, [f"{group}={name}"], words)
    if group == "method":
        return twin(cell, {"method": other.method, **({"context": None} if name == "none" else {})})
    return twin(cell, {f"model.{k}": v for k, v in vars(other.model).items() if k not in OF_NUMBERS})


def _composed(cell: Cell, settings: Sequence[str], words: Sequence[str]) -> Cell:
    """A cell of the command line on a cell's benchmark and model with further settings: the first, where several."""
    kept = [word for word in words if not word.startswith(("matrix", "task", "method", "context", "video", *BARE))]
    base = {"task": cell.task.name, "model": cell.model.name, "method": cell.method.name}
    given = {word.partition("=")[0] for word in settings}
    own = [f"{key}={value}" for key, value in base.items() if key not in given]
    return cells_under(kept, [*own, "matrix.variant=null", *settings], [])[0]


def _now(cell: Cell, path: str) -> Any:
    group, _, key = path.partition(".")
    return getattr(getattr(cell, group), key) if key else getattr(cell, group)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def _typed(value: Any, now: Any) -> Any:
    """A declared value as the setting has it: texts of files are read as numbers where the setting is one.

    Raises ValueError for a text that is none.
    """
    if value in ("none", "full"):
        return None
    if isinstance(value, str) and isinstance(now, int | float) and not isinstance(now, bool):
        return type(now)(float(value))
    if isinstance(now, float) and isinstance(value, int):
        return float(value)
    return value.removeprefix("torch.") if isinstance(value, str) else value


def _protocol(cell: Cell, declared: Mapping[str, Any]) -> str | None:
    """The protocol of an end, with its subtitles; None where it is that of the cell, or is not known here."""
    from harness.benchmarks.benchmark import benchmark

    known = benchmark(cell.task.data).protocols
    own = cell.task.protocol.removesuffix("_subtitles")
    wanted = str(_first(declared.get("protocol", own))).removesuffix("_subtitles")
    shown = declared.get("subtitles", cell.task.protocol.endswith("_subtitles"))
    name = f"{wanted}_subtitles" if shown is True else wanted
    return name if name in known and name != cell.task.protocol else None
