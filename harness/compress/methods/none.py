"""No compression: the prompt is prefilled chunk by chunk and everything stays in the cache."""

from __future__ import annotations

from harness.compress.method import Method

METHOD = Method
