"""What the vision encoder made of a video, kept so that a video is encoded once.

In host memory, bounded, for the questions and sibling cells of the moment; and, if wanted, in a folder for later runs
and other processes. A stored entry is found by everything that could change it, never by a file name.
"""

import hashlib
import json
import logging
import math
import os
import time
import uuid
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.video.sampling import SamplingPolicy

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

    video: `video_digest`; policy: which frames at which resolution; backend: decodes them
    weights: identity of the encoder's weights; dtype: of its computation
    encoder: whatever else of the encoder's set-up changes the result, such as its version or its window of frames
    """

    video: str
    policy: SamplingPolicy
    backend: str
    weights: str
    dtype: str
    encoder: str = ""

    @property
    def digest(self) -> str:
        """64 hexadecimal digits."""
        text = json.dumps({"format": FORMAT} | asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def video_digest(path: str | Path) -> str:
    """SHA-256 of the file's bytes; remembered in this process until the file changes."""
    status = os.stat(path)
    return _file_digest(os.path.abspath(path), status.st_size, status.st_mtime_ns)


@cache
def _file_digest(path: str, _size: int, _mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def feature_bytes(shapes: Iterable[Sequence[int]], dtype: str) -> int:
    """Host memory that tensors of these shapes take. dtype: a name such as bfloat16 or torch.bfloat16."""
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPE_BYTES:
        raise UserError(f"dtype {name!r} is unknown; allowed: {', '.join(DTYPE_BYTES)}; set model.dtype")
    return sum(math.prod(shape) for shape in shapes) * DTYPE_BYTES[name]


class FeatureStore:
    """Features by key: in memory, least recently used out first; then in the folder, if there is one.

    memory_bytes: host memory for features. What is handed out is not counted once it has been pushed out.
    folder: entries as `<digest>.safetensors`; any number of processes may share it, on one machine or many
    folder_bytes: size limit of the folder, least recently used out first; None = no limit

    Attributes:
        hits_memory, hits_folder, computed: how often features were found there, or had to be computed
    """

    def __init__(self, memory_bytes: int, *, folder: str | Path | None = None, folder_bytes: int | None = None) -> None:
        self._memory_bytes = memory_bytes
        self._memory: OrderedDict[str, Features] = OrderedDict()
        self._folder = _Folder(Path(folder), folder_bytes) if folder is not None else None
        self.hits_memory = self.hits_folder = self.computed = 0

    def require(self, n_bytes: int, what: str = "one video's features") -> None:
        """Call before the first video, with `feature_bytes` of the largest.

        Raises:
            UserError: they do not fit into memory_bytes.
        """
        if n_bytes > self._memory_bytes:
            enough = math.ceil(n_bytes / 1e8) / 10
            raise UserError(
                f"{what} take {n_bytes / 1e9:.2f} GB of host memory, more than "
                f"run.feature_memory_gb={self._memory_bytes / 1e9:g} allows; set run.feature_memory_gb={enough:g} or "
                "more, or lower video.max_frames or video.long_side"
            )

    def get_or_compute(self, key: FeatureKey, compute: Callable[[], Features]) -> Features:
        """The stored features, or those that compute() makes, which are then stored.

        Raises:
            UserError: the features do not fit into memory_bytes.
            Whatever compute raises; nothing is stored then.
        """
        features = self.find(key)
        if features is None:
            features = compute()
            self.computed += 1
            self.add(key, features)
        return features

    def find(self, key: FeatureKey) -> Features | None:
        """The stored features, if there are any: ask before the video is decoded.

        Raises:
            UserError: the features on disk do not fit into memory_bytes.
        """
        digest = key.digest
        if digest in self._memory:
            self._memory.move_to_end(digest)
            self.hits_memory += 1
            return self._memory[digest]
        features = self._folder.read(digest) if self._folder else None
        if features is not None:
            self._keep(digest, features)
            self.hits_folder += 1
        return features

    def add(self, key: FeatureKey, features: Features) -> None:
        """Stores features, in memory and in the folder.

        Raises:
            UserError: they do not fit into memory_bytes.
        """
        self._keep(key.digest, features)
        if self._folder:
            self._folder.write(key.digest, features)

    def clear_memory(self) -> None:
        """Forgets what is in memory; the folder keeps its entries."""
        self._memory.clear()

    @property
    def bytes_in_memory(self) -> int:
        return sum(features.nbytes for features in self._memory.values())

    def _keep(self, digest: str, features: Features) -> None:
        self.require(features.nbytes)
        while self._memory and self.bytes_in_memory + features.nbytes > self._memory_bytes:
            self._memory.popitem(last=False)
        self._memory[digest] = features


class _Folder:
    """Entries on disk. Every change is one rename or one removal, so processes need no lock.

    Time of last use is the file's modification time: access times are often switched off. A cache must not stop a run:
    whatever goes wrong here is a warning, and the features are computed.
    """

    def __init__(self, path: Path, limit: int | None) -> None:
        self._path, self._limit = path, limit
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"run.feature_dir={path} cannot be made ({error.strerror}); set another folder, or null to store none"
            ) from None

    def read(self, digest: str) -> Features | None:
        """The entry, or None if there is no sound one; a damaged one is removed."""
        from safetensors import SafetensorError, safe_open

        path = self._file(digest)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata["checksum"] != _checksum(tensors, metadata["facts"]):
                raise ValueError("its checksum differs")
            facts = json.loads(metadata["facts"])
            os.utime(path)
        except (SafetensorError, ValueError, KeyError, OSError, RuntimeError) as error:
            if not path.exists():  # never there, or another process evicted it between two steps of reading
                return None
            log.warning("%s is damaged (%s); it is removed and the features are computed again", path, error)
            path.unlink(missing_ok=True)
            return None
        return Features(tensors, facts)

    def write(self, digest: str, features: Features) -> None:
        """Stores under a temporary name, then renames: readers see a whole entry or none."""
        from safetensors.torch import save_file

        facts = json.dumps(features.facts)
        size = features.nbytes + len(facts) + HEADER_BYTES
        if self._limit is not None and size > self._limit:
            log.warning("features of %.2f GB are not stored: run.feature_dir_gb=%g", size / 1e9, self._limit / 1e9)
            return
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in features.tensors.items()}
        metadata = {"facts": facts, "checksum": _checksum(tensors, facts)}
        temporary = self._path / f".{digest[:16]}-{uuid.uuid4().hex}.tmp"
        try:
            self._make_room(size)
            save_file(tensors, temporary, metadata)
            os.replace(temporary, self._file(digest))
        except Exception as error:  # a full disk shows as several exception types
            log.warning("features could not be stored in %s (%s); the run goes on without", self._path, error)
            temporary.unlink(missing_ok=True)

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

    def _file(self, digest: str) -> Path:
        return self._path / f"{digest}.safetensors"


def _checksum(tensors: Mapping[str, "torch.Tensor"], facts: str) -> str:
    """safetensors notices a file of the wrong length, this also notices changed bytes."""
    import torch

    value = zlib.crc32(facts.encode())
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(tensor.contiguous().flatten().view(torch.uint8).numpy(), value)
    return f"{value:08x}"
