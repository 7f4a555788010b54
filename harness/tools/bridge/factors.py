"""The factors in which two results differ, as changes that can be made to a cell one at a time.

The other side of a comparison is a cell, the declared setting of an import or a published number
(:func:`declared_cell`), or settings written by the user (:func:`candidate_factors`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.benchmarks.benchmark import benchmark
from harness.errors import UserError
from harness.evidence.imported import NOT_SAID
from harness.models.families import find_adapter
from harness.settings.cell import VARIANTS, Cell
from harness.settings.compose import option_at, options
from harness.settings.groups import ModelConfig, TaskConfig, VideoConfig
from harness.settings.matrix import cells_under
from harness.settings.rules import label_of, rule_of
from harness.settings.words import AXES

SCORING = ("parser", "denominator")
"""Factors that need no new answers."""
_SAMPLER = ("sampler", "min_pixels", "max_pixels")
"""Settings of a video that change together."""
MODEL_FACTORS = ("dtype", "numerics", "yarn_factor")
"""Settings of a model that are factors of their own."""
_MACHINE = ("device", "device_map", "attention")
"""Settings of a model that depend on the machine."""
_LABELS = {
    f"{group}.{field.name}": label_of(field)
    for group, schema in (("video", VideoConfig), ("model", ModelConfig), ("task", TaskConfig))
    for field in dataclasses.fields(schema)
    if (field.name in MODEL_FACTORS if group == "model" else not rule_of(field).runtime and not rule_of(field).name)
}
"""Setting -> its name in tables and in the words of `CellResult.setting`."""
SETTINGS = {label: path for path, label in _LABELS.items()} | {"context": "context"}

ChangeCell = Callable[[Cell, Mapping[str, Any]], Cell]
"""The cell with some settings changed; raises UserError where it cannot exist or cannot be run."""


@dataclass(frozen=True)
class Factor:
    """One difference between A and B.

    Attributes:
        name: label of the setting.
        before: value of A.
        after: value of B.
        changes: setting -> value of B (``video.fps``, ``method.quirks.<name>``, a whole group, ``context``, ``parser``,
            ``denominator``).
        needs: factors that have to change before this one.
    """

    name: str
    before: Any
    after: Any
    changes: Mapping[str, Any]
    needs: tuple[str, ...] = ()

    @property
    def scoring(self) -> bool:
        """Whether the stored answers are enough."""
        return self.name in SCORING

    @property
    def text(self) -> str:
        """``fps: 2 -> 1``."""
        return f"{self.name}: {value_text(self.before)} -> {value_text(self.after)}"


def value_text(value: Any) -> str:
    """A value in print."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def factors_between(a: Cell, b: Cell, *, quirks: bool = False) -> list[Factor]:
    """Every factor in which two cells differ, those of the method first.

    Args:
        quirks: make each quirk of another semantics a factor of its own, see :func:`_semantics`.

    Raises:
        UserError: the cells are of different benchmarks or splits.
    """
    of_a, of_b = (a.task.data, a.task.split), (b.task.data, b.task.split)
    if of_a != of_b:
        raise UserError(
            f"A asks {' '.join(of_a)} and B {' '.join(of_b)}: results of different questions have no bridge"
        )
    differing = a.differences(b)

    def single(*paths: str) -> list[Factor]:
        return [Factor(_label(path), *differing[path], {path: differing[path][1]}) for path in paths]

    def of_group(group: str, *left_out: str) -> list[str]:
        return [p for p in differing if p.startswith(f"{group}.") and p.partition(".")[2] not in left_out]

    if "method" in differing:
        both = {"context": b.context} if None in (a.context, b.context) else {}
        factors = [Factor("method", a.method.name, b.method.name, {"method": b.method, **both})]
    else:
        factors = _semantics(a, b, quirks) if "method.semantics" in differing else []
        factors += single(*of_group("method", "name", "semantics", "quirks"))
        if "method.semantics" not in differing:
            old, new = effective_quirks(a), effective_quirks(b)
            names = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
            pairs = {f"quirks.{name}": (old.get(name), new.get(name)) for name in names}
            factors += [Factor(name, *pair, {f"method.{name}": pair[1]}) for name, pair in pairs.items()]
    if not any("context" in factor.changes for factor in factors):
        factors += single(*(differing.keys() & {"context"}))
    if "video.sampler" in differing:
        changes = {f"video.{name}": getattr(b.video, name) for name in _SAMPLER}
        factors.append(Factor("sampler", a.video.sampler, b.video.sampler, changes))
    factors += single(*of_group("video", *(_SAMPLER if "video.sampler" in differing else ())))
    if differing.keys() & {"model.name", "model.adapter"}:
        names = [f.name for f in dataclasses.fields(b.model) if f.name not in (*MODEL_FACTORS, *_MACHINE)]
        changes = {f"model.{name}": getattr(b.model, name) for name in names}
        factors.append(Factor("model", a.model.name, b.model.name, changes))
    factors += single(*(path for path in of_group("model") if path.partition(".")[2] in MODEL_FACTORS))
    if "task.protocol" in differing:
        protocols = differing["task.protocol"]
        same = len({name.removesuffix("_subtitles") for name in protocols}) == 1
        changes = {"task.protocol": b.task.protocol, "task.name": b.task.name}
        factors.append(Factor("subtitles" if same else "protocol", *protocols, changes))
    return factors + single(*(path for path in of_group("task") if path in _LABELS))


