"""The settings that every verb takes, one schema per group of the configuration. Standard library only.

A field declares everything about its setting once: default, allowed values, what it is for, whether it can change an
answer, the axis that stands for it, and its name in tables (see `harness.settings.rules.setting`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from harness.settings.rules import MatrixConfig, setting

T = TypeVar("T")
PUBLISHED_READER = "decord"
"""The reader of the published runs. It has no package for some machines, Apple's processors among them."""
DEFAULT_READER = PUBLISHED_READER if find_spec("decord") else "pyav"
"""The reader where none is asked for; each cell records its own, so answers of two readers do not mix."""


@dataclass
class ModelConfig:
    """A model: which adapter loads which weights, and how.

    ``dtype`` and ``attention`` may be ``auto``: bfloat16 and the fastest backend on an accelerator, float32 and SDPA on
    a CPU. ``numerics=own`` is the backend of ``attention``, which does not enter a cell's identity.
    """

    name: str = setting(name=True, label="model", help="name in ids and tables")
    adapter: str = setting(help="dotted path of the class that loads and runs the weights")
    path: str = setting(runtime=True, help="folder of the weights, or their hub id in the local hub cache")
    fetch: str | None = setting(
        None, runtime=True, help="command that gets the weights, with {hf}, {python} and {folder}"
    )
    dtype: str = setting("auto", words=("auto", "float32", "bfloat16", "float16"), help="number format")
    attention: str = setting(
        "auto", words=("auto", "eager", "sdpa", "flash_attention_2"), runtime=True, help="attention backend"
    )
    numerics: str = setting(
        "own", words=("own", "eager", "sdpa", "flash_attention_2"), neutral="own",
        help="attention backend as a cell of its own: a replicate that shows the effect of rounding",
    )  # fmt: skip
    device: str = setting("auto", runtime=True, help="torch device")
    device_map: str | None = setting(None, runtime=True, help="how to spread one model over devices: auto, balanced")
    yarn_factor: float = setting(1.0, least=1, most=64, help="YaRN factor of the rotary embedding; the releases use 4")
    tokens_per_frame: int | None = setting(
        None, least=1, most=65536, runtime=True, help="for plans; null: the picture's size decides"
    )
    pixels_per_token: int = setting(28, least=1, most=1024, runtime=True, help="side of a token's patch, for plans")
    features_per_token: int = setting(
        1, least=1, most=16, runtime=True, help="1, and 1 for each further layer that takes features, for plans"
    )
    layers: int | None = setting(None, least=1, runtime=True, help="layers of the language model of this name")
    hidden_size: int | None = setting(None, least=1, runtime=True, help="its hidden size")
    vocabulary: int | None = setting(None, least=1, runtime=True, help="its vocabulary")


@dataclass
class VideoConfig:
    """Which frames a model sees, and how they are decoded. ``fps`` and ``max_frames`` cap each other."""

    fps: float = setting(2.0, above=0, most=240, axis="fps", help="frames sampled per second")
    max_frames: int = setting(least=2, most=100_000, axis="frames", help="most frames of one video")
    even: bool = setting(True, help="whether the number of frames is made even")
    grid_fps: float = setting(25.0, above=0, most=1000, help="rate of the time grid that frames are chosen on")
    long_side: int | None = setting(448, least=28, most=8192, help="pixels of a frame's long side; null: unscaled")
    resample: str = setting("nearest", words=("nearest",), help="interpolation of scaling")
    sampler: str = setting(
        "release", words=("release", "stock"), neutral="release",
        help="sampling and scaling of the release, or lmms-eval's stock one (min_pixels, max_pixels)",
    )  # fmt: skip
    min_pixels: int | None = setting(None, least=784, most=100_000_000, neutral=None, help="of the stock sampler")
    max_pixels: int | None = setting(None, least=784, most=100_000_000, neutral=None, help="of the stock sampler")
    backend: str = setting(
        DEFAULT_READER, words=("decord", "pyav", "torchcodec"), label="decoder", help="library that decodes videos"
    )
    window: int = setting(128, least=1, most=100_000, runtime=True, help="frames decoded and encoded at a time")
    timeout_s: float = setting(1800.0, above=0, most=1e6, runtime=True, help="longest time to decode one video")


@dataclass
class ContextConfig:
    """The budget of the KV cache."""

    tokens: int | None = setting(
        16000, least=1, most=100_000_000, axis="context",
        help="most tokens of the prompt in the KV cache, averaged over layers; null keeps everything",
    )  # fmt: skip


@dataclass
class TaskConfig:
    """A benchmark under one protocol: prompts, split, subset, and what the releases set for it.

    ``replicate`` repeats the benchmark with a new order of options, and a new seed for a method that has one; 0 is the
    published order. ``reforge`` and ``max_guide_length`` fill the options of these names that a method leaves null.
    """

    name: str = setting(name=True, label="task", help="name in ids and tables")
    data: str = setting(name=True, help="folder of the benchmark below tasks/")
    split: str = setting(name=True, help="split of the benchmark")
    protocol: str = setting(name=True, help="prompt and parser")
    subset: str | None = setting(None, name=True, axis="subset", help="part of the questions, such as mini")
    max_new_tokens: int = setting(128, least=1, most=100_000, help="longest answer")
    min_new_tokens: int = setting(0, least=0, most=100_000, neutral=0, help="shortest answer; it does not end before")
    repetition_penalty: float | None = setting(
        None, above=0, most=10, neutral=None, help="of tokens that were seen; null: that of the checkpoint"
    )
    replicate: int = setting(
        0, least=0, most=10_000, neutral=0, axis="replicate", help="0: published order; others: options reordered"
    )
    reforge: bool = setting(False, runtime=True, help="position reforge of the release for this benchmark")
    max_guide_length: int | None = setting(
        None, least=1, most=1_000_000, runtime=True, help="most question tokens that guide the compression"
    )


