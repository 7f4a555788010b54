"""Settings of a run; nothing here can change an answer. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from harness.setting import setting


@dataclass
class EngineConfig:
    """What starts the workers. ``workers`` null means one per visible accelerator, or ``cpu_workers`` without any."""

    name: str = setting("local", name=True)
    workers: int | None = setting(None, least=1, most=10_000)
    cpu_workers: int = setting(1, least=1, most=10_000)
    threads: int | None = setting(None, least=1, most=10_000)
    partition: str | None = None
    gpus_per_worker: int = setting(1, least=0, most=1024)
    cpus_per_worker: int = setting(8, least=1, most=10_000)
    memory_gb: int = setting(64, least=1, most=1_000_000)
    timeout_min: int = setting(1440, least=1, most=1_000_000)
    cluster: str | None = None
    address: str | None = None


@dataclass
class FitConfig:
    """What a method is fitted on: a file of videos and questions, or on the toy profile so many toy videos."""

    samples: str | None = None
    toy_videos: int = setting(16, least=1, most=100_000)


@dataclass
class RunConfig:
    """How a run is carried out; ``feature_dir_gb`` null sets no limit."""

    retry: str = setting("none", words=("none", "failed"))
    sharing: bool = True
    prefetch: int = setting(2, least=0, most=1024)
    prefetch_gb: float = setting(2.0, above=0, most=1e6)
    feature_memory_gb: float = setting(16.0, above=0, most=1e6)
    feature_dir: str | None = None
    feature_dir_gb: float | None = setting(100.0, above=0, most=1e9)
    max_consecutive_failures: int = setting(5, least=1, most=1_000_000_000)
