"""Peak memory is that of live tensors."""

from __future__ import annotations

import pytest
import torch

from harness.run.environment import device_peak, resident_peak


def test_peak_follows_the_largest_live_tensor():
    peaks = []
    for megabytes in (8, 200, 8):
        with resident_peak() as peak:
            before = peak()
            torch.ones(megabytes * 2**18)
            peaks.append((peak() - before) / 2**20)
    assert peaks == pytest.approx([8, 200, 8], abs=20)


def test_peaks_of_accelerators_add_up(monkeypatch):
    class Backend:
        peaks = {torch.device("xpu:0"): 7, torch.device("xpu:1"): 5}

        @classmethod
        def reset_peak_memory_stats(cls, device):
            cls.peaks[device] -= 2

        @classmethod
        def max_memory_allocated(cls, device):
            return cls.peaks[device]

    monkeypatch.setattr(torch, "xpu", Backend)
    with device_peak([torch.device("xpu:0"), torch.device("cpu"), torch.device("xpu:1")]) as peak:
        assert peak() == 5 + 3


def test_a_cpu_has_no_peak_of_its_own():
    with device_peak([torch.device("cpu"), torch.device("meta")]) as peak:
        assert peak() is None
