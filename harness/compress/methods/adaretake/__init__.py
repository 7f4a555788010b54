"""AdaReTaKe (arXiv 2503.12559): score by the question, budget by change over time, share by layer.

Three semantics, each in the module named after it: the equations, and what the two public releases do.
"""

from __future__ import annotations

from harness.compress.methods.adaretake.paper import Paper
from harness.compress.methods.adaretake.release import AdaReTaKe
from harness.compress.methods.adaretake.release_2025 import Release2025
from harness.compress.methods.adaretake.release_2026 import Release2026

METHOD = AdaReTaKe

__all__ = ["METHOD", "AdaReTaKe", "Paper", "Release2025", "Release2026"]
