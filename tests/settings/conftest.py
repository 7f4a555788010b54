"""Here Hydra composes every time: how it does is what these tests are about."""

import hydra
import pytest


@pytest.fixture(autouse=True)
def composed_by_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.settings.compose.compose", hydra.compose)