def once_per_task(read: Callable[[TaskConfig], T]) -> Callable[[TaskConfig], T]:
    """`read` that runs once for equal tasks: a long annotation takes a while."""
    known = cache(lambda *values: read(TaskConfig(*values)))
    return lambda task: known(*astuple(task))


@dataclass
class DataConfig:
    """Where the benchmarks are."""

    root: str = setting(help="folder of the benchmarks' annotations and videos")
    source: str | None = setting(None, help="folder or repository that prepare takes them from; null: the hub")
    mirror: str | None = setting(None, help="address of another hub")
    workers: int = setting(4, least=1, most=1024, help="files fetched or checked at a time")
    quick: bool = setting(False, help="verify decodes three frames of each video, not all that a run takes")


@dataclass
class EngineConfig:
    """What starts the workers."""

    name: str = setting("local", name=True, help="a file of conf/engine/")
    workers: int | None = setting(
        None, least=1, most=10_000, help="processes; null: one per visible accelerator, or cpu_workers without any"
    )
    cpu_workers: int = setting(1, least=1, most=10_000, help="processes on a machine without accelerator")
    threads: int | None = setting(None, least=1, most=10_000, help="CPU threads of a process; null: torch decides")
    partition: str | None = setting(None, help="SLURM partition")
    gpus_per_worker: int = setting(1, least=0, most=1024, help="accelerators of a process")
    cpus_per_worker: int = setting(8, least=1, most=10_000, help="CPU cores of a process, on a cluster")
    memory_gb: int = setting(64, least=1, most=1_000_000, help="memory of a process, on a cluster")
    timeout_min: int = setting(1440, least=1, most=1_000_000, help="longest time of a job, on a cluster")
    cluster: str | None = setting(None, help="submitit cluster; null: SLURM where it is there")
    address: str | None = setting(None, help="address of a Ray cluster")


@dataclass
class RunConfig:
    """How a run is carried out. Nothing here can change an answer."""

    retry: str = setting("none", words=("none", "failed"), help="failed: ask failed questions again")
    sharing: bool = setting(True, help="encode a video once for all cells that see the same frames")
    prefetch: int = setting(2, least=0, most=1024, help="videos decoded ahead")
    prefetch_gb: float = setting(2.0, above=0, most=1e6, help="most memory of decoded frames")
    feature_memory_gb: float = setting(16.0, above=0, most=1e6, help="most memory of a video's features")
    feature_dir: str | None = setting(None, help="folder where features of videos are kept for later runs")
    feature_dir_gb: float | None = setting(100.0, above=0, most=1e9, help="its largest size; null: no limit")
    max_consecutive_failures: int = setting(
        5, least=1, most=1_000_000_000, help="videos that fail in a row before a run stops"
    )


@dataclass
class ReportConfig:
    """How scores are judged and where the report goes. Nothing here can change an answer.

    Margins are in points (percent accuracy). A published value is ``reproduced`` when a rerun of it would lie within
    ``margin`` of ours with ``confidence``; a claim of no effect holds when the effect is within ``neutral_margin``.
    """

    margin: float = setting(1.0, least=0, most=100, help="points within which a published number is reproduced")
    flip_rate: float | None = setting(
        None, above=0, most=1,
        help="share of answers that change between two runs; null: measured on replicates, else 0.05",
    )  # fmt: skip
    neutral_margin: float = setting(1.0, least=0, most=100, help="points within which an effect counts as none")
    confidence: float = setting(0.95, above=0, below=1, help="level of intervals and verdicts")
    power: float = setting(0.8, above=0, below=1, help="power of the smallest difference that can be shown")
    cells: list[str] = setting([], help="cells to show: ids, digests, patterns or [settings]; empty: the matrix")
    output: str | None = setting(None, help="folder of the report; null: report/ in the results folder")
    expected: str = setting("results/expected", help="folder of the published tables")
    baselines: str = setting("results/baselines", help="folder of the baselines of check")
    html: bool = setting(True, help="whether to write report.html and figures")
    cost: str = setting(
        "all", words=("all", "slots", "gflop", "seconds", "memory"),
        help="cost in the figures; seconds and memory only of cells answered on one machine",
    )  # fmt: skip
    explorer: bool = setting(True, help="whether to write the pages of every answer")

    def folder(self, results: str) -> Path:
        """Where the report and the gate write."""
        return Path(self.output) if self.output else Path(results) / "report"


@dataclass
class Config:
    """The settings that every verb takes.

    ``words`` are those of the command line, as they were written, without those of the verb's own section.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    method: Any = field(default_factory=dict)  # a `harness.compress.method.Method`; open while Hydra composes
    video: VideoConfig = field(default_factory=VideoConfig)
    context: ContextConfig = field(default_factory=ContextConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    matrix: MatrixConfig = field(default_factory=MatrixConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    profile: str = setting(name=True, help="a file of conf/profile/")
    results: str = setting("results", help="folder of answers and reports")
    words: list[str] = field(default_factory=list)


OF_ALL = ("profile", "results")
"""Settings that stand in no group."""
SCHEMAS: dict[str, type[Any] | None] = {
    group: None if group == "method" else schema
    for group, schema in get_type_hints(Config).items()
    if group not in (*OF_ALL, "words")
}
"""Group -> its schema; a method types its own options."""
