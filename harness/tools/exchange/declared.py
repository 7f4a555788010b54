"""What an imported file says of its setting, in the words of `CellResult.setting` where they have one for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.tools.exchange.rows import scalar

WORDS = {
    "pretrained": "model", "model_version": "model", "max_num_frames": "frames", "max_frames_num": "frames",
    "max_frames": "frames", "num_frames": "frames", "nframes": "frames", "fps": "fps", "dtype": "dtype",
    "torch_dtype": "dtype", "attn_implementation": "attention", "max_new_tokens": "max_new_tokens",
}  # fmt: skip
"""Arguments of its models and of generation, in our words."""


def kept(declared: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of it, fit for a manifest."""
    known = {key: value for key, value in declared.items() if value is not None}
    return {key: value if key == "harness_setting" else scalar(value) for key, value in known.items()}


def in_words(said: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a code base in our words; a path of weights is a model's name and `model_path`."""
    found = {WORDS.get(key, key): value for key, value in said.items() if key not in ("until", "image_aspect_ratio")}
    model = found.get("model")
    if isinstance(model, str):
        found["model"] = model.rstrip("/").split("/")[-1]
        found["model_path"] = model
    return found


def arguments(given: Any) -> dict[str, Any]:
    """``a=1,b=x`` or an object."""
    if isinstance(given, dict):
        return dict(given)
    if not isinstance(given, str):
        return {}
    pairs = (word.partition("=") for word in given.split(",") if "=" in word)
    return {key.strip(): _number(value.strip()) for key, _, value in pairs}


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)
