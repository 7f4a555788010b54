"""The one way to compose a configuration: every group's schema stands with its room, here they come together.

Hydra merges yaml and command line into these types, so that a misspelt key or a wrong type is refused before anything
runs; what a value may be is declared with its field (see `harness.setting`).
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.analysis.config import AnalyzeConfig
from harness.benchmarks.config import TaskConfig
from harness.bridge.config import BridgeConfig
from harness.compress.config import ContextConfig
from harness.errors import UserError
from harness.exchange.config import ExportConfig, ForeignConfig
from harness.explore.config import DemoConfig, ShowConfig
from harness.fetch.config import DataConfig
from harness.models.config import ModelConfig
from harness.places import HOME, ROOT
from harness.plan.config import Axes, MatrixConfig, ProfileAxes, Row, settle
from harness.report.config import CheckConfig, CompareConfig, ReportConfig
from harness.run.config import EngineConfig, FitConfig, RunConfig
from harness.setting import check_settings, setting
from harness.video.config import VideoConfig

REPO = ROOT
CONF = HOME / "conf"

if TYPE_CHECKING:
    from harness.compress.method import Method

T = TypeVar("T")
A = TypeVar("A", bound=Axes)

__all__ = [
    "CONF", "REPO", "CheckConfig", "CompareConfig", "Config", "ContextConfig", "DataConfig", "DemoConfig",
    "EngineConfig",
    "ExportConfig", "FitConfig", "ForeignConfig", "MatrixConfig", "ModelConfig", "ReportConfig", "RunConfig",
    "ShowConfig", "TaskConfig", "VideoConfig",
    "as_yaml", "compose_config", "explain", "options", "quoted",
]  # fmt: skip


@dataclass
class Config:
    """Everything one command needs."""

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
    check: CheckConfig = field(default_factory=CheckConfig)
    demo: DemoConfig = field(default_factory=DemoConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    foreign: ForeignConfig = field(default_factory=ForeignConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    analyze: AnalyzeConfig = field(default_factory=AnalyzeConfig)
    show: ShowConfig = field(default_factory=ShowConfig)
    compare: CompareConfig = field(default_factory=CompareConfig)
    bridge: BridgeConfig = field(default_factory=BridgeConfig)
    profile: str = setting(name=True)
    results: str = "results"
    overrides: list[str] = field(default_factory=list)


OPEN: dict[str, tuple[str, type[Axes]]] = {
    "matrix.by_profile": ("profile", ProfileAxes), "matrix.by_model": ("model", Axes), "matrix.by_task": ("task", Axes),
}  # fmt: skip
"""Mappings from the options of a group to axes."""

OPEN_KEYS = ("method.", *(f"{name}." for name in OPEN))
"""Mappings that Hydra takes as they come, and that are checked afterwards: an override may add a key."""


def options(group: str) -> list[str]:
    """Names that ``group=`` takes: the yaml files in its folder."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def method_schema(name: str) -> type[Method]:
    """The dataclass that types the options of a method: the method itself.

    Raises:
        UserError: there is no such method.
    """
    from harness.compress.method import method_class  # late: torch

    return method_class(name)


def compose_config(overrides: Sequence[str]) -> Config:
    """Compose ``conf/config.yaml`` with overrides of the command line.

    Args:
        overrides: Hydra overrides such as ``profile=published`` or ``matrix.frames=[256,1024]``. A text that Hydra's
            grammar does not take, such as a path with an umlaut, needs no quotes.

    Returns:
        The composed configuration as plain dataclasses, each axis of its matrix as the most specific place sets it.

    Raises:
        UserError: naming the file or override, the key, and what is allowed.
    """
    ConfigStore.instance().store(name="schema", node=Config)
    GlobalHydra.instance().clear()
    words = [_hydra_word(word) for word in overrides]
    try:
        with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            composed = compose(config_name="config", overrides=words)
        config = cast(Config, OmegaConf.to_object(composed))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error
    config.method = _typed(method_schema(str(config.method.get("name"))), config.method, "method")
    for place, (group, schema) in OPEN.items():
        _, name = place.split(".")
        setattr(config.matrix, name, _axes(getattr(config.matrix, name), place, group, schema))
    config.matrix.rows = _rows(config.matrix.rows, "matrix.rows")
    check_settings(config)
    config.overrides = list(overrides)
    config.matrix = settle(config.matrix, config.profile, overrides)
    return config


def with_method(config: Config, name: str) -> Config:
    """A composed configuration with another option of the group `method`, as composing it anew would make it.

    Raises:
        UserError: there is no such option, or a setting of the command line is none of its.
    """
    file = CONF / "method" / f"{name}.yaml"
    option = OmegaConf.load(file) if file.is_file() else None
    if not isinstance(option, DictConfig) or "defaults" in option:  # composing says why not, or knows what they are
        return compose_config(
            [*(word for word in config.overrides if word.split("=")[0] != "method"), f"method={name}"]
        )
    groups = {group: dataclasses.asdict(getattr(config, group)) for group in ("model", "video", "task")}
    whole = OmegaConf.create({**groups, "method": option})
    for word in config.overrides:
        if word.startswith("method."):
            found = OverridesParser.create().parse_override(_hydra_word(word).removeprefix("++"))
            OmegaConf.update(whole, str(found.key_or_group), found.value(), force_add=True)
    plain = cast(dict[str, Any], OmegaConf.to_container(whole, resolve=True))["method"]
    made = dataclasses.replace(config, method=_typed(method_schema(str(plain.get("name"))), plain, "method"))
    check_settings(made)
    return made


