"""The wheel as it is built from the source distribution, unpacked into an empty folder: no checkout, no second torch.

python -m pytest tests/test_wheel.py
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from harness.places import INSTALLED
from harness.settings.compose import REPO, options
from harness.verdicts.expected import load_tables

SOURCES = ("harness", "conf", "tasks", "results/expected", "results/baselines", "results/recipes")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")

PIP_WHEEL = ("-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index")

LOOK = """
import json, sys
from harness.benchmarks.benchmark import benchmark_names
from harness.settings.compose import options
from harness.places import INSTALLED, find
from harness.settings.weights import find_weights
from harness.gate.baseline import load_baselines
from harness.verdicts.expected import load_tables
print(json.dumps({
    "installed": INSTALLED,
    "groups": {group: options(group) for group in ("method", "model", "task", "matrix", "profile")},
    "tables": [table.id for table in load_tables("results/expected")],
    "benchmarks": benchmark_names(),
    "baselines": [baseline.name for baseline in load_baselines("results/baselines")],
    "weights": str(find_weights("harness/toy/checkpoint")),
    "recipe": str(find("results/recipes/fitprune-toy.json")),
}))
"""


class Unpacked:
    """A wheel unpacked into `site`, used from the empty folder `elsewhere`."""

    def __init__(self, folder: Path) -> None:
        tree, built = folder / "tree", folder / "built"
        self.site, self.elsewhere = folder / "site", folder / "elsewhere"
        self.elsewhere.mkdir()
        for name in SOURCES:
            shutil.copytree(REPO / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            shutil.copy(REPO / name, tree / name)
        built.mkdir()
        build(["-c", f"from setuptools.build_meta import build_sdist; build_sdist({str(built)!r})"], tree)
        (source,) = built.glob("adaretake_harness-*.tar.gz")
        build([*PIP_WHEEL, "-w", str(built), str(source)], folder)
        (wheel,) = built.glob("adaretake_harness-*-py3-none-any.whl")
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(self.site)

    def python(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key != "ADARETAKE_DATA"}
        environment |= {"PYTHONPATH": str(self.site), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run(
            [sys.executable, *words], cwd=self.elsewhere, env=environment, capture_output=True, text=True, timeout=120
        )


def build(words: list[str], folder: Path) -> None:
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Unpacked:
    if importlib.util.find_spec("pip") is None:
        pytest.skip("this environment has no pip to build a wheel with")
    return Unpacked(tmp_path_factory.mktemp("wheel"))


def test_a_checkout_is_no_installed_package() -> None:
    assert not INSTALLED


def test_what_comes_with_the_product_is_found(unpacked: Unpacked) -> None:
    done = unpacked.python("-c", LOOK)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["installed"]
    assert found["groups"] == {group: options(group) for group in found["groups"]}
    assert found["tables"] == [table.id for table in load_tables(REPO / "results/expected")]
    assert found["benchmarks"] == sorted(path.parent.name for path in (REPO / "tasks").glob("*/facts.yaml"))
    assert found["baselines"] == sorted(path.stem for path in (REPO / "results/baselines").glob("*.json"))
    assert all(found[name].startswith(str(unpacked.site)) for name in ("weights", "recipe"))


def test_no_file_of_the_package_is_left_out(unpacked: Unpacked) -> None:
    """Pages, scripts and weights are named in pyproject.toml; modules go by themselves."""

    def files(root: Path) -> set[str]:
        found = {path.relative_to(root).as_posix() for path in (root / "harness").rglob("*") if path.is_file()}
        return {name for name in found if "__pycache__" not in name and not name.startswith("harness/shipped/")}

    assert files(unpacked.site) == files(REPO)


def test_a_plan_outside_the_checkout(unpacked: Unpacked) -> None:
    """The toy is made in the current folder; nothing is written into the package."""
    before = sorted(unpacked.site.rglob("*.y*ml"))
    planned = unpacked.python("-m", "harness", "plan", "profile=published", "--config")
    assert planned.returncode == 0 and "model:\n  name: qwen2_5_vl_7b" in planned.stdout, planned.stderr
    doctor = unpacked.python("-m", "harness", "doctor", "data.root=nowhere")
    assert str(unpacked.site / "harness" / "toy" / "checkpoint") in doctor.stdout, doctor.stdout + doctor.stderr
    assert f"{unpacked.elsewhere}/results" in doctor.stdout
    listed = unpacked.python("-m", "harness", "plan", "task=nothing")
    assert listed.returncode == 2 and ", ".join(options("task")) in listed.stderr
    assert sorted(unpacked.site.rglob("*.y*ml")) == before


def test_the_command_and_the_models_of_lmms_eval_are_declared(unpacked: Unpacked) -> None:
    declared = next(unpacked.site.glob("*.dist-info/entry_points.txt")).read_text()
    assert "adaretake = harness.__main__:run" in declared and "adaretake = harness.lmms.registry:MANIFESTS" in declared
    called = unpacked.python("-c", "import sys; sys.argv[1:] = ['--help']; from harness.__main__ import run; run()")
    assert called.returncode == 0 and "doctor" in called.stdout


def test_every_supported_python_is_named_in_one_way() -> None:
    """pyproject.toml, the set-up and the doctor agree, and so do the data folders of setup.py and of this test."""
    from harness.run.doctor import PYTHONS

    (low, high) = PYTHONS
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={low[0]}.{low[1]},<{high[0]}.{high[1] + 1}"
    script = (REPO / "scripts/setup.sh").read_text()
    assert f"{low} <= sys.version_info[:2] <= {high}" in script
    assert f"no Python {low[0]}.{low[1]} to {high[0]}.{high[1]}" in script
    assert all(f'"{name}"' in (REPO / "setup.py").read_text() for name in SOURCES[1:])
