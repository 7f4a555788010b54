"""Composition of the configuration: every yaml composes, every mistake is named."""

import shutil

import pytest
from omegaconf import OmegaConf
from verbs import composed

from harness.errors import UserError
from harness.settings.compose import CONF, as_yaml, compose_config, quoted
from harness.settings.words import AXES


def test_every_group_has_options():
    groups = {path.parent.name for path in CONF.glob("*/*.yaml")} - {"profile"}
    assert groups == {"model", "method", "video", "context", "task", "engine", "matrix"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("matrix.contxt=[1]", ["contxt", "allowed keys of matrix", "did you mean 'context'"]),
        ("video.fps=banana", ["video.fps", "banana", "Float"]),
        ("matrix=ablatio", ["matrix=ablatio", "ablation, main_results"]),
        ("task=video", ["task=video", "videomme"]),
        ("method.semantics=papr", ["unknown semantics 'papr'", "paper, release_2025, release_2026"]),
        ("video.long_side=-3", ["video.long_side=-3", "at least 28"]),
        ("+foo=1", ["+foo=1", "key=value"]),
        ("a b", ["a b"]),
        ("method.tempral=false", ["method.tempral", "allowed keys of method", "did you mean 'temporal'"]),
        ("method.chunk_frames=many", ["method.chunk_frames", "many", "Int"]),
        ("matrix.by_task.videomme.foo=[2]", ["matrix.by_task.videomme.foo", "allowed keys", "frames, fps, context"]),
        ("matrix.by_task.videomme=2", ["matrix.by_task.videomme=2"]),
        ("matrix.by_task.mlvuu.fps=[2]", ["mlvuu", "allowed: longvideobench"]),
        ("matrix.by_model.nope.fps=[2]", ["nope", "qwen2_5_vl_7b"]),
        ("video=null", ["video=null", "allowed: llava_video, release, stock, toy"]),
        ("method=null", ["method=null", "adaretake"]),
        ("model.name=../../x", ["model.name=../../x", "a name of letters"]),
        ("task.data=../../etc", ["task.data=../../etc", "a name of letters"]),
        ("task.subset=a/b", ["task.subset=a/b"]),
        ("results=", ["results=''", "not empty"]),
        ("data.root=''", ["data.root=''", "not empty"]),
        ("video.fps=inf", ["video.fps=inf", "above 0 and at most 240"]),
        ("video.grid_fps=1e9", ["video.grid_fps", "at most 1000"]),
        ("video.max_frames=1", ["video.max_frames=1", "at least 2"]),
        ("video.resample=bicubic", ["video.resample=bicubic", "allowed: nearest"]),
        ("model.yarn_factor=inf", ["model.yarn_factor=inf", "at least 1 and at most 64"]),
        ("model.yarn_factor=nan", ["model.yarn_factor=nan", "at least 1"]),
        ("report.confidence=2", ["report.confidence=2", "above 0 and below 1"]),
        ("report.confidence=nan", ["report.confidence=nan", "above 0 and below 1"]),
        ("report.margin=inf", ["report.margin=inf"]),
        ("run.feature_dir_gb=inf", ["run.feature_dir_gb=inf"]),
        ("engine.workers=-1", ["engine.workers=-1", "at least 1"]),
        ("report.cells=[ä]", ["report.cells=[ä]", "quotes"]),
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
    folder = tmp_path / "conf"
    shutil.copytree(CONF, folder)
    node = OmegaConf.load(folder / "video" / "release.yaml")
    key, value = line.split(": ")
    node[key] = value
    OmegaConf.save(node, folder / "video" / "release.yaml")
    monkeypatch.setattr("harness.settings.compose.CONF", folder)
    with pytest.raises(UserError) as error:
        compose_config(["profile=published"])
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("path", ["/dätä/vidéos", "/a (1)/b", "/x=y", "it's", "/日本/語", "a,b", "~/x", "/x\\", "#1"])
def test_a_path_of_any_signs_needs_no_quotes(path):
    config, demo = composed("demo", f"data.root={path}", f"demo.question={path}")
    assert (config.data.root, demo.question) == (path, path)
    assert config.words[0] == f"data.root={path}"
    assert compose_config([f"data.root={quoted(path)}"]).data.root == path


def test_a_quirk_can_be_switched_off_alone():
    config = compose_config(["method.semantics=release_2026", "method.quirks.guide_by_text_index=false"])
    assert config.method.quirks == {"guide_by_text_index": False}
    assert (config.method.semantics, config.matrix.semantics) == ("release_2026", None)


@pytest.mark.parametrize("axis", [axis for axis in AXES if axis not in ("model", "method", "subset", "replicate")])
def test_a_setting_on_the_command_line_replaces_the_axis_that_stands_for_it(axis):
    words = {
        "task": "task=mlvu",
        "frames": "video.max_frames=64",
        "fps": "video.fps=4",
        "context": "context.tokens=100",
        "semantics": "method.semantics=release_2025",
        "variant": "method.temporal=false",
    }
    before = compose_config(["profile=published"]).matrix
    after = compose_config(["profile=published", words[axis]]).matrix
    assert getattr(before, axis) is not None and getattr(after, axis) is None
    kept = [name for name in AXES if name != axis]
    assert [getattr(before, name) for name in kept] == [getattr(after, name) for name in kept]
    if axis == "fps":
        assert after.by_task["videomme"].fps is None
    with pytest.raises(UserError, match="keep one of them"):
        compose_config([words[axis], f"matrix.{axis}={quoted_list(getattr(before, axis))}"])


def quoted_list(values):
    return "[" + ",".join(map(str, values)) + "]"


@pytest.mark.parametrize(
    ("word", "gone"), [("context=1k", ["context"]), ("video=release", ["frames", "fps"]), ("task=mlvu", ["task"])]
)
def test_an_option_on_the_command_line_replaces_the_axes_of_its_settings(word, gone):
    before, after = (compose_config(["profile=published", *words]).matrix for words in ([], [word]))
    assert [axis for axis in AXES if getattr(before, axis) != getattr(after, axis)] == [a for a in AXES if a in gone]


def test_an_axis_on_the_command_line_wins_over_a_task_of_the_matrix():
    assert compose_config(["profile=published"]).matrix.by_task["videomme"].fps == [4.0]
    assert compose_config(["profile=published", "matrix.fps=[1]"]).matrix.by_task["videomme"].fps is None
    both = compose_config(["profile=published", "matrix.fps=[1]", "matrix.by_task.videomme.fps=[3]"]).matrix
    assert (both.fps, both.by_task["videomme"].fps) == ([1.0], [3.0])
    assert compose_config(["matrix.by_task.mlvu.fps=[4]"]).matrix.by_task["mlvu"].fps == [4.0]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    shutil.copytree(CONF, tmp_path / "conf")
    monkeypatch.setattr("harness.settings.compose.CONF", tmp_path / "conf")
    return tmp_path / "conf"


def test_a_matrix_file_wins_over_the_profile(folder):
    axes = "frames: [128]\nfps: [1.0]\ncontext: [65, 33]\n"
    (folder / "matrix" / "mine.yaml").write_text("name: mine\ntask: [lvbench]\n" + axes)
    matrix = compose_config(["matrix=mine"]).matrix
    assert (matrix.frames, matrix.fps, matrix.context) == ([128], [1.0], [65, 33])
    (folder / "matrix" / "mine.yaml").write_text(
        "name: mine\ntask: [videomme]\n" + axes + "by_task: {videomme: {fps: [3.0]}}\n"
        "by_profile: {toy: {fps: [2.0], semantics: [paper]}}\n"
    )
    toy, published = (compose_config(["matrix=mine", f"profile={name}"]).matrix for name in ("toy", "published"))
    assert (toy.fps, toy.by_task["videomme"].fps, toy.frames, toy.semantics) == ([2.0], None, [128], ["paper"])
    assert (published.fps, published.by_task["videomme"].fps, published.semantics) == ([1.0], [3.0], None)
    assert compose_config(["matrix=mine", "video.fps=5"]).matrix.fps is None


def test_a_matrix_without_axes_takes_the_numbers_of_the_profile(folder):
    (folder / "matrix" / "mine.yaml").write_text("name: mine\ntask: [lvbench]\n")
    config = compose_config(["matrix=mine"])
    assert (config.video.max_frames, config.video.fps, config.context.tokens) == (256, 2.0, 259)


def test_a_model_brings_its_published_video_and_context():
    config = compose_config(["profile=published", "model=llava_video_7b"])
    assert (config.video.max_frames, config.video.long_side, config.context.tokens) == (1024, 682, 40000)
    config = compose_config(["profile=published", "model=llava_video_7b", "video=release", "context.tokens=9"])
    assert (config.video.long_side, config.context.tokens) == (448, 9)


def test_the_printed_configuration_composes_again():
    config = compose_config(["matrix=ablation"])
    assert OmegaConf.create(as_yaml(config)).matrix.variant == ["no_both", "no_layer", "no_temporal", "full"]


def test_a_single_text_where_a_list_is_taken_is_a_list_of_one():
    assert compose_config(["report.cells=a2dad0b3"]).report.cells == ["a2dad0b3"]
    assert compose_config(["report.cells=[]"]).report.cells == []


def test_several_cells_in_one_text_stay_as_they_were_written():
    assert composed("show", "show.cell=lvbench-293eba22,848d5694")[1].cell == "lvbench-293eba22,848d5694"
    assert composed("show", "show.cell=84800694,12345678")[1].cell == "84800694,12345678"
