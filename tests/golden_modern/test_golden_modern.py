"""Every golden case of a published method: kept tokens and counts exact, scores to 1e-5."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from run_modern_case import METHODS, load_case, run_case

VECTORS = Path(__file__).parent
CASES = sorted(path.relative_to(VECTORS).with_suffix("") for path in VECTORS.glob("*/*.safetensors"))
INPUTS = {"features", "keys", "values", "score", "attention"}


@pytest.mark.parametrize("name", CASES, ids=str)
def test_case(name: Path) -> None:
    case = load_case(VECTORS / f"{name}.safetensors")
    outputs = run_case(name.parts[0], case)
    tensors = {key: value for key, value in case.items() if isinstance(value, torch.Tensor) and key not in INPUTS}
    by_noise = {key[16:] for key, value in tensors.items() if key.startswith("noise_invariant/") and not value}
    tensors = {key: value for key, value in tensors.items() if not key.startswith("noise_invariant/")}
    expected = {key: value for key, value in tensors.items() if key.partition("/")[2] not in by_noise}
    assert expected and set(expected) <= set(outputs)
    for key, value in expected.items():
        got = outputs[key]
        assert got.shape == value.shape and got.dtype == value.dtype, key
        if value.is_floating_point():
            assert torch.allclose(got, value, atol=1e-5), key
        else:
            assert torch.equal(got, value), key


def test_every_folder_is_run() -> None:
    assert {name.parts[0] for name in CASES} == set(METHODS)
