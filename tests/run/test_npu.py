"""What is said and done about NPUs, on a machine that has none."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from harness.errors import UserError
from harness.models.loading import choose_device
from harness.run import doctor, failures
from harness.run.engines import build_engine
from harness.settings.compose import REPO, compose_config
from harness.settings.groups import EngineConfig


@pytest.fixture
def installed(monkeypatch) -> None:
    """torch_npu as far as searching for it can tell."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found" if name == "torch_npu" else found(name))


def test_the_configuration_names_device_and_attention() -> None:
    for words in (["engine=npu"], ["engine=npu", "profile=published"]):
        config = compose_config(words)
        assert (config.engine.name, config.model.device, config.model.attention) == ("npu", "npu", "eager")


def test_the_engine_starts_on_npus_or_not_at_all(installed, monkeypatch) -> None:
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "4,5,6")
    assert build_engine(EngineConfig(name="npu"), "npu").workers == 3
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match="no NPU is visible"):
        build_engine(EngineConfig(name="npu"), "npu")
    with pytest.raises(UserError, match="model.device=cpu"):
        build_engine(EngineConfig(name="npu"), "cpu")


def test_without_the_package_the_engine_says_so() -> None:
    with pytest.raises(UserError, match="pip install torch_npu"):
        build_engine(EngineConfig(name="npu"), "npu")


def test_a_package_that_cannot_be_loaded_is_not_said_to_be_absent(installed, monkeypatch) -> None:
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "torch_npu":
                raise ImportError("libascend_hal.so: cannot open shared object file")

    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    for device in ("auto", "npu:0"):
        with pytest.raises(UserError, match=r"installed and cannot be loaded \(libascend_hal.so.*set_env.sh"):
            choose_device(device)


def test_doctor_does_not_say_that_an_untested_device_is_fine(monkeypatch) -> None:
    monkeypatch.setattr("harness.models.loading.choose_device", lambda device: SimpleNamespace(type="npu"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 8)
    (found,) = doctor.accelerator(compose_config(["engine=npu"]).model.device, "toy")
    assert found.state == doctor.NOTE and found.detail.startswith("npu, 8 visible; nothing was ever run on one")
    page = found.detail.split()[-1]
    assert (REPO / page).is_file() and "untested" in (REPO / page).read_text().splitlines()[0]


def test_memory_that_runs_out_on_an_npu_is_known_and_given_back(monkeypatch) -> None:
    assert failures.is_out_of_memory(
        RuntimeError("NPU out of memory. Tried to allocate 1.40 GiB (NPU 0; 32.00 GiB total)")
    )
    assert not failures.is_out_of_memory(RuntimeError("shapes differ"))
    assert not failures.is_out_of_memory(ValueError("NPU out of memory"))
    npu, emptied = ModuleType("npu"), []
    npu.is_available, npu.empty_cache = lambda: True, lambda: emptied.append(True)
    monkeypatch.setattr(torch, "npu", npu, raising=False)
    failures.release_memory()
    assert emptied == [True]
