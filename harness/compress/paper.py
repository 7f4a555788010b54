"""AdaReTaKe as the paper's equations say."""

from __future__ import annotations

from harness.compress.layers import even, pooled
from harness.compress.method import Method, MethodOptions, checked_quirks
from harness.compress.temporal import by_distance, by_length
from harness.errors import UserError


def build(options: MethodOptions, family: str) -> Method:
    """The method with `temporal` (eq. 8, 9) and `layers` (eq. 11-16) allocation on or off."""
    checked_quirks(options, {})
    if options.reforge:
        raise UserError(
            "method.reforge=true does not exist in semantics paper, where kept tokens keep their ids: "
            "set method.reforge=false, or method.semantics=release_2025"
        )
    return Method(
        name=options.name,
        semantics="paper",
        positions=options.positions or "float",
        chunk_frames=options.chunk_frames,
        max_guide_length=options.max_guide_length,
        temporal=by_distance if options.temporal else by_length,
        layers=pooled if options.layers else even,
    )
