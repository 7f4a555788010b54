"""What two settings differ in, as changes that can be made to a cell one at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import UserError
from harness.models.families import find_adapter
from harness.settings.cell import Cell
from harness.settings.rules import rule_of

SCORING = ("parser", "denominator")
"""Factors that need no new answers."""
NAMES = {
    "video.max_frames": "frames", "video.backend": "decoder", "method.chunk_frames": "chunk",
    "method.positions": "positions", "task.max_new_tokens": "max_new_tokens",
}  # fmt: skip
"""Where the name of a factor is not the last word of the setting."""
WITH_SAMPLER = ("sampler", "min_pixels", "max_pixels")
OF_NUMBERS = ("dtype", "numerics", "yarn_factor")
OF_MACHINE = ("device", "device_map", "attention")
"""Settings of a model that belong to where it runs."""


@dataclass(frozen=True)
class Factor:
    """One thing in which A and B differ.

    changes: setting -> value of B (``video.fps``, ``method.quirks.<name>``, a whole group, ``context``, ``parser``,
    ``denominator``). needs: factors to be changed before this one.
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
        return f"{self.name}: {word(self.before)} -> {word(self.after)}"


@dataclass(frozen=True)
class Point:
    """A cell, and how its answers are scored."""

    cell: Cell | None
    parser: str
    denominator: str


def factors_between(a: Cell, b: Cell, *, quirks: bool = False) -> list[Factor]:
    """Every factor in which two cells differ, those of the method first.

    Args:
        quirks: take another semantics apart, see :func:`_semantics`.

    Raises:
        UserError: the cells are of different benchmarks or splits.
    """
    of_a, of_b = (a.task.data, a.task.split), (b.task.data, b.task.split)
    if of_a != of_b:
        raise UserError(
            f"A asks {' '.join(of_a)} and B {' '.join(of_b)}: results of different questions have no bridge"
        )
    found = _of_method(a, b, quirks)
    if a.context != b.context and not any("context" in factor.changes for factor in found):
        found.append(Factor("context", a.context, b.context, {"context": b.context}))
    found += _of_video(a, b)
    if a.model.name != b.model.name or a.model.adapter != b.model.adapter:
        fields = [f.name for f in dataclasses.fields(b.model) if f.name not in (*OF_NUMBERS, *OF_MACHINE)]
        changes = {f"model.{name}": getattr(b.model, name) for name in fields}
        found.append(Factor("model", a.model.name, b.model.name, changes))
    found += _plain("model", a.model, b.model, OF_NUMBERS)
    if a.task.protocol != b.task.protocol:
        names = (a.task.protocol, b.task.protocol)
        same = len({name.removesuffix("_subtitles") for name in names}) == 1
        changes = {"task.protocol": b.task.protocol, "task.name": b.task.name}
        found.append(Factor("subtitles" if same else "protocol", *names, changes))
    return found + _plain("task", a.task, b.task, ("max_new_tokens", "replicate"))


def _of_method(a: Cell, b: Cell, quirks: bool) -> list[Factor]:
    if a.method.name != b.method.name:
        both = {"context": b.context} if None in (a.context, b.context) else {}
        return [Factor("method", a.method.name, b.method.name, {"method": b.method, **both})]
    one, other = getattr(a.method, "semantics", None), getattr(b.method, "semantics", None)
    found = _semantics(a, b, quirks) if one != other else []
    apart = {"name", "semantics", "quirks"}
    names = [f.name for f in dataclasses.fields(a.method) if f.name not in apart and not rule_of(f).runtime]
    found += _plain("method", a.method, b.method, names)
    if one == other and (old := effective_quirks(a)) != (new := effective_quirks(b)):
        differing = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
        found += [Factor(f"quirks.{n}", old.get(n), new.get(n), {f"method.quirks.{n}": new.get(n)}) for n in differing]
    return found


