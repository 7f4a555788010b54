"""What a run runs on, in words."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from harness.run.environment import device_name


def test_a_device_is_named_by_its_kind_and_its_own_name(monkeypatch):
    monkeypatch.setattr(torch, "xpu", SimpleNamespace(get_device_name=lambda device: f"Card {device.index}"))
    assert device_name(torch.device("xpu:1")) == "xpu (Card 1)"
    assert device_name(torch.device("cpu")) == "cpu"
