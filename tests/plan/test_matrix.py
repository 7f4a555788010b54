"""Expansion of a matrix into cells and groups of siblings."""

import pytest

from harness.compress.method import method_names
from harness.errors import UserError
from harness.settings.compose import Recomposed, compose_config
from harness.settings.matrix import as_groups, build_cells
from harness.settings.weights import fetch_advice, find_weights, mismatch, weights_identity
from harness.verdicts.expected import load_tables


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return f"model.path={folder}"


def test_main_results_is_table_a(model):
    cells = build_cells(compose_config(["profile=published", model]))
    facts = {(c.task.name, c.video.max_frames, c.video.fps, c.context, c.method.semantics, c.variant) for c in cells}
    assert facts == {
        ("videomme", 2048, 4.0, 16000, "release_2026", "full"),
        ("mlvu", 2048, 2.0, 16000, "release_2026", "full"),
        ("longvideobench", 2048, 2.0, 16000, "release_2026", "full"),
        ("lvbench", 2048, 2.0, 16000, "release_2026", "full"),
    }
    assert all(c.method.positions == "truncated" for c in cells)


def test_ablation_is_table_b_in_groups_of_four_siblings(model):
    groups = as_groups(build_cells(compose_config(["matrix=ablation", "profile=published", model])))
    assert [len(g.cells) for g in groups] == [4, 4, 4, 4]
    assert {c.variant for c in groups[0].cells} == {"no_both", "no_layer", "no_temporal", "full"}
    assert {c.video.max_frames for g in groups for c in g.cells} == {1024}


def test_axes_are_lists_on_the_command_line(model):
    config = compose_config(["context=[64,128,256]", "frames=[64,128]", "task=[lvbench]", "method=adaretake", model])
    groups = as_groups(build_cells(config))
    assert [len(g.cells) for g in groups] == [3, 3]


def test_overrides_of_a_group_reach_every_option_of_an_axis(model):
    cells = build_cells(compose_config(["task.subset=ci", "matrix.rows=[]", model]))
    assert len(cells) == 4
    assert {c.task.subset for c in cells} == {"ci"}


def test_uncompressed_cells_are_not_repeated_per_variant(model):
    words = ["matrix=ablation", "profile=published", "matrix.method=[none,adaretake]", "matrix.task=[mlvu]", model]
    config = compose_config(words)
    assert [c.variant for c in build_cells(config)] == ["none", "no_both", "no_layer", "no_temporal", "full"]
    assert len(as_groups(build_cells(config))) == 1


@pytest.mark.parametrize(
    "override",
    [
        "matrix.variant=[ful]", "matrix.task=[]", "matrix.context=[0]", "matrix.frames=[1]",
        "matrix.fps=[inf]", "matrix.frames=[1000000000]", "matrix.task=[nope]", "matrix.by_task.mlvu.fps=[0]",
        "matrix.by_task.mlvu.context=[]",
    ],
)  # fmt: skip
def test_a_wrong_axis_is_named(model, override):
    with pytest.raises(UserError, match=override.split("=")[0]):
        build_cells(compose_config([override, model]))


def test_a_semantics_that_no_method_has_is_named(model):
    with pytest.raises(UserError, match="unknown semantics 'papr': allowed are paper"):
        build_cells(compose_config(["matrix.semantics=[papr]", model]))


def test_only_methods_that_have_the_options_of_an_axis_are_spread_over_it(model):
    words = ["matrix=ablation", "profile=published", "matrix.method=[none,retake,adaretake]", "task=mlvu", model]
    cells = build_cells(compose_config(words))
    assert [c.variant for c in cells] == ["none", "retake", "no_both", "no_layer", "no_temporal", "full"]
    assert "retake-f1024" in cells[1].id and "adaretake-release_2026-full-f1024" in cells[-1].id


def test_missing_weights_name_the_command_that_gets_them():
    with pytest.raises(UserError, match="hf download nobody/nothing --local-dir models/nothing"):
        find_weights("nobody/nothing")
    with pytest.raises(UserError, match="does not exist"):
        find_weights("/nowhere")


HUB = "Qwen/Qwen2.5-VL-7B-Instruct"
FETCH = f"{{hf}} download {HUB} --local-dir {{folder}}"


@pytest.mark.parametrize(
    ("path", "fetch", "command", "then"),
    [
        (HUB, FETCH, f"download {HUB} --local-dir models/Qwen2.5-VL-7B-Instruct", "models/Qwen2.5-VL-7B-Instruct"),
        ("models/mine", FETCH, f"download {HUB} --local-dir models/mine", None),
        ("/a b/c", FETCH, f"download {HUB} --local-dir '/a b/c'", None),
        ("someone/else", FETCH, "download someone/else --local-dir models/else", "models/else"),
        ("someone/else", None, "download someone/else --local-dir models/else", "models/else"),
        ("/nowhere", "git checkout -- x", "git checkout -- x", None),
    ],
)
def test_the_command_that_gets_weights_knows_the_hub_and_the_folder(path, fetch, command, then):
    first, _, rest = fetch_advice(path, fetch).partition("\n")
    assert first.endswith(command)
    assert rest.strip() == (f"then: model.path={then}" if then else "")


