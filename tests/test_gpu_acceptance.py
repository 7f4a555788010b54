"""The acceptance of a GPU machine, on a few thousand weights and without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import gpu_acceptance
import pytest
import torch
from acceptance import agreement, speed
from acceptance.subject import SIZES, Row, Subject, apart

from harness.compress.attention import sdpa_attention

REPO = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject.make(SIZES["tiny"], torch.device("cpu"), torch.float32)


def test_every_check_runs_and_nothing_fails(tmp_path: Path, capsys) -> None:
    assert gpu_acceptance.main(["--size", "tiny", "--device", "cpu", "--output", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "acceptance.json").read_text())
    rows = [Row(**row) for row in result["rows"]]
    by_check: dict[str, list[Row]] = {}
    for row in rows:
        by_check.setdefault(row.check, []).append(row)
    assert result["passed"] and not [row for row in rows if row.status == "failed"]
    checks = ("backends", "whole model", "chunks", "memory", "speed", "waits", "methods")
    assert all(any(row.value is not None for row in by_check[check]) for check in checks)
    assert {row.what for row in by_check["methods"]} == {path.stem for path in (REPO / "conf/method").glob("*.yaml")}
    skipped = {row.what: row.reason for row in rows if row.status == "skipped"}
    missing = {"flash_attention_2", "features on the host", "spread over all GPUs", "fitprune"}
    assert {name for name, reason in skipped.items() if not reason.startswith("chooses frames")} == missing
    assert all(skipped.values()) and "${" not in (tmp_path / "acceptance.md").read_text()
    assert skipped["fitprune"].endswith("recipe=results/recipes/fitprune-qwen2_5_vl_7b.json")
    page = (tmp_path / "acceptance.md").read_text()
    assert page.count("\n| ") == len(rows) + 1 and f"all of {len(rows)} rows passed" in page
    assert capsys.readouterr().out.splitlines()[-1].startswith(str(tmp_path))


def test_a_check_that_breaks_is_a_row_and_the_others_run(tmp_path: Path, monkeypatch, capsys) -> None:
    def out_of_memory(subject: Subject):
        yield Row("first", "half of it", "ok", 1.0)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore text")

    checks = {"first": out_of_memory, "chunks": agreement.chunks}
    monkeypatch.setattr(gpu_acceptance, "CHECKS", checks)
    assert gpu_acceptance.main(["--size", "tiny", "--device", "cpu", "--output", str(tmp_path)]) == 1
    rows = json.loads((tmp_path / "acceptance.json").read_text())["rows"]
    assert [(row["check"], row["status"]) for row in rows] == [("first", "ok"), ("first", "failed"), ("chunks", "ok")]
    assert rows[1]["reason"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB."
    assert "1 of 3 rows failed" in (tmp_path / "acceptance.md").read_text()
    assert "failed: first" in capsys.readouterr().err


def test_weights_that_do_not_fit_are_a_row_too(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_args: object) -> Subject:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Subject, "make", refuse)
    assert gpu_acceptance.main(["--size", "tiny", "--device", "cpu", "--output", str(tmp_path)]) == 1
    assert "weights of size tiny" in (tmp_path / "acceptance.md").read_text()


def not_causal(query, key, value, scale):
    n = query.shape[2]
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    return torch.nn.functional.scaled_dot_product_attention(query[:, :, :n], key, value, scale=scale)


def aligned_at_the_left(query, key, value, scale):
    return sdpa_attention(query, key[:, :, : query.shape[2]], value[:, :, : query.shape[2]], scale)


def refuses(query, key, value, scale):
    raise RuntimeError("bfloat16 is not supported here\nby this kernel")


@pytest.mark.parametrize("wrong", [not_causal, aligned_at_the_left, refuses])
def test_a_wrong_backend_fails(subject: Subject, monkeypatch, wrong) -> None:
    monkeypatch.setitem(agreement.KERNELS, "sdpa", wrong)
    with torch.inference_mode():
        rows = {row.what.split()[0]: row for row in agreement.backends(subject)}
    assert rows["sdpa"].status == "failed" and rows["eager"].status == "ok"
    if wrong is refuses:
        assert rows["sdpa"].reason == "RuntimeError: bfloat16 is not supported here"


def test_memory_that_grows_fails(subject: Subject, monkeypatch) -> None:
    held = []
    run = Subject.run

    def hoarding(self, *args, **options):
        held.append(torch.zeros(2**20))
        return run(self, *args, **options)

    monkeypatch.setattr(Subject, "run", hoarding)
    with torch.inference_mode():
        rows = list(speed.memory(subject))
    assert [row.status for row in rows] == ["ok", "measured", "failed"]


def test_waits_that_are_too_many_fail(subject: Subject, monkeypatch) -> None:
    monkeypatch.setattr(speed, "PER_CHUNK", 0)
    with torch.inference_mode():
        rows = list(speed.waits(subject))
    assert rows[0].status == "failed" and rows[0].value > 8


def test_distance_is_relative() -> None:
    assert apart(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.0])) == 0
    assert apart(torch.tensor([0.0, 0.0]), torch.tensor([3.0, 4.0])) == 1


def test_the_full_size_needs_an_accelerator(capsys) -> None:
    assert gpu_acceptance.main(["--device", "cpu"]) == 2
    assert "try --size tiny" in capsys.readouterr().err


def test_the_full_size_is_that_of_seven_billion() -> None:
    with torch.device("meta"):
        made = Subject.make(SIZES["full"], torch.device("meta"), torch.bfloat16)
    assert made.weight_bytes() == 2 * 7_615_616_512
    # 28 layers, 2 of keys and values, 4 heads of 128 numbers of 2 bytes, for 16000 tokens and two chunks of 2304.
    cache = 28 * 2 * 4 * 128 * 2 * (16000 + 2 * 2304)
    assert cache < made.working_bytes(16000) < 2 * cache


def test_it_runs_where_neither_lmms_eval_nor_hydra_are(tmp_path: Path) -> None:
    absent = (
        "lmms_eval", "hydra", "omegaconf", "pandas", "matplotlib", "rich", "datasets", "decord", "av", "torchcodec",
        "flash_attn", "accelerate", "psutil", "scipy",
    )  # fmt: skip
    code = (
        f"import sys, runpy; sys.modules.update(dict.fromkeys({absent!r})); "
        f"sys.argv = ['x', '--size', 'tiny', '--device', 'cpu', '--only', 'chunks', '--output', {str(tmp_path)!r}]; "
        f"runpy.run_path({str(REPO / 'scripts/gpu_acceptance.py')!r}, run_name='__main__')"
    )
    environment = {**os.environ, "PYTHONPATH": f"{REPO}{os.pathsep}{REPO / 'scripts'}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "acceptance.json").read_text())["passed"]
