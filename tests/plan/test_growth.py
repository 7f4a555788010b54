"""An id survives growth: what is added beside a cell leaves it its stored answers."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml

from harness.settings.compose import REPO

IDS = """
import sys
from harness.settings.compose import compose_config
from harness.settings.matrix import build_cells
print(*(cell.id for cell in build_cells(compose_config(sys.argv[1:]))), sep="\\n")
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")
    for place in ("harness", "conf", "tasks"):
        shutil.copytree(REPO / place, folder / place, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def ids(folder, *overrides):
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    words = [sys.executable, "-c", IDS, *overrides]
    result = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_a_method_an_adapter_a_benchmark_and_a_comment_leave_all_other_ids(copy):
    before = ids(copy, "matrix=ablation")
    assert len(before) == 48
    room = copy / "harness" / "compress" / "methods"
    (room / "every_kth.py").write_text((room / "none.py").read_text())
    (copy / "conf" / "method" / "every_kth.yaml").write_text("name: every_kth\n")
    adapter = copy / "harness" / "models" / "another.py"
    adapter.write_text((copy / "harness" / "models" / "qwen2_vl.py").read_text())
    shutil.copytree(copy / "tasks" / "lvbench", copy / "tasks" / "another")
    (copy / "conf" / "task" / "another.yaml").write_text((copy / "conf" / "task" / "lvbench.yaml").read_text())
    (copy / "conf" / "matrix" / "another.yaml").write_text("name: another\ntask: [lvbench]\n")
    for path in ("harness/compress/prefill.py", "harness/models/qwen_vl.py", "harness/video/decode.py"):
        with (copy / path).open("a") as file:
            file.write("\n\ndef added():  # a comment\n    return 1\n")
    with (copy / "tasks" / "mlvu" / "functions.py").open("a") as file:
        file.write("\n# a comment\n")
    assert ids(copy, "matrix=ablation") == before


def test_a_declared_version_changes_the_ids_that_it_is_about(copy):
    before = ids(copy)
    facts = copy / "tasks" / "mlvu" / "facts.yaml"
    text = facts.read_text()
    facts.write_text(text.replace("version: 1", "version: 2"))
    after = ids(copy)
    facts.write_text(text)
    changed = [old.split("-")[0] for old, new in zip(before, after, strict=True) if old != new]
    assert changed == ["mlvu"]


def test_a_benchmark_without_metrics_is_refused_before_it_runs(copy):
    shutil.copytree(copy / "tasks" / "lvbench", copy / "tasks" / "bare")
    facts = yaml.safe_load((copy / "tasks" / "bare" / "facts.yaml").read_text())
    del facts["metrics"]
    (copy / "tasks" / "bare" / "facts.yaml").write_text(yaml.safe_dump(facts))
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    words = [sys.executable, "-m", "harness", "plan", "task=lvbench", "task.data=bare"]
    result = subprocess.run(words, cwd=copy, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert "bare/facts.yaml" in result.stderr and "metrics" in result.stderr and "Traceback" not in result.stderr