def test_damaged_weights_go_before_they_are_fetched_again(tmp_path):
    (tmp_path / "model.safetensors").touch()
    advice = fetch_advice(str(tmp_path), FETCH, tmp_path / "model.safetensors")
    assert advice.startswith(f"get them: rm -r {tmp_path}/model.safetensors && ")
    convert = "{hf} download a/b && {python} scripts/convert_llava_video.py a/b {folder}"
    assert f"rm -r {tmp_path} && " in fetch_advice(str(tmp_path), convert, tmp_path / "model.safetensors")


def test_weights_identity_sees_the_contents(tmp_path):
    identities = set()
    for k in range(2):
        folder = tmp_path / str(k)
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(bytes([k]) * 10)
        identities.add(weights_identity(folder))
    assert len(identities) == 2


WORDS = ["profile=published", "model.dtype=bfloat16"]


@pytest.mark.parametrize(
    ("word", "fact"),
    [
        ("video.fps=4", lambda cell: cell.video.fps == 4),
        ("video.max_frames=64", lambda cell: cell.video.max_frames == 64),
        ("context.tokens=100", lambda cell: cell.context == 100),
        ("context=1k", lambda cell: cell.context == 1000),
        ("context=full", lambda cell: cell.context is None),
        ("method.semantics=release_2025", lambda cell: cell.method.semantics == "release_2025"),
        ("method.temporal=false", lambda cell: cell.variant == "no_temporal"),
        ("task=mlvu", lambda cell: cell.task.name == "mlvu"),
    ],
)
def test_a_setting_reaches_the_cells_in_spite_of_the_axis(model, word, fact):
    cells = build_cells(compose_config([*WORDS, model, word]))
    assert cells and all(fact(cell) for cell in cells)


def test_a_quirk_of_a_release_reaches_the_cells(model):
    words = ["method.semantics=release_2026", "method.quirks.guide_by_text_index=false"]
    cells = build_cells(compose_config([model, *words]))
    assert {(c.method.semantics, c.method.quirks["guide_by_text_index"]) for c in cells} == {("release_2026", False)}


def test_llava_video_brings_its_published_settings(model):
    words = [*WORDS, model, "model=llava_video_7b", "matrix.semantics=[paper]"]
    facts = {(c.video.long_side, c.video.max_frames, c.context) for c in build_cells(compose_config(words))}
    assert facts == {(682, 1024, 40000)}
    both = build_cells(compose_config([*WORDS, model, "matrix.model=[llava_video_7b,qwen2_5_vl_7b]", "task=lvbench"]))
    assert [(c.video.long_side, c.video.max_frames, c.context) for c in both] == [
        (682, 1024, 40000),
        (448, 2048, 16000),
    ]


@pytest.mark.parametrize("path", ["os.system", "os", "nowhere.at.All", "harness.models.adapter.Adapter", "x"])
def test_what_is_no_adapter_is_refused(model, path):
    with pytest.raises(UserError, match="model.adapter=.*harness.models.qwen2_5_vl.Qwen25VL"):
        build_cells(compose_config([model, f"model.adapter={path}"]))


def test_a_benchmark_that_is_not_there_is_refused(model):
    with pytest.raises(UserError, match="task.data=foo .*allowed: longvideobench"):
        build_cells(compose_config([model, "task=mlvu", "task.data=foo", "task.name=foo"]))


def test_weights_under_a_wrong_name_are_said_in_words():
    words = ["profile=published", "model.path=harness/toy/checkpoint", "task=mlvu"]
    record = build_cells(compose_config(words))[0].record()
    assert mismatch(record) == (
        "the weights are not those of qwen2_5_vl_7b: layers 4 instead of 28, hidden_size 128 instead of 3584, "
        "vocabulary 416 instead of 152064"
    )
    assert mismatch(build_cells(compose_config(["task=mlvu"]))[0].record()) is None
    assert mismatch({"model": {"name": "old"}}) is None


def test_stock_tasks_take_the_frames_of_lmms_eval():
    """In a table beside tasks that do not; other frames are one word away, and the toy keeps its own."""
    words = ["profile=published", "matrix.task=[mlvu,mlvu_stock]", "model.path=nowhere"]
    ours, stock = (cell.video for cell in build_cells(compose_config(words), []))
    assert (ours.sampler, ours.max_frames, ours.fps) == ("release", 2048, 2.0)
    assert (stock.sampler, stock.max_frames, stock.fps, stock.long_side) == ("stock", 32, 240.0, None)
    (found,) = build_cells(compose_config(["profile=published", "task=mlvu_stock", "matrix.task=null"]), [])
    assert found.video == stock
    (other,) = build_cells(compose_config([*words[:1], "matrix.task=[mlvu_stock]", "video=release"]), [])
    assert other.video.sampler == "release"
    (toy,) = build_cells(compose_config(["profile=toy", "task=mlvu_stock", "method=adaretake"]), [])
    assert toy.video.sampler == "release"


