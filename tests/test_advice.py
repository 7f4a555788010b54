"""What messages tell a user to run: verbs are known, settings exist, options of a group exist, files are there.

Every text in the code is looked at, reached by a test or not; it comes from the syntax tree, with ``§`` for what is
filled in when it is printed. python -m pytest tests/test_advice.py
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, get_type_hints

import pytest

from harness.cli import parse
from harness.compress.method import method_class
from harness.settings.compose import CONF, REPO, options
from harness.settings.groups import Config
from harness.settings.rules import Axes
from harness.settings.verbs import all_verbs

HOLE = "§"
VERBS = all_verbs()
OWN = {verb.section: verb.schema for verb in VERBS.values() if verb.schema is not None}
CODE = sorted(path for top in ("harness", "tasks", "scripts") for path in (REPO / top).rglob("*.py"))
CALL = re.compile(r"python -m harness ([a-z]+|§)((?: [^\s`;)]+)*)")
GROUPS = "|".join([*(field.name for field in dataclasses.fields(Config)), *OWN])
SETTING = re.compile(rf"(?<![\w./$-])([a-z_]+(?:\.[a-z_]+)+|{GROUPS})=(\S*)")
PLACE = re.compile(r"(?<![\w/§.-])((?:scripts|harness|tests|tasks|conf|docs)/[\w/.-]*\w)")
NAME = re.compile(r"\w+")


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, text) of every text that is no docstring, with holes for what is filled in."""
    docs, inner = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docs.add(node.value)
        if isinstance(node, ast.JoinedStr):
            inner |= {part for part in node.values if isinstance(part, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else HOLE for part in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docs | inner:
            yield node.lineno, node.value


def advised(tree: ast.AST) -> Iterator[tuple[int, list[str]]]:
    """(line, literal words) of every call of `harness.advice.harness`; the first is the verb."""
    for node in ast.walk(tree):
        called = isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "harness"
        if called and node.args and isinstance(node.args[0], ast.Constant):
            yield node.lineno, [text for argument in node.args for _, text in texts(argument)]


@cache
def keys() -> set[str]:
    """Every setting that there is, as it is written; those of all methods too."""
    found = {"method.quirks"}
    for name, schema in {**get_type_hints(Config), **OWN}.items():
        found.add(name)
        if dataclasses.is_dataclass(schema):
            found |= {f"{name}.{field.name}" for field in dataclasses.fields(schema)}
    for name in options("method"):
        text = (CONF / "method" / f"{name}.yaml").read_text()
        of_class = re.search(r"^name: (\w+)", text, re.M)
        kind: Any = method_class(of_class[1]) if of_class else None
        found |= {f"method.{field.name}" for field in dataclasses.fields(kind)} if kind else set()
    return found | {f"matrix.{field.name}" for field in dataclasses.fields(Axes)}


def wrong_setting(key: str, value: str, verb: str = "") -> str:
    known = key in keys() or key.startswith("method.quirks.") or (verb and f"{VERBS[verb].section}.{key}" in keys())
    if not known:
        return f"there is no setting {key}"
    value = value.strip("'\".,:;)`")
    if (CONF / key).is_dir() and NAME.fullmatch(value) and value.islower() and value not in options(key):
        return f"{key}={value} is none of {options(key)}"
    return ""


def wrong_in(tree: ast.AST) -> list[str]:
    """What the texts of a source advise that does not exist."""
    found = []
    for line, text in texts(tree):
        for verb, rest in CALL.findall(text):
            if verb != HOLE and verb not in VERBS:
                found.append(f"{line}: there is no verb {verb}")
                continue
            for flag in re.findall(r" (--[a-z-]+)", rest) if verb != HOLE else []:
                try:
                    parse([verb, flag, "a", "b"][: 2 if flag == "--config" else 4])
                except SystemExit:
                    found.append(f"{line}: {verb} has no {flag}")
        if " " in text or "\n" in text:  # a single word may be a piece of another program's grammar
            found += [f"{line}: {why}" for key, value in SETTING.findall(text) if (why := wrong_setting(key, value))]
        for place in PLACE.findall(text):
            if HOLE not in text and not (REPO / place).exists() and not place.startswith("harness/toy/checkpoint"):
                found.append(f"{line}: {place} is not there")
    for line, (verb, *words) in advised(tree):
        if verb not in VERBS:
            found.append(f"{line}: there is no verb {verb}")
            continue
        pairs = [word.split("=", 1) for word in words if re.match(r"[a-z_.]+=", word)]
        found += [f"{line}: {why}" for key, value in pairs if (why := wrong_setting(key, value, verb))]
    return found


def test_what_is_advised_exists() -> None:
    wrong, everything, calls = [], [], 0
    for path in CODE:
        tree = ast.parse(path.read_text())
        wrong += [f"{path.relative_to(REPO)}:{why}" for why in wrong_in(tree)]
        everything += [text for _, text in texts(tree)]
        calls += sum(1 for _ in advised(tree))
    assert not wrong
    written = "\n".join(everything)
    assert len(CALL.findall(written)) > 15 and len({key for key, _ in SETTING.findall(written)}) > 40 and calls > 12


@pytest.mark.parametrize(
    "source, why",
    [
        ('raise E("get it: python -m harness prepar task=mlvu")', "there is no verb prepar"),
        ('raise E(f"{x} is long; set video.max_frame=64")', "there is no setting video.max_frame"),
        ('raise E(f"run again with run.retry={x} or engine=locl")', "engine=locl is none of"),
        ('raise E("see scripts/set_up.sh")', "scripts/set_up.sh is not there"),
        ('harness("chek", words, "--update-baseline")', "there is no verb chek"),
        ('harness("prepare", [], f"tsk={name}")', "there is no setting tsk"),
        ('print("python -m harness check --update-base")', "check has no --update-base"),
    ],
)
def test_a_planted_fault_is_found(source: str, why: str) -> None:
    (found,) = wrong_in(ast.parse(source))
    assert why in found
