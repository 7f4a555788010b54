"""A machine for which decord has no package: PyAV reads, and says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from readers import needs_decord

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


class Bare:
    """Calls of the harness by a Python that cannot import decord."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "hidden").mkdir()
        (folder / "hidden" / "sitecustomize.py").write_text('import sys\nsys.modules["decord"] = None\n')
        build(folder / "data", scale=0.06)

    def harness(self, *words: str, without: str = "hidden") -> subprocess.CompletedProcess[str]:
        paths = {"PYTHONPATH": os.pathsep.join((str(self.folder / without), str(REPO)))}
        settings = [f"data.root={self.folder}/data", f"results={self.folder}/results"]
        return subprocess.run(
            [sys.executable, "-m", "harness", *words, *settings],
            cwd=REPO, env=os.environ | paths, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    def answers(self) -> list[dict]:
        files = sorted(self.folder.glob("results/runs/*/answers*.jsonl"))
        return [json.loads(line) for file in files for line in file.open()]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    return Bare(tmp_path_factory.mktemp("bare"))


def test_the_toy_is_answered_by_pyav(bare: Bare) -> None:
    done = bare.harness("run", *WORDS)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = bare.answers()
    assert answers and {answer["backend"] for answer in answers} == {"pyav"}
    (manifest,) = bare.folder.glob("results/runs/*/manifest.json")
    assert '"backend":"pyav"' in manifest.read_text().replace(" ", "")


@needs_decord
def test_its_answers_pass_against_a_baseline_read_by_decord(bare: Bare) -> None:
    """The toy's frames are the same to the bit, so its gate passes here too, and names both readers."""
    assert bare.harness("run", *WORDS).returncode == 0
    baseline = f"check.baseline={bare.folder}/baseline.json"
    for words in (["run"], ["check", baseline, "--update-baseline"]):
        done = bare.harness(*words, *WORDS, without="")
        assert done.returncode == 0, done.stdout + done.stderr
    done = bare.harness("check", *WORDS, baseline)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"equals baseline; although video.backend: {PUBLISHED_READER} -> pyav" in done.stdout


def test_the_doctor_says_so(bare: Bare) -> None:
    done = bare.harness("doctor")
    (line,) = [line for line in done.stdout.splitlines() if line.split()[1:2] == ["decoder"]]
    assert line.startswith("note") and "pyav" in line and PUBLISHED_READER in line
    asked = bare.harness("doctor", f"video.backend={PUBLISHED_READER}")
    assert asked.returncode == 1 and "pip install decord" in asked.stdout