TABLES = {  # task, model, method, frames, context, variant of some cells, and how many there are
    "table1": (32, ("longvideobench", "qwen2_5_vl_72b", "adaretake", 1024, 16000, "full")),
    "table2": (None, ("lvbench", "qwen2_vl_7b", "adaretake", 1024, 1000, "full")),
    "table3": (21, ("videomme", "qwen2_vl_7b", "adaretake", 128, 1000, "no_both")),
    "table4": (8, ("mlvu", "llava_video_7b", "none", 128, None, "none")),
}


@pytest.mark.parametrize("matrix", TABLES)
def test_the_tables_of_the_paper_hold_every_number_published_for_them(model, matrix):
    cells = build_cells(
        compose_config([f"matrix={matrix}", "profile=published", model]), []
    )  # no recipe is fitted here
    facts = {(c.task.name, c.model.name, c.method.name, c.video.max_frames, c.context, c.variant) for c in cells}
    number, one = TABLES[matrix]
    assert one in facts
    assert number in (None, len(cells))
    file = {"table1": "C", "table2": "D", "table3": "E", "table4": "F"}[matrix]
    table = next(table for table in load_tables("results/expected") if table.id == file)
    for published in table.numbers.values():
        if published.quoted or published.setting["method"] not in method_names():
            continue
        want = {key: published.setting.get(key) for key in ("task", "model", "method", "frames", "variant")}
        assert any(meets(cell, want) for cell in cells), published.id


def meets(cell, want):
    found = {"task": cell.task.name, "model": cell.model.name, "method": cell.method.name}
    found |= {"frames": cell.video.max_frames, "variant": cell.variant}
    return all(value is None or found[key] == value for key, value in want.items())


def test_rows_are_products_of_their_own_and_the_command_line_wins_over_them(model):
    cells = build_cells(compose_config(["matrix=table3", "profile=published", "matrix.task=[mlvu]", model]))
    assert [(c.variant, c.video.max_frames, c.context) for c in cells] == [
        ("none", 128, None), ("no_both", 128, 1000), ("no_both", 1024, 1000), ("no_temporal", 1024, 1000),
        ("full", 1024, 1000), ("full", 1024, 16000), ("full", 2048, 16000),
    ]  # fmt: skip
    words = ["matrix=table3", "profile=published", "task=mlvu", "video.max_frames=64", "matrix.context=[500]", model]
    cells = build_cells(compose_config(words))
    assert [(c.variant, c.video.max_frames, c.context) for c in cells] == [
        ("none", 64, None), ("no_both", 64, 500), ("no_temporal", 64, 500), ("full", 64, 500),
    ]  # fmt: skip
    assert {c.model.name for c in build_cells(compose_config(["matrix=table3"]))} == {"toy"}


def test_a_row_wins_over_the_exceptions_of_a_task(model):
    words = [
        "matrix=main_results",
        "profile=published",
        "task=videomme",
        "matrix.rows=[{fps:[1.0]},{frames:[8]}]",
        model,
    ]
    assert [(c.video.fps, c.video.max_frames) for c in build_cells(compose_config(words))] == [(1.0, 2048), (4.0, 8)]
    with pytest.raises(UserError, match=r"matrix.rows\[0\].frame "):
        compose_config(["matrix.rows=[{frame:[8]}]"])
    with pytest.raises(UserError, match=r"matrix.rows\[0\].frames"):
        build_cells(compose_config(["matrix.rows=[{frames:[1]}]", model]))


def test_a_subset_is_an_axis(model):
    words = ["profile=published", "matrix.task=[mlvu]", "matrix.subset=[null,ci]", model]
    assert [c.task.subset for c in build_cells(compose_config(words))] == [None, "ci"]
    assert len(as_groups(build_cells(compose_config(words)))) == 2


def test_methods_are_compared_on_one_subset_and_a_setting_wins_over_rows(model):
    toy = build_cells(compose_config(["matrix=methods", "matrix.task=[mlvu]", "matrix.method=[none,stride]"]))
    assert {c.task.subset for c in toy} == {"mini"} and len(toy) == 1 + 5
    words = ["matrix=methods", "matrix.task=[mlvu]", "matrix.method=[none,stride]", "context.tokens=65"]
    quick = build_cells(compose_config([*words, "task.subset=ci"]))
    assert [(c.context, c.task.subset) for c in quick] == [(None, "ci"), (65, "ci")]
    small = build_cells(compose_config(["matrix=methods", "matrix.task=[lvbench]", "matrix.context=[259]"]))
    assert {c.context for c in small} == {None, 259} and len({c.method.name for c in small}) == len(small) > 20
    real = build_cells(compose_config([*words, "profile=published", model]))
    assert {c.task.subset for c in real} == {None}


def test_an_option_that_does_not_fit_is_named():
    with pytest.raises(UserError, match="method=nope does not exist"):
        Recomposed([]).under(method="nope")
    with pytest.raises(UserError, match="method.form: .*does not exist|method.form does not exist"):
        Recomposed(["method=fastv", "method.form=native"]).under(method="stride")
