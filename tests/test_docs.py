"""What the pages say: links and files exist, and every command has a known verb and settings that compose."""

from __future__ import annotations

import importlib.util
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from harness.cli import parse
from harness.compress.methods import retake
from harness.compress.methods.adaretake import release_2025, release_2026
from harness.errors import UserError
from harness.settings.compose import REPO, compose_config, compose_verb
from harness.settings.matrix import build_cells
from harness.settings.verbs import Verb, all_verbs

PAGES = sorted(REPO.glob("*.md")) + [
    p for top in ("docs", "tasks", "tests", "results") for p in REPO.glob(f"{top}/**/*.md")
]
CODE = re.compile(r"```\w*\n(.*?)```|(?<=\n\n)((?:    [^\n]*\n)+)|`([^`\n]+)`", re.S | re.M)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SETTING = re.compile(r"[a-z_]+(\.\w+)*=\S+")
MADE = (
    "results/runs",
    "results/frames",
    "results/report",
    "results/logs",
    "results/features",
    "results/verify",
    "results/acceptance",
    "results/foreign",
    "data/",
    "models/",
)
"""Places that commands make."""

PLACEHOLDER = re.compile(r"<[a-z_ ]+>|…|\b[A-Z]+\b")
REAL = {"task": "mlvu", "matrix": "ablation", "model": "qwen2_vl_7b", "engine.workers": "2"}
"""What stands for a placeholder where not any word will do."""

SCRIPTS = {f"{matrix}.sh": ["run", f"matrix={matrix}"] for matrix in ("main_results", "ablation", "methods")}
"""Commands that stand for a call of the harness."""


def name(path: Path) -> str:
    return path.relative_to(REPO).as_posix()


def code_of(page: Path) -> list[str]:
    """Lines of code blocks and spans of code, with continued lines joined and the page's own variables filled in."""
    text = page.read_text().replace("\\\n", " ")
    for variable, value in re.findall(r'\b([A-Z]+)="([^"]+)"', text):
        text = text.replace(f"${variable}", value)
    return [line.strip() for match in CODE.findall(text) for part in match for line in part.splitlines()]


def commands() -> list[tuple[str, str]]:
    """(where it stands, line) of everything that may be a command: in pages, in CI, in the headers of settings."""
    lines = [(name(page), line) for page in PAGES for line in code_of(page)]
    for path in REPO.glob(".github/workflows/*.yaml"):
        lines += [(name(path), line) for line in re.findall(r"run: (.+)", path.read_text())]
    for path in REPO.glob("conf/**/*.yaml"):
        lines += [(name(path), line) for line in re.findall(r"^#.*?((?:bash|python) [^#\n]+)$", path.read_text(), re.M)]
    return list(dict.fromkeys(lines))


def filled(word: str) -> str:
    """A word with its placeholders replaced by something that composes."""
    key, equals, value = word.partition("=")
    if equals and PLACEHOLDER.fullmatch(value):
        return f"{key}={REAL.get(key, 'value')}"
    return PLACEHOLDER.sub("value", word)


def harness_calls(line: str) -> list[list[str]]:
    """The calls of the harness in a line, each as verb, flags and overrides."""
    calls = []
    for command in re.split(r"&&|\|\||;| \| ", line):
        try:
            words = shlex.split(command, comments=True)
        except ValueError:
            continue
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # environment
            del words[0]
        words = [filled(word) for word in words if word != "…" or '"…"' in command]
        if len(words) > 3 and words[0].endswith("python") and words[1:3] == ["-m", "harness"]:
            calls.append(words[3:])
        elif len(words) > 1 and words[0] == "bash" and words[1] in SCRIPTS:
            calls.append(SCRIPTS[words[1]] + words[2:])
        elif len(words) > 2 and words[:2] == ["bash", "scripts/reproduce.sh"]:
            matrix = words[2] if words[2] != "value" else REAL["matrix"]
            calls.append(["run", f"matrix={matrix}", *words[3:]])
    return calls


@cache
def refused(overrides: tuple[str, ...], verb: Verb | None = None) -> str:
    """Why these settings do not compose, or make no cells, or nothing; alone they may be of any verb."""
    of_verb = (each for each in all_verbs().values() if any(w.startswith(f"{each.section}.") for w in overrides))
    verb = verb or next((each for each in of_verb if each.schema is not None), None)
    try:
        if verb is not None:
            compose_verb(verb, overrides)
            return ""
        if any(word.startswith(("method.", "matrix.")) for word in overrides):
            build_cells(compose_config(("matrix.task=[mlvu]", *overrides)), problems=[])
        else:
            compose_config(overrides)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_named_files_exist(page: Path) -> None:
    targets = [target.split("#")[0] for target in LINK.findall(page.read_text()) if not re.match(r"[a-z]+:", target)]
    missing = [target for target in targets if not (page.parent / target).exists()]
    tops = {path.name for path in REPO.iterdir() if path.suffix != ".git"}
    for line in code_of(page):
        for word in re.split(r"[\s=,:()]+", line):
            place = re.sub(r"<\w+>", "*", word.strip("'\".,")).rstrip("/")
            made_or_open = place.startswith(MADE) or set(place) & set("{}…$")
            if place.split("/")[0] in tops and not made_or_open and not any(REPO.glob(place)):
                missing.append(word)
    assert not missing


