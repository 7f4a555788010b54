"""AdaReTaKe (arXiv 2503.12559): score by the question, budget by change over time, share by layer.

Three semantics, see the modules named after them: the equations, and what the two public releases do.
"""

from __future__ import annotations

from harness.compress import paper, release_2025, release_2026
from harness.compress.method import Method, MethodOptions

_SEMANTICS = {"paper": paper, "release_2025": release_2025, "release_2026": release_2026}


def build(options: MethodOptions, family: str) -> Method:
    return _SEMANTICS[options.semantics].build(options, family)
