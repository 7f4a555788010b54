"""nice python -m pytest tests/run/test_doctor.py"""

import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import advice
from harness.run import doctor
from harness.run.doctor import NOTE, OK, PROBLEM, run_check
from harness.settings.compose import REPO, compose_config
from harness.settings.groups import VideoConfig
from harness.settings.rules import rule_of


@pytest.fixture(scope="module")
def toy():
    return compose_config(["profile=toy"])


def found_by(name, config):
    return run_check(name, doctor.checks_of(config)[name])


def only(name, config):
    found = found_by(name, config)
    assert len(found) == 1, found
    return found[0]


def test_missing_weights_come_with_the_command_that_gets_them(toy):
    assert only("weights", toy).state == OK
    absent = compose_config(["profile=published", "model.path=Qwen/Qwen2.5-VL-7B-Instruct-none"])
    finding = only("weights", absent)
    name = "Qwen2.5-VL-7B-Instruct-none"
    assert finding.state == PROBLEM
    assert finding.fix.splitlines()[0].endswith(f"hf download Qwen/{name} --local-dir models/{name}")
    assert finding.fix.splitlines()[1] == f"then: model.path=models/{name}"


def test_every_model_of_a_table_is_named():
    found = found_by("weights", compose_config(["profile=published", "matrix=table1"]))
    assert len(found) == 4, "LLaVA-Video, Qwen2-VL, and Qwen2.5-VL of two sizes"


def test_the_command_that_gets_weights_can_be_called(toy):
    absent = compose_config(["profile=published", "model.path=models/nothing-there"])
    words = shlex.split(only("weights", absent).fix.splitlines()[0])
    assert words[1:] == ["download", "Qwen/Qwen2.5-VL-7B-Instruct", "--local-dir", "models/nothing-there"]
    assert subprocess.run([words[0], "download", "--help"], capture_output=True, cwd=REPO).returncode == 0


def test_weights_of_another_model_are_a_problem():
    config = compose_config(["profile=published", "model.path=harness/toy/checkpoint"])
    finding = only("weights", config)
    assert finding.state == PROBLEM and "not those of qwen2_5_vl_7b: layers 4 instead of 28" in finding.detail


def test_damaged_weights_are_a_problem(tmp_path):
    folder = tmp_path / "toy"
    shutil.copytree(REPO / "harness" / "toy" / "checkpoint", folder)
    (folder / "model.safetensors").write_bytes(b"")
    finding = only("weights", compose_config([f"model.path={folder}"]))
    assert finding.state == PROBLEM and "is cut short or damaged" in finding.detail


def test_each_task_of_the_matrix_is_looked_at(tmp_path):
    config = compose_config(["profile=published", f"data.root={tmp_path}", "matrix.task=[videomme,lvbench]"])
    found = found_by("data", config)
    assert [f.state for f in found] == [PROBLEM, PROBLEM]
    fixes = [shlex.split(f.fix)[1:] for f in found]
    own = ["profile=published", f"data.root={tmp_path}"]
    assert fixes == [["-m", "harness", "prepare", *own, f"task={task}"] for task in ("videomme", "lvbench")]
    for words in fixes:
        assert compose_config(words[3:]).data.root == str(tmp_path)


def test_data_that_nobody_asked_about_are_no_problem(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finding = only("data", compose_config(["profile=published", "model.path=models/some"]))
    assert finding.state == NOTE and "prepare profile=published task=videomme" in finding.fix
    asked = found_by("data", compose_config(["profile=published", "data.root=nowhere", "task=lvbench"]))
    assert [f.state for f in asked] == [PROBLEM]


def test_a_program_is_named_so_that_it_can_be_called(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert advice.program("python") == "python"
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(Path(sys.executable).parents[2])
    assert advice.program("python") == os.path.relpath(Path(sys.executable).with_name("python"))
    monkeypatch.chdir(tmp_path)
    assert advice.program("python") == str(Path(sys.executable).with_name("python"))
    command = advice.harness("run", ["matrix=ablation", "data.root=/a b"], "matrix=main_results")
    assert command.endswith("python -m harness run 'data.root=/a b' matrix=main_results")
    assert subprocess.run(shlex.split(advice.download()) + ["--help"], capture_output=True).returncode == 0


def test_a_results_folder_that_cannot_be_written_is_a_problem(toy, tmp_path):
    assert only("results", dataclasses.replace(toy, results=str(tmp_path))).state == OK
    read_only = dataclasses.replace(toy, results="/proc/results")
    assert only("results", read_only).state == PROBLEM


def test_slurm_without_sbatch_is_a_problem(toy, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    finding = only("engine", dataclasses.replace(toy, engine=compose_config(["engine=slurm"]).engine))
    assert finding.state == PROBLEM and "engine.cluster=local" in finding.fix


def test_a_check_that_breaks_hides_no_other(toy, capsys, monkeypatch):
    def broken():
        raise ZeroDivisionError("oh")
        yield

    monkeypatch.setattr(doctor, "checks_of", lambda config: {"broken": broken, "python": doctor.python})
    assert doctor.main(toy) == 1
    output = capsys.readouterr().out
    assert "ZeroDivisionError: oh" in output and "python" in output and "1 problem" in output
    monkeypatch.setattr(doctor, "checks_of", lambda config: {"python": doctor.python})
    assert doctor.main(toy) == 0


def test_every_backend_of_the_configuration_has_a_decoder():
    backend = next(f for f in dataclasses.fields(VideoConfig) if f.name == "backend")
    assert set(doctor.DECODERS) == set(rule_of(backend).words)
    assert Path(REPO / "scripts").is_dir(), "fixes name scripts/setup.sh"
