"""Is a checkpoint whole? Known from the headers of its files, and, for values that are no numbers, from one reading.

transformers fills a tensor that is missing at random and goes on; here that is an error before anything is answered.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.places import cache_folder

if TYPE_CHECKING:
    import torch

PROCESSOR_FILES = {".json", ".jinja", ".txt", ".model"}
PROCESSOR_LIBRARIES = {"torchvision": "torchvision", "pillow": "PIL", "tokenizers": "tokenizers"}
"""Distribution -> module, of what a processor needs besides transformers."""
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
    names = sorted(set(_weight_map(index).values()))
    if away := [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise WeightsError(index, f"names {away[0]!r}, which is outside the folder")
    files = [folder / name for name in names]
    for path in files:
        if not path.exists():
            raise WeightsError(path, f"is missing; {index.name} names it")
    return files


OPENED = (
    "config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json",
    "video_preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model",
    "sentencepiece.bpe.model", "chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja",
)  # fmt: skip
"""Patterns of the files besides the weights that transformers opens in a model's folder."""
REDIRECTS = {
    "config.json": ("transformers_weights", "configuration_files"),
    "tokenizer_config.json": ("fast_tokenizer_files",),
}
"""File -> keys by which transformers opens other files than those of these names."""


def opened_files(folder: Path) -> list[Path]:
    """All files that loading a checkpoint opens: weights, their index, configurations, tokenizer, chat template.

    Raises:
        WeightsError: files of the checkpoint are missing, or it sends the loader elsewhere.
    """
    for name, keys in REDIRECTS.items():
        with suppress(OSError, ValueError, RecursionError):  # the checks of the processor say what is wrong
            content = json.loads((folder / name).read_text(encoding="utf-8"))
            if turned := [key for key in keys if isinstance(content, dict) and content.get(key)]:
                raise WeightsError(
                    folder / name, f"has the key {turned[0]!r}, which makes transformers load other files; remove it"
                )
    if (folder / "adapter_config.json").exists():
        raise WeightsError(folder / "adapter_config.json", "loads an adapter over the weights; merge it into them")
    texts = [path for pattern in OPENED for path in sorted(folder.glob(pattern)) if path.is_file()]
    weights = weight_files(folder)
    index = [folder / "model.safetensors.index.json"] if weights != [folder / "model.safetensors"] else []
    return [*texts, *index, *weights]


