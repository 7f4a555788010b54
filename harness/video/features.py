"""What the vision encoder made of a video, kept in a folder for later runs and other processes.

A stored entry is found by everything that could change it, never by the name of the video's file.
"""

import hashlib
import json
import logging
import math
import os
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.video.sampling import Policy

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

FORMAT = 1  # raised when the same key would mean other contents
DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int64": 8, "int32": 4, "uint8": 1}
HEADER_BYTES = 1024  # what a stored entry takes at most besides tensors and facts
ABANDONED_AFTER_S = 3600.0  # a temporary file that old belongs to a process that was killed


@dataclass(frozen=True)
class Features:
    """Named tensors in host memory, and the plain facts that go with them (JSON types)."""

    tensors: Mapping[str, "torch.Tensor"]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


@dataclass(frozen=True)
class FeatureKey:
    """Everything that can change a video's features.

    video: `harness.digest.file_digest`; policy: which frames at which resolution; backend: decodes them
    decoding: version of sampling and decoding
    weights: identity of the encoder's weights; dtype: of its computation
    encoder: whatever else of the encoder's set-up changes the result, such as its version or its window of frames
    """

    video: str
    policy: Policy
    backend: str
    weights: str
    dtype: str
    encoder: str = ""
    decoding: int = 1

    @property
    def digest(self) -> str:
        """64 hexadecimal digits."""
        text = json.dumps({"format": FORMAT} | asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def feature_bytes(shapes: Iterable[Sequence[int]], dtype: str) -> int:
    """Host memory that tensors of these shapes take. dtype: a name such as bfloat16 or torch.bfloat16."""
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPE_BYTES:
        raise UserError(f"dtype {name!r} is unknown; allowed: {', '.join(DTYPE_BYTES)}; set model.dtype")
    return sum(math.prod(shape) for shape in shapes) * DTYPE_BYTES[name]


class FeatureFolder:
    """Features on disk as `<digest>.safetensors`, least recently used out first; `limit_bytes` None = no limit.

    Any number of threads, processes and machines may share the folder: every change is one rename or one removal, so
    none needs a lock. Time of last use is the file's modification time: access times are often switched off. A cache
    must not stop a run: UserError where the folder cannot be made, but later whatever goes wrong is a warning at most,
    and the features are computed.
    """

    def __init__(self, path: str | Path, limit_bytes: int | None) -> None:
        self._path, self._limit = Path(path), limit_bytes
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"run.feature_dir={path} cannot be made ({error.strerror}); set another folder, or null to store none"
            ) from None

    def __contains__(self, key: FeatureKey) -> bool:
        """Whether there is an entry; it may be gone, or prove damaged, when it is wanted."""
        return self._file(key).exists()

    def find(self, key: FeatureKey) -> Features | None:
        """The stored features, or None if there is no sound entry; a damaged one is removed."""
        from safetensors import SafetensorError, safe_open

        path = self._file(key)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata["checksum"] != _checksum(tensors, metadata["facts"]):
                raise ValueError("its checksum differs")
            facts = json.loads(metadata["facts"])
        except (SafetensorError, ValueError, KeyError, OSError, RuntimeError) as error:
            if not path.exists():  # never there, or another process evicted it between two steps of reading
                return None
            log.warning("%s is damaged (%s); it is removed and the features are computed again", path, error)
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):  # evicted meanwhile, or a folder that may only be read
            os.utime(path)
        return Features(tensors, facts)

    def add(self, key: FeatureKey, features: Features) -> None:
        """Stores under a temporary name, then renames: readers see a whole entry or none."""
        from safetensors.torch import save_file

        facts = json.dumps(features.facts)
        size = features.nbytes + len(facts) + HEADER_BYTES
        if self._limit is not None and size > self._limit:
            log.warning("features of %.2f GB are not stored: run.feature_dir_gb=%g", size / 1e9, self._limit / 1e9)
            return
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in features.tensors.items()}
        metadata = {"facts": facts, "checksum": _checksum(tensors, facts)}
        temporary = self._path / f".{key.digest[:16]}-{uuid.uuid4().hex}.tmp"
        try:
            self._make_room(size)
            save_file(tensors, temporary, metadata)
            os.replace(temporary, self._file(key))
        except Exception as error:  # a full disk shows as several exception types
            log.warning("features could not be stored in %s (%s); the run goes on without", self._path, error)
            with suppress(OSError):
                temporary.unlink()

    def _make_room(self, n_bytes: int) -> None:
        """Removes temporary files of killed processes, and least recently used entries beyond the limit."""
        entries = []
        for path in self._path.iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # another process was faster
            if path.suffix == ".tmp" and status.st_mtime < time.time() - ABANDONED_AFTER_S:
                path.unlink(missing_ok=True)
            elif path.suffix == ".safetensors":
                entries.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in entries) + n_bytes
        for _, size, path in sorted(entries):
            if self._limit is None or total <= self._limit:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _file(self, key: FeatureKey) -> Path:
        return self._path / f"{key.digest}.safetensors"


def _checksum(tensors: Mapping[str, "torch.Tensor"], facts: str) -> str:
    """safetensors notices a file of the wrong length, this also notices changed bytes."""
    import torch

    value = zlib.crc32(facts.encode())
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(tensor.contiguous().flatten().view(torch.uint8).numpy().data, value)
    return f"{value:08x}"
