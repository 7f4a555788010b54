"""Readers of videos by which tests are repeated: decord where it is installed, which is not everywhere, and PyAV."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

needs_decord = pytest.mark.skipif(find_spec("decord") is None, reason="decord is not installed here")
READERS = [pytest.param("decord", marks=needs_decord), "pyav"]
