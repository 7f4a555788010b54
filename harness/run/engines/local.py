"""Worker processes on this machine: one per visible accelerator, or `engine.cpu_workers` without any.

A single worker runs in the process of the command itself; with `engine.workers=1` it gets its own, so that a video that
crashes it (a fault in a decoder, no host memory) is recorded and passed over as with several.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
import tempfile

from harness.errors import UserError
from harness.places import INSTALLED, ROOT
from harness.run.engines import Handle
from harness.run.work import Order
from harness.run.worker import worker_log
from harness.settings.groups import EngineConfig
from harness.settings.weights import has_accelerator


class Engine:
    """See `harness.run.engines.Engine`."""

    def __init__(self, config: EngineConfig, device: str = "auto") -> None:
        self._visible, self._accelerators = visible_accelerators(device)
        self._per_worker = max(1, config.gpus_per_worker)
        room = len(self._accelerators) // self._per_worker
        if self._accelerators and not room:
            raise UserError(
                f"engine.gpus_per_worker={self._per_worker} but {len(self._accelerators)} accelerators are visible"
            )
        self.workers = config.workers or room or config.cpu_workers
        if self._accelerators and self.workers > room:
            raise UserError(
                f"engine.workers={self.workers} x engine.gpus_per_worker={self._per_worker} needs more than the "
                f"{len(self._accelerators)} visible accelerators; lower engine.workers to {room}, or leave it null"
            )
        self.in_place = self.workers == 1 and config.workers is None  # engine.workers=1 asks for a supervised process
        self._threads = config.threads or max(1, (os.cpu_count() or 1) // self.workers)

    def start(self, order: Order, index: int, attempt: int, slot: int) -> Handle:
        """See `harness.run.engines.Engine`."""
        environment = dict(os.environ)
        if not INSTALLED:
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
        environment.setdefault("OMP_NUM_THREADS", str(self._threads))
        if self._accelerators:
            own = self._accelerators[slot * self._per_worker : (slot + 1) * self._per_worker]
            environment[self._visible] = ",".join(own)
        command = [sys.executable, "-m", "harness.run.worker"]
        with tempfile.TemporaryFile(dir=order.logs) as share, open(worker_log(order.logs, index), "ab") as output:
            pickle.dump((os.getpid(), order, index, attempt), share)
            share.seek(0)
            process = subprocess.Popen(command, env=environment, stdin=share, stdout=output, stderr=output)
        return Handle(process.poll, process.terminate, lambda: _kill(process))

    def close(self) -> None:
        """Nothing is held."""


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def visible_accelerators(device: str = "auto") -> tuple[str, list[str]]:
    """The environment variable that hands a process its accelerators, and what it may name here.

    That is its own entries where it is set, else 0, 1, ... for each device; nothing for `model.device=cpu`.
    """
    npu = not device.startswith("cuda") and importlib.util.find_spec("torch_npu") is not None
    variable = "ASCEND_RT_VISIBLE_DEVICES" if npu else "CUDA_VISIBLE_DEVICES"
    if device == "cpu":
        return variable, []
    given = os.environ.get(variable)
    if given is not None:
        return variable, [word for word in given.split(",") if word.strip() not in ("", "-1")]
    if device == "auto" and not has_accelerator():
        return variable, []
    import torch

    if npu:
        import torch_npu  # noqa: F401  registers torch.npu
    count = getattr(torch, "npu" if npu else "cuda").device_count()
    return variable, [str(i) for i in range(count)]
