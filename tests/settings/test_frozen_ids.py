"""Ids of cells as they were frozen: every matrix under every profile, every option of a group, settings by name.

A stored answer is found by its cell's id, so an id that changes loses answers. Raise a declared version, and freeze
anew, only where answers change on purpose.
"""

import json
from pathlib import Path

import pytest

from harness.settings.compose import compose_config, options
from harness.settings.matrix import build_cells

FROZEN = json.loads(Path(__file__).with_name("frozen_ids.json").read_text())


@pytest.mark.parametrize("name", FROZEN)
def test_ids_are_those_that_answers_are_stored_under(name):
    frozen = FROZEN[name]
    assert [cell.id for cell in build_cells(compose_config(frozen["words"]), [])] == frozen["ids"]


def test_every_matrix_is_frozen_under_every_profile():
    assert {f"{m} {p}" for m in options("matrix") for p in options("profile")} <= set(FROZEN)