def _label(path: str) -> str:
    return _LABELS.get(path, path.rpartition(".")[2])


def _semantics(a: Cell, b: Cell, apart: bool) -> list[Factor]:
    """Another semantics as one factor. Taken apart, each quirk of A is switched off, then the semantics change with all
    quirks off, then each quirk of B is switched on."""
    one, other = (getattr(cell.method, "semantics", None) for cell in (a, b))
    if not apart:
        changes = {"method.semantics": other, "method.quirks": dict(getattr(b.method, "quirks", {}))}
        return [Factor("semantics", one, other, changes)]
    old, new = effective_quirks(a), effective_quirks(b)
    off = [Factor(f"quirks.{n}", True, False, {f"method.quirks.{n}": False}) for n, on in old.items() if on]
    changes = {"method.semantics": other, "method.quirks": dict.fromkeys(new, False)}
    names = {factor.name for factor in off}
    middle = Factor("semantics", one, other, changes, tuple(sorted(names)))
    on = [
        Factor(name, False, True, {f"method.quirks.{n}": True}, ("semantics",))
        for n, is_on in new.items()
        if is_on and (name := f"quirks.{n}{' (B)' if f'quirks.{n}' in names else ''}")
    ]
    return [*off, middle, *on]


def effective_quirks(cell: Cell) -> dict[str, bool]:
    """Each quirk of a cell's method on its model, switched on or off; for some methods only those that are set."""
    method = cell.method.for_family(find_adapter(cell.model.adapter).family)
    return dict(getattr(method, "quirks", {}))


def declared_cell(
    cell: Cell, declared: Mapping[str, Any], changed: ChangeCell, words: Sequence[str]
) -> tuple[Cell, list[str]]:
    """The intermediate configuration of a cell under the declared setting of the other end.

    Args:
        cell: a cell of ours.
        declared: in the words of `CellResult.setting`; a list means any of its values.
        changed: makes the intermediate configurations.
        words: settings of the command line.

    Returns:
        The intermediate configuration, and what is declared but cannot be made: ``model: gpt-4o``.
    """
    changes: dict[str, Any] = {}
    unknown: list[str] = []
    said = {key: value for key, value in declared.items() if value != NOT_SAID}
    current = cell
    model = option_at(str(said.get("model_path"))) or option_of(_first(said.get("model")))
    for group, name in (("model", model), ("method", _first(said.get("method")))):
        if name is None or name == getattr(current, group).name:
            continue
        try:
            current = _with_option(current, group, str(name), changed, words)
        except UserError as error:
            unknown.append(f"{group}: {name} ({str(error).splitlines()[0]})")
    if current.method.name == "none":
        current = changed(current, {"context": None})
    method_options = vars(current.method).keys() - {"name", "temporal", "layers", "quirks"}
    for key, value in said.items():
        path = _setting_of(key, method_options)
        if path is None:
            continue
        now = _value(current, path)
        try:
            allowed = [_typed(one, now) for one in (value if isinstance(value, list) else [value])]
        except ValueError:
            unknown.append(f"{key}: {value}")
            continue
        if now not in allowed:
            changes[path] = allowed[0]
    if changes.get("context", 0) is None and current.method.name != "none":
        changes |= {"method": _with_option(current, "method", "none", changed, words).method}
        changes = {path: new for path, new in changes.items() if not path.startswith("method.")}
    if said.get("variant") in VARIANTS and hasattr(current.method, "temporal"):
        changes |= dict(zip(("method.temporal", "method.layers"), VARIANTS[str(said["variant"])], strict=True))
    if "method.semantics" in changes and "method.quirks" not in changes:
        changes["method.quirks"] = {}
    if isinstance(said.get("quirks"), dict):
        changes["method.quirks"] = dict(said["quirks"])
    if protocol := _protocol(current, said):
        changes["task.protocol"] = protocol
    try:
        return changed(current, changes), unknown
    except UserError:  # not all at once: those that can be made, one after the other
        for path, value in changes.items():
            try:
                current = changed(current, {path: value})
            except UserError as error:
                unknown.append(str(error).splitlines()[0])
        return current, unknown


def option_of(name: Any) -> Any:
    """Our name of published weights: `qwen2_5_vl_7b` for ``Qwen2.5-VL-7B-Instruct``; `name` where we have none."""
    squashed = re.sub(r"[^a-z0-9]", "", str(name).lower())
    fitting = [option for option in options("model") if squashed.startswith(re.sub(r"[^a-z0-9]", "", option))]
    return max(fitting, key=len, default=name) if name is not None else None


