"""Composing the configuration of a command: once by Hydra, and from the same files for other options of its groups.

Hydra merges yaml and command line into typed schemas, so that a misspelt key or a wrong type is refused before anything
runs; what a value may be is declared with its field (see `harness.settings.rules`).
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.errors import UserError
from harness.places import HOME, ROOT, find
from harness.settings.cell import schema_of
from harness.settings.groups import OF_ALL, SCHEMAS, Config
from harness.settings.rules import Axes, ProfileAxes, Row, Rule, check_settings, rule_of
from harness.settings.verbs import Verb
from harness.settings.words import AXES, settle, spelled

REPO = ROOT
CONF = HOME / "conf"

DIGEST = re.compile(r"(?<![^\s,\[])\d[\da-f]{7}(?![^\s,\]])")
"""The digest of a cell that Hydra would read as a number: ``01234567``, ``1234e567``."""
NUMBERS = (int, float, int | None, float | None, list[int] | None, list[float] | None, list[int | None] | None, None)
"""Types of settings in which eight digits are a number."""

T = TypeVar("T")
A = TypeVar("A", bound=Axes)


OPEN: dict[str, tuple[str, type[Axes]]] = {
    "matrix.by_profile": ("profile", ProfileAxes), "matrix.by_model": ("model", Axes), "matrix.by_task": ("task", Axes),
}  # fmt: skip
"""Mappings from the options of a group to axes."""

OPEN_KEYS = ("method.", *(f"{name}." for name in OPEN))
"""Mappings that Hydra takes as they come, and that are checked afterwards: an override may add a key."""


def option_at(path: str) -> str | None:
    """The option of the group `model` whose weights a path names, if any."""
    for option in options("model"):
        own = str(_yaml(CONF / "model" / f"{option}.yaml").get("path"))
        if path == own or (find(path).exists() and find(path).resolve() == find(own).resolve()):
            return option
    return None


def options(group: str) -> list[str]:
    """Names that ``group=`` takes: the yaml files in its folder."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def compose_config(words: Sequence[str]) -> Config:
    """Compose ``conf/config.yaml`` with the words of a command line: plain dataclasses, every matrix axis settled.

    The words are Hydra overrides such as ``profile=published`` or ``matrix.frames=[256,1024]``. A text that Hydra's
    grammar does not take, such as a path with an umlaut, needs no quotes. Raises UserError that names the file or
    override, the key, and what is allowed.
    """
    return cast(Config, _composed(Config, words))


def compose_verb(verb: Verb, words: Sequence[str]) -> tuple[Config, Any]:
    """As `compose_config`, and the settings of the verb's own section; None for a verb without."""
    if verb.schema is None:
        return compose_config(words), None
    section: tuple[str, type[Any], Any] = (verb.section, verb.schema, field(default_factory=verb.schema))
    root = dataclasses.make_dataclass("Config", [section], bases=(Config,))
    config = _composed(root, words)
    own = getattr(config, verb.section)
    config.words = [word for word in words if not word.startswith(f"{verb.section}.")]
    return config, own


def _composed(root: type[Config], words: Sequence[str]) -> Any:
    schema = OmegaConf.structured(root)
    said = [_hydra_word(word, root) for word in _spelled(words)]
    ConfigStore.instance().store(name="schema", node=schema)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            sections = vars(OmegaConf.to_object(compose(config_name="config", overrides=said)))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explained(error, root)) from error
    return _finished(root, {name: _opened(name, section) for name, section in sections.items()}, words)


def _opened(name: str, section: Any) -> Any:
    """A section with its open parts as instances of their schemas."""
    if name == "method":
        return _typed(schema_of("method", section.get("name")), section, "method")
    if name != "matrix":
        return section
    axes = {
        name: _axes(getattr(section, name), place, group, schema)
        for place, (group, schema) in OPEN.items()
        for name in [place.removeprefix("matrix.")]
    }
    return dataclasses.replace(section, **axes, rows=_rows(section.rows, "matrix.rows"))


