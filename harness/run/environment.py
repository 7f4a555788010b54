"""What a run runs on: library versions and the state of the code."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from harness.places import ROOT

if TYPE_CHECKING:
    import torch

LIBRARIES = (
    "torch", "transformers", "tokenizers", "accelerate", "lmms-eval", "decord", "av", "torchcodec", "flash-attn",
    "numpy",
)  # fmt: skip
"""Those whose version can change an answer, or explain a difference."""


@lru_cache
def versions() -> dict[str, str]:
    """Python and the installed ones of `LIBRARIES`."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device) -> str:
    """What a device is, whichever of its kind: `cpu`, or `cuda` and the like with the accelerator's name."""
    import torch

    backend: Any = getattr(torch, device.type, None)
    named = device.type != "cpu" and hasattr(backend, "get_device_name")
    return f"{device.type} ({backend.get_device_name(device)})" if named else device.type


def instruction_set() -> str | None:
    """Which vector instructions torch uses on this CPU, such as `AVX2`: the last bits of a sum depend on it. None while
    torch is not loaded.
    """
    torch = sys.modules.get("torch")
    return None if torch is None else str(torch.backends.cpu.get_cpu_capability())


@lru_cache
def git_state() -> dict[str, Any]:
    """{"commit": hash, "dirty": whether tracked files differ from it}; both None outside a git checkout."""
    commit = _git("rev-parse", "HEAD") if (ROOT / ".git").exists() else None  # a folder above may be another's
    changes = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
