"""What is checked: a language model with random weights, prompts about a video of random features, and one result."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from bench_prefill import SEVEN_BILLION, TEXT, Bench, Setting, random_language

from harness.compress.generate import prefill
from harness.compress.method import Method, build_method
from harness.models.language import Decoder

CONF = Path(__file__).resolve().parents[2] / "conf" / "method"
MODEL = "qwen2_5_vl_7b"
"""The model whose shape is checked, as its files are named."""
TINY: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
    "bos_token_id": 0,
    "eos_token_id": 1,
}


@dataclass(frozen=True)
class Size:
    """How large the checks are.

    Attributes:
        shape: text config of the model.
        patches: height and width of a frame in patches.
        chunk_frames: frames prefilled together.
        text: tokens before and behind the video.
        frames, context: of the long video, whose memory and speed count.
        few, few_context: of the short one, on which backends, chunks, devices and methods are compared.
        matmul: side of the matrices whose product is the peak.
        decoded: new tokens.
        spare: bytes on the device that libraries may take besides.
    """

    shape: dict[str, Any]
    patches: tuple[int, int]
    chunk_frames: int
    text: tuple[int, int]
    frames: int
    context: int
    few: int
    few_context: int
    matmul: int
    decoded: int
    spare: int


SIZES = {
    "full": Size(SEVEN_BILLION, (18, 32), 32, TEXT["7B"], 2048, 16000, 256, 4000, 8192, 64, 2**28),
    "tiny": Size(TINY, (4, 4), 4, (5, 7), 64, 60, 24, 40, 256, 8, 2**21),
}


@dataclass
class Row:
    """One line of the result; `status` is ok, failed, skipped or measured (no limit is set to it)."""

    check: str
    what: str
    status: str
    value: float | None = None
    unit: str = ""
    limit: str = ""
    reason: str = ""


@dataclass
class Subject:
    """The model on a device, and runs of it."""

    size: Size
    device: torch.device
    dtype: torch.dtype
    language: Decoder
    options: dict[str, dict[str, Any]]  # yaml -> options of the method, `name` included
    _prompts: dict[int, tuple[Any, torch.Tensor]] = field(default_factory=dict)

    @classmethod
    def make(cls, size: Size, device: torch.device, dtype: torch.dtype) -> Subject:
        """Weights are made on the device; attention is SDPA unless a check says otherwise."""
        torch.manual_seed(0)
        attention = "sdpa" if device.type in ("cuda", "cpu") else "eager"
        language = random_language(size.shape, str(device), attention, dtype)
        options = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(CONF.glob("*.yaml"))}
        return cls(size, device, dtype, language, options)

    @property
    def tolerance(self) -> float:
        """How far apart two computations of a hidden state may be, by its length; a wrong mask makes about 1."""
        return 1e-3 if self.dtype == torch.float32 else 0.1

    def bench(self, context: int, language: Decoder | None = None) -> Bench:
        """Prompts and runs under a context."""
        height, width = self.size.patches
        how = Setting((), {}, self.size.text, height, width, context, 1, self.size.chunk_frames)
        return Bench(language or self.language, how, str(self.device))

    def prompt(self, frames: int, context: int) -> tuple[Any, torch.Tensor]:
        """A prompt about a video of so many frames, and its features."""
        if frames not in self._prompts:
            self._prompts[frames] = self.bench(context).prompt(frames)
        asked, features = self._prompts[frames]
        return dataclasses.replace(asked, context=context), features

    def with_backend(self, backend: str) -> Decoder:
        """The same weights under another attention backend."""
        return Decoder(self.language.text_model, self.language.head, backend=backend, rows=3)

    def run(
        self, bench: Bench, prompt: tuple[Any, Any], name: str, *, new: int = 0, **options: Any
    ) -> tuple[Any, torch.Tensor]:
        """One prefill by the method of a yaml: what was prefilled, and the last hidden state [d]."""
        asked, features = prompt
        method = self.method(name, **options)
        if method.needs_attention:
            asked = dataclasses.replace(asked, attention=torch.rand(asked.n_video))
        return prefill(bench.language, method, asked, (features,), max_new_tokens=new)

    def method(self, name: str, **options: Any) -> Method:
        """The method of a yaml, in chunks of the size."""
        known = {"chunk_frames": self.size.chunk_frames, **self.options[name], **options}
        return build_method(**known).for_family("qwen2_5_vl")

    def work(self, trace: Any) -> float:
        """Floating-point operations of a prefill: products with the layers' weights, and attention."""
        config = self.language.text_model.config
        weights = sum(p.numel() for layer in self.language.text_model.layers for p in layer.parameters())
        width = config.hidden_size
        return float(2 * weights * trace.prefilled + 4 * width * config.num_hidden_layers * trace.attended)

    def weight_bytes(self) -> int:
        """Of the layers, the embeddings and the head."""
        parts = [*self.language.text_model.parameters(), *self.language.head.parameters()]
        return sum(part.numel() * part.element_size() for part in parts)

    def working_bytes(self, context: int) -> int:
        """On the device while a long video is prefilled, without weights: the cache, and one chunk in a layer."""
        config = self.language.text_model.config
        kv = config.num_key_value_heads * config.hidden_size // config.num_attention_heads
        height, width = self.size.patches
        longest, guide = self.size.chunk_frames // 2 * height * width // 4, self.size.text[1]
        cache = 2 * kv * (context + 2 * longest) * config.num_hidden_layers
        # In and out of a layer, residual, queries, output of attention, its rotation; gate, up and their product.
        chunk = (longest + guide) * (6 * config.hidden_size + 3 * config.intermediate_size)
        scoring = 3 * min(64 * 2**20, 4 * config.num_attention_heads * longest * guide)
        return (cache + chunk) * self.dtype.itemsize + scoring


def apart(first: torch.Tensor, second: torch.Tensor) -> float:
    """Distance of two tensors relative to the length of the second."""
    first, second = first.float().cpu(), second.float().cpu()
    return float((first - second).norm() / second.norm().clamp_min(1e-12))
