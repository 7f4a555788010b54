"""LLaVA-Video weights as their authors published them -> a Hugging Face LLaVA-OneVision folder.

The published checkpoints name their tensors after the authors' own modules. The folder written here uses the names of
the `llava-hf` checkpoints on the hub, which every transformers release maps to its own modules, and differs from the
original model as any converted LLaVA-OneVision does: one newline token after the whole video instead of one per row.

Tensors are streamed: names and shapes are first compared with the model on the meta device, from the files' headers
alone, then one output shard at a time is read and written. No weight changes its dtype.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from harness.errors import UserError
from harness.late import torch
from harness.models.convert.llava_video_config import (
    SIGLIP_SO400M,
    generation_config,
    given_processor,
    model_config,
    own_processor,
    read_config,
    source_tokenizer,
)

PREFIXES = {
    "model.vision_tower.vision_tower.vision_model.": "vision_tower.vision_model.",
    "model.mm_projector.0.": "multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "multi_modal_projector.linear_2.",
    "model.image_newline": "image_newline",
    "model.layers.": "language_model.model.layers.",
    "model.embed_tokens.": "language_model.model.embed_tokens.",
    "model.norm.": "language_model.model.norm.",
    "lm_head.": "language_model.lm_head.",
}
"""Original prefix -> prefix in the `llava-hf` checkpoints."""

RUNTIME_PREFIXES = {
    "model.vision_tower.vision_model.": "vision_tower.vision_model.",  # modules of older transformers releases
    "model.vision_tower.": "vision_tower.vision_model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
    "model.image_newline": "image_newline",
    "model.language_model.": "language_model.model.",
    "lm_head.": "language_model.lm_head.",
}
"""Prefix of today's modules -> prefix in the `llava-hf` checkpoints."""

IGNORED_SUFFIXES = (".inv_freq",)
"""Buffers that old releases stored and that are computed from the configuration."""

HEAD = "language_model.lm_head.weight"


@dataclass(frozen=True)
class Tensor:
    """Where one tensor of the checkpoint lies; nothing of it is read yet."""

    file: Path
    name: str
    shape: tuple[int, ...]
    n_bytes: int
    dtype: torch.dtype


def rename(name: str) -> str | None:
    """Original tensor name -> name in the `llava-hf` checkpoints; None for a name that no rule covers."""
    return _replace_prefix(name, PREFIXES)


