"""What starts workers. An engine is one file here with a class `Engine`, see `Engine` below and conf/engine/."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from harness.errors import UserError
from harness.run.work import Order
from harness.settings.groups import EngineConfig


@dataclass(frozen=True)
class Handle:
    """A started worker.

    Attributes:
        poll: None while it runs (or waits in a queue), else its exit status; anything but 0, 3 and 130 is a death.
        stop: ask it to end after what is being written; does not block.
        kill: end it now.
    """

    poll: Callable[[], int | None]
    stop: Callable[[], None]
    kill: Callable[[], None]


class Engine(Protocol):
    """Starts workers; it knows nothing of what they do."""

    workers: int  # how many run side by side
    in_place: bool  # one worker that needs no process of its own

    def start(self, order: Order, index: int, attempt: int, slot: int) -> Handle:
        """Start `harness.run.worker.work` for one share of an order.

        Args:
            order: what is to be done.
            index: which share.
            attempt: counts the starts of this share.
            slot: 0 to workers - 1, which accelerator to use; at most one worker runs in a slot.
        """

    def close(self) -> None:
        """Release what the engine itself holds."""


def build_engine(config: EngineConfig, device: str = "auto") -> Engine:
    """The engine of a configuration.

    Raises:
        UserError: there is no such engine, its package is not installed, or its settings make no sense.
    """
    known = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem != "__init__")
    if config.name not in known:
        raise UserError(f"engine.name={config.name} is not known; allowed: {', '.join(known)}")
    if config.workers is not None and config.workers < 1:
        raise UserError(f"engine.workers={config.workers} must be at least 1, or null for one per accelerator")
    return cast(Engine, importlib.import_module(f"harness.run.engines.{config.name}").Engine(config, device))