def _weight_map(index: Path) -> dict[str, str]:
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        content["metadata"]  # transformers reads it
        return {str(name): Path(str(file)).as_posix() for name, file in content["weight_map"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
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
            with safe_open(path, framework="np") as file:
                own = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(path, f"is cut short or damaged ({error})") from error
        place = path.relative_to(folder).as_posix()
        absent = [name for name, file_name in promised.items() if file_name == place and name not in own]
        if absent:
            raise WeightsError(path, f"lacks {_listed(absent)}, which the index says it has")
        strange = [name for name in own if promised and promised.get(name) != place]
        if strange:
            raise WeightsError(path, f"holds {_listed(strange)}, which the index does not say it has")
        shapes |= own
    return shapes


def own_scaling(rope: Any) -> str:
    """How rope settings of a configuration stretch the rotary embedding, in words; empty where they do not."""
    kind = (rope.get("rope_type") or rope.get("type") or "default") if isinstance(rope, dict) else "default"
    if kind in ("default", "mrope"):
        return ""
    return (
        f"stretches the rotary embedding itself ({kind}, factor {rope.get('factor')}), which no cell would say; remove "
        "rope_scaling there and set model.yarn_factor"
    )


def check_rope(folder: Path) -> None:
    """Does the checkpoint leave scaling of the rotary embedding to `model.yarn_factor`?

    Raises:
        WeightsError: no.
    """
    with suppress(OSError, ValueError, RecursionError):  # other checks say what is wrong with the file
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        for part in (config, config.get("text_config")):
            for key in ("rope_scaling", "rope_parameters"):
                if isinstance(part, dict) and (scaled := own_scaling(part.get(key))):
                    raise WeightsError(folder / "config.json", scaled)


@lru_cache
def check_tensors(folder: Path) -> None:
    """Are all tensors of the architecture there, with the right shapes, and no others? Reads headers only.

    That they are is remembered by everything that it depends on: the modelling class need not be imported again.

    Raises:
        WeightsError: no, naming file and tensors.
        UserError: the folder's configuration cannot be read.
    """
    shapes = read_shapes(folder)
    note = _note(
        "tensors", _read(folder / "config.json"), *(f"{name}:{shape}" for name, shape in sorted(shapes.items()))
    )
    if note is not None and note.exists():
        return
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(folder)
        model_class: Any = AutoModelForImageTextToText._model_mapping[type(config)]
    except Exception as error:  # a hand in the file can raise anything in transformers
        raise WeightsError(folder / "config.json", f"names no model known here ({_first_line(error)})") from error
    layers = getattr(getattr(config, "text_config", config), "num_hidden_layers", 0)
    if layers > max(1000, len(shapes)):
        raise WeightsError(folder / "config.json", f"says {layers} layers, and the files hold {len(shapes)} tensors")
    try:
        with _quiet():
            _, info = model_class.from_pretrained(
                None,
                config=config,
                state_dict={name: torch.empty(shape, device="meta") for name, shape in shapes.items()},
                device_map="meta",
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:
        raise WeightsError(
            folder / "config.json", f"describes no model that can be built ({_first_line(error)})"
        ) from error
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
    _remember(note)


def check_processor(folder: Path) -> None:
    """Can the processor and the tokenizer be loaded? That they can is remembered by the content of their files.

    Raises:
        WeightsError: no, naming the file that is damaged, or the folder.
    """
    if not any((folder / name).exists() for name in VOCABULARIES):  # transformers would make an empty one
        raise WeightsError(folder, f"holds no tokenizer (none of {', '.join(VOCABULARIES)})")
    for path in sorted(folder.glob("*.json")):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise WeightsError(path, f"is cut short or damaged ({_first_line(error)})") from error
    files = sorted(path for path in folder.iterdir() if path.suffix in PROCESSOR_FILES and path.is_file())
    libraries = [f"{name}:{_version(name)}" for name in PROCESSOR_LIBRARIES]
    note = _note("processor", *libraries, *(part for path in files for part in (path.name, _read(path))))
    if note is not None and note.exists():
        return
    from transformers import AutoProcessor

    with _quiet():
        try:
            AutoProcessor.from_pretrained(folder)
        except Exception as error:  # the tokenizers' own errors share no type
            raise WeightsError(folder, f"holds no processor and tokenizer ({_first_line(error)})") from error
    _remember(note)


def check_finite(folder: Path) -> None:
    """Are all weights numbers? Reads every file whole; a large one only if it did not pass before.

    Raises:
        WeightsError: a tensor holds NaN or infinity.
    """
    for path in weight_files(folder):
        status = path.stat()
        state = (str(path.resolve()), str(status.st_size), str(status.st_mtime_ns))
        note = _note("finite", *state) if status.st_size > REMEMBERED_BYTES else None
        if note is not None and note.exists():
            continue
        _check_file(path)
        _remember(note)


EXPONENTS = {"F64": ("<u8", 0x7FF0 << 48), "F32": ("<u4", 0x7F80_0000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80)}
"""Number format of safetensors -> integers of its width, and the bits of the exponent; all set: NaN or infinity."""
AT_ONCE = 2**24
"""Numbers looked at together."""


def _check_file(path: Path) -> None:
    """Look at the bits of every number of a file.

    The file is laid out as safetensors documents it: the length of the header in eight bytes, the header in JSON with
    the place of each tensor, the numbers.
    """
    import numpy as np

    try:
        with path.open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(start - 8))
        header.pop("__metadata__", None)
        for name, tensor in header.items():
            begin, end = tensor["data_offsets"]
            if tensor["dtype"] not in EXPONENTS:
                raise WeightsError(
                    path, f"{name} is of the format {tensor['dtype']}; allowed: {', '.join(EXPONENTS)}, not quantized"
                )
            else:
                kind, exponent = EXPONENTS[tensor["dtype"]]
                count = (end - begin) // np.dtype(kind).itemsize
                bits = np.memmap(path, kind, "r", start + begin, (count,)) if count else np.empty(0, kind)
                mask = np.array(exponent, kind)
                blocks = (bits[at : at + AT_ONCE] for at in range(0, count, AT_ONCE))
                good = not any(((block & mask) == mask).any() for block in blocks)
            if not good:
                raise WeightsError(path, f"{name} holds NaN or infinity")
    except (OSError, ValueError, KeyError) as error:
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


def _version(library: str) -> str:
    """Its version where it can be imported, else empty."""
    try:
        return importlib.metadata.version(library) if importlib.util.find_spec(PROCESSOR_LIBRARIES[library]) else ""
    except (importlib.metadata.PackageNotFoundError, ValueError, ImportError):
        return ""


def _note(kind: str, *state: str | bytes) -> Path | None:
    """The file that remembers that a check passed.

    Args:
        state: everything that the check depends on, besides the installed transformers.

    Returns:
        A path in the user's cache folder; None where there is no home folder.
    """
    digest = hashlib.sha256(f"{kind}:{importlib.metadata.version('transformers')}".encode())
    for part in state:
        content = part if isinstance(part, bytes) else part.encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    folder = cache_folder()
    return None if folder is None else folder / kind / digest.hexdigest()[:32]


def _remember(note: Path | None) -> None:
    if note is not None:
        with suppress(OSError):  # a cache folder that cannot be written costs another check
            note.parent.mkdir(parents=True, exist_ok=True)
            note.touch()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the check itself says what is wrong
        return b""


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
