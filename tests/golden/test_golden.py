"""Every golden case: integers and tokens exact, scores, logits and keys to 1e-4."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from run_case import load_case, run_case

VECTORS = Path(__file__).parent
CASES = sorted(path.stem for path in VECTORS.glob("*.safetensors"))
RAISE = (
    "answers differ from the reference; never regenerate it. Where answers of other cells change on purpose, raise "
    "harness.compress.CORE_VERSION or the method's version"
)
RECORDED = ("tokens", "logits", "scores.", "chunk_", "kept_", "final_", "mrope_position_ids")


def weights_of(name: str) -> Path:
    return VECTORS / ("weights_qwen2vl_2_4" if name.startswith("qwen2vl") else "weights_0_4")


def differences(case: dict, outputs: dict) -> list[str]:
    """Names of recorded tensors that the outputs miss, with by how much."""
    wrong = []
    for key, expected in case.items():
        if not (isinstance(expected, torch.Tensor) and key.startswith(RECORDED)):
            continue
        got = outputs.get(key)
        if got is None:
            wrong.append(f"{key}: missing")
        elif got.shape != expected.shape:
            wrong.append(f"{key}: shape {tuple(got.shape)} for {tuple(expected.shape)}")
        elif not expected.is_floating_point():
            if not torch.equal(got, expected):
                wrong.append(f"{key}: {got.tolist()} for {expected.tolist()}")
        elif not (got - expected).abs().max() <= 1e-4:
            wrong.append(f"{key}: off by {(got - expected).abs().max():.2e}")
    return wrong


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    case = load_case(VECTORS / f"{name}.safetensors")
    wrong = differences(case, run_case(case, weights_of(name)))
    assert wrong == [], f"{RAISE}: {wrong}"