def test_commands_parse_and_their_settings_compose() -> None:
    wrong, called = [], 0
    for place, line in commands():
        for call in harness_calls(line):
            called += 1
            try:
                command = parse(call)
                why = refused(tuple(command.settings), command.verb)
            except SystemExit:
                why = "not a call of the harness"
            if why:
                wrong.append(f"{place}: {line}: {why}")
    assert not wrong
    assert called > 20


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_written_alone_compose(page: Path) -> None:
    spans = [re.split(r"\s+|,(?=[a-z_.]+=)", line) for line in code_of(page) if line not in ("", "key=value")]
    lines = [words for words in spans if all(SETTING.fullmatch(word) for word in words)]
    assert not [why for words in lines if (why := refused(tuple(map(filled, words))))]


def test_modules_tasks_and_scripts_named_by_commands_exist() -> None:
    missing = []
    for place, line in commands():
        modules = re.findall(r"python -m (harness(?:\.\w+)*)", line)
        missing += [f"{place}: {module}" for module in modules if importlib.util.find_spec(module) is None]
        tasks = re.findall(r"--tasks (\w+)", line)
        missing += [f"{place}: {task}" for task in tasks if not any(REPO.glob(f"tasks/*/{task}.yaml"))]
        scripts = re.findall(r"(?:bash|python) ([\w/]+\.(?:sh|py))", line)
        missing += [f"{place}: {script}" for script in scripts if not (REPO / script).is_file()]
    assert not missing


def test_python_in_the_readme_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(REPO)
    (block,) = re.findall(r"```python\n(.*?)```", (REPO / "README.md").read_text(), re.S)
    exec(compile(block, "README.md", "exec"), {})
    assert "[" in capsys.readouterr().out


def test_versions_stand_where_contributing_says() -> None:
    rows = re.findall(r"^\|[^|]+\| (`\w+:?`.*?) \|$", (REPO / "CONTRIBUTING.md").read_text(), re.M)
    assert len(rows) >= 5
    for row in rows:
        version, place = re.findall(r"`([^`]+)`", row)
        files = [
            p
            for path in REPO.glob(re.sub(r"<\w+>", "*", place))
            for p in ([path] if path.is_file() else path.rglob("*.py"))
        ]
        assert any(re.search(rf"^ *{version}\W", path.read_text(), re.M) for path in files), row


def test_the_way_of_an_answer_names_what_exists() -> None:
    """docs/answer.md: names behind a file are defined in it, and stages are methods of those who have stages."""
    text = (REPO / "docs/answer.md").read_text()
    pairs = re.findall(r"`(harness/[\w/]+\.py)`(?: \(`(\w+)`(?:, `(\w+)`)?\)|, `(\w+)`\))", text)
    named = [(path, word) for path, *words in pairs for word in words if word]
    assert len(named) > 15
    assert not [
        pair for pair in named if not re.search(rf"^ *(def|class) {pair[1]}\b", (REPO / pair[0]).read_text(), re.M)
    ]
    code = "".join((REPO / f"harness/compress/{name}.py").read_text() for name in ("method", "evict"))
    stages = set(re.findall(r"`(\w+)`", text.split("## One chunk")[1].split("\n## ")[0])) - {word for _, word in named}
    assert len(stages) > 7 and not [stage for stage in stages if f"def {stage}(" not in code]


def test_the_example_of_a_method_is_the_one_that_is_tested() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (REPO / "docs/extending.md").read_text(), re.S)
    assert block.strip() in (REPO / "tests/test_extending.py").read_text()


def test_the_readme_lists_every_page() -> None:
    links = {target.split("#")[0] for target in LINK.findall((REPO / "README.md").read_text())}
    assert not [page.name for page in REPO.glob("docs/*.md") if f"docs/{page.name}" not in links]


def test_the_specification_lists_every_quirk() -> None:
    section = (REPO / "docs/method.md").read_text().split("## Quirks")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, re.M)
    for place, quirks in {
        "2025": release_2025.QUIRKS | release_2025.QWEN2_VL_QUIRKS,
        "2026": release_2026.QUIRKS,
        "retake": retake.QUIRKS,
    }.items():
        listed = {quirk: "off by default" not in where for quirk, where in rows if place in where}
        assert listed == quirks, place


@pytest.mark.parametrize(
    "line, calls",
    [
        (
            "bash ablation.sh profile=published model.path=…",
            [["run", "matrix=ablation", "profile=published", "model.path=value"]],
        ),
        (".venv/bin/python -m harness check matrix=<matrix>  # why", [["check", "matrix=ablation"]]),
        ("A=1 python -m harness plan task=T && python -m harness run", [["plan", "task=mlvu"], ["run"]]),
        ("python scripts/train_toy.py --help", []),
    ],
)
def test_calls_are_found(line: str, calls: list[list[str]]) -> None:
    assert harness_calls(line) == calls


def test_the_way_through_the_code_is_an_afternoon() -> None:
    """At most 25 files and 4,500 lines; every file is there, as long as the page says."""
    rows = re.findall(r"^\| `(harness/\S+)` \| (\d+) \|", (REPO / "docs" / "reading.md").read_text(), re.M)
    lengths = {name: (int(said), len((REPO / name).read_text().splitlines())) for name, said in rows}
    assert 15 < len(rows) <= 25 and sum(real for _, real in lengths.values()) <= 4500
    assert not {name: pair for name, pair in lengths.items() if abs(pair[0] - pair[1]) > 0.1 * pair[1]}
