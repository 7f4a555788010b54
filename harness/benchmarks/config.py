"""Settings of a task. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from harness.setting import setting


@dataclass
class TaskConfig:
    """A benchmark under one protocol: prompts, split, subset, and what the releases set for it.

    ``data`` is the benchmark's folder below ``tasks/``; ``reforge`` and ``max_guide_length`` are for methods that have
    these options and leave them null. ``replicate`` repeats the benchmark with what is random in a reproduction drawn
    anew: the order of the options, and the seed of a method that has one; 0 is the published order.
    """

    name: str = setting(name=True)
    data: str = setting(name=True, runtime=True)
    split: str = setting(name=True)
    protocol: str = setting(name=True)
    subset: str | None = setting(None, name=True)
    max_new_tokens: int = setting(128, least=1, most=100_000)
    replicate: int = setting(0, least=0, most=10_000, neutral=0)
    reforge: bool = setting(False, runtime=True)
    max_guide_length: int | None = setting(None, least=1, most=1_000_000, runtime=True)