def _finished(root: type[Config], sections: Mapping[str, Any], words: Sequence[str]) -> Config:
    """The configuration of composed sections: values checked, axes settled."""
    config = root(**{**sections, "words": list(words)})
    check_settings(config)
    given = {word.partition("=")[0] for word in words}
    if "task.data" in given and "task.name" not in given:
        raise UserError(f"task.data={config.task.data} makes another task: give it a name of its own with task.name=")
    config.matrix = settle(config.matrix, config.profile, _spelled(words))
    return config


class Recomposed:
    """The configurations of one command line under other options of its groups, without composing again.

    A section of the configuration is merged from the files of the chosen options in the order of ``conf/config.yaml``,
    then from the words of the command line; each once. A test holds that the result is Hydra's.
    """

    def __init__(self, words: Sequence[str]) -> None:
        """Raises UserError for a word that is no setting."""
        self.words = list(words)
        parser = OverridesParser.create()
        said = [_hydra_word(word, Config).removeprefix("++") for word in _spelled(words)]
        parsed = [parser.parse_override(word) for word in said]
        self._chosen = {each.key_or_group: str(each.value()) for each in parsed if (CONF / each.key_or_group).is_dir()}
        self._values = [(each.key_or_group, each.value()) for each in parsed if each.key_or_group not in self._chosen]
        self._base = _yaml(CONF / "config.yaml")
        self._sections: dict[Any, Any] = {}

    def under(self, **choice: str) -> Config:
        """The configuration with these options of groups in place of its own, group -> option.

        What the words say of the group's single settings still holds. Raises UserError where there is no such option,
        or a setting of the command line does not exist in it.
        """
        files = self._files({**self._chosen, **choice})
        made: dict[str, Any] = {}
        for name in SCHEMAS:  # the model first
            made[name] = self._section(name, files, made)
        root = {key: value for file in files.values() for key, value in file.items() if key not in SCHEMAS}
        root |= {key: value for key, value in self._values if "." not in key}
        made |= {key: root[key] for key in OF_ALL if key in root}
        axes = {*choice, *(f"matrix.{group}" for group in choice)}
        words = _spelled(self.words)
        kept = [word for word in words if word.partition("=")[0] not in axes]
        return _finished(Config, made, [*kept, *(f"{group}={option}" for group, option in choice.items())])

    def _files(self, chosen: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Group -> what its option says, from the root of the configuration, in the order of merging.

        The last group is asked first: the option of a group may choose those of the groups before it.
        """
        asked = dict(chosen)
        files: dict[str, dict[str, Any]] = {}
        for entry in reversed(self._base["defaults"]):
            if entry == "_self_":
                files["_self_"] = {key: value for key, value in self._base.items() if key != "defaults"}
            elif entry != "schema":
                ((group, option),) = entry.items()
                files[group], choices = _option(CONF, group, str(asked.get(group, option)))
                asked = {**choices, **asked}
        return dict(reversed(files.items()))

    def _section(self, name: str, files: Mapping[str, dict[str, Any]], made: Mapping[str, Any]) -> Any:
        parts = [file[name] for file in files.values() if name in file]
        key = (name, made["model"].name if name == "method" else "", repr(parts))
        if key in self._sections:
            return copy.copy(self._sections[key])
        whole = OmegaConf.create({"model": dataclasses.asdict(made["model"])} if name == "method" else {})
        try:
            whole[name] = OmegaConf.merge(OmegaConf.structured(SCHEMAS[name] or {}), *parts)
            for path, value in self._values:
                if path.startswith(f"{name}."):
                    OmegaConf.update(whole, path, value, force_add=path.startswith(OPEN_KEYS))
            self._sections[key] = _opened(name, OmegaConf.to_object(whole[name]))
        except OmegaConfBaseException as error:
            raise UserError(_explained(error, Config)) from error
        return copy.copy(self._sections[key])


def _spelled(words: Sequence[str]) -> list[str]:
    """The words as settings, see `harness.settings.words.spelled`; a mapping of axes as one word for each of its axes.

    Raises:
        UserError: a mapping that holds no axis of a place.
    """
    contexts = {name: _option(CONF, "context", name)[0]["context"]["tokens"] for name in options("context")}
    found: list[str] = []
    for word in words:
        key, _, value = word.partition("=")
        place = next((place for place in OPEN if key == place or key.startswith(f"{place}.")), None)
        found += _leaves(key, value) if place and value.startswith("{") else [word]
    return spelled(found, contexts)


def _leaves(key: str, value: str) -> list[str]:
    """``matrix.by_task={mlvu:{fps:3}}`` as ``matrix.by_task.mlvu.fps=3``."""
    try:
        tree = OverridesParser.create().parse_override(f"{key}={value}").value()
    except HydraException:
        tree = None
    leaves: list[str] = []

    def walk(place: str, node: Any) -> None:
        if isinstance(node, dict) and node:
            for name, inner in node.items():
                walk(f"{place}.{name}", inner)
        elif place.count(".") == 3:
            leaves.append(f"{place}={json.dumps(node) if not isinstance(node, str) else node}")
        else:
            leaves.clear()
            raise UserError(
                f"configuration: {key}={value} must hold axes of places, such as matrix.by_task={{mlvu:{{fps:3}}}}; "
                "null leaves an axis out: matrix.by_task={mlvu:{fps:null}}"
            )

    walk(key, tree)
    return leaves


@cache
def _option(conf: Path, group: str, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What an option says, from the root of the configuration; and the options of other groups that it chooses."""
    file = conf / group / f"{name}.yaml"
    if not file.is_file():
        raise UserError(_no_option(group, name))
    content = _yaml(file)
    entries = [entry for listed in content.pop("defaults", []) for entry in listed.items()]
    choices = {key.removeprefix("override /").partition("@")[0]: option for key, option in entries}
    whole = file.read_text(encoding="utf-8").startswith("# @package _global_")
    return (content if whole else {group: content}), choices


def _yaml(file: Path) -> dict[str, Any]:
    loaded = OmegaConf.to_container(OmegaConf.load(file))
    return cast(dict[str, Any], loaded) if isinstance(loaded, dict) else {}


def _hydra_word(word: str, root: type[Config]) -> str:
    """An override in Hydra's grammar: open mappings may be added to, and a text that it cannot read is quoted.

    Raises UserError for no ``key=value``, and for a setting or an option that does not exist.
    """
    key, equals, value = word.partition("=")
    if word.startswith(("+", "~")):
        raise UserError(f"{word}: settings are neither added nor removed, only set; write key=value")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", key, re.ASCII) or key.split(".")[0] == "hydra":
        raise UserError(f"configuration: {word!r} is no setting; write key=value")
    if (CONF / key).is_dir() and value not in options(key):
        raise UserError(_no_option(key, value))
    kind = _check_key(key, root)
    if kind not in NUMBERS:
        if value.startswith("[") or DIGEST.fullmatch(value):
            value = DIGEST.sub(lambda digits: quoted(digits[0]), value)
        value = f"[{value}]" if kind == list[str] and value and not value.startswith("[") else value
        word = f"{key}={value}"
    try:
        readable = not OverridesParser.create().parse_override(word).is_sweep_override()
    except ValueError as error:
        raise UserError(f"configuration: {key}={value[:40]}... cannot be read: {len(value)} signs, too long") from error
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


def _check_key(key: str, root: type[Config]) -> Any:
    """The type of a setting, UserError where there is none; None below an open mapping, which is checked later."""
    schema: Any = root
    parent = ""
    for name in key.split("."):
        if not dataclasses.is_dataclass(schema):
            return None
        hints = get_type_hints(schema)
        if name not in hints or name == "words":
            raise UserError(f"configuration: {key} does not exist{_allowed(name, parent, schema)}")
        schema, parent = hints[name], f"{parent}.{name}".lstrip(".")
    return schema


def quoted(text: str) -> str:
    """A text in the grammar of Hydra's overrides."""
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return f"'{escaped}'"


def _axes(entries: dict[str, Any], place: str, group: str, schema: type[A]) -> dict[str, A]:
    if unknown := sorted(set(entries) - set(options(group))):
        raise UserError(f"{place}.{unknown[0]}: there is no {group} of that name; allowed: {', '.join(options(group))}")
    typed = {name: _typed(schema, _lists(axes or {}), f"{place}.{name}") for name, axes in entries.items()}
    for name, axes in typed.items():
        if isinstance(axes, ProfileAxes) and axes.rows is not None:
            axes.rows = _rows(axes.rows, f"{place}.{name}.rows")
    return typed


def _rows(entries: list[Any], place: str) -> list[Row]:
    return [_typed(Row, _lists(row), f"{place}[{i}]") for i, row in enumerate(entries)]


def _lists(values: Any) -> Any:
    """A single value of an axis as a list of one."""
    if not isinstance(values, dict):
        return values
    return {
        key: [value] if key in AXES and value is not None and not isinstance(value, list) else value
        for key, value in values.items()
    }


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


def _explained(error: BaseException, root: type[Config]) -> str:
    """An error of Hydra or OmegaConf as one message with the place, the value and what is allowed."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    text = "\n".join(dict.fromkeys(line for e in chain for line in str(e).strip().splitlines() if line.strip()))
    text = re.sub(r"\n?\s*(object_type|reference_type)=.*", "", text)
    text = re.sub(r"\n(You may|To append to your config|See https|Set the environment variable).*", "", text)
    key_error = re.search(r"Key '([^']+)' (?:is )?not in (?:struct|'(\w+)')", text)
    if key_error is None:
        return f"configuration: {text}{_wanted(text, root)}"
    schemas = {getattr(schema, "__name__", ""): schema for schema in get_type_hints(root).values()}
    return f"configuration: {text}{_allowed(key_error.group(1), '', schemas.get(key_error.group(2) or ''))}"


def _wanted(text: str, root: type[Config]) -> str:
    """What the setting of an error may be."""
    key = re.search(r"full_key: ([\w.]+)", text)
    schema: Any = root
    rule = Rule()
    path = key[1].split(".") if key else []
    if path[:1] == ["matrix"] and path[-1] in AXES:  # an axis may be what its setting may be
        path = AXES[path[-1]][0].split(".")
    for name in path:
        if not dataclasses.is_dataclass(schema) or name not in get_type_hints(schema):
            return ""
        rule = next(rule_of(field) for field in dataclasses.fields(schema) if field.name == name)
        schema = get_type_hints(schema)[name]
    a_list = f"a list: {key[1]}=[...]" if key and "is not a ListConfig" in text else ""
    wanted = "; ".join(filter(None, [a_list, rule.range]))
    return f"\nallowed: {wanted}" if wanted else ""


def _no_option(group: str, name: str) -> str:
    number = ", or a number of tokens (context=1000)" if group == "context" else ""
    return f"{group}={name} does not exist; allowed: {', '.join(options(group))} (files of conf/{group}/){number}"


def _allowed(key: str, parent: str, schema: Any) -> str:
    if not dataclasses.is_dataclass(schema):
        return ""
    names = [f.name for f in dataclasses.fields(schema) if f.name != "words"]
    close = difflib.get_close_matches(key, names, n=1)
    if issubclass(cast(type, schema), Config) and not close:
        inner = {group: of for group, of in get_type_hints(schema).items() if dataclasses.is_dataclass(of)}
        close = [f"{group}.{key}" for group, of in inner.items() if key in {f.name for f in dataclasses.fields(of)}]
    meant = f" (did you mean '{close[0]}'?)" if close else ""
    return f"\nallowed keys of {parent or 'the configuration'}: {', '.join(names)}{meant}"


def as_yaml(config: Any) -> str:
    """The configuration as YAML text, for logs and manifests."""
    plain = dataclasses.asdict(config) if dataclasses.is_dataclass(config) and not isinstance(config, type) else config
    return OmegaConf.to_yaml(DictConfig(plain))
