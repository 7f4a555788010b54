"""Compositions that tests share: Hydra composes each choice of options once, and single values are set in a copy.

A composition takes 0.13 s of CPU, and tests ask for a thousand that differ in folders and numbers. Hydra composes again
where a value cannot be set, so its message is what a test sees. In tests/settings Hydra composes every time.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.places import HOME
from harness.settings import compose as composing

Compose = Callable[..., DictConfig]


def remembered(compose: Compose) -> Compose:
    """`hydra.compose` that remembers what it composed of the files in conf/."""
    parser = OverridesParser.create()
    bases: dict[Any, DictConfig] = {}

    def composed(config_name: str, overrides: Sequence[str]) -> DictConfig:
        if composing.CONF != HOME / "conf":
            return compose(config_name=config_name, overrides=list(overrides))
        chosen = [word for word in overrides if (composing.CONF / word.partition("=")[0]).is_dir()]
        schema = ConfigStore.instance().repo["schema.yaml"].node._metadata.object_type
        key = (*chosen, *((field.name, field.type) for field in dataclasses.fields(schema)))
        try:
            if key not in bases:
                bases[key] = compose(config_name=config_name, overrides=chosen)
            config = copy.deepcopy(bases[key])
            for word in overrides:
                if word not in chosen:
                    parsed = parser.parse_override(word)
                    OmegaConf.update(config, parsed.key_or_group, parsed.value(), force_add=parsed.is_force_add())
        except OmegaConfBaseException:
            return compose(config_name=config_name, overrides=list(overrides))
        return config

    return composed
