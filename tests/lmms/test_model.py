"""nice python -m pytest tests/lmms/test_model.py"""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_model import LOADED, FakeAdapter, make_video
from lmms_eval.api.instance import Instance

import harness.lmms.model as room
from harness.errors import UserError
from harness.lmms.model import Qwen25VL
from harness.settings.compose import compose_config
from harness.store import answer_files, iter_answers, read_answers, read_manifest, read_questions

TOY = Path(room.__file__).parents[1] / "toy" / "checkpoint"
STOCK = "somebodys_task"


class NumberedAdapter(FakeAdapter):
    """Says again what it was asked."""

    dies_at = ""

    def answer(self, video, question, *arguments, **options):
        if question == self.dies_at:
            raise KeyboardInterrupt
        given = super().answer(video, question, *arguments, **options)
        return dataclasses.replace(given, text=f"reply to {question}")


@pytest.fixture
def build(tmp_path, monkeypatch):
    """A model over the fake adapter, with a task of six documents on two videos."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    LOADED.clear()

    def make(**arguments):
        given = {"pretrained": str(TOY), "results": str(tmp_path / "results"), "device": "cpu", "run.prefetch": 0}
        model = Qwen25VL(**{**given, "model.adapter": f"{__name__}.NumberedAdapter", "video.window": 4, **arguments})
        model.task_dict = {STOCK: {"test": rows(tmp_path)}}
        return model

    return make


def rows(folder, n_videos=2, per_video=3):
    videos = [make_video(folder, f"v{i}", size=i) for i in range(n_videos)]
    return [{"path": str(path)} for _ in range(per_video) for path in videos]  # videos interleaved, as tasks have them


def requests(docs, task=STOCK, **settings) -> list[Instance]:
    return [
        Instance(
            "generate_until",
            (f"Question {doc}?", {"max_new_tokens": 8, **settings}, lambda row: [row["path"]], doc, task, "test"),
            0,
            {"task": task, "doc_id": doc, "repeats": 1},
        )
        for doc in docs
    ]


def cell_of(tmp_path) -> Path:
    (cell,) = (tmp_path / "results" / "runs").iterdir()
    return cell


def test_texts_come_in_request_order_and_each_video_is_encoded_once(build):
    texts = build().generate_until(requests([5, 0, 3, 1, 4, 2]))
    assert texts == [f"reply to Question {doc}?" for doc in (5, 0, 3, 1, 4, 2)]
    (adapter,) = LOADED
    assert len(adapter.encoded) == 2


def test_a_second_command_loads_no_model_and_gives_the_same(build, tmp_path):
    first = build().generate_until(requests(range(6)))
    assert build().generate_until(requests(range(6))) == first
    assert len(LOADED) == 1
    assert len(list(iter_answers(answer_files(cell_of(tmp_path))[0]))) == 6
    assert read_manifest(cell_of(tmp_path)).cell["task"]["name"] == STOCK


def test_what_was_answered_before_a_crash_is_kept(build, tmp_path, monkeypatch):
    monkeypatch.setattr(NumberedAdapter, "dies_at", "Question 3?")
    with pytest.raises(KeyboardInterrupt):
        build().generate_until(requests(range(6)))
    before = [a.question_id for a in iter_answers(answer_files(cell_of(tmp_path))[0])]
    assert 0 < len(before) < 6
    monkeypatch.undo()
    assert len(build().generate_until(requests(range(6)))) == 6
    after = [a.question_id for a in iter_answers(answer_files(cell_of(tmp_path))[0])]
    assert after[: len(before)] == before and len(set(after)) == len(after) == 6


def test_a_limited_command_leaves_the_other_questions_recorded(build, tmp_path):
    build().generate_until(requests(range(6)))
    build().generate_until(requests([1, 2]))
    assert {q.question_id for q in read_questions(cell_of(tmp_path))} == {f"{STOCK}:{i}" for i in range(6)}


def test_other_settings_are_another_cell(build, tmp_path):
    for arguments in ({}, {"context": 128}, {"method.temporal": False}, {"max_frames": 16}, {"method": "none"}):
        build(**arguments).generate_until(requests([0]))
    build().generate_until(requests([0], max_new_tokens=99))
    names = sorted(p.name for p in (tmp_path / "results" / "runs").iterdir())
    assert len(names) == 6
    assert any("-c128-" in name for name in names) and any("-f16-" in name for name in names)


def test_a_repeated_request_is_answered_once(build):
    texts = build().generate_until(requests([0, 0, 1]))
    assert texts[0] == texts[1] != texts[2]


def test_a_replaced_video_keeps_no_old_answer(build, tmp_path):
    build().generate_until(requests(range(6)))
    model = build()
    make_video(tmp_path, "v0", frames=8)
    with pytest.raises(UserError, match=r"1 videos are other files than those that were answered, the first is .*v0"):
        model.generate_until(requests(range(6)))


def test_our_tasks_meet_the_cells_of_the_run_verb(build):
    from harness.settings.matrix import build_cells

    config = compose_config(["profile=toy", "task=videomme", "method=adaretake", "variant=full"])
    (theirs,) = build_cells(config)
    model = Qwen25VL(pretrained=str(TOY))
    asked = compose_config(["task=videomme"]).task
    model.task_dict = {"adaretake_videomme": {"test": SimpleNamespace(task=asked)}}

    def cell(model, **settings):
        (request,) = requests([0], "adaretake_videomme", **{"max_new_tokens": asked.max_new_tokens, **settings})
        return model._cell("adaretake_videomme", "test", [request])

    assert cell(model).id == theirs.id
    assert cell(model, max_new_tokens=5).id != theirs.id, "--gen_kwargs max_new_tokens=5 is another cell"
    small = Qwen25VL(pretrained=str(TOY), context=64)
    small.task_dict = model.task_dict
    assert cell(small).id != theirs.id


@pytest.mark.parametrize("settings", [{"temperature": 0.7}, {"num_beams": 3}, {"do_sample": True}])
def test_generation_that_is_not_greedy_is_refused_instead_of_printed_as_applied(build, settings):
    ((key, value),) = settings.items()
    with pytest.raises(UserError, match=rf"{STOCK} asks for {key}={value}, .*--gen_kwargs do_sample=false"):
        build().generate_until(requests([0], **settings))
    neutral = {"temperature": 0.0, "num_beams": 1, "do_sample": False, "top_p": None}
    assert build().generate_until(requests([0], **neutral)) == ["reply to Question 0?"]


@pytest.mark.parametrize(("until", "text"), [(["\n\n"], "reply to Question 0?"), (["tion"], "reply to Ques")])
def test_stop_words_of_a_task_cut_what_lmms_eval_sees_and_not_what_is_stored(build, tmp_path, until, text):
    assert build().generate_until(requests([0], until=until)) == [text]
    (answer,) = read_answers(cell_of(tmp_path)).values()
    assert answer.text == "reply to Question 0?"


def test_a_failed_question_gives_the_empty_text(build, tmp_path):
    model = build()
    make_video(tmp_path, "v0", fail="decode")
    texts = model.generate_until(requests(range(6)))
    assert [bool(text) for text in texts] == [False, True] * 3


def test_an_unknown_argument_is_refused_with_the_allowed_ones(build):
    with pytest.raises(UserError, match=r"contxt=3 is not known \(did you mean context\?\); allowed: pretrained, dev"):
        build(contxt=3)
    for name in ("task.max_new_tokens", "data.root", "task"):
        with pytest.raises(UserError, match=rf"{name}=3 is not known.*--tasks.*--gen_kwargs.*ADARETAKE_DATA"):
            build(**{name: 3})
    with pytest.raises(UserError, match=r"backend"):
        build(**{"video.backnd": "pyav"})
    with pytest.raises(UserError, match="release_2026"):
        build(semantics="parper").generate_until(requests([0]))
    with pytest.raises(UserError, match="leave 2 cells open"):
        build(**{"matrix.context": "[64,128]"}).generate_until(requests([0]))


def test_the_command_line_of_lmms_eval_reaches_every_setting(tmp_path):
    text = f"pretrained={TOY},semantics=paper,method.temporal=False,context=none,fps=1,max_frames=8,"
    text += f"video.backend=pyav,run.retry=failed,results={tmp_path}/a b"
    model = Qwen25VL.create_from_arg_string(text, {"batch_size": 1, "device": "cpu", "max_batch_size": None})
    config = model.config
    assert (config.context.tokens, config.video.fps, config.video.max_frames) == (None, 1.0, 8)
    assert (config.model.name, config.model.device, config.method.temporal) == ("toy", "cpu", False)
    assert (config.results, config.video.backend, config.run.retry) == (f"{tmp_path}/a b", "pyav", "failed")


def test_likelihoods_rounds_and_images_are_refused(build):
    with pytest.raises(UserError, match="gives no likelihoods"):
        build().loglikelihood(requests([0]))
    with pytest.raises(UserError, match="several rounds"):
        build().generate_until_multi_round(requests([0]))
    model = build()
    model.task_dict[STOCK]["test"][0] = {"path": 3}
    with pytest.raises(UserError, match="exactly one video file"):
        model.generate_until(requests([0]))


def test_several_processes_are_refused_with_the_way_out(build, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="engine.workers=N"):
        build()


def test_lmms_eval_finds_the_models_by_their_entry_point():
    from lmms_eval.models import get_model

    for name in ("adaretake_qwen2_5_vl", "adaretake_qwen2_vl", "adaretake_llava_onevision"):
        assert issubclass(get_model(name), room.HarnessModel)
