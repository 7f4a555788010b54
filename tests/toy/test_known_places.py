"""Where the harness knows of its toy: nowhere in what decodes, encodes, compresses, plans and stores."""

import ast
from pathlib import Path

import harness

HARNESS = Path(harness.__file__).parent
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)
IGNORANT = ("store", "video", "compress", "models", "plan")


def names(path: Path) -> set[str]:
    """Identifiers, and texts that are no docstrings, of a module."""
    tree = ast.parse(path.read_text())
    first = [node.body[0] for node in ast.walk(tree) if isinstance(node, DOCUMENTED) and node.body]
    documents = {id(statement.value) for statement in first if isinstance(statement, ast.Expr)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            found.add(node.value)
        found |= {str(value) for name, value in ast.iter_fields(node) if name in ("id", "attr", "module", "name")}
    return found


def test_rooms_that_do_the_work_do_not_know_the_toy():
    knowing = {
        str(path.relative_to(HARNESS))
        for room in IGNORANT
        for path in (HARNESS / room).rglob("*.py")
        if any("toy" in name.lower() for name in names(path))
    }
    assert not knowing


def test_the_search_finds_what_it_looks_for():
    assert any("toy" in name for name in names(HARNESS / "fetch" / "prepare.py"))


def test_nothing_of_the_package_needs_the_training():
    for path in HARNESS.rglob("*.py"):
        assert not any(name.startswith("toy_training") for name in names(path)), path