def _hydra_word(word: str) -> str:
    """An override in Hydra's grammar: open mappings may be added to, and a text that it cannot read is quoted.

    Raises:
        UserError: no ``key=value``.
    """
    key, equals, value = word.partition("=")
    if word.startswith(("+", "~")):
        raise UserError(f"{word}: settings are neither added nor removed, only set; write key=value")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", key, re.ASCII) or key.split(".")[0] == "hydra":
        raise UserError(f"configuration: {word!r} is no setting; write key=value")
    if (CONF / key).is_dir() and value not in options(key):
        raise UserError(_no_option(key, value))
    try:
        readable = not OverridesParser.create().parse_override(word).is_sweep_override()
    except HydraException:
        readable = False
    if not readable:
        if value.startswith(("[", "{", "'", '"')):
            raise UserError(
                f"configuration: {word} cannot be read; inside brackets put quotes around texts with other signs than "
                f"letters, digits and /-_.:%*@, and end every quote and bracket: {key}=['first','second']"
            )
        word = f"{key}={quoted(value)}"
    return "++" + word if key.startswith(OPEN_KEYS) else word


def quoted(text: str) -> str:
    """A text in the grammar of Hydra's overrides."""
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return f"'{escaped}'"


def _axes(entries: dict[str, Any], place: str, group: str, schema: type[A]) -> dict[str, A]:
    unknown = sorted(set(entries) - set(options(group)))
    if unknown:
        raise UserError(f"{place}.{unknown[0]}: there is no {group} of that name; allowed: {', '.join(options(group))}")
    found = {name: _typed(schema, axes or {}, f"{place}.{name}") for name, axes in entries.items()}
    for name, axes in found.items():
        if isinstance(axes, ProfileAxes) and axes.rows is not None:
            axes.rows = _rows(axes.rows, f"{place}.{name}.rows")
    return found


def _rows(entries: list[Any], place: str) -> list[Row]:
    return [_typed(Row, row, f"{place}[{i}]") for i, row in enumerate(entries)]


def _typed(schema: type[T], values: Any, place: str) -> T:
    """Values of an open mapping as an instance of their schema."""
    if not isinstance(values, dict):
        raise UserError(f"configuration: {place}={values} must hold keys and values{_allowed('', place, schema)}")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), values)
        return cast(T, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        key = error.full_key or ""
        if key and key.split(".")[0] not in {f.name for f in dataclasses.fields(cast(Any, schema))}:
            raise UserError(f"configuration: {place}.{key} does not exist{_allowed(key, place, schema)}") from error
        raise UserError(f"configuration: {place}.{key}: {str(error).splitlines()[0]}") from error


def explain(error: BaseException) -> str:
    """Turn an error of Hydra or OmegaConf into one message with the place, the value and what is allowed."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(cause)
        cause = cause.__cause__
    text = "\n".join(dict.fromkeys(line for e in chain for line in str(e).strip().splitlines() if line.strip()))
    text = re.sub(r"\n?\s*(object_type|reference_type)=.*", "", text)
    text = re.sub(r"\n(You may|To append to your config|See https|Set the environment variable).*", "", text)
    if match := re.search(r"Could not find '([a-z_]+)/([^']+)'", text):
        return _no_option(*match.groups())
    key_error = re.search(r"Key '([^']+)' (?:is )?not in (?:struct|'(\w+)')", text)
    if key_error is None:
        return f"configuration: {text}"
    full_key = re.search(r"full_key: (\S+)", text)
    parent = full_key.group(1).rpartition(".")[0] if full_key else ""
    groups = {"": Config, **get_type_hints(Config)}
    named = {getattr(schema, "__name__", ""): schema for schema in groups.values()}
    schema = named.get(key_error.group(2) or "") or groups.get(parent.split(".")[0])
    return f"configuration: {text}{_allowed(key_error.group(1), parent, schema)}"


def _no_option(group: str, name: str) -> str:
    return f"{group}={name} does not exist; allowed: {', '.join(options(group))} (one file each in conf/{group}/)"


def _allowed(key: str, parent: str, schema: Any) -> str:
    if not dataclasses.is_dataclass(schema):
        return ""
    names = [f.name for f in dataclasses.fields(schema) if f.name != "overrides"]
    close = difflib.get_close_matches(key, names, n=1)
    if schema is Config and not close:
        inner = {group: of for group, of in get_type_hints(Config).items() if dataclasses.is_dataclass(of)}
        close = [f"{group}.{key}" for group, of in inner.items() if key in {f.name for f in dataclasses.fields(of)}]
    meant = f" (did you mean '{close[0]}'?)" if close else ""
    return f"\nallowed keys of {parent or 'the configuration'}: {', '.join(names)}{meant}"


def as_yaml(config: Any) -> str:
    """The configuration as YAML text, for logs and manifests."""
    plain = dataclasses.asdict(config) if dataclasses.is_dataclass(config) and not isinstance(config, type) else config
    return OmegaConf.to_yaml(DictConfig(plain))
