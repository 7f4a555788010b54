"""A cell: everything that can change an answer, and the identity computed from it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.plan.code import code_digest
from harness.plan.weights import architecture
from harness.setting import identity_fields

if TYPE_CHECKING:
    from harness.benchmarks.config import TaskConfig
    from harness.compress.method import Method
    from harness.models.config import ModelConfig
    from harness.video.config import VideoConfig

IDENTITY_VERSION = 2
"""Raise it when the meaning of an identity field changes: old answers are then never matched to new cells."""

GROUPS = ("model", "method", "video", "task")
"""Settings of which every field that is not declared `runtime` enters the identity. The weights enter by their digest,
not by their path; the task's `reforge` and `max_guide_length` through the method."""

VARIANTS = {"no_both": (False, False), "no_layer": (True, False), "no_temporal": (False, True), "full": (True, True)}
"""Ablation variant -> (temporal allocation, layer allocation); of methods that have both options."""

ANSWERING_CODE = ("harness/compress", "harness/models", "harness/video")
PROMPT_CODE = ("harness/benchmarks/prompts.py", "harness/benchmarks/subtitles.py")
"""Code whose digest is noted with a cell. Only the declared versions enter the identity, see `declared_versions`."""


@dataclass(frozen=True)
class Cell:
    """One score of a table: a model and a method under one budget on one benchmark.

    ``context`` is the budget in tokens (None: nothing is evicted); ``weights`` the digest of the model's files;
    ``versions`` what core, method, adapter, decoding and prompt declare of themselves. ``dtype`` is the resolved one.
    """

    model: ModelConfig
    method: Method
    video: VideoConfig
    context: int | None
    task: TaskConfig
    weights: str
    versions: Mapping[str, int | str]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that can change an answer, as plain data."""
        return {name: identity_fields(getattr(self, name)) for name in GROUPS} | {
            "identity_version": IDENTITY_VERSION,
            "context": self.context,
            "weights": self.weights,
            "versions": dict(self.versions),
        }

    @cached_property
    def digest(self) -> str:
        """Eight hexadecimal digits of the identity."""
        return _digest(self.identity)

    @property
    def variant(self) -> str:
        """Name of the ablation variant, or of the method where the variants do not apply."""
        pair = (getattr(self.method, "temporal", None), getattr(self.method, "layers", None))
        if self.method.name == "none" or None in pair:
            return self.method.name
        return next(name for name, switches in VARIANTS.items() if switches == pair)

    @cached_property
    def id(self) -> str:
        """Readable name and digest: the cell's folder below ``results/runs``."""
        semantics = getattr(self.method, "semantics", None)
        method = [self.method.name]
        if self.method.name != "none":
            method += [word for word in (semantics, self.variant) if word not in (None, self.method.name)]
        words = [
            self.task.name if not self.task.subset else f"{self.task.name}.{self.task.subset}",
            self.model.name,
            *method,
            f"f{self.video.max_frames}",
            f"fps{self.video.fps:g}",
            f"c{'all' if self.context is None else self.context}",
            *([f"r{self.task.replicate}"] if self.task.replicate else []),
            self.digest,
        ]
        return "-".join(words)

    @property
    def video_key(self) -> str:
        """Cells with the same key see the same features of the same videos: they are siblings."""
        encoding = [self.versions.get("adapter"), self.versions.get("decoding")]
        data = [self.task.data, self.task.split, self.task.subset]
        return _digest([self.identity["model"], self.identity["video"], self.weights, encoding, data])

    def record(self) -> dict[str, Any]:
        """The cell as plain data for its manifest: the identity, and what else is worth knowing of it.

        ``code`` and ``prompts`` are digests of the code that answers, ``architecture`` is what
        :func:`harness.plan.weights.architecture` finds.
        """
        return {
            "name": self.id,
            "variant": self.variant,
            "sees_question": self.method.sees_question,
            "reusable": self.method.reusable,
            **{name: dataclasses.asdict(getattr(self, name)) for name in GROUPS},
            "context": self.context,
            "weights": self.weights,
            "versions": dict(self.versions),
            "code": code_digest(*ANSWERING_CODE),
            "prompts": code_digest(f"tasks/{self.task.data}/functions.py", *PROMPT_CODE),
            "architecture": architecture(self.model),
        }


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def declared_versions(model: ModelConfig, method: Method, task: TaskConfig) -> dict[str, int | str]:
    """The versions that enter a cell's identity. Each is raised by hand where answers change on purpose, so that
    nothing else, be it a new method beside it or a refactoring, orphans a stored answer.

    Raises:
        UserError: there is no such adapter, method or benchmark.
    """
    import harness.compress
    import harness.video
    from harness.benchmarks.benchmark import benchmark
    from harness.models.families import find_adapter

    return {
        "core": harness.compress.CORE_VERSION,
        "method": method.version,
        "adapter": find_adapter(model.adapter).version,
        "decoding": harness.video.VERSION,
        "prompt": benchmark(task.data).version,
    }