def _setting_of(label: str, method_options: Any) -> str | None:
    """The setting of a word of `CellResult.setting`. Options of the method have a prefix there where names collide."""
    option = label.removeprefix("method.")
    if option in method_options and (option != label or option not in SETTINGS):
        return f"method.{option}"
    return SETTINGS.get(label)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def _value(cell: Cell, path: str) -> Any:
    group, _, key = path.partition(".")
    of_group = getattr(cell, group)
    if key.startswith("quirks."):
        return of_group.quirks.get(key.removeprefix("quirks."))
    return getattr(of_group, key) if key else of_group


def _typed(value: Any, now: Any) -> Any:
    """A declared value in the type of the setting. Raises ValueError for a text where a number is needed."""
    if value in ("none", "full"):
        return None
    if isinstance(value, str) and isinstance(now, int | float) and not isinstance(now, bool):
        return type(now)(float(value))
    if isinstance(now, float) and isinstance(value, int):
        return float(value)
    return value.removeprefix("torch.") if isinstance(value, str) else value


def _protocol(cell: Cell, declared: Mapping[str, Any]) -> str | None:
    """The declared protocol with its subtitles; None where it is that of the cell, or is not known here."""
    now = cell.task.protocol
    wanted = str(_first(declared.get("protocol", now))).removesuffix("_subtitles")
    with_subtitles = declared.get("subtitles", now.endswith("_subtitles")) is True
    name = f"{wanted}_subtitles" if with_subtitles else wanted
    return name if name in benchmark(cell.task.data).protocols and name != now else None


def candidate_factors(cell: Cell, texts: Sequence[str], words: Sequence[str]) -> list[Factor]:
    """The factors of settings as a user writes them: ``frames=64``, ``video=stock``, ``method=random``.

    A factor has the name of its setting, or the whole text where several texts set the same.

    Raises:
        UserError: a text is no setting, or the cell has it already.
    """
    texts = list(dict.fromkeys(texts))
    factors = [_candidate(cell, text, words) for text in texts]
    names = [factor.name for factor in factors]
    return [
        dataclasses.replace(factor, name=text) if names.count(factor.name) > 1 else factor
        for factor, text in zip(factors, texts, strict=True)
    ]


def _candidate(cell: Cell, text: str, words: Sequence[str]) -> Factor:
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"bridge.candidates: {text!r} is no setting; write frames=64 or video=stock")
    axis = key.removeprefix("matrix.")
    other = _cell_under(cell, [f"{axis}={value}" if axis in AXES else text], words)
    changes: dict[str, Any] = {}
    if axis in ("model", "method", "task") or key == "video":
        context = axis == "method" and "none" in (cell.method.name, other.method.name)
        parts: dict[str, Any] = {axis: getattr(other, axis)} | ({"context": other.context} if context else {})
        factors = factors_between(cell, dataclasses.replace(cell, **parts))
        for factor in factors:
            changes |= factor.changes
        listed = ", ".join(f"{factor.name} {value_text(factor.before)}" for factor in factors)
        before = listed if axis == "video" else getattr(cell, axis).name
    else:
        path = _setting_of(axis, vars(cell.method))
        paths = [path] if path else [*AXES.get(axis, (key,))]
        before = ", ".join(value_text(_value(cell, path)) for path in paths)
        changes = {path: new for path in paths if (new := _value(other, path)) != _value(cell, path)}
    if not changes:
        raise UserError(f"bridge.candidates: {text} is the setting of {cell.id} already")
    return Factor(axis, before, value, changes)


def _with_option(cell: Cell, group: str, name: str, changed: ChangeCell, words: Sequence[str]) -> Cell:
    if name not in options(group):
        raise UserError(f"there is no {group} of that name here")
    other = _cell_under(cell, [f"{group}={name}"], words)
    if group == "method":
        return changed(cell, {"method": other.method, **({"context": None} if name == "none" else {})})
    return changed(cell, {f"model.{k}": v for k, v in vars(other.model).items() if k not in MODEL_FACTORS})


def _cell_under(cell: Cell, settings: Sequence[str], words: Sequence[str]) -> Cell:
    """The first cell of the command line on a cell's benchmark, model and method with further settings."""
    replaced = ("matrix", "video", *(f"{axis}=" for axis in AXES if axis != "model"), "task", "method", "context")
    kept = [word for word in words if not word.startswith(replaced)]
    base = {"task": cell.task.name, "model": cell.model.name, "method": cell.method.name}
    settled = {word.partition("=")[0] for word in settings}
    chosen = [f"{key}={value}" for key, value in base.items() if key not in settled]
    return cells_under(kept, [*chosen, "matrix.variant=null", *settings], [])[0]