def _semantics(a: Cell, b: Cell, apart: bool) -> list[Factor]:
    """Another semantics as one factor; taken apart, each quirk of A is switched off, then the semantics change with all
    quirks off, then each quirk of B is switched on."""
    one, other = (getattr(cell.method, "semantics", None) for cell in (a, b))
    if not apart:
        changes = {"method.semantics": other, "method.quirks": dict(getattr(b.method, "quirks", {}))}
        return [Factor("semantics", one, other, changes)]
    old, new = effective_quirks(a), effective_quirks(b)
    off = [Factor(f"quirks.{n}", True, False, {f"method.quirks.{n}": False}) for n, on in old.items() if on]
    changes = {"method.semantics": other, "method.quirks": dict.fromkeys(new, False)}
    middle = Factor("semantics", one, other, changes, tuple(factor.name for factor in off))
    taken = {factor.name for factor in off}
    on = [
        Factor(name, False, True, {f"method.quirks.{n}": True}, ("semantics",))
        for n, is_on in new.items()
        if is_on and (name := f"quirks.{n}{' (B)' if f'quirks.{n}' in taken else ''}")
    ]
    return [*off, middle, *on]


def effective_quirks(cell: Cell) -> dict[str, bool]:
    """Each quirk of a cell's method on its model, switched on or off; of some methods only those that were given."""
    method = cell.method.for_family(find_adapter(cell.model.adapter).family)
    return dict(getattr(method, "quirks", {}))


def _of_video(a: Cell, b: Cell) -> list[Factor]:
    found, names = [], [f.name for f in dataclasses.fields(a.video) if not rule_of(f).runtime]
    if a.video.sampler != b.video.sampler:
        changes = {f"video.{name}": getattr(b.video, name) for name in WITH_SAMPLER}
        found.append(Factor("sampler", a.video.sampler, b.video.sampler, changes))
        names = [name for name in names if name not in WITH_SAMPLER]
    return found + _plain("video", a.video, b.video, names)


def _plain(group: str, a: Any, b: Any, names: Iterable[str]) -> list[Factor]:
    pairs = {f"{group}.{name}": (getattr(a, name), getattr(b, name)) for name in names}
    return [
        Factor(NAMES.get(path, path.partition(".")[2]), old, new, {path: new})
        for path, (old, new) in pairs.items()
        if old != new
    ]


@dataclass(frozen=True)
class Link:
    """A factor, and where the chain stands when it has been changed."""

    factor: Factor
    point: Point


@dataclass(frozen=True)
class Chain:
    """Factors changed one at a time, from A towards B; ``left`` are those that cannot be changed, with the reason."""

    links: tuple[Link, ...]
    left: tuple[tuple[Factor, str], ...] = field(default=())


def make_chain(
    start: Point, factors: Sequence[Factor], twin: Callable[[Cell, Mapping[str, Any]], Cell], end: Cell | None
) -> Chain:
    """Change one factor at a time, in their order; one that is not possible yet waits until another has been changed.

    Args:
        twin: the changed cell; raises UserError where it cannot be run.
        end: where the chain arrives when every factor but those of scoring has been changed; None: not known.
    """
    waiting, links, why = list(factors), list[Link](), dict[str, str]()
    point = start
    while waiting:
        for factor in waiting:
            done = {link.factor.name for link in links}
            if not set(factor.needs) <= done:
                why[factor.name] = f"only after {', '.join(sorted(set(factor.needs) - done))}"
                continue
            rest = [other for other in waiting if other is not factor and not other.scoring]
            try:
                moved = _moved(point, factor, twin, None if rest else end)
            except UserError as error:
                why[factor.name] = str(error).splitlines()[0]
                continue
            point = moved
            links.append(Link(factor, point))
            waiting.remove(factor)
            break
        else:
            break
    return Chain(tuple(links), tuple((factor, why[factor.name]) for factor in waiting))


def _moved(point: Point, factor: Factor, twin: Callable[[Cell, Mapping[str, Any]], Cell], end: Cell | None) -> Point:
    if factor.scoring:
        return dataclasses.replace(point, **{factor.name: factor.after})
    if point.cell is None:
        raise UserError("no cell of ours to change")
    return dataclasses.replace(point, cell=end or twin(point.cell, factor.changes))


def ordered(factors: Sequence[Factor], first: Sequence[str]) -> list[Factor]:
    """The named factors first, in that order.

    Raises:
        UserError: a name is none of theirs.
    """
    names = [factor.name for factor in factors]
    if unknown := [name for name in first if name not in names]:
        raise UserError(
            f"bridge.order: {unknown[0]} is no factor here; A and B differ in: {', '.join(names) or 'none'}"
        )
    return sorted(factors, key=lambda factor: first.index(factor.name) if factor.name in first else len(first))


def word(value: Any) -> str:
    """A value in print."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
