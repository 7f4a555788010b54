"""One composition per command: what `Recomposed` makes of the files is what Hydra composes of them."""

import dataclasses

import hydra
import pytest
from compositions import remembered

from harness.settings.compose import Recomposed, as_yaml, compose_config, compose_verb, options
from harness.settings.verbs import all_verbs

WORDS = [
    "video.window=64", "method.chunk_frames=16", "matrix.by_task.mlvu.fps=[3]", "model.device=cpu", "report.margin=2",
    "data.root='/dä tä'", "results=elsewhere",
]  # fmt: skip
GROUPS = ("model", "task", "method", "video", "context", "matrix", "engine")


@pytest.mark.parametrize("profile", options("profile"))
@pytest.mark.parametrize("group", GROUPS)
def test_another_option_is_as_hydra_composes_it(group, profile):
    """Every file composes under every profile; every third also with words that set parts of it."""
    for words, listed in ([], options(group)), (WORDS, options(group)[::3]):
        again = Recomposed([f"profile={profile}", *words])
        for option in listed:
            found = again.under(**{group: option})
            expected = compose_config([f"profile={profile}", *words, f"{group}={option}"])
            assert dataclasses.replace(found, words=[]) == dataclasses.replace(expected, words=[]), option
            own = getattr(expected, group)
            if hasattr(own, "name"):  # a method's file may be one with other switches
                assert own.name == option or group == "method" and option.startswith(f"{own.name}_")


def test_without_a_choice_it_is_the_command_line():
    for words in ([], ["profile=published", "model=llava_video_7b", "video=stock", *WORDS]):
        found, expected = Recomposed(words).under(), compose_config(words)
        assert dataclasses.replace(found, words=[]) == dataclasses.replace(expected, words=[])


def test_options_of_several_groups_at_once():
    choice = {"task": "videomme_stock", "model": "llava_video_7b", "method": "fitprune"}
    found = Recomposed(["profile=published"]).under(**choice)
    expected = compose_config(["profile=published", *(f"{group}={option}" for group, option in choice.items())])
    assert dataclasses.replace(found, words=[]) == dataclasses.replace(expected, words=[])
    assert found.method.recipe == "results/recipes/fitprune-llava_video_7b.json"


def test_compositions_that_tests_share_are_those_of_hydra():
    shared, words = remembered(hydra.compose), ["profile=published", "model=llava_video_7b", *WORDS]
    for verb in ("plan", "show"):
        for more in ([], ["data.root=/b", "method.temporal=false", "matrix.context=[1,2]", "frames=8"]):
            alone = compose_verb(all_verbs()[verb], [*words, *more])
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("harness.settings.compose.compose", shared)
                together = compose_verb(all_verbs()[verb], [*words, *more])
            assert as_yaml(alone[0]) == as_yaml(together[0]) and alone[1:] == together[1:]
