"""Run one golden case through the public API: video features in, every recorded quantity out."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from harness.compress.generate import generate
from harness.compress.method import build_method
from harness.compress.positions import mrope_position_ids
from harness.compress.prompt import Prompt
from harness.models.language import Decoder
from harness.models.loading import scale_rope


def load_case(path: Path) -> dict[str, Any]:
    """Tensors and settings (decoded from the file's metadata) of one case, in one dictionary."""
    with safe_open(path, "pt") as file:
        settings = {key: json.loads(value) for key, value in file.metadata().items()}
    return {**load_file(path), **settings}


@functools.cache
def load_model(weights: Path, yarn_factor: float = 1.0) -> Any:
    """The tiny model of `weights`, float32 on the CPU, with YaRN scaling by `yarn_factor`."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(weights)
    scale_rope(config.text_config, yarn_factor)
    return AutoModelForImageTextToText.from_pretrained(weights, config=config, dtype=torch.float32).eval()


def decoder(weights: Path, backend: str = "sdpa", yarn_factor: float = 1.0) -> Decoder:
    """Its language model, ready for `generate`."""
    model = load_model(weights, yarn_factor)
    return Decoder(model.model.language_model, model.lm_head, backend=backend, rows=3)


def run_case(case: dict[str, Any], weights: Path, backend: str = "sdpa") -> dict[str, Any]:
    """All outputs of a case under the names it records them by, plus the ids computed by the semantics' own rule.

    Args:
        case: what `load_case` returns.
        weights: folder of the checkpoint that the case was made with.
        backend: attention backend.
    """
    config = load_model(weights).config
    family = config.model_type
    options = {"chunk_frames": case["chunk_frames"], "reforge": case.get("reforge", False)}
    if case.get("method") == "pivotkv":
        marked = {"key_patches": True, "key_patches_synced": case.get("sync", False)} if "dpselect" in case else {}
        method = build_method("retake", **options, frame_ratio=case.get("dpselect", 1.0), quirks=marked)
        method = method.for_family(family)
    else:
        method = build_method(
            "adaretake",
            **options,
            semantics=case["semantics"],
            temporal=case["temporal"],
            layers=case["layer"] != "even",
            max_guide_length=case.get("max_guide"),
        ).for_family(family)
    input_ids = case["input_ids"][0]
    grid = tuple(case["video_grid_thw"][0].tolist())
    positions = mrope_position_ids(
        input_ids,
        config.video_token_id,
        grid,
        second_per_grid=case["second_per_grid"] if family == "qwen2_5_vl" else None,
        rule=method.position_rule,
    )
    prompt = Prompt(
        input_ids=input_ids,
        positions=positions,
        video=(input_ids == config.video_token_id).nonzero().flatten(),
        grid_lengths=(grid[1] * grid[2] // 4,) * grid[0],
        context=case.get("max_context", case.get("budget")),
    )
    language = decoder(weights, backend, case.get("yarn_factor", 1.0))
    result = generate(language, method, prompt, (case["video_features"],), max_new_tokens=case["new"], record=True)
    trace, recording = result.trace, result.trace.recording
    layers = range(len(trace.cache_length))
    outputs: dict[str, Any] = {
        "mrope_position_ids": positions[:, None],
        "tokens": torch.tensor(result.tokens),
        "logits": recording.logits,
        "chunk_ratio": torch.tensor(trace.chunk_ratio, dtype=torch.float64),
        "chunk_budget": torch.tensor(trace.chunk_budget),
        "kept_after_chunk": torch.tensor(trace.cache_after_chunk),
        "kept_per_chunk": torch.tensor(trace.kept),
        "final_lengths": torch.tensor(recording.cache.lengths),
    }
    outputs |= {f"scores.{i}": torch.stack(s) for i, s in enumerate(recording.scores) if s is not None}
    if case["semantics"] != "paper" and not trace.compressed:  # then the releases score every token 1000
        outputs |= {f"scores.{i}": torch.full((len(layers), c), 1000.0) for i, c in enumerate(trace.chunk_lengths)}
    outputs |= {f"final_keys.{i}": recording.cache.keys(i) for i in layers}
    outputs |= {f"final_positions.{i}": recording.cache.positions(i) for i in layers}
    return outputs
