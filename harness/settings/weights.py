"""Which weights a cell uses, known from their files and without loading them."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.advice import download, program
from harness.digest import file_digest
from harness.errors import UserError
from harness.places import find

if TYPE_CHECKING:
    from harness.settings.groups import ModelConfig


def find_weights(path: str, fetch: str | None = None) -> Path:
    """The folder of a model's files.

    Args:
        path: a folder, or the hub id of a model that is already in the local hub cache.
        fetch: `ModelConfig.fetch`.

    Raises:
        UserError: neither; nothing is downloaded here. The message holds the command that does.
    """
    folder = find(path)
    if folder.is_dir():
        if not any(folder.glob("*.safetensors")):
            raise UserError(f"weights: {folder} has no *.safetensors file.\n  {fetch_advice(path, fetch)}")
        return folder
    if _is_hub_id(path):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        with suppress(LocalEntryNotFoundError, HFValidationError):
            return Path(snapshot_download(path, local_files_only=True))
    kinds = "is neither a folder nor in the local hub cache" if _is_hub_id(path) else "does not exist"
    raise UserError(f"weights: model.path={path} {kinds}.\n  {fetch_advice(path, fetch)}")


def fetch_advice(path: str, fetch: str | None, damaged: Path | None = None) -> str:
    """The command that gets the files of a model, and the setting that then finds them.

    Args:
        path: `model.path`: a folder, or the model's hub id.
        fetch: `ModelConfig.fetch`; without it a hub id can still be downloaded.
        damaged: a file that is there and has to go first.
    """
    is_id = _is_hub_id(path) and not find(path).is_dir()
    if is_id and path not in (fetch or "").split():  # another model's id, or where the folder is to be
        parent = Path(path).parent
        is_id = parent.name != "models" and not parent.exists()
        fetch = None if is_id else fetch
    if fetch is None and not is_id:
        return "give a Hugging Face model folder, or a hub id: model.path=org/model"
    fetch = fetch or f"{{hf}} download {path} --local-dir {{folder}}"
    folder = f"models/{path.split('/')[1]}" if is_id else path
    into = "--local-dir {folder}" in fetch
    command = fetch.format(hf=download(), python=program("python"), folder=shlex.quote(folder))
    if damaged is not None and damaged.exists() and "{folder}" in fetch and not is_id:
        command = f"rm -r {shlex.quote(str(damaged if into else folder))} && {command}"
    return f"get them: {command}" + (f"\n  then: model.path={folder}" if folder != path else "")


def check_weights(model: ModelConfig) -> Path:
    """Is a model's checkpoint whole, and all of it numbers?

    Returns:
        Its folder.

    Raises:
        UserError: no, naming file and tensor, with the command that fetches it again.
    """
    from harness.models.checkpoint import WeightsError, check_finite, check_processor, check_rope, check_tensors

    folder = find_weights(model.path, model.fetch)
    try:
        check_rope(folder.resolve())
        check_tensors(folder.resolve())
        check_processor(folder.resolve())
        check_finite(folder.resolve())
    except WeightsError as error:
        raise UserError(f"{error}.\n  {fetch_advice(model.path, model.fetch, error.file)}") from error
    return folder


def _is_hub_id(path: str) -> bool:
    return path.count("/") == 1 and not path.startswith((".", "/", "~"))


@lru_cache
def weights_identity(folder: Path) -> str:
    """Twelve hexadecimal digits of all bytes of all files that loading the weights opens, and of no others.

    Args:
        folder: a model folder, see :func:`find_weights`.

    Raises:
        UserError: files are missing, or the checkpoint sends the loader to others.
    """
    from harness.models.checkpoint import opened_files

    try:
        lines = [f"{path.relative_to(folder).as_posix()}:{file_digest(path)}\n" for path in opened_files(folder)]
    except OSError as error:
        raise UserError(f"weights: {folder} cannot be read: {error}") from error
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]


def resolve_dtype(dtype: str, device: str) -> str:
    """The number format a model will run in: ``auto`` is bfloat16 on an accelerator and float32 on a CPU."""
    if dtype != "auto":
        return dtype
    if device == "auto":
        device = "accelerator" if has_accelerator() else "cpu"
    return "float32" if device == "cpu" else "bfloat16"


DEVICE_FILES = ("nvidia*", "nvhost*", "nvgpu*", "kfd", "dri/renderD*", "davinci*", "dxg", "accel*", "hl*")
"""Files below /dev of the accelerators that torch knows: CUDA, ROCm, XPU, NPU, CUDA under WSL, HPU and others."""


def has_accelerator() -> bool:
    """Whether torch sees an accelerator; where Linux has no file of any, without importing torch."""
    if sys.platform == "linux" and not any(any(Path("/dev").glob(pattern)) for pattern in DEVICE_FILES):
        return False
    import torch

    return torch.accelerator.is_available()


FACTS = {"layers": "num_hidden_layers", "hidden_size": "hidden_size", "vocabulary": "vocab_size"}
"""What a model's yaml may promise -> its name in the model's `config.json`."""


def architecture(model: ModelConfig) -> dict[str, dict[str, int]]:
    """What a model's yaml promises of its language model, and what is found in its folder.

    Returns:
        `promised` and `found`, each with as many of layers, hidden_size and vocabulary as are known.
    """
    promised = {name: value for name in FACTS if (value := getattr(model, name)) is not None}
    return {"promised": promised, "found": found_architecture(model.path)}


@lru_cache
def found_architecture(path: str) -> dict[str, int]:
    """Layers, hidden size and vocabulary of the language model below `model.path`; empty where there is none."""
    try:
        config = json.loads((find_weights(path) / "config.json").read_text(encoding="utf-8"))
    except (UserError, OSError, ValueError, RecursionError):  # what is wrong with the weights is said elsewhere
        return {}
    parts = (config, config.get("text_config")) if isinstance(config, dict) else ()
    text = {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}
    return {name: text[key] for name, key in FACTS.items() if isinstance(text.get(key), int)}


def mismatch(record: Mapping[str, Any]) -> str | None:
    """In words, how a cell's weights are not what its model's name promises; None where they agree.

    Args:
        record: the `cell` of a manifest.
    """
    known = record.get("architecture") or {}
    promised, found = known.get("promised", {}), known.get("found", {})
    wrong = [name for name in promised if name in found and promised[name] != found[name]]
    if not wrong:
        return None
    differences = ", ".join(f"{name} {found[name]} instead of {promised[name]}" for name in wrong)
    return f"the weights are not those of {record['model']['name']}: {differences}"
