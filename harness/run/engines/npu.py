"""Worker processes on this machine, one per visible Ascend NPU. Untested: nothing was ever run on one (docs/npu.md)."""

from __future__ import annotations

import importlib.util

from harness.advice import install
from harness.errors import UserError
from harness.run.engines import local
from harness.settings.groups import EngineConfig


class Engine(local.Engine):
    """As `local`, but never on anything else than NPUs.

    Raises:
        UserError: there are none, or torch cannot use them.
    """

    def __init__(self, config: EngineConfig, device: str = "npu") -> None:
        if not device.startswith("npu"):
            raise UserError(f"engine=npu with model.device={device}: leave model.device out, or set engine=local")
        if importlib.util.find_spec("torch_npu") is None:
            raise UserError(f"engine=npu needs the package torch_npu: {install('torch_npu')}")
        super().__init__(config, device)
        if not self._accelerators:
            raise UserError("engine=npu: no NPU is visible; look at npu-smi info, and at ASCEND_RT_VISIBLE_DEVICES")
