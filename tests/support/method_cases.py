"""Every compression method as tests run it: one case per yaml of `conf/method`, and the forms that it switches to."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import Any

import yaml

from harness.compress.method import Method, build_method, method_class, method_names
from harness.settings.compose import REPO
from harness.settings.rules import rule_of

FORMS: dict[str, dict[str, dict[str, Any]]] = {
    "random": {"one set": {"layers": False, "per_layer": False}},
    "adaretake": {
        "release_2025": {"semantics": "release_2025"},
        "release_2026": {"semantics": "release_2026"},
    },
    "rekv": {
        "squeezed": {"memory_ids": "squeezed"},
        "narrow": {"window": 12},
    },
    "retake": {
        "key patches": {"quirks": {"key_patches": True}},
        "key frames": {"frame_ratio": 0.5, "quirks": {"key_patches": True, "key_patches_synced": True}},
    },
    "video_x2l": {
        "squeezed": {"memory_ids": "squeezed", "compressor": "self_attention"},
        "ends_in_detail": {"ends_in_detail": True},
        "at random": {"relevance": "random"},
    },
}
"""Per yaml: more cases, and the options in which they differ from it. What a setting `form` may be needs no row."""

SMALL: dict[str, dict[str, Any]] = {
    "fitprune": {"recipe": "results/recipes/fitprune-toy.json"},
    "video_x2l": {"high": 12},
    "video_x2l_self_attention": {"high": 12},
}
"""Per yaml: options that its published values cannot have on a video of a few dozen tokens."""

OWN_BUDGET = {
    "adaretake release_2025": "shares are rounded down behind a floor, and layers are scaled without regard to the sum",
    "adaretake release_2026": "shares are rounded down behind a floor, and a chunk that stays whole keeps its guide",
    **dict.fromkeys(
        ("rekv", "rekv squeezed", "rekv narrow"), "loads whole grids, so that less than one of the context stays empty"
    ),
    "retake": "the share of the whole prompt, rounded down per chunk; text is not subtracted",
    "retake key patches": "as retake",
    "retake_release": "as retake",
    "retake key frames": "as retake, and that of the prompt before frames were dropped",
    "none": "keeps everything",
    "uniform_frames": "keeps whole grids, so that less than one grid of the context stays empty",
    **dict.fromkeys(
        ("video_x2l", "video_x2l_self_attention", *(f"video_x2l {form}" for form in FORMS["video_x2l"])),
        "loads whole chunks at either level, so that less than one of them stays empty",
    ),
    "aks": "keeps whole grids, so that less than one grid of the context stays empty",
    "bolt": "keeps whole grids, so that less than one grid of the context stays empty",
}
"""Cases whose published form does not fill the context exactly, and why. They have to report what they measure."""

NATIVE = "as published, tokens are dropped between layers in shares of their own, limit or not"
"""The same of every case whose `form` is `native`."""

ONLY: dict[str, tuple[str, ...]] = {
    # Of four layers the first three are given features in the tiny Qwen3-VL, so that none is left to cut in.
    "holitom": ("qwen2_5_vl", "qwen2_vl", "llava_onevision"),
    "adaretake release_2025": ("qwen2_5_vl", "qwen2_vl"),
    "adaretake release_2026": ("qwen2_5_vl",),
    **dict.fromkeys(
        ("fastv native", "pyramiddrop native", "sparsevlm native"), ("qwen2_5_vl", "qwen2_vl", "llava_onevision")
    ),
}
"""Cases that exist for some families only; on Qwen3-VL none that drops tokens before features were added to them."""

CHANGES_VALUES: dict[str, str] = {
    "fastvid": "means around dense tokens",
    "flashvid": "means of what is merged",
    "holitom": "means over windows of grids, and of what is merged",
    "look_m": "evicted tokens are merged into kept ones",
    "sparsevlm": "means of what is dropped",
    "sparsevlm native": "means of what is dropped",
    **dict.fromkeys(("video_x2l", "video_x2l ends_in_detail", "video_x2l at random"), "means of runs of tokens"),
}
"""Cases whose cached values are not those of single tokens, and why (merging)."""

MOVES_IDS = {"retake_release": "reforge moves every segment right behind the one before it, evicting or not"}
"""Cases whose ids depend on the chunks even where nothing is evicted, and why: chunks show, nothing is the identity."""


@dataclass(frozen=True)
class Case:
    """A method with the options of a yaml; its name is that of the yaml, and of the form."""

    name: str
    method: str
    options: dict[str, Any] = field(hash=False)

    def build(self, **options: Any) -> Method:
        """The method in chunks of four frames, with more options."""
        return build_method(self.method, **{**self.options, "chunk_frames": 4, **options})

    @property
    def own_budget(self) -> str | None:
        """Why the context is not filled exactly; `None` where it has to be."""
        return NATIVE if self.options.get("form") == "native" else OWN_BUDGET.get(self.name)

    def exists_for(self, family: str) -> bool:
        """Whether there is such a method for a model family."""
        return family in ONLY.get(self.name, (family,))


def cases() -> list[Case]:
    """All of them; a method without a yaml, or a table row without a case, is an error of the tests."""
    found = []
    for path in sorted((REPO / "conf" / "method").glob("*.yaml")):
        options = {**yaml.safe_load(path.read_text()), **SMALL.get(path.stem, {})}
        method = options.pop("name")
        found.append(Case(path.stem, method, options))
        for form, more in {**_forms(method, options), **FORMS.get(path.stem, {})}.items():
            found.append(Case(f"{path.stem} {form}", method, {**options, **more}))
    names = {case.name for case in found}
    assert {case.method for case in found} == set(method_names()), "every method has a yaml, and every yaml a method"
    rows = {*FORMS, *SMALL, *OWN_BUDGET, *ONLY, *CHANGES_VALUES, *MOVES_IDS}
    assert rows <= names, f"no such case: {rows - names}"
    return found


def _forms(method: str, options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    words = [rule_of(f).words for f in dataclasses.fields(method_class(method)) if f.name == "form"]
    return {word: {"form": word} for word in itertools.chain(*words) if word != options.get("form")}


CASES = cases()
