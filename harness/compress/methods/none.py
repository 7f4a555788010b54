"""No compression: the prompt is prefilled chunk by chunk and everything stays in the cache."""

from __future__ import annotations

from harness.compress.method import Method, MethodOptions, checked_quirks


def build(options: MethodOptions, family: str) -> Method:
    checked_quirks(options, {})
    return Method(
        name=options.name,
        semantics=options.semantics,
        compresses=False,
        positions=options.positions or ("truncated" if options.semantics == "release_2026" else "float"),
        chunk_frames=options.chunk_frames,
        uses_guide=False,
    )
