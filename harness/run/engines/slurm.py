"""One Slurm job per worker, through submitit; `engine.cluster=local` runs the same jobs on this machine."""

from __future__ import annotations

from functools import partial
from typing import Any

from harness.advice import install
from harness.errors import UserError
from harness.run.engines import Handle
from harness.run.work import Order
from harness.run.worker import work
from harness.settings.groups import EngineConfig


class Engine:
    """See `harness.run.engines.Engine`."""

    in_place = False

    def __init__(self, config: EngineConfig, device: str = "auto") -> None:
        try:
            import submitit
        except ImportError as error:
            raise UserError(
                f"engine=slurm needs the package submitit, which is not installed: {install('submitit')}"
            ) from error
        self._submitit, self._config = submitit, config
        self.workers = config.workers or 1

    def start(self, order: Order, index: int, attempt: int, slot: int) -> Handle:
        """See `harness.run.engines.Engine`."""
        config = self._config
        try:
            executor = self._submitit.AutoExecutor(folder=str(order.logs / "slurm"), cluster=config.cluster)
        except RuntimeError as error:
            raise UserError(
                f"engine=slurm: {error}. Run it where sbatch is, or use engine.cluster=local, or engine=local"
            ) from error
        executor.update_parameters(
            name=f"adaretake-{index}",
            timeout_min=config.timeout_min,
            cpus_per_task=config.threads or config.cpus_per_worker,
            gpus_per_node=config.gpus_per_worker,
            mem_gb=config.memory_gb,
        )
        if config.partition:
            executor.update_parameters(slurm_partition=config.partition)
        job = executor.submit(work, order, index, attempt)
        cancel = partial(job.cancel, check=False)  # SIGTERM first, as Slurm does
        return Handle(partial(_poll, job), cancel, cancel)

    def close(self) -> None:
        """Nothing is held."""


def _poll(job: Any) -> int | None:
    """The worker's own status; 1 when the job ended without one."""
    if not job.done():
        return None
    try:
        return int(job.result())
    except Exception:  # submitit wraps whatever ended the job; the worker's log and its own hold the reason
        return 1
