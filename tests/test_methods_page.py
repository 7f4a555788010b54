"""The table of methods in docs/methods.md says of each method what its class does."""

from __future__ import annotations

import re

import pytest
from method_cases import CASES, Case

from harness.compress.evict import ChunkEvictor
from harness.compress.method import Method
from harness.compress.prune import Pruner
from harness.compress.reload import Reloading
from harness.compress.select import FrameSelector
from harness.compress.whole_context import WholeContextEvictor
from harness.settings.compose import REPO

PAGE = (REPO / "docs" / "methods.md").read_text()
ACTS: dict[str, type[Method]] = {
    "frames, before encoding": FrameSelector,
    "tokens, before the language model": Pruner,
    "cache, before the question": WholeContextEvictor,
    "cache, loaded for the question": Reloading,
    "cache, after every chunk": ChunkEvictor,
}
GOLDEN = {
    path.parent.name.removesuffix("_vllm").removesuffix("_ttm").removesuffix("_windows")
    for path in (REPO / "tests" / "golden_modern").glob("*/*.safetensors")
} - {"frame_selection"} | {"adaretake", "retake", "retake_release", "aks", "bolt", "stride", "streaming"}
BY_YAML = {case.name: case for case in CASES if (REPO / "conf" / "method" / f"{case.name}.yaml").is_file()}


def rows() -> dict[str, list[str]]:
    lines = re.findall(r"^\| `(\w+)` \|(.*)\|$", PAGE, re.M)
    return {name: [cell.strip() for cell in rest.split("|")] for name, rest in lines}


def test_every_method_has_a_row() -> None:
    assert set(rows()) == set(BY_YAML)


@pytest.mark.parametrize("case", BY_YAML.values(), ids=BY_YAML)
def test_a_row_is_true(case: Case) -> None:
    acts, question, reusable, exact, golden, _ = rows()[case.name]
    method = case.build().for_family("qwen2_5_vl")
    found = [where for where, base in ACTS.items() if isinstance(method, base)]
    assert acts in (found or ["nowhere", "cache, whenever it is full", "frames, before encoding"])
    assert question == ("yes" if method.sees_question else "no")
    assert reusable == ("yes" if method.reusable else "no")
    assert exact == ("exact" if case.own_budget is None else case.own_budget)
    assert golden == ("yes" if case.name in GOLDEN else "-")
