"""The embedded default: a tiny trained Qwen2.5-VL, synthetic videos, and four toy benchmarks.

Its checkpoint loads through `from_pretrained`, its videos are H.264 files, its annotations have the schemas of the real
data: what decodes, encodes, compresses and plans knows nothing of it. It is known by name only to what makes it where
it is missing (prepare, run, doctor), what asks it something where nothing was asked (demo), what names its profile
(cli, lmms, benchmarks), and what keeps its numbers apart from published ones (verify, report).
"""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
