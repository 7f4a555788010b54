"""scripts/structure.py finds what is planted. python -m pytest tests/test_structure.py"""

from __future__ import annotations

from pathlib import Path

import pytest
import structure

PLANTED = {
    "__init__.py": "",
    "one.py": (
        "from typing import TYPE_CHECKING\nfrom house import two\nif TYPE_CHECKING:\n    from house import four\n"
    ),
    "two.py": "import house.three\n\n\nclass Row:\n    pass\n\n\ndef main(): ...\n",
    "three.py": "from house.one import thing\n\n\nclass Row:\n    pass\n\n\ndef main(): ...\n\n\ndef _own(): ...\n",
    "four.py": "def late():\n    from house import five\n\n\ndef _own(): ...\n",
    "five.py": (
        "from house.four import late\n"
        "def first(a: int, config: Config): ...\n"
        "class Inside:\n    def second(self, *, config: 'compose.Config | None'): ...\n"
        "def third(config: ReportConfig) -> Config: ...\n"
    ),
}


@pytest.fixture
def modules(tmp_path: Path) -> dict[str, structure.Module]:
    (tmp_path / "house").mkdir()
    for name, text in PLANTED.items():
        (tmp_path / "house" / name).write_text(text)
    return structure.read_modules(tmp_path, "house")


def test_signatures_with_the_configuration_are_found(modules: dict[str, structure.Module]) -> None:
    assert modules["house.five"].signatures == ["house.five.first", "house.five.second"]
    assert not any(module.signatures for name, module in modules.items() if name != "house.five")


def test_a_name_defined_twice_is_found_and_an_interface_is_none(modules: dict[str, structure.Module]) -> None:
    assert structure.duplicates(modules) == {"Row": ["house.three", "house.two"]}


def test_circles_are_found_but_not_those_of_the_type_checker(modules: dict[str, structure.Module]) -> None:
    on_import = {name: module.top for name, module in modules.items()}
    assert structure.circles(on_import) == [["house.one", "house.three", "house.two"]]
    everything = {name: module.top | module.inner for name, module in modules.items()}
    assert ["house.five", "house.four"] in structure.circles(everything)


def test_a_limit_that_is_passed_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "house").mkdir()
    for name, text in PLANTED.items():
        (tmp_path / "house" / name).write_text(text)
    monkeypatch.setattr(structure, "DUPLICATES", 0)
    shown, passed = structure.source_numbers(tmp_path, "house")
    assert any("Row: house.three, house.two" in line for line in shown)
    assert [reason.split(";")[0] for reason in passed] == [
        "1 public functions and classes defined more than once",
        "1 circles of imports",
        "1 circles through imports in functions",
    ]
