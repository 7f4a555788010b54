"""Settings of compression beside those of its method, which types its own. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from harness.setting import setting


@dataclass
class ContextConfig:
    """The budget in tokens that the prompt may take in the KV cache, averaged over layers; null keeps everything."""

    tokens: int | None = setting(16000, least=1, most=100_000_000)
