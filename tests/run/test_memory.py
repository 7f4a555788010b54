"""Peak memory is that of live tensors."""

from __future__ import annotations

import pytest
import torch

from harness.run.memory import resident_peak


def test_peak_follows_the_largest_live_tensor():
    peaks = []
    for megabytes in (8, 200, 8):
        with resident_peak() as peak:
            before = peak()
            torch.ones(megabytes * 2**18)
            peaks.append((peak() - before) / 2**20)
    assert peaks == pytest.approx([8, 200, 8], abs=20)
