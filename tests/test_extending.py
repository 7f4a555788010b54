"""A method, an adapter and a benchmark are added to a copy of the tree: new files only, and no other cell changes.

python -m pytest tests/test_extending.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.settings.compose import REPO, compose_config, options
from harness.settings.matrix import build_cells
from harness.toy.benchmarks import build

METHOD = '''
"""Keeps every n-th token of a chunk, evenly over layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from harness.compress.evict import ChunkEvictor
from harness.compress.prefill import Prefill
from harness.compress.scorers import LayerView


@dataclass(frozen=True)
class EveryNth(ChunkEvictor):
    """Attributes:
    stride: one token in this many is kept.
    """

    uses_guide: ClassVar[bool] = False

    stride: int = 2

    def budgets(self, run: Prefill, lengths: Sequence[int]) -> list[int]:
        return [-(-length // self.stride) for length in lengths]

    def score(self, view: LayerView) -> torch.Tensor:
        return (torch.arange(view.chunk_keys.shape[1]) % self.stride == 0).float()


METHOD = EveryNth
'''

ADAPTER = '''
"""Qwen2.5-VL that sees negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.models.qwen2_5_vl import Qwen25VL

if TYPE_CHECKING:
    import numpy as np


class Negative(Qwen25VL):
    """Adapter of Qwen2.5-VL checkpoints."""

    def encode_window(self, window: np.ndarray) -> tuple[tuple[torch.Tensor, ...], tuple[int, int, int]]:
        return super().encode_window(255 - window)
'''

FUNCTIONS = '''
"""Spotted: three questions on two videos."""

from __future__ import annotations

import json

from harness.benchmarks.benchmark import Item, Row
from harness.benchmarks.files import Folder
from harness.benchmarks.subtitles import choice_prompt


def load(folder: Folder, split: str) -> list[Row]:
    return json.loads(folder.file("rows.json", "the annotation").read_text())


def item(row: Row) -> Item:
    video = (f"videos/{row['video']}",)
    return Item(row["id"], row["video"], video, row["options"], row["answer"], {"kind": row["kind"]})


def prompt(row: Row, protocol: str, folder: Folder) -> str:
    return choice_prompt(row["question"], row["options"])
'''

FACTS = """
title: Spotted
url: https://example.org/spotted
licence: CC0-1.0
version: 1
protocols:
  plain: {parser: anchored}
metrics:
  whole: {balanced: {mean_of: kind}}
  groups: {kind: kind}
strata: [kind]
sources:
  test: [{hub: null, include: [], why: the test writes them}]
layout: []
counts:
  test: {videos: 2, questions: 3}
"""

NEW_FILES = {
    "harness/compress/methods/every_nth.py": METHOD,
    "conf/method/every_nth.yaml": "name: every_nth\nstride: 4\n",
    "harness/models/negative.py": ADAPTER,
    "conf/model/negative.yaml": (
        "name: negative\nadapter: harness.models.negative.Negative\npath: harness/toy/checkpoint\n"
    ),
    "tasks/spotted/functions.py": FUNCTIONS,
    "tasks/spotted/facts.yaml": FACTS,
    "conf/task/spotted.yaml": "name: spotted\ndata: spotted\nsplit: test\nprotocol: plain\n",
}

SMALL = ["profile=toy", "matrix=ablation", "matrix.variant=[full]", "matrix.frames=[16]", "matrix.context=[96]"]
"""A video of 16 frames is one chunk."""

CELLS = [
    ["matrix=ablation"],
    ["matrix=main_results", "matrix.task=[{tasks}]"],
    ["matrix=main_results", "matrix.task=[mlvu]", "matrix.method=[{methods}]", "profile=published"],
]
"""Matrices whose ids are compared: between them every task and every method that exists."""

IDS = """
import json, sys
from harness.settings.compose import compose_config
from harness.settings.matrix import build_cells
print(json.dumps([cell.id for words in json.loads(sys.argv[1]) for cell in build_cells(compose_config(words), [])]))
"""


def matrices() -> list[list[str]]:
    """The words of `CELLS`, with every task and every method of the repository."""
    names = {f"{group}s": ",".join(options(group)) for group in ("task", "method")}
    return [[word.format(**names) for word in words] for words in CELLS]


class Tree:
    """A copy of the repository, its own place for results, and a small build of the toy."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data, self.results = folder, data, folder / "results" / "test"

    def python(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(self.folder), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, *words]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300)

    def harness(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "harness", *words)

    def run(self, *overrides: str) -> dict[str, list[dict[str, Any]]]:
        """Answer a small matrix; the answers by cell."""
        shutil.rmtree(self.results, ignore_errors=True)
        done = self.harness("run", *SMALL, f"data.root={self.data}", f"results={self.results}", *overrides)
        assert done.returncode == 0, done.stdout + done.stderr
        return {
            cell.name: [json.loads(line) for file in cell.glob("answers*.jsonl") for line in file.open()]
            for cell in sorted((self.results / "runs").iterdir())
        }

    def ids(self, *matrices: list[str]) -> list[str]:
        """Ids of the cells of matrices, by the code of the tree."""
        done = self.python("-c", IDS, json.dumps(matrices))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    folder = tmp_path_factory.mktemp("extended")
    for name in ("harness", "conf", "tasks", "results/expected"):
        shutil.copytree(REPO / name, folder / name)  # with compiled modules: times of files are kept
    data = folder / "data"
    build(data, scale=0.06)
    for name, text in NEW_FILES.items():
        path = folder / name
        assert not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip())
    return Tree(folder, data)


