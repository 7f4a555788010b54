"""Fixtures of this room: one tiny model, and a function that answers a sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tiny_models import Sample, decoder, tiny_model

from harness.compress.generate import generate
from harness.compress.method import build_method
from harness.compress.trace import Generation


@pytest.fixture(scope="session")
def model() -> Any:
    return tiny_model()


@pytest.fixture
def run(model: Any) -> Callable[..., Generation]:
    """Answer a sample: run(sample, context, backend=..., new=..., **method options)."""

    def answer(
        sample: Sample, context: int | None, *, on: Any = None, backend: str = "sdpa", new: int = 3, **options: Any
    ) -> Generation:
        method = options.pop("method", None)
        if method is None:
            name = options.pop("name", "adaretake")
            method = build_method(name, **{"chunk_frames": 4, **options}).for_family("qwen2_5_vl")
        return generate(
            decoder(on or model, backend),
            method,
            sample.prompt(method.position_rule, context),
            (sample.features,),
            max_new_tokens=new,
            record=True,
        )

    return answer
