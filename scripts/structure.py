#!/usr/bin/env python3
"""The structure of the code in numbers, each with its limit; the exit status is 1 where one is passed.

    python scripts/structure.py                 what the source says, and the compositions of each command on the toy
    python scripts/structure.py --times         also the CPU seconds that each command takes to start
    python scripts/structure.py --report-only   print, and end with 0

CPU seconds are compared with a limit for a machine on which `import torch` takes 1.7 seconds.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]

SIGNATURES, COMPOSITIONS, MODULES, LINES, DUPLICATES, CIRCLES = 20, 1, 210, 30_500, 10, 0

PRESCRIBED = {
    "main": "a verb's module",
    "read": "a format of exchange",
    "write": "a format of exchange",
    "recognises": "a format of exchange",
    "plan": "a layout of a lmms-eval file",
    "annotate": "a layout of a lmms-eval file",
    "Engine": "a file of run/engines",
    "study": "an analysis",
}
"""Public names that an interface asks of every module that implements it; they may be defined in many."""

SECONDS = {
    "plan": 3.0, "doctor": 3.0, "report": 2.5, "check": 2.5, "compare": 2.5, "import": 2.5, "export": 2.5,
    "submit": 2.5, "bridge": 2.5, "worker": 3.5,
}  # fmt: skip
"""CPU seconds that a command may take to start on the reference machine."""

REFERENCE = 1.7
"""CPU seconds of `import torch` on the reference machine."""


@dataclass
class Module:
    """What the source of one module says."""

    name: str
    lines: int
    signatures: list[str] = field(default_factory=list)
    """Functions with a parameter annotated `Config`."""
    public: set[str] = field(default_factory=set)
    """Public functions and classes at its top."""
    top: set[str] = field(default_factory=set)
    """Modules that it imports when it is imported."""
    inner: set[str] = field(default_factory=set)
    """Modules that its functions import."""


def read_modules(root: Path, package: str) -> dict[str, Module]:
    """Read every module of a package below a folder, by its dotted name."""
    files = {_dotted(path.relative_to(root)): path for path in sorted((root / package).rglob("*.py"))}
    return {name: _read(name, path, files) for name, path in files.items()}


def _dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _read(name: str, path: Path, known: Mapping[str, Path]) -> Module:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    module = Module(name, len(source.splitlines()))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _takes_config(node):
            module.signatures.append(f"{name}.{node.name}")
    for statement, at_top in _statements(tree.body, True):
        if at_top and isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            module.public |= {statement.name} - {"_" + statement.name.lstrip("_")}
        if isinstance(statement, ast.Import | ast.ImportFrom):
            target = module.top if at_top else module.inner
            target |= {one for one in _imported(statement) if one in known} - {name}
    return module


def _takes_config(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    arguments = function.args
    listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    for argument in listed:
        if argument is None or argument.annotation is None:
            continue
        text = ast.unparse(argument.annotation).replace("'", "")
        if "Config" in {part.strip().rpartition(".")[2] for part in text.split("|")}:
            return True
    return False


def _statements(body: list[ast.stmt], at_top: bool) -> Iterator[tuple[ast.stmt, bool]]:
    """Every statement, and whether it runs on import; without what is there for the type checker alone."""
    for statement in body:
        yield statement, at_top
        typing_only = isinstance(statement, ast.If) and ast.unparse(statement.test).endswith("TYPE_CHECKING")
        inside = at_top and not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        for name in ("body", "orelse", "finalbody"):
            if not (typing_only and name == "body"):
                yield from _statements(getattr(statement, name, []), inside)
        for handler in getattr(statement, "handlers", []):
            yield from _statements(handler.body, inside)


def _imported(statement: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names)
    elif statement.module:
        yield statement.module
        yield from (f"{statement.module}.{alias.name}" for alias in statement.names)


def duplicates(modules: Mapping[str, Module]) -> dict[str, list[str]]:
    """Public name -> the modules that define it, where there are several."""
    places: dict[str, list[str]] = defaultdict(list)
    for module in modules.values():
        for name in module.public - PRESCRIBED.keys():
            places[name].append(module.name)
    return {name: found for name, found in sorted(places.items()) if len(found) > 1}


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Sets of modules each of which imports all others, directly or through them (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(edges.get(name, ())):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            circle = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for name in sorted(edges):
        if name not in index:
            visit(name)
    return found


def source_numbers(root: Path, package: str = "harness") -> tuple[list[str], list[str]]:
    """Lines of what the source of a package says, and the limits that it passes."""
    modules = read_modules(root, package)
    signatures = [one for module in modules.values() for one in module.signatures]
    twice = duplicates(modules)
    on_import = circles({name: module.top for name, module in modules.items()})
    with_inner = circles({name: module.top | module.inner for name, module in modules.items()})
    late = [circle for circle in with_inner if circle not in on_import]
    listed = [f"{name}: {', '.join(places)}" for name, places in twice.items()]
    rows: list[tuple[str, int, int, list[str]]] = [
        ("signatures with the configuration", len(signatures), SIGNATURES, signatures),
        ("modules", len(modules), MODULES, []),
        ("lines", sum(module.lines for module in modules.values()), LINES, []),
        ("public functions and classes defined more than once", len(twice), DUPLICATES, listed),
        ("circles of imports", len(on_import), CIRCLES, [" <-> ".join(circle) for circle in on_import]),
        ("circles through imports in functions", len(late), CIRCLES, [" <-> ".join(circle) for circle in late]),
    ]  # fmt: skip
    shown, passed = [], []
    for what, number, limit, details in rows:
        shown.append(f"{number:>7,} of {limit:>6,}  {what}")
        if number > limit:
            shown += [f"{'':19}{one}" for one in details]
            passed.append(f"{number:,} {what}; the limit is {limit:,}")
    return shown, passed


COUNTED = """
import json, sys
from harness import cli
from harness.settings import compose
count, composed = 0, compose.compose
def counting(*args, **kwargs):
    global count
    count += 1
    return composed(*args, **kwargs)
