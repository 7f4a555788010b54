"""Shared by the toy's tests: a small build of the benchmarks, and the committed checkpoint."""

from pathlib import Path

import pytest

from harness.toy.benchmarks import build


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    build(folder, scale=0.1)
    return folder
