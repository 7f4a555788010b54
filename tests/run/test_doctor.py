"""nice python -m pytest tests/run/test_doctor.py"""

import dataclasses
from pathlib import Path

import pytest

from harness.config import compose_config
from harness.run import doctor
from harness.run.doctor import OK, PROBLEM, run_check
from harness.setting import rule_of
from harness.video.config import VideoConfig


@pytest.fixture(scope="module")
def toy():
    return compose_config(["profile=toy"])


def only(check, config):
    found = run_check(check, config)
    assert len(found) == 1, found
    return found[0]


def test_missing_weights_come_with_the_command_that_gets_them(toy):
    assert only(doctor.weights, toy).state == OK
    absent = compose_config(["profile=published", "model.path=Qwen/Qwen2.5-VL-7B-Instruct-none"])
    finding = only(doctor.weights, absent)
    assert finding.state == PROBLEM and finding.fix.startswith("hf download Qwen/Qwen2.5-VL-7B-Instruct-none")


def test_each_task_of_the_matrix_is_looked_at(tmp_path):
    config = compose_config(["profile=published", f"data.root={tmp_path}", "matrix.task=[videomme,lvbench]"])
    found = run_check(doctor.data, config)
    assert [f.state for f in found] == [PROBLEM, PROBLEM]
    assert all("prepare" in f.fix for f in found)


def test_a_results_folder_that_cannot_be_written_is_a_problem(toy, tmp_path):
    assert only(doctor.results, dataclasses.replace(toy, results=str(tmp_path))).state == OK
    read_only = dataclasses.replace(toy, results="/proc/results")
    assert only(doctor.results, read_only).state == PROBLEM


def test_slurm_without_sbatch_is_a_problem(toy, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    finding = only(doctor.engine, dataclasses.replace(toy, engine=compose_config(["engine=slurm"]).engine))
    assert finding.state == PROBLEM and "engine.cluster=local" in finding.fix


def test_a_check_that_breaks_hides_no_other(toy, capsys, monkeypatch):
    def broken(config):
        raise ZeroDivisionError("oh")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (broken, doctor.python))
    assert doctor.main(toy) == 1
    output = capsys.readouterr().out
    assert "ZeroDivisionError: oh" in output and "python" in output and "1 problem" in output
    monkeypatch.setattr(doctor, "CHECKS", (doctor.python,))
    assert doctor.main(toy) == 0


def test_every_backend_of_the_configuration_has_a_decoder():
    backend = next(f for f in dataclasses.fields(VideoConfig) if f.name == "backend")
    assert set(doctor.DECODERS) == set(rule_of(backend).words)
    assert Path(doctor.REPO / "scripts").is_dir(), "fixes name scripts/setup.sh"
