"""Choosing device and number format, scaling the rotary embedding, and loading weights with errors that help."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from harness.advice import install
from harness.errors import UserError
from harness.late import torch
from harness.models.checkpoint import own_scaling

_YARN = {"rope_type": "yarn", "beta_fast": 32.0, "beta_slow": 1.0}


def choose_device(device: str) -> torch.device:
    """The device to run on: `auto` takes an accelerator where there is one.

    Raises:
        UserError: a device that torch does not know or this machine does not have.
    """
    if device.startswith("npu") or (device == "auto" and importlib.util.find_spec("torch_npu")):
        try:
            import torch_npu  # noqa: F401  registers the device type
        except ImportError as error:
            if importlib.util.find_spec("torch_npu") is None:
                raise UserError(f"model.device={device} needs the package torch_npu: {install('torch_npu')}") from error
            raise UserError(
                f"model.device={device}: torch_npu is installed and cannot be loaded ({str(error).splitlines()[0]}); "
                "source the set_env.sh of CANN, which it needs, or set model.device=cpu"
            ) from error
    if device == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"model.device={device} cannot be used here ({reason}); set model.device=auto") from error
    return chosen


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The number format: `auto` is bfloat16 on an accelerator and float32 on the CPU.

    Raises:
        UserError: not the name of a floating-point format of torch.
    """
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    chosen = getattr(torch, dtype, None)
    if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
        raise UserError(f"model.dtype={dtype} is not a number format: use auto, bfloat16, float16 or float32")
    return chosen


def scale_rope(text_config: Any, factor: float) -> None:
    """Put YaRN scaling by `factor` into a text config, in place; its other rope settings stay (M-RoPE sections too).

    The original length is `max_position_embeddings`; the attention factor 0.1 ln(factor) + 1 on cos and sin is what
    transformers derives.

    Raises:
        UserError: a factor below 1.
    """
    if factor < 1:
        raise UserError(f"model.yarn_factor={factor} must be 1 (no scaling) or more; the releases use 4")
    if scaled := own_scaling(getattr(text_config, "rope_parameters", None)):
        raise UserError(f"the checkpoint's config.json {scaled}")
    if factor == 1:
        return
    kept = {k: v for k, v in text_config.rope_parameters.items() if k != "type"}
    length = text_config.max_position_embeddings
    text_config.rope_parameters = {**kept, **_YARN, "factor": factor, "original_max_position_embeddings": length}


def config_at(path: str) -> Any:
    """The configuration of the checkpoint at a path or hub id.

    Raises:
        UserError: no checkpoint there.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        hint = "" if Path(path).exists() else f"; get it: hf download {path} --local-dir models/{Path(path).name}"
        raise UserError(f"model.path={path} holds no model: {str(error).splitlines()[0]}{hint}") from error


def load_config(path: str, model_type: str) -> Any:
    """The checkpoint's configuration.

    Raises:
        UserError: no checkpoint there, or one of another family.
    """
    config = config_at(path)
    if config.model_type != model_type:
        raise UserError(
            f"model.path={path} is a {config.model_type} model, but the adapter is for {model_type}; "
            "set model to the configuration of that family"
        )
    return config


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer: those of the generation config and the tokenizer's own."""
    ids = model.generation_config.eos_token_id
    listed = ids if isinstance(ids, list) else [ids]
    return frozenset(i for i in (*listed, tokenizer.eos_token_id) if i is not None)
