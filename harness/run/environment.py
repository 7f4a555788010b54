"""What a run runs on: library versions and the state of the code."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.places import ROOT

if TYPE_CHECKING:
    import torch


LIBRARIES = (
    "torch", "transformers", "tokenizers", "accelerate", "lmms-eval", "decord", "av", "torchcodec", "flash-attn",
    "numpy", "torchvision", "pillow", "qwen-vl-utils", "jinja2", "pysubs2",
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


_M_MMAP_THRESHOLD = -3  # glibc: the size from which memory is mapped, and given back, piece by piece


@contextlib.contextmanager
def resident_peak() -> Iterator[Callable[[], int]]:
    """Within the context, a function that returns the peak of resident memory since its start, in bytes.

    Large tensors are then mapped one by one, which is slower, or what the C library holds back of freed memory would
    count. Only on Linux; elsewhere the peak is that of the whole process.
    """
    if sys.platform != "linux":
        yield lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return
    library, status = ctypes.CDLL(None), Path("/proc/self/status")
    library.malloc_trim(0)
    library.mallopt(_M_MMAP_THRESHOLD, 2**20)
    Path("/proc/self/clear_refs").write_text("5")
    peak = re.compile(r"VmHWM:\s*(\d+) kB")
    try:
        yield lambda: int(peak.findall(status.read_text())[0]) * 1024
    finally:
        library.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)


@contextlib.contextmanager
def device_peak(devices: Iterable[torch.device]) -> Iterator[Callable[[], int | None]]:
    """Within the context, a function that returns the peak of allocated memory since its start, in bytes.

    Args:
        devices: whose memory is added up, each once; a CPU's is not, and without an accelerator the function returns
            None.
    """
    torch: Any = sys.modules.get("torch")
    backends: dict[torch.device, Any] = {device: getattr(torch, device.type, None) for device in devices}
    counted = [(backend, device) for device, backend in backends.items() if hasattr(backend, "max_memory_allocated")]
    for backend, device in counted:
        backend.reset_peak_memory_stats(device)
    yield lambda: sum(backend.max_memory_allocated(device) for backend, device in counted) if counted else None


def accelerator_memory() -> tuple[int, int] | None:
    """Bytes in use on the accelerators that this process sees, by whomever, and in all; None where it uses none."""
    cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return None
    free_and_all = [cuda.mem_get_info(device) for device in range(cuda.device_count())]
    whole = sum(total for _, total in free_and_all)
    return whole - sum(free for free, _ in free_and_all), whole
