"""Fixtures of this room: one tiny model, and a function that answers a sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tiny_models import Sample, decoder, tiny_model

from harness.compress.generate import Generation, generate
from harness.compress.method import MethodOptions, build_method


@pytest.fixture(scope="session")
def model() -> Any:
    return tiny_model()


@pytest.fixture
def run(model: Any) -> Callable[..., Generation]:
    """Answer a sample: run(sample, context, backend=..., new=..., **method options)."""

    def answer(
        sample: Sample, context: int | None, *, on: Any = None, backend: str = "sdpa", new: int = 3, **options: Any
    ) -> Generation:
        method = build_method(MethodOptions(**{"chunk_frames": 4, **options}))
        return generate(
            decoder(on or model, backend),
            input_ids=sample.input_ids,
            positions=sample.positions(method.positions),
            features=sample.features,
            video=sample.video,
            tokens_per_grid=sample.tokens_per_grid,
            method=method,
            context=context,
            max_new_tokens=new,
            record=True,
        )

    return answer
