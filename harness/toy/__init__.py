"""The embedded default: a tiny trained Qwen2.5-VL, synthetic videos, and four toy benchmarks.

Its checkpoint loads through `from_pretrained`, its videos are H.264 files, its annotations have the schemas of the real
data: what decodes, encodes, compresses and plans knows nothing of it. It is known by name only to what makes it where
it is missing (prepare, run, doctor), what asks it something where nothing was asked (demo), what names its profile
(cli, lmms, benchmarks), and what keeps its numbers apart from published ones (verify, report).
"""

import json
from pathlib import Path
from typing import Any

CHECKPOINT = Path(__file__).parent / "checkpoint"

MANIFEST = "manifest.json"


def read_build(root: Path) -> dict[str, Any] | None:
    """The manifest of a toy: `complete`, and of which `build` (seed, scale, generator); None where there is none."""
    try:
        found = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    build = found.get("build") if isinstance(found, dict) else None
    known = isinstance(build, dict) and build.keys() >= {"seed", "scale", "generator"}
    return found if known and isinstance(found.get("complete"), bool) else None
