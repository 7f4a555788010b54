"""Settings of compression: the method and the context. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.setting import setting


@dataclass
class MethodConfig:
    """A compression method and its hyper-parameters.

    ``reforge``, ``max_guide_length`` and ``positions`` may be null: then the task's value (the releases set the first
    two per benchmark) and the position rule of the semantics apply.
    """

    name: str = setting(name=True)
    semantics: str = setting("paper", words=("paper", "release_2025", "release_2026"))
    temporal: bool = True
    layers: bool = True
    chunk_frames: int = setting(32, least=1, most=65536)
    max_guide_length: int | None = setting(None, least=1, most=1_000_000)
    reforge: bool | None = None
    positions: str | None = setting(None, words=("float", "truncated", "v5"))
    quirks: dict[str, bool] = field(default_factory=dict)
    seed: int = 0


@dataclass
class ContextConfig:
    """The budget in tokens that the prompt may take in the KV cache, averaged over layers; null keeps everything."""

    tokens: int | None = setting(16000, least=1, most=100_000_000)
