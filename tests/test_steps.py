"""AGENTS.md followed literally from an empty folder, on the toy: what its table of steps says is done and checked.

Commands that need a hub or weights are parsed and composed; all others are carried out, `PUB` standing for the toy's
settings, with axes so small that the walk takes a minute. python -m pytest tests/test_steps.py
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from functools import partial
from pathlib import Path

import pytest

from harness.cli import main, parse
from harness.settings.compose import REPO, compose_verb
from harness.toy.benchmarks import build

ROW = re.compile(r"^\| (\d+) \| (.+) \| (.+) \|$", re.M)
TASK = "lvbench"
SMALL = [
    f"matrix.task=[{TASK}]",
    "matrix.frames=[16]",
    "matrix.context=[96]",
    "matrix.variant=[full]",
]
EXIT_STATUS = (2, 6)
"""Steps whose command is its own check."""
NO_COMMAND = re.compile(r"videomme |results/")
PUBLISHED = re.compile(r"profile=published|model\.path=\S+|data\.root=\S+|task\.subset=\w+")


def section() -> str:
    return (REPO / "AGENTS.md").read_text().split("## Reproduce")[1].split("\n## ")[0]


def steps() -> list[tuple[int, str, str]]:
    """(number, commands to do, commands that check), each a line of the table with `PUB` and `T` filled in."""
    text = section()
    (published,) = re.findall(r'PUB="([^"]+)"', text)
    rows = [(int(number), do, check) for number, do, check in ROW.findall(text)]

    def commands(cell: str) -> str:
        spans = [span for span in re.findall(r"`([^`]+)`", cell) if " " in span and not NO_COMMAND.match(span)]
        return " && ".join(spans).replace("$PUB", published).replace("task=T", f"task={TASK}").replace("DIR", "videos")

    return [(number, commands(do), commands(check)) for number, do, check in rows]


def calls(line: str) -> list[list[str]]:
    """What a line calls of the harness: a script of the repository is the three calls that it makes."""
    found = []
    for words in map(shlex.split, re.split(r" && ", line)):
        if words[:3] == ["python", "-m", "harness"]:
            found.append(words[3:])
        elif words[:1] == ["bash"] and (REPO / words[1]).read_text().find("scripts/reproduce.sh") >= 0:
            matrix = f"matrix={Path(words[1]).stem}"
            found += [[verb, matrix, *words[2:]] for verb in ("run", "score", "report")]
    return found


def on_the_toy(call: list[str], folder: Path) -> list[str]:
    """A call of the published setting as one of the toy, with the smallest matrix."""
    words = [word for word in call if not PUBLISHED.fullmatch(word)]
    words += [f"data.root={folder}/videos", f"results={folder}/results"]
    if words[0] in ("prepare", "verify", "doctor"):
        return words
    update = [] if words[0] != "check" else [f"check.baseline={folder}/baseline.json"]
    return [*words, *SMALL, *update]


def test_the_steps_are_numbered_and_checked() -> None:
    found = steps()
    assert [number for number, _, _ in found] == list(range(1, len(found) + 1)) and len(found) == 9
    assert all(do for _, do, _ in found) and all(check for number, _, check in found if number not in EXIT_STATUS)


@pytest.mark.parametrize("number, do, check", steps(), ids=lambda value: str(value)[:24])
def test_commands_can_be_given(number: int, do: str, check: str) -> None:
    """Scripts exist and are shell, calls parse and compose, and nothing else is asked for but two programs."""
    for words in map(shlex.split, re.split(r" && ", f"{do} && {check}" if check else do)):
        if words[0] == "bash":
            assert subprocess.run(["bash", "-n", REPO / words[1]]).returncode == 0
        elif words[0] == "python":
            assert words[1:3] == ["-m", "harness"]
        else:
            assert words[0] in ("source", "hf"), words
    for call in calls(do) + calls(check):
        command = parse(call)
        compose_verb(command.verb, command.settings)
        with pytest.raises(SystemExit) as ended:
            parse([command.verb.name, "--help"])
        assert ended.value.code == 0


def test_the_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every call of every step, in order, in an empty folder: each ends with 0."""
    monkeypatch.chdir(tmp_path)
    for name in ("ADARETAKE_DATA", "ADARETAKE_TOKENIZER"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # put back behind the test what the walk sets
        monkeypatch.delenv(name)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("harness.toy.benchmarks.build", partial(build, scale=0.06))
    walked = []
    for number, do, check in steps():
        for call in calls(do) + calls(check):
            words = on_the_toy(call, tmp_path)
            if words[0] == "check":  # the committed baseline is of the whole toy, which CI answers and checks
                assert main([*words, "--update-baseline"]) == 0, capsys.readouterr()
            status = main(words)
            assert status == 0, f"step {number}: {shlex.join(words)}: {status}\n{capsys.readouterr()}"
            walked.append(words[0])
    assert {"doctor", "prepare", "verify", "plan", "run", "score", "report", "check"} == set(walked)
    assert (tmp_path / "results/report/report.md").is_file()


def test_what_is_left_undone_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that could not fail would be none: in an empty folder those of steps 3 to 9 do."""
    monkeypatch.chdir(tmp_path)
    for number, _, check in steps():
        for call in calls(check) if number > 2 else []:
            if call[0] in ("check", "report"):
                words = [word for word in call if not word.startswith("model.path")]
                assert main([*words, f"results={tmp_path}/nothing"]) != 0, (number, words)