compose.compose = counting
for words in json.loads(sys.argv[1]):
    count = 0
    status = cli.main(words)
    print("\\nended", json.dumps([words[0], status, count]), flush=True)
"""
"""Carries out commands, and says how each ended and how often it composed."""

WORKER = """
import harness.run.worker
from harness.models.qwen2_5_vl import Qwen25VL
from harness.places import find
Qwen25VL.load(str(find("harness/toy/checkpoint")))
"""

SMALL = ["matrix=ablation", "variant=[full,no_both]", "frames=[16]", "context=[96]", "matrix.task=[videomme]"]


def _python(code: str, *words: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Run Python code; the CPU seconds of it and its children, and what it printed."""
    environment = os.environ | {"PYTHONPATH": str(REPO), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system, done


def commands(folder: Path) -> dict[str, list[str]]:
    """Verb -> a command line on a small toy, in an order in which each finds what it needs."""
    here = [f"data.root={folder}/data", f"results={folder}/results"]
    full, plain = (f"[task=videomme,frames=16,context=96,variant={variant}]" for variant in ("full", "no_both"))
    return {
        "plan": ["plan", *here],
        "doctor": ["doctor", *here],
        "run": ["run", *SMALL, *here],
        "score": ["score", *SMALL, *here],
        "report": ["report", *SMALL, *here],
        "check": ["check", *SMALL, *here, f"check.baseline={folder}/baseline.json", "--update-baseline"],
        "compare": ["compare", f"{folder}/results", f"{folder}/results", f"compare.output={folder}/compared"],
        "bridge": ["bridge", full, plain, "--plan", "matrix=ablation", *here],
        "export": ["export", "lmms_eval", f"export.output={folder}/exported", *here],
        "import": ["import", f"{folder}/exported", *here],
        "submit": ["submit", "matrix=ablation", "matrix.task=[mlvu_test]", *here],
    }


def command_numbers(times: bool) -> tuple[list[str], list[str]]:
    """Lines of the compositions of each command on the toy, and of the CPU seconds of its start."""
    from harness.toy.benchmarks import build

    shown, passed, slower = [], [], 1.0
    if times:
        seconds = min(_python("import torch")[0] for _ in range(3))
        slower = seconds / REFERENCE
        shown.append(f"{seconds:>7.1f} CPU s    import torch; limits are those of a machine with {REFERENCE}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        build(folder / "data", scale=0.06)
        lines = list(commands(folder).values())
        for called in [[line] for line in lines] if times else [lines]:  # a process each where its start is measured
            seconds, done = _python(COUNTED, json.dumps(called))
            ended = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("ended ")]
            if len(ended) < len(called):
                passed.append(f"{called[len(ended)][0]} did not end: {done.stderr[-500:]}")
            for verb, status, count in ended:
                limit = SECONDS.get(verb, math.inf) * slower if times else math.inf
                cost = f", {seconds:.1f} of {limit:.1f} CPU s" if limit < math.inf else ""
                shown.append(f"{count:>7} of {COMPOSITIONS:>6}  compositions of {verb} (status {status}){cost}")
                if count > COMPOSITIONS:
                    passed.append(f"{verb} composes {count} times; the limit is {COMPOSITIONS}")
                if seconds > limit:
                    passed.append(f"{verb} takes {seconds:.1f} CPU s; the limit on this machine is {limit:.1f}")
    if times:
        seconds, limit = _python(WORKER)[0], SECONDS["worker"] * slower
        shown.append(f"{'':19}start of a worker, {seconds:.1f} of {limit:.1f} CPU s")
        if seconds > limit:
            passed.append(f"a worker takes {seconds:.1f} CPU s to start; the limit on this machine is {limit:.1f}")
    return shown, passed


def main(argv: list[str]) -> int:
    """Print the numbers; 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", action="store_true", help="measure CPU seconds too")
    parser.add_argument("--source-only", action="store_true", help="carry out no command")
    parser.add_argument("--report-only", action="store_true", help="end with 0 where a limit is passed")
    options = parser.parse_args(argv)
    shown, passed = source_numbers(REPO)
    if not options.source_only:
        more, worse = command_numbers(options.times)
        shown, passed = shown + more, passed + worse
    print("\n".join(shown))
    for reason in passed:
        print(f"limit passed: {reason}")
    return 1 if passed and not options.report_only else 0


if __name__ == "__main__":
    sys.path.insert(0, str(REPO))
    sys.exit(main(sys.argv[1:]))
