"""Typed schema of every configuration group, and the one way to compose a configuration.

Each dataclass below is the schema of the yaml files in the folder of the same name under ``conf/``. Hydra merges
yaml and command line into these types, so that a misspelt key or a wrong type is refused before anything runs.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.errors import UserError
from harness.report.config import ReportConfig

REPO = Path(__file__).resolve().parents[1]
CONF = REPO / "conf"


@dataclass
class ModelConfig:
    """A model: which adapter loads which weights, and how.

    ``dtype`` and ``attention`` may be ``auto``: bfloat16 and the fastest backend on an accelerator, float32 and
    SDPA on a CPU. ``yarn_factor`` 1 leaves the rotary embedding alone; the releases use 4 (method.md 1.8).
    ``tokens_per_frame`` is for plans; null where the picture's size decides.
    """

    name: str = MISSING
    adapter: str = MISSING
    path: str = MISSING
    dtype: str = "auto"
    attention: str = "auto"
    device: str = "auto"
    device_map: str | None = None
    yarn_factor: float = 1.0
    tokens_per_frame: int | None = None


@dataclass
class MethodConfig:
    """A compression method and its hyper-parameters.

    ``reforge``, ``max_guide_length`` and ``positions`` may be null: then the task's value (the releases set the first
    two per benchmark) and the position rule of the semantics apply.
    """

    name: str = MISSING
    semantics: str = "paper"
    temporal: bool = True
    layers: bool = True
    chunk_frames: int = 32
    max_guide_length: int | None = None
    reforge: bool | None = None
    positions: str | None = None
    quirks: dict[str, bool] = field(default_factory=dict)
    seed: int = 0


@dataclass
class VideoConfig:
    """Which frames a model sees, and how they are decoded.

    ``fps`` and ``max_frames`` cap each other; ``window`` is the number of frames decoded and encoded at a time,
    ``timeout_s`` the longest that decoding one video may take.
    """

    fps: float = 2.0
    max_frames: int = MISSING
    even: bool = True
    grid_fps: float = 25.0
    long_side: int | None = 448
    resample: str = "nearest"
    backend: str = "decord"
    window: int = 128
    timeout_s: float = 1800.0


@dataclass
class ContextConfig:
    """The budget in tokens that the prompt may take in the KV cache, averaged over layers; null keeps everything."""

    tokens: int | None = 16000


@dataclass
class TaskConfig:
    """A benchmark under one protocol: prompts, split, subset, and what the releases set for it."""

    name: str = MISSING
    lmms_task: str = MISSING
    data: str = MISSING
    split: str = MISSING
    protocol: str = MISSING
    subset: str | None = None
    max_new_tokens: int = 128
    reforge: bool = False
    max_guide_length: int | None = None


@dataclass
class TaskAxes:
    """What a matrix sets for one task only; null leaves the matrix's own axis."""

    fps: list[float] | None = None
    frames: list[int] | None = None
    context: list[int | None] | None = None


@dataclass
class MatrixConfig:
    """The axes of a table; every combination is one cell. A null axis takes the value of the group itself."""

    name: str = MISSING
    model: list[str] | None = None
    method: list[str] | None = None
    task: list[str] | None = None
    frames: list[int] | None = None
    fps: list[float] | None = None
    context: list[int | None] | None = None
    variant: list[str] | None = None
    semantics: list[str] | None = None
    by_task: dict[str, TaskAxes] = field(default_factory=dict)


@dataclass
class EngineConfig:
    """What starts the workers. ``workers`` null means one per visible accelerator, or one on a CPU."""

    name: str = "local"
    workers: int | None = None
    threads: int | None = None
    partition: str | None = None
    gpus_per_worker: int = 1
    cpus_per_worker: int = 8
    memory_gb: int = 64
    timeout_min: int = 1440
    cluster: str | None = None
    address: str | None = None


@dataclass
class RunConfig:
    """How a run is carried out; nothing here can change an answer."""

    retry: str = "none"
    sharing: bool = True
    prefetch: int = 2
    prefetch_gb: float = 2.0
    feature_memory_gb: float = 16.0
    feature_dir: str | None = None
    feature_dir_gb: float = 100.0
    max_consecutive_failures: int = 5


@dataclass
class DataConfig:
    """Where the benchmarks lie, and where ``prepare`` takes them from (null: the hub)."""

    root: str = MISSING
    source: str | None = None
    mirror: str | None = None
    workers: int = 4


@dataclass
class CheckConfig:
    """The regression gate: compare with a stored baseline, or write a new one."""

    baseline: str | None = None
    update_baseline: bool = False
    exact: bool | None = None
    flip_rate: float | None = None


@dataclass
class DemoConfig:
    """One video file and one question for the ``demo`` verb."""

    video: str | None = None
    question: str | None = None
    options: list[str] = field(default_factory=list)
    output: str = "results/demo.png"


