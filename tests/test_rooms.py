"""The house: rooms import only from rooms below, and names say something."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from harness.settings.compose import REPO

ROOMS = list(dict.fromkeys(re.findall(r"^\| `harness/(\w+)(?:\.py|/)`", (REPO / "AGENTS.md").read_text(), re.M)))
"""From the ground up: the map in AGENTS.md."""

MODULES = sorted(path.relative_to(REPO) for path in (REPO / "harness").rglob("*.py"))
LEAF = re.compile(
    r"harness\.(settings\.(rules|groups|verbs)|plan|fetch|run|lmms|report|gate|tools(\.(show|analysis))?)"
)
"""Declarations of settings, which every room may read."""
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "manager", "misc", "common"}


def room_of(module: str) -> str:
    """The room of ``harness.video.decode``: ``video``."""
    return module.split(".")[1]


def is_module(name: str) -> bool:
    """Whether a dotted name is a file or a folder of the harness."""
    place = REPO.joinpath(*name.split("."))
    return place.is_dir() or place.with_suffix(".py").is_file()


def imports(path: Path) -> list[str]:
    """Modules of the harness that a module imports, anywhere in it."""
    found = []
    for node in ast.walk(ast.parse((REPO / path).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in inside if is_module(name)]
            found += [*modules, *([node.module] if len(modules) < len(inside) else [])]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name for name in found if name.startswith("harness.")]


def test_the_map_names_every_room() -> None:
    folders = {path.parts[1].removesuffix(".py") for path in MODULES if not path.name.startswith("__")}
    assert set(ROOMS) == folders


def test_rooms_import_from_below() -> None:
    wrong = []
    for path in MODULES:
        room = path.parts[1].removesuffix(".py")
        if room not in ROOMS:
            continue
        below = ROOMS[: ROOMS.index(room) + 1]
        above = [name for name in imports(path) if room_of(name) not in below and not LEAF.fullmatch(name)]
        wrong += [f"{path} imports {name}" for name in above]
    assert not wrong


def test_schemas_are_leaves() -> None:
    names = {path: ".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in MODULES}
    declared = [path for path, name in names.items() if LEAF.fullmatch(name)]
    assert len(declared) > 10
    for path in declared:
        assert all(room_of(name) == "errors" or LEAF.fullmatch(name) for name in imports(path)), path


def test_names_say_something() -> None:
    assert not [path for path in MODULES if EMPTY_NAMES & {part.removesuffix(".py") for part in path.parts}]
