"""A machine for which decord has no package: PyAV reads, and says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from readers import needs_decord

from harness.cli import main
from harness.settings.compose import REPO
from harness.settings.groups import PUBLISHED_READER
from harness.toy.benchmarks import build

WORDS = [
    "matrix=ablation",
    "matrix.task=[lvbench]",
    "matrix.variant=[full]",
    "matrix.frames=[16]",
    "matrix.context=[96]",
]


COMMANDS = """
import contextlib, io, json, sys
from harness.cli import main
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        status = main(words)
    print(json.dumps([status, output.getvalue()]))
"""


class Bare:
    """Commands of the harness by a Python that cannot import decord."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = [f"data.root={folder}/data", f"results={folder}/results"]
        self.baseline = f"check.baseline={folder}/baseline.json"
        (folder / "hidden").mkdir()
        (folder / "hidden" / "sitecustomize.py").write_text('import sys\nsys.modules["decord"] = None\n')
        build(folder / "data", scale=0.06)
        asked = ["run", *WORDS], ["doctor"], ["doctor", f"video.backend={PUBLISHED_READER}"]
        self.run, self.doctor, self.doctor_asked = self.harness(*asked)

    def harness(self, *commands: list[str]) -> list[tuple[int, str]]:
        """The status of each command, and what it printed; all in one process."""
        paths = {"PYTHONPATH": os.pathsep.join((str(self.folder / "hidden"), str(REPO)))}
        done = subprocess.run(
            [sys.executable, "-c", COMMANDS, json.dumps([[*words, *self.settings] for words in commands])],
            cwd=REPO, env=os.environ | paths, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def answers(self) -> list[dict]:
        files = sorted(self.folder.glob("results/runs/*/answers*.jsonl"))
        return [json.loads(line) for file in files for line in file.open()]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    return Bare(tmp_path_factory.mktemp("bare"))


def test_the_toy_is_answered_by_pyav(bare: Bare) -> None:
    status, output = bare.run
    assert status == 0, output
    answers = bare.answers()
    assert answers and {answer["backend"] for answer in answers} == {"pyav"}
    (manifest,) = bare.folder.glob("results/runs/*/manifest.json")
    assert '"backend":"pyav"' in manifest.read_text().replace(" ", "")


@needs_decord
def test_its_answers_pass_against_a_baseline_read_by_decord(bare: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy's frames are the same to the bit, so its gate passes here too, and names both readers."""
    for name in ("ADARETAKE_DATA", "ADARETAKE_TOKENIZER"):
        monkeypatch.setenv(name, "")  # put back behind the test what commands set
        monkeypatch.delenv(name)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for words in (["run"], ["check", bare.baseline, "--update-baseline"]):
        assert main([*words, *WORDS, *bare.settings]) == 0
    ((status, output),) = bare.harness(["check", *WORDS, bare.baseline])
    assert status == 0, output
    assert f"equals baseline; although video.backend: {PUBLISHED_READER} -> pyav" in output


def test_the_doctor_says_so(bare: Bare) -> None:
    _, output = bare.doctor
    (line,) = [line for line in output.splitlines() if line.split()[1:2] == ["decoder"]]
    assert line.startswith("note") and "pyav" in line and PUBLISHED_READER in line
    status, output = bare.doctor_asked
    assert status == 1 and "pip install decord" in output
