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
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerBase,
    Qwen2Config,
    SiglipVisionConfig,
)

from harness.errors import UserError
from harness.late import torch

SIGLIP_SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,  # the published models drop the last of the tower's 27 layers
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 384,
    "vision_use_head": False,
}
"""google/siglip-so400m-patch14-384 as LLaVA-Video uses it; the checkpoints' own config.json does not hold it."""

IMAGE_TOKEN, VIDEO_TOKEN = "<image>", "<video>"

CHAT_TEMPLATE = """\
{%- if messages[0].role != 'system' -%}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content if part.type == 'image' -%}{{ '<image>\\n' }}{%- endfor -%}
{%- for part in message.content if part.type == 'video' -%}{{ '<video>\\n' }}{%- endfor -%}
{%- for part in message.content if part.type == 'text' -%}{{ part.text }}{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""
"""The conversation that LLaVA-Video was trained on: Qwen's turns, what is seen before what is said."""

TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges*", "added_tokens*", "special_tokens*")


def model_config(
    text: Mapping[str, Any], vision: Mapping[str, Any], *, tied: bool, dtype: torch.dtype, image_id: int, video_id: int
) -> LlavaOnevisionConfig:
    """The configuration of the converted model.

    Args:
        text: the language model's fields, from a `config.json` that may hold others too.
        vision: fields of the SigLIP tower.
        tied: the checkpoint has no output head of its own.
        dtype: of the weights, recorded so that loading keeps it.
        image_id, video_id: ids of the placeholder tokens.
    """
    known = (set(Qwen2Config().to_dict()) | {"rope_theta", "rope_scaling"}) - {"model_type", "transformers_version"}
    fields = {key: value for key, value in text.items() if key in known and value is not None}
    for key in ("architectures", "dtype", "tie_word_embeddings"):
        fields.pop(key, None)
    config = LlavaOnevisionConfig(
        text_config=Qwen2Config(**fields, tie_word_embeddings=tied, dtype=dtype).to_dict(),
        vision_config=SiglipVisionConfig(**{**vision, "vision_use_head": False}, dtype=dtype).to_dict(),
        image_token_index=image_id,
        video_token_index=video_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=tied,
        dtype=dtype,
    )
    config.architectures = ["LlavaOnevisionForConditionalGeneration"]
    return config


def source_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The checkpoint's own tokenizer with the two placeholder tokens.

    It is read apart from the checkpoint's `config.json`, whose model type transformers does not know.

    Raises:
        UserError: the folder has none.
    """
    with tempfile.TemporaryDirectory() as apart:
        for pattern in TOKENIZER_FILES:
            for file in folder.glob(pattern):
                shutil.copy(file, apart)
        try:
            tokenizer = AutoTokenizer.from_pretrained(apart)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{folder} has no tokenizer that transformers can read ({type(error).__name__}); give a processor: "
                "--processor llava-hf/llava-onevision-qwen2-7b-ov-hf"
            ) from error
    tokenizer.add_tokens([IMAGE_TOKEN, VIDEO_TOKEN], special_tokens=True)
    return tokenizer


def own_processor(tokenizer: PreTrainedTokenizerBase, vision: Mapping[str, Any]) -> LlavaOnevisionProcessor:
    """A processor that feeds the tower as SigLIP was trained: square frames, values from -1 to 1."""
    side = vision["image_size"]
    how: dict[str, Any] = {"size": {"height": side, "width": side}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(**how),
        video_processor=LlavaOnevisionVideoProcessor(**how),
        tokenizer=tokenizer,
        num_image_tokens=(side // vision["patch_size"]) ** 2,
        vision_feature_select_strategy="full",
        image_token=IMAGE_TOKEN,
        video_token=VIDEO_TOKEN,
        chat_template=CHAT_TEMPLATE,
    )


def generation_config(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Greedy decoding that ends where a turn or the text ends."""
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    ends = [i for i in ends if i is not None and i != tokenizer.unk_token_id]
    pad = tokenizer.pad_token_id
    return GenerationConfig(
        do_sample=False,
        eos_token_id=ends or tokenizer.eos_token_id,
        pad_token_id=ends[-1] if pad is None and ends else pad,
    )


def read_config(path: Path) -> dict[str, Any]:
    """A `config.json`. Raises UserError when it is missing or not a JSON object."""
    try:
        fields = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give one with --text-config FILE") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise UserError(f"{path} must hold a JSON object")
    return fields


def given_processor(folder: Path) -> LlavaOnevisionProcessor:
    """Another LLaVA-OneVision's processor. Raises UserError when the folder holds none."""
    try:
        processor = AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"--processor {folder} cannot be loaded: {error}") from error
    if not isinstance(processor, LlavaOnevisionProcessor):
        raise UserError(f"--processor {folder} is a {type(processor).__name__}, a LlavaOnevisionProcessor is needed")
    return processor


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
