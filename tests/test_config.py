"""Composition of the configuration: every yaml composes, every mistake is named."""

import pytest
from omegaconf import OmegaConf

from harness.config import CONF, compose_config, options
from harness.errors import UserError

GROUP_FILES = sorted(
    f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml") if path.parent.name != "profile"
)


def test_every_group_has_options():
    groups = {word.split("=")[0] for word in GROUP_FILES}
    assert groups == {"model", "method", "video", "context", "task", "engine", "matrix"}


@pytest.mark.parametrize("profile", options("profile"))
@pytest.mark.parametrize("word", GROUP_FILES)
def test_every_file_composes_under_every_profile(word, profile):
    config = compose_config([word, f"profile={profile}"])
    group, name = word.split("=")
    assert config.profile == profile
    if group in ("model", "method", "task", "engine", "matrix"):
        assert getattr(config, group).name == name


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("matrix.contxt=[1]", ["contxt", "allowed keys of matrix", "did you mean 'context'"]),
        ("video.fps=banana", ["video.fps", "banana", "Float"]),
        ("matrix=ablatio", ["matrix=ablatio", "ablation, main_results"]),
        ("task=video", ["task=video", "videomme"]),
        ("method.semantics=papr", ["method.semantics=papr", "paper, release_2025, release_2026"]),
        ("matrix.frames=3", ["matrix.frames"]),
        ("video.long_side=-3", ["video.long_side=-3", "above 0"]),
        ("+foo=1", ["+foo=1", "key=value"]),
        ("a b", ["a b"]),
    ],
)
def test_a_wrong_override_is_named(override, words):
    with pytest.raises(UserError) as error:
        compose_config([override])
    for word in words:
        assert word in str(error.value)
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [("fpss: 3", ["video/release", "fpss", "did you mean 'fps'"]), ("fps: fast", ["video/release", "fast", "Float"])],
)
def test_a_wrong_yaml_is_named_with_its_file(tmp_path, monkeypatch, line, words):
    import shutil

    folder = tmp_path / "conf"
    shutil.copytree(CONF, folder)
    node = OmegaConf.load(folder / "video" / "release.yaml")
    key, value = line.split(": ")
    node[key] = value
    OmegaConf.save(node, folder / "video" / "release.yaml")
    monkeypatch.setattr("harness.config.CONF", folder)
    with pytest.raises(UserError) as error:
        compose_config([])
    for word in words:
        assert word in str(error.value)


def test_a_quirk_can_be_switched_off_alone():
    config = compose_config(["method.semantics=release_2026", "method.quirks.guide_by_text_index=false"])
    assert config.method.quirks == {"guide_by_text_index": False}


def test_an_axis_on_the_command_line_wins_over_a_task_of_the_matrix():
    assert compose_config(["profile=published"]).matrix.by_task["videomme"].fps == [4.0]
    assert compose_config(["profile=published", "matrix.fps=[1]"]).matrix.by_task["videomme"].fps is None
