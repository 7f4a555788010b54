"""Run one golden case of a published method through the functions of its file: recorded inputs in, outputs out."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from harness.compress.methods import aks, bolt, dycoke, evs, flashvid, holitom, infinipot_v, v_cast, vidcom2
from harness.compress.prune import highest_of_all, highest_per_grid
from harness.compress.select import scaled

CPU = torch.device("cpu")
Case = dict[str, Any]
Outputs = dict[str, torch.Tensor]


def load_case(path: Path) -> Case:
    """Tensors and settings of one case, in one dictionary; settings are numbers, lists or words."""
    with safe_open(path, "pt") as file:
        settings = {key: _parsed(value) for key, value in file.metadata().items()}
    return {**load_file(path), **settings}


def run_case(folder: str, case: Case) -> Outputs:
    """All outputs of a case, under the names of the file.

    Args:
        folder: which method: one of `METHODS`.
        case: what `load_case` returns; also tensors and metadata as strings, as safetensors gives them.
    """
    return METHODS[folder]({key: _parsed(value) for key, value in case.items()})


def _parsed(value: Any) -> Any:
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (SyntaxError, ValueError):
        return value


def _asked(case: Case, prefix: str) -> list[tuple[str, float]]:
    """Names behind a prefix, of the outputs that the file holds, and the numbers that they spell."""
    names = [key[len(prefix) :] for key in case if key.startswith(prefix)]
    return [(name, float(name)) for name in names]


def _grids(case: Case) -> torch.Tensor:
    return case["features"].view(case["frames"], case["tokens_per_frame"], -1)


def _vidcom2(case: Case) -> Outputs:
    grids = _grids(case)
    video, frame = vidcom2.typicality(grids, CPU)
    outputs = {"channels": vidcom2.quiet_channels(grids, CPU), "video_score": video, "frame_score": frame}
    for name, ratio in _asked(case, "kept/"):
        scales = vidcom2.grid_scales(video, ratio)
        counts = vidcom2.rounded_counts(scales, grids.shape[1])
        outputs[f"scales/{name}"], outputs[f"counts/{name}"] = scales, torch.tensor(counts)
        outputs[f"kept/{name}"] = highest_per_grid(None, -(video + frame), counts)
    return outputs


def _vidcom2_vllm(case: Case) -> Outputs:
    grids = _grids(case)
    video, frame = vidcom2.typicality(grids, CPU)
    unlike, n = -(video + frame), grids.shape[1]
    outputs = {}
    for name, pruned in zip(case["q"], case["q_values"], strict=True):
        counts = vidcom2.rounded_counts(vidcom2.grid_scales(video, 1 - pruned), n)
        target = max(len(grids), int(unlike.numel() * (1 - pruned)))
        kept = vidcom2.reconcile(highest_per_grid(None, unlike, counts), unlike.flatten(), target)
        outputs |= {f"first_counts/{name}": torch.tensor(counts), f"target/{name}": torch.tensor(target)}
        outputs[f"kept/{name}"] = kept
    return outputs


def _evs(case: Case) -> Outputs:
    grids = _grids(case)
    changed = evs.dissimilarity(grids, CPU)
    outputs = {"dissimilarity": changed}
    for name, pruned in _asked(case, "kept/"):
        target = evs.retained(*grids.shape[:2], pruned)
        outputs[f"target/{name}"] = torch.tensor(target)
        outputs[f"kept/{name}"] = highest_of_all(None, changed, target)
    return outputs


def _v_cast(case: Case) -> Outputs:
    grids = _grids(case)
    bends, scores = v_cast.curvature(grids, CPU), v_cast.saliency(grids, CPU)
    outputs = {"curvature": bends}
    for name, ratio in _asked(case, "kept/"):
        total = max(len(grids), round(scores.numel() * ratio))
        counts = v_cast.counts_by_curvature(bends, total, grids.shape[1])
        outputs[f"counts/{name}"] = torch.tensor(counts)
        outputs[f"kept/{name}"] = highest_per_grid(None, scores, counts)
    return outputs


def _dycoke_ttm(case: Case) -> Outputs:
    grids = _grids(case)
    alike, outputs = dycoke.likeness(grids, CPU), {}
    for name, merge in _asked(case, "kept_in_emission_order/"):
        counts = dycoke.counts_at(merge, *grids.shape[:2])
        if len(grids) % 2:
            counts[-1] = 0  # the quirk `odd_grid_dropped`
        kept = highest_per_grid(None, -alike, counts)
        outputs[f"kept_in_emission_order/{name}"] = dycoke.emission(kept, alike, grids.shape[1])
    return outputs


def _frame_selection(case: Case) -> Outputs:
    scores, outputs = scaled(case["score"]), {}
    limits = (case["aks_t1"], case["aks_t2"], case["aks_depth"])
    for name, count in _asked(case, "aks/"):
        few = len(scores) < count  # then the code keeps all
        found = torch.arange(len(scores)) if few else aks.adaptive(scores, int(count), *limits)
        outputs[f"aks/{name}"] = found
    for key in (key for key in case if key.startswith("bolt/")):
        _, count, power = key.split("/")
        outputs[key] = bolt.inverse_transform(scores, int(count), float(power))
    return outputs


def _infinipot_v(case: Case) -> Outputs:
    keys, values, n, system = case["keys"], case["values"], case["tokens_per_frame"], case["system"]
    total, found = case["keep_frames"] * n, []
    for layer in range(len(keys)):
        shape = infinipot_v.pooling_of(layer, len(keys)) if case["adaptive_pooling"] else (0, 1)
        kept, _ = infinipot_v.keep_of(
            keys[layer, :, system:],
            values[layer, :, system:],
            n,
            total,
            tar=case["tar_ratio"],
            newest=case["query_ratio"],
            pooling=(*shape, case["height_width"]),
        )
        found.append(_behind(system, kept))
    m = keys.shape[2] - system
    even = torch.tensor([int(i * (m / total)) for i in range(total)])
    controls = {"uniform": even, "swa": torch.arange(m - total, m)}
    outputs = {"kept/infinipot-v": torch.stack(found)}
    for name, kept in controls.items():  # the code's own controls: even, and the newest
        outputs[f"kept/{name}"] = _behind(system, kept.expand(*keys.shape[:2], -1))
    return outputs


def _behind(system: int, kept: torch.Tensor) -> torch.Tensor:
    """Indices that count the first `system` tokens too, which all stay."""
    first = torch.arange(system).expand(*kept.shape[:-1], -1)
    return torch.cat((first, kept + system), dim=-1)


def _infinipot_v_rolling(case: Case) -> Outputs:
    keys, values, n, system = case["keys"], case["values"], case["tokens_per_step"], case["system"]
    keep, block = case["compress_frame_num"], case["block_size"]
    held = torch.empty(*keys.shape[:2], 0, dtype=torch.int64)
    outputs, passed = {}, 0
    plan = infinipot_v.blocks(case["steps"], n, block * n, keep / block)
    for i, (new, left) in enumerate(plan):
        came = torch.arange(passed, passed + new * n).expand(*keys.shape[:2], -1)
        held, passed = torch.cat((held, came), dim=-1), passed + new * n
        if left < held.shape[-1]:
            kept = [
                infinipot_v.keep_of(
                    *(state[layer, :, system:].take_along_dim(held[layer][..., None], 1) for state in (keys, values)),
                    n,
                    left,
                    tar=case["tar_ratio"],
                    newest=case["query_ratio"],
                )[0]
                for layer in range(len(keys))
            ]
            held = held.take_along_dim(torch.stack(kept), -1)
            outputs[f"kept_original/{i}"] = _behind(system, held)
    outputs["kept_original/final"] = _behind(system, held)
    return outputs


def _flashvid(case: Case) -> Outputs:
    """The final tokens hang on the noise of the released clustering unless `noise_invariant` is 1."""
    grids, attention, n = case["features"], case["attention"], case["tokens_per_frame"]
    outputs = {}
    for least in (4, 8):
        outputs[f"segments/{least}"] = torch.tensor(flashvid.segments(grids, case["segment_threshold"], least))
    for name, ratio in _asked(case, "adts_v1/"):
        budget = math.ceil(n * ratio * case["expansion"])
        for variant, method, by_segment, least in (("v1", "attn_div", False, 4), ("v2", "attn_div_v2", True, 8)):
            count = math.ceil(budget * case["alpha"])
            picked = flashvid.picked(grids, attention, count, by_segment=by_segment)
            outputs[f"adts_{variant}/{name}"] = picked.sort().values
            limits = case["segment_threshold"], least, case["temporal_threshold"]
            settings = flashvid.Settings(by_segment, case["alpha"], *limits)
            found, ids = flashvid.released(grids, attention, budget, settings)
            outputs |= {f"final_tokens/{method}/{name}": found, f"final_ids/{method}/{name}": ids}
    return outputs


def _holitom_windows(case: Case) -> Outputs:
    alike = holitom.similarity(_grids(case))
    outputs = {"similarity": alike}
    for name, tau in _asked(case, "windows/"):
        windows, saved = holitom.static_windows(alike > tau)
        outputs |= {f"windows/{name}": torch.tensor(windows), f"reduced/{name}": torch.tensor(float(saved))}
    return outputs


METHODS: dict[str, Callable[[Case], Outputs]] = {
    "vidcom2": _vidcom2,
    "vidcom2_vllm": _vidcom2_vllm,
    "evs": _evs,
    "v_cast": _v_cast,
    "dycoke_ttm": _dycoke_ttm,
    "flashvid": _flashvid,
    "frame_selection": _frame_selection,
    "holitom_windows": _holitom_windows,
    "infinipot_v": lambda case: (_infinipot_v_rolling if "block_size" in case else _infinipot_v)(case),
}
