"""A cell: everything that can change an answer, and the identity computed from it."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from harness.config import REPO, MethodConfig, ModelConfig, TaskConfig, VideoConfig

IDENTITY_VERSION = 1
"""Raise it when the meaning of an identity field changes: old answers are then never matched to new cells."""

IDENTITY = {
    "model": {"name", "adapter", "dtype", "yarn_factor"},
    "method": {
        "name", "semantics", "temporal", "layers", "chunk_frames", "max_guide_length", "reforge", "positions",
        "quirks", "seed",
    },
    "video": {"fps", "max_frames", "even", "grid_fps", "long_side", "resample", "backend"},
    "task": {"name", "lmms_task", "split", "protocol", "subset", "max_new_tokens"},
}  # fmt: skip
"""Fields that can change an answer, per group. The weights enter by their digest, not by their path."""

RUNTIME = {
    "model": {"path", "device", "device_map", "attention", "tokens_per_frame"},
    "method": set(),
    "video": {"window", "timeout_s"},
    "task": {"data", "reforge", "max_guide_length"},
}
"""Fields that cannot: where things lie and how fast they go. The task's two reach a cell through its method."""

POSITION_RULES = {"paper": "float", "release_2025": "float", "release_2026": "truncated"}
"""M-RoPE rule of each semantics (method.md 3, 4, 5)."""

VARIANTS = {"no_both": (False, False), "no_layer": (True, False), "no_temporal": (False, True), "full": (True, True)}
"""Ablation variant -> (temporal allocation, layer allocation)."""


ANSWERING_CODE = ("harness/compress", "harness/models", "harness/video/sampling.py")
PROMPT_CODE = ("harness/benchmarks/prompts.py", "harness/benchmarks/subtitles.py")
"""Code whose change can change an answer; it enters the identity, so old answers are not taken for new ones."""


@dataclass(frozen=True)
class Cell:
    """One score of a table: a model and a method under one budget on one benchmark.

    ``context`` is the budget in tokens (None: nothing is evicted); ``weights`` the digest of the model's files;
    ``dtype`` the resolved one.
    """

    model: ModelConfig
    method: MethodConfig
    video: VideoConfig
    context: int | None
    task: TaskConfig
    weights: str

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that can change an answer, as plain data."""
        groups = {name: getattr(self, name) for name in IDENTITY}
        picked = {
            name: {field: getattr(config, field) for field in sorted(IDENTITY[name])} for name, config in groups.items()
        }
        return picked | {
            "identity_version": IDENTITY_VERSION,
            "context": self.context,
            "weights": self.weights,
            "code": code_digest(*ANSWERING_CODE),
            "prompts": code_digest(f"tasks/{self.task.data}/functions.py", *PROMPT_CODE),
        }

    @cached_property
    def digest(self) -> str:
        """Eight hexadecimal digits of the identity."""
        text = json.dumps(self.identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def variant(self) -> str:
        """Name of the ablation variant, or of the method where the variants do not apply."""
        if self.method.name == "none":
            return "none"
        pair = (self.method.temporal, self.method.layers)
        return next(name for name, switches in VARIANTS.items() if switches == pair)

    @cached_property
    def id(self) -> str:
        """Readable name and digest: the cell's folder below ``results/runs``."""
        method = self.method.name
        if method != "none":
            method = "-".join((method, self.method.semantics, self.variant))
        words = [
            self.task.name if not self.task.subset else f"{self.task.name}.{self.task.subset}",
            self.model.name,
            method,
            f"f{self.video.max_frames}",
            f"fps{self.video.fps:g}",
            f"c{'all' if self.context is None else self.context}",
            self.digest,
        ]
        return "-".join(words)

    @property
    def video_key(self) -> str:
        """Cells with the same key see the same features of the same videos: they are siblings."""
        shared = [self.identity["model"], self.identity["video"], self.weights, self.task.data, self.task.split]
        shared.append(self.task.subset)
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:8]

    def record(self) -> dict[str, Any]:
        """The cell as plain data for its manifest: identity and the runtime fields beside it."""
        return {
            "name": self.id,
            "variant": self.variant,
            "model": dataclasses.asdict(self.model),
            "method": dataclasses.asdict(self.method),
            "video": dataclasses.asdict(self.video),
            "context": self.context,
            "task": dataclasses.asdict(self.task),
            "weights": self.weights,
            "code": self.identity["code"],
            "prompts": self.identity["prompts"],
        }


@lru_cache
def code_digest(*places: str) -> str:
    """Digest of what Python code does: comments, docstrings and layout do not count.

    Args:
        places: files, or folders taken whole, below the repository root.
    """
    digest = hashlib.sha256()
    for place in (REPO / place for place in places):
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.relative_to(REPO).as_posix().encode())
            digest.update(ast.dump(_without_docstrings(ast.parse(path.read_text()))).encode())
    return digest.hexdigest()[:12]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    return tree


def resolve_method(method: MethodConfig, task: TaskConfig) -> MethodConfig:
    """Fill what a method leaves to its task and its semantics, and drop what cannot matter.

    An uncompressed cell ignores every compression setting, so all of them share one identity; the ``paper``
    semantics has no position reforge (method.md 2).
    """
    positions = method.positions or POSITION_RULES[method.semantics]
    if method.name == "none":
        return MethodConfig(name="none", positions=positions, reforge=False, chunk_frames=method.chunk_frames)
    reforge = task.reforge if method.reforge is None else method.reforge
    return dataclasses.replace(
        method,
        positions=positions,
        reforge=reforge and method.semantics != "paper",
        max_guide_length=method.max_guide_length if method.max_guide_length is not None else task.max_guide_length,
    )
