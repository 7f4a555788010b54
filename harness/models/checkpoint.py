"""Is a checkpoint whole? Known from the headers of its files, and, for values that are no numbers, from one reading.

transformers fills a tensor that is missing at random and goes on; here that is an error before anything is answered.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError

if TYPE_CHECKING:
    import torch

VOCABULARIES = ("tokenizer.json", "vocab.json", "tokenizer.model")
SHOWN = 3
"""Tensors named in a message."""
REMEMBERED_BYTES = 64 * 2**20
"""Files above this size are read for NaN once; that they passed is remembered in the user's cache folder."""


class WeightsError(UserError):
    """A file of a checkpoint that has to be fetched again."""

    def __init__(self, file: Path, problem: str) -> None:
        super().__init__(f"weights: {file}: {problem}")
        self.file = file


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a checkpoint, as transformers chooses them.

    Raises:
        WeightsError: there are none, or one that the index names is not there.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists() or not index.exists():
        if not whole.exists():
            raise WeightsError(folder, "has neither model.safetensors nor model.safetensors.index.json")
        return [whole]
    files = [folder / name for name in sorted(set(_weight_map(index).values()))]
    for path in files:
        if not path.exists():
            raise WeightsError(path, f"is missing; {index.name} names it")
    return files


def _weight_map(index: Path) -> dict[str, str]:
    try:
        names: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return names
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(index, f"is no index of a checkpoint ({error!r})") from error


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors, from the files' headers.

    Raises:
        WeightsError: a file is cut short, empty or no safetensors file, or lacks a tensor that the index says it has.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    files = weight_files(folder)
    promised = {} if files == [folder / "model.safetensors"] else _weight_map(folder / "model.safetensors.index.json")
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                own = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(path, f"is cut short or damaged ({error})") from error
        absent = [name for name, file_name in promised.items() if file_name == path.name and name not in own]
        if absent:
            raise WeightsError(path, f"lacks {_listed(absent)}, which the index says it has")
        shapes |= own
    return shapes


@lru_cache
def check_tensors(folder: Path) -> None:
    """Are all tensors of the architecture there, with the right shapes, and no others? Reads headers only.

    Raises:
        WeightsError: no, naming file and tensors.
        UserError: the folder's configuration cannot be read.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    shapes = read_shapes(folder)
    try:
        config = AutoConfig.from_pretrained(folder)
        model_class: Any = AutoModelForImageTextToText._model_mapping[type(config)]
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(folder / "config.json", f"names no model known here ({_first_line(error)})") from error
    with _quiet():
        _, info = model_class.from_pretrained(
            None,
            config=config,
            state_dict={name: torch.empty(shape, device="meta") for name, shape in shapes.items()},
            device_map="meta",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    files = weight_files(folder)
    where = files[0] if len(files) == 1 else folder
    if missing := sorted(info["missing_keys"]):
        raise WeightsError(where, f"lacks {_listed(missing)}")
    if wrong := sorted(info["mismatched_keys"]):
        name, found, wanted = wrong[0]
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise WeightsError(where, f"{name} has shape {list(found)} instead of {list(wanted)}{more}")
    if unexpected := sorted(info["unexpected_keys"]):
        raise WeightsError(where, f"holds {_listed(unexpected)}, which its architecture does not have")


def check_processor(folder: Path) -> None:
    """Can what turns text and pictures into tokens be loaded?

    Raises:
        WeightsError: no, naming the file that is damaged, or the folder.
    """
    from transformers import AutoProcessor

    if not any((folder / name).exists() for name in VOCABULARIES):  # transformers would make an empty one
        raise WeightsError(folder, f"holds no tokenizer (none of {', '.join(VOCABULARIES)})")
    for path in sorted(folder.glob("*.json")):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WeightsError(path, f"is cut short or damaged ({_first_line(error)})") from error
    with _quiet():
        try:
            AutoProcessor.from_pretrained(folder)
        except Exception as error:  # the tokenizers' own errors share no type
            raise WeightsError(folder, f"holds no processor and tokenizer ({_first_line(error)})") from error


def check_finite(folder: Path) -> None:
    """Are all weights numbers? Reads every file whole; a large one only if it did not pass before.

    Raises:
        WeightsError: a tensor holds NaN or infinity.
    """
    for path in weight_files(folder):
        note = _note(path) if path.stat().st_size > REMEMBERED_BYTES else None
        if note is not None and note.exists():
            continue
        _check_file(path)
        if note is not None:
            with suppress(OSError):  # a cache folder that cannot be written costs another reading
                note.parent.mkdir(parents=True, exist_ok=True)
                note.touch()


def _check_file(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                if not finite(file.get_tensor(name)):
                    raise WeightsError(path, f"{name} holds NaN or infinity")
    except (SafetensorError, OSError) as error:
        raise WeightsError(path, f"is cut short or damaged ({error})") from error


def finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity; one pass, no copy of its size."""
    import torch

    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = torch.aminmax(tensor if tensor.element_size() > 1 else tensor.float())  # NaN passes through both
    return bool(low.isfinite() & high.isfinite())


def check_loaded(model: torch.nn.Module, path: str) -> None:
    """Are all parameters of a loaded model numbers?

    Raises:
        UserError: no, naming the first that holds one.
    """
    bad = next((name for name, value in model.named_parameters() if not value.is_meta and not finite(value)), None)
    if bad is not None:
        raise UserError(f"weights: model.path={path}: {bad} holds NaN or infinity; fetch the weights again")


def _note(path: Path) -> Path | None:
    """Where it is remembered that a file holds numbers only; another size or time of change is another file."""
    status = path.stat()
    identity = f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}"
    with suppress(RuntimeError):  # no home folder
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return base / "adaretake" / "finite" / hashlib.sha256(identity.encode()).hexdigest()[:32]
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own report of the same findings, and without its progress bar."""
    from transformers.utils import logging

    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [repr(error)])[0]