def expected_shapes(config: LlavaOnevisionConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor that the model needs, under its `llava-hf` name, from a model without memory for its weights."""
    with torch.device("meta"):
        model = LlavaOnevisionForConditionalGeneration(config)
    shapes = {_replace_prefix(name, RUNTIME_PREFIXES) or name: tuple(t.shape) for name, t in model.state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop(HEAD)
    return shapes


def _replace_prefix(name: str, prefixes: Mapping[str, str]) -> str | None:
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return None


def read_headers(folder: Path) -> dict[str, Tensor]:
    """The tensors in all `*.safetensors` of a folder, by original name.

    Raises:
        UserError: there is none, one is damaged, or two hold the same name.
    """
    tensors: dict[str, Tensor] = {}
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder} has no *.safetensors file; other formats of weights are not read")
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a mapping
                    if name in tensors:
                        other = tensors[name].file.name
                        raise UserError(f"{name} is in {other} and in {file.name}; remove one of them")
                    part = opened.get_slice(name)
                    shape = tuple(part.get_shape())
                    dtype = _dtype(part.get_dtype())
                    tensors[name] = Tensor(file, name, shape, math.prod(shape) * dtype.itemsize, dtype)
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error}") from error
        except SafetensorError as error:
            raise UserError(f"{file} is not a whole safetensors file ({error}); fetch it again") from error
    return tensors


def _dtype(name: str) -> torch.dtype:
    known = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
    if name not in known:
        raise UserError(f"weights of type {name} are not supported; allowed: {', '.join(known)}")
    return known[name]


def match(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Target name -> source tensor, in the model's order.

    Raises:
        UserError: listing every tensor that no rule covers, that the model does not have, that is missing, and every
            shape that differs.
    """
    renamed = {name: rename(name) for name in tensors if not name.endswith(IGNORED_SUFFIXES)}
    sources = {new: tensors[old] for old, new in renamed.items() if new}
    problems = [f"no rule for: {old}" for old, new in renamed.items() if new is None]
    problems += [f"not in the model: {old} ({new})" for old, new in renamed.items() if new and new not in expected]
    problems += [f"missing: {new}" for new in expected if new not in sources]
    problems += [
        f"shape: {tensor.name} is {list(tensor.shape)}, the model has {list(expected[new])}"
        for new, tensor in sources.items()
        if new in expected and tensor.shape != expected[new]
    ]
    if problems:
        raise UserError(
            f"the checkpoint does not fit LLaVA-OneVision, {len(problems)} tensors differ (a LLaVA-Video checkpoint on "
            "Qwen2 is expected; see --text-config and --vision-config):\n  " + "\n  ".join(problems)
        )
    return {name: sources[name] for name in expected}


def plan_shards(sources: Mapping[str, Tensor], shard_bytes: int) -> list[dict[str, Tensor]]:
    """Consecutive tensors of up to `shard_bytes` together; a larger one has a shard to itself."""
    shards: list[dict[str, Tensor]] = []
    filled = 0
    for name, tensor in sources.items():
        if not shards or filled + tensor.n_bytes > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += tensor.n_bytes
    return shards


def write_shards(shards: list[dict[str, Tensor]], target: Path) -> Iterator[Path]:
    """Writes the shards one after another and yields each file; the index comes last."""
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else "model.safetensors"
        loaded: dict[str, torch.Tensor] = {}
        for file in {tensor.file for tensor in shard.values()}:
            with safe_open(file, framework="pt") as opened:
                loaded |= {new: opened.get_tensor(t.name) for new, t in shard.items() if t.file == file}
        save_file(loaded, target / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, name)
        del loaded
        yield target / name
    if len(shards) > 1:
        total = sum(tensor.n_bytes for shard in shards for tensor in shard.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def check_space(target: Path, n_bytes: int) -> None:
    """Raises UserError when the disk of `target` has less than `n_bytes` and a reserve of 1 % free."""
    there = next(folder for folder in (target, *target.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < 1.01 * n_bytes:
        raise UserError(
            f"{target}: {n_bytes / 1e9:.2f} GB are needed, its disk has {free / 1e9:.2f} GB free; "
            "free some or choose another --output"
        )


def convert(
    source: Path,
    target: Path,
    *,
    processor: Path | None = None,
    text: Mapping[str, Any] | None = None,
    vision: Mapping[str, Any] | None = None,
    shard_bytes: int = 2_000_000_000,
    report: Callable[[str], None] = print,
) -> None:
    """Convert one checkpoint folder.

    Args:
        source: folder with `*.safetensors`, `config.json` and tokenizer files of the original checkpoint.
        target: folder to make. It appears whole or not at all: the work goes on in `<target>.partial`.
        processor: a LLaVA-OneVision folder whose processor and tokenizer are taken instead of building them.
        text: fields of the language model; default: the source's own `config.json`.
        vision: fields of the SigLIP tower; default: `SIGLIP_SO400M`.
        shard_bytes: size of an output shard; about twice as much memory is used.
        report: gets a line per step.

    Raises:
        UserError: the target exists, the disk is too small, a file is missing or damaged, or any tensor is unmapped,
            missing or of another shape.
    """
    if target.exists():
        raise UserError(f"--output {target} already exists; remove it or choose another folder")
    vision = {**SIGLIP_SO400M, **(vision or {})}
    tensors = read_headers(source)
    text = read_config(source / "config.json") if text is None else text
    if processor is None:
        ready = own_processor(source_tokenizer(source), vision)
    else:
        ready = given_processor(processor)
    tokenizer = ready.tokenizer
    config = model_config(
        text,
        vision,
        tied="lm_head.weight" not in tensors,
        dtype=max(tensors.values(), key=lambda tensor: tensor.n_bytes).dtype,  # that of the embedding
        image_id=tokenizer.convert_tokens_to_ids(ready.image_token),
        video_id=tokenizer.convert_tokens_to_ids(ready.video_token),
    )
    sources = match(tensors, expected_shapes(config))
    text_config: Any = config.text_config
    rows: int = text_config.vocab_size
    if (last := max(config.image_token_index, config.video_token_index)) >= rows:
        raise UserError(f"placeholder token {last} is outside the {rows} rows of the embedding; check the tokenizer")
    n_bytes = sum(tensor.n_bytes for tensor in sources.values())
    check_space(target, n_bytes)
    report(f"{len(sources)} tensors, {n_bytes / 1e9:.2f} GB: names and shapes match")

    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    config.save_pretrained(partial)
    generation_config(tokenizer).save_pretrained(partial)
    ready.save_pretrained(partial)
    shards = plan_shards(sources, shard_bytes)
    for number, file in enumerate(write_shards(shards, partial), start=1):
        report(f"shard {number}/{len(shards)}: {file.name}, {file.stat().st_size / 1e9:.2f} GB")
    partial.rename(target)
    report(f"written: {target}")
