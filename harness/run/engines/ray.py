"""One Ray task per worker, on the cluster at `engine.address`, or on a Ray instance started here."""

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
            import ray
        except ImportError as error:
            raise UserError(f"engine=ray needs the package ray, which is not installed: {install('ray')}") from error
        self._ray = ray
        self._own = not ray.is_initialized()
        if self._own:
            local = {"num_cpus": max(1, config.workers or 1), "include_dashboard": False}
            try:  # the nodes of a cluster need this package installed, at the same place as here
                ray.init(address=config.address, log_to_driver=False, **({} if config.address else local))
            except Exception as error:  # Ray raises bare exceptions, RuntimeError and ConnectionError here
                place = f"join the cluster at engine.address={config.address}" if config.address else "be started here"
                message = f"engine=ray: Ray could not {place}: {error}. See: ray status; or use engine=local"
                raise UserError(message) from error
        resources = ray.cluster_resources()
        gpus = 0 if device == "cpu" else int(resources.get("GPU", 0))
        self.workers = config.workers or max(1, gpus // max(1, config.gpus_per_worker))
        self._needs = {
            "num_gpus": config.gpus_per_worker if gpus else 0,
            "num_cpus": config.cpus_per_worker if config.address else 1,
            "max_retries": 0,
        }

    def start(self, order: Order, index: int, attempt: int, slot: int) -> Handle:
        """See `harness.run.engines.Engine`."""
        remote = self._ray.remote(work).options(**self._needs)
        task = remote.remote(order, index, attempt)
        cancel = partial(self._ray.cancel, task)  # a KeyboardInterrupt in the worker, or by force its end
        return Handle(partial(self._poll, task), partial(cancel, force=False), partial(cancel, force=True))

    def close(self) -> None:
        """Leave the cluster; a Ray instance started here ends."""
        if self._own:
            self._ray.shutdown()

    def _poll(self, task: Any) -> int | None:
        """The worker's own status; 1 when its process died."""
        ready, _ = self._ray.wait([task], timeout=0)
        if not ready:
            return None
        try:
            return int(self._ray.get(task))
        except Exception:  # Ray wraps whatever ended the task; the worker's log holds the reason
            return 1
