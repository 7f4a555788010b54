"""Settings of the data. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from harness.setting import setting


@dataclass
class DataConfig:
    """Where the benchmarks lie, and where ``prepare`` takes them from (null: the hub)."""

    root: str = setting()
    source: str | None = None
    mirror: str | None = None
    workers: int = setting(4, least=1, most=1024)