@dataclass
class Config:
    """Everything one command needs."""

    model: ModelConfig = field(default_factory=ModelConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    context: ContextConfig = field(default_factory=ContextConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    matrix: MatrixConfig = field(default_factory=MatrixConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    check: CheckConfig = field(default_factory=CheckConfig)
    demo: DemoConfig = field(default_factory=DemoConfig)
    profile: str = MISSING
    results: str = "results"
    overrides: list[str] = field(default_factory=list)


ALLOWED = {
    "method.semantics": ("paper", "release_2025", "release_2026"),
    "method.positions": ("float", "truncated", "v5"),
    "video.resample": ("nearest", "bilinear", "bicubic"),
    "video.backend": ("decord", "pyav", "torchcodec"),
    "model.attention": ("auto", "eager", "sdpa", "flash_attention_2"),
    "model.dtype": ("auto", "float32", "bfloat16", "float16"),
    "run.retry": ("none", "failed"),
}
"""Settings that take one of a few words."""

POSITIVE = (
    "video.fps", "video.max_frames", "video.grid_fps", "video.long_side", "video.window", "video.timeout_s",
    "context.tokens", "method.chunk_frames", "method.max_guide_length", "task.max_new_tokens", "model.yarn_factor",
    "engine.workers", "engine.threads", "run.feature_memory_gb", "run.prefetch_gb", "run.max_consecutive_failures",
    "data.workers",
)  # fmt: skip
"""Settings that must be above 0 where they are given."""

OPEN_KEYS = ("method.quirks.", "matrix.by_task.")
"""Mappings whose keys are data: an override may add one without Hydra's plus sign."""


def options(group: str) -> list[str]:
    """Names that ``group=`` takes: the yaml files in its folder."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def compose_config(overrides: list[str]) -> Config:
    """Compose ``conf/config.yaml`` with overrides of the command line.

    Args:
        overrides: Hydra overrides such as ``profile=published`` or ``matrix.frames=[256,1024]``.

    Returns:
        The composed configuration as plain dataclasses.

    Raises:
        UserError: naming the file or override, the key, and what is allowed.

    An axis of the matrix given on the command line wins over what the matrix sets for single tasks.
    """
    ConfigStore.instance().store(name="schema", node=Config)
    GlobalHydra.instance().clear()
    if added := [word for word in overrides if word.startswith(("+", "~"))]:
        raise UserError(f"{added[0]}: settings are neither added nor removed, only set; write key=value")
    hydra_overrides = ["++" + word if word.startswith(OPEN_KEYS) else word for word in overrides]
    try:
        with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            composed = compose(config_name="config", overrides=hydra_overrides)
        config: Config = OmegaConf.to_object(composed)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error
    _check_words(config)
    config.overrides = list(overrides)
    given = {word.split("=")[0] for word in overrides}
    for axes in config.matrix.by_task.values():
        for axis in dataclasses.fields(axes):
            if f"matrix.{axis.name}" in given:
                setattr(axes, axis.name, None)
    return config


def explain(error: Exception) -> str:
    """Turn an error of Hydra or OmegaConf into one message with the place, the value and what is allowed."""
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__
    text = "\n".join(dict.fromkeys(line for e in chain for line in str(e).strip().splitlines() if line.strip()))
    text = re.sub(r"\n?\s*(object_type|reference_type)=.*", "", text)
    text = re.sub(r"\n(You may|To append to your config|See https|Set the environment variable).*", "", text)
    hint = ""
    if match := re.search(r"Could not find '([a-z_]+)/([^']+)'", text):
        group, name = match.groups()
        return f"{group}={name} does not exist; allowed: {', '.join(options(group))} (one file each in conf/{group}/)"
    key_error = re.search(r"Key '([^']+)' (?:is )?not in (?:struct|'(\w+)')", text)
    full_key = re.search(r"full_key: (\S+)", text)
    if key_error:
        parent = full_key.group(1).rpartition(".")[0] if full_key else ""
        hint = _allowed_keys(key_error.group(1), parent, key_error.group(2))
    return f"configuration: {text}{hint}"


def _allowed_keys(key: str, parent: str, schema_name: str | None) -> str:
    schemas: dict[str, Any] = {"": Config, **{f.name: globals().get(f.type) for f in dataclasses.fields(Config)}}
    schema = globals().get(schema_name or "") or schemas.get(parent.split(".")[0])
    if not dataclasses.is_dataclass(schema):
        return ""
    names = [f.name for f in dataclasses.fields(schema)]
    close = difflib.get_close_matches(key, names, n=1)
    meant = f" (did you mean '{close[0]}'?)" if close else ""
    return f"\nallowed keys of {parent or schema.__name__}: {', '.join(names)}{meant}"


def _check_words(config: Config) -> None:
    for key, allowed in ALLOWED.items():
        group, name = key.split(".")
        value = getattr(getattr(config, group), name)
        if value is not None and value not in allowed:
            raise UserError(f"{key}={value} is not known; allowed: {', '.join(allowed)}")
    for key in POSITIVE:
        group, name = key.split(".")
        value = getattr(getattr(config, group), name)
        if value is not None and not value > 0:
            raise UserError(f"{key}={value} must be above 0")


def as_yaml(config: Any) -> str:
    """The configuration as YAML text, for logs and manifests."""
    node = OmegaConf.structured(config) if dataclasses.is_dataclass(config) else DictConfig(config)
    return OmegaConf.to_yaml(node)