def test_other_cells_stay(tree: Tree) -> None:
    """What is added leaves their ids, and so do comments and code that changes no answer."""
    before = [cell.id for words in matrices() for cell in build_cells(compose_config(words), [])]
    rooms = ("harness/compress", "harness/models", "harness/video", "harness/benchmarks", "tasks")
    for path in [path for room in rooms for path in (tree.folder / room).rglob("*.py")]:
        path.write_text(path.read_text() + "\n# A remark.\n_moved = None\n")
    assert len(before) > 20 and tree.ids(*matrices()) == before


def test_a_declared_version_changes_the_ids_that_it_is_about(tree: Tree) -> None:
    words = ["matrix=main_results"]
    before = [cell.id for cell in build_cells(compose_config(words), [])]
    facts = tree.folder / "tasks" / "mlvu" / "facts.yaml"
    text = facts.read_text()
    facts.write_text(text.replace("version: 1", "version: 2"))
    after = tree.ids(words)
    facts.write_text(text)
    changed = [old.split("-")[0] for old, new in zip(before, after, strict=True) if old != new]
    assert {*changed} == {"mlvu"}


@pytest.fixture(scope="module")
def answered(tree: Tree) -> dict[str, list[dict[str, Any]]]:
    """Answers of old and new method under old and new adapter, by what follows the task in the cell's name."""
    axes = ["matrix.task=[videomme]", "matrix.model=[toy,negative]", "matrix.method=[adaretake,every_nth]"]
    found = tree.run(*axes)
    assert len(found) == 4
    return {name.removeprefix("videomme-").split("-f16-")[0]: answers for name, answers in found.items()}


def test_a_method_is_a_file_and_a_yaml(tree: Tree, answered: dict[str, list[dict[str, Any]]]) -> None:
    for answer in answered["toy-every_nth"]:
        kept = -(-answer["n_video"] // 4)
        assert answer["chunk_budget"] == [kept]
        assert set(answer["cache_length"]) == {answer["n_prompt"] - answer["n_video"] + kept}
    refused = tree.harness("plan", "method=every_nth", "method.strid=3")
    assert refused.returncode == 2 and "did you mean 'stride'" in refused.stderr


def test_an_adapter_is_a_file_and_a_yaml(answered: dict[str, list[dict[str, Any]]]) -> None:
    plain, negative = answered["toy-adaretake-paper-full"], answered["negative-adaretake-paper-full"]
    assert [a["n_video"] for a in plain] == [a["n_video"] for a in negative]
    assert [(a["text"], a["kept_digest"]) for a in plain] != [(a["text"], a["kept_digest"]) for a in negative]


def test_a_benchmark_is_a_folder_and_a_yaml(tree: Tree) -> None:
    folder = tree.data / "spotted"
    shutil.copytree(tree.data / "videomme" / "videos", folder / "videos")
    first, second, *_ = sorted(path.name for path in (folder / "videos").iterdir())
    options = {"A": "a circle", "B": "a square"}
    rows = [
        {"id": str(i), "video": video, "question": "What is seen?", "options": options, "answer": "A", "kind": kind}
        for i, (video, kind) in enumerate([(first, "shape"), (second, "shape"), (second, "place")])
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    (answers,) = tree.run("matrix.task=[spotted]").values()
    assert sorted(answer["question_id"] for answer in answers) == ["0", "1", "2"]
    scored = tree.harness("score", *SMALL, "matrix.task=[spotted]", f"data.root={tree.data}", f"results={tree.results}")
    assert scored.returncode == 0 and "balanced" in scored.stdout, scored.stdout + scored.stderr
    right = {answer["question_id"]: 100 * answer["text"].startswith("A") for answer in answers}
    (score,) = [json.loads(path.read_text()) for path in tree.results.glob("runs/*/score.json")]
    assert score["metrics"]["balanced"] == pytest.approx(((right["0"] + right["1"]) / 2 + right["2"]) / 2)


def test_a_benchmark_without_metrics_is_refused_before_it_runs(tree: Tree) -> None:
    shutil.copytree(tree.folder / "tasks" / "lvbench", tree.folder / "tasks" / "bare")
    path = tree.folder / "tasks" / "bare" / "facts.yaml"
    facts = yaml.safe_load(path.read_text())
    del facts["metrics"]
    path.write_text(yaml.safe_dump(facts))
    refused = tree.harness("plan", "task=lvbench", "task.data=bare", "task.name=bare", f"data.root={tree.data}")
    assert refused.returncode == 2
    assert "bare/facts.yaml" in refused.stderr and "metrics" in refused.stderr and "Traceback" not in refused.stderr
