"""nice python -m pytest tests/run/test_lmms.py"""

from pathlib import Path

import fake_model
import pytest
from fake_model import make_video
from lmms_eval.api.instance import Instance

import harness.lmms.model as room
from harness.errors import UserError
from harness.lmms.arguments import ARGUMENTS, known_tasks
from harness.lmms.model import Qwen25VL
from harness.lmms.task import Rows
from harness.store import answer_files, iter_answers, read_manifest, read_questions

TOY = Path(room.__file__).parents[1] / "toy" / "checkpoint"
STOCK = "somebodys_task"


@pytest.fixture
def build(tmp_path, monkeypatch):
    """A model over the fake responder, and the responders that it loaded."""
    loaded = []

    def load(cell):
        loaded.append(fake_model.FakeResponder())
        return loaded[-1]

    monkeypatch.setattr(room, "load_responder", load)
    monkeypatch.setattr(room, "VideoFrames", fake_model.FakeFrames)

    def make(**arguments):
        model = Qwen25VL(**{"pretrained": str(TOY), "results": str(tmp_path / "results"), **arguments})
        model.task_dict = {STOCK: {"test": rows(tmp_path)}}
        return model

    make.loaded = loaded
    return make


def rows(folder, n_videos=2, per_video=3):
    videos = [make_video(folder, f"v{i}") for i in range(n_videos)]
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


class NumberedResponder(fake_model.FakeResponder):
    """Names the question it was asked."""

    def reply(self, features, question, cell):
        return fake_model.Reply(f"reply to {question.question_id}: {question.prompt}", 10, 8)


def test_texts_come_in_request_order_and_each_video_is_encoded_once(build, monkeypatch):
    responder = NumberedResponder()
    monkeypatch.setattr(room, "load_responder", lambda cell: responder)
    order = [5, 0, 3, 1, 4, 2]
    texts = build().generate_until(requests(order))
    assert texts == [f"reply to {STOCK}:{doc}: Question {doc}?" for doc in order]
    assert len(responder.encoded) == 2


def test_a_second_command_loads_no_model_and_gives_the_same(build, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "load_responder", lambda cell: NumberedResponder())
    first = build().generate_until(requests(range(6)))
    monkeypatch.setattr(room, "load_responder", lambda cell: pytest.fail("nothing was missing"))
    assert build().generate_until(requests(range(6))) == first
    (cell,) = (tmp_path / "results" / "runs").iterdir()
    assert len(list(iter_answers(answer_files(cell)[0]))) == 6
    assert read_manifest(cell).cell["task"]["lmms_task"] == STOCK


def test_what_was_answered_before_a_crash_is_kept(build, tmp_path, monkeypatch):
    class Dies(NumberedResponder):
        def reply(self, features, question, cell):
            if question.question_id.endswith(":3"):
                raise KeyboardInterrupt
            return super().reply(features, question, cell)

    monkeypatch.setattr(room, "load_responder", lambda cell: Dies())
    with pytest.raises(KeyboardInterrupt):
        build().generate_until(requests(range(6)))
    (cell,) = (tmp_path / "results" / "runs").iterdir()
    before = [a.question_id for a in iter_answers(answer_files(cell)[0])]
    assert 0 < len(before) < 6
    monkeypatch.setattr(room, "load_responder", lambda cell: NumberedResponder())
    assert len(build().generate_until(requests(range(6)))) == 6
    after = [a.question_id for a in iter_answers(answer_files(cell)[0])]
    assert after[: len(before)] == before and len(set(after)) == len(after) == 6


def test_a_limited_command_leaves_the_other_questions_recorded(build, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "load_responder", lambda cell: NumberedResponder())
    build().generate_until(requests(range(6)))
    build().generate_until(requests([1, 2]))
    (cell,) = (tmp_path / "results" / "runs").iterdir()
    assert {q.question_id for q in read_questions(cell)} == {f"{STOCK}:{i}" for i in range(6)}


def test_other_settings_are_another_cell(build, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "load_responder", lambda cell: NumberedResponder())
    for arguments in ({}, {"context": 128}, {"temporal": False}, {"max_frames": 16}, {"method": "none"}):
        build(**arguments).generate_until(requests([0]))
    build().generate_until(requests([0], max_new_tokens=99))
    names = sorted(p.name for p in (tmp_path / "results" / "runs").iterdir())
    assert len(names) == 6
    assert any("-c128-" in name for name in names) and any("-f16-" in name for name in names)


def test_a_repeated_request_is_answered_once(build, tmp_path, monkeypatch):
    responder = NumberedResponder()
    monkeypatch.setattr(room, "load_responder", lambda cell: responder)
    texts = build().generate_until(requests([0, 0, 1]))
    assert texts[0] == texts[1] != texts[2]


def test_our_tasks_meet_the_cells_of_the_run_verb(build, tmp_path):
    from harness.config import compose_config
    from harness.plan.matrix import build_cells

    assert known_tasks()["adaretake_videomme"] == "videomme"
    config = compose_config(["profile=toy", "matrix.task=[videomme]", "matrix.variant=[full]"])
    (theirs,) = build_cells(config)
    model = build()
    asked = compose_config(["task=videomme"]).task
    asked.name = asked.lmms_task  # as harness.lmms.task names it
    assert model._our_cell(Rows([], asked).task).id == theirs.id
    assert build(context=64)._our_cell(asked).id != theirs.id


def test_a_failed_question_gives_the_empty_text(build, tmp_path):
    model = build()
    make_video(tmp_path, "v0", fail="decode")
    texts = model.generate_until(requests(range(6)))
    assert [bool(text) for text in texts] == [False, True] * 3


def test_an_unknown_argument_is_refused_with_the_allowed_ones(build):
    with pytest.raises(
        UserError, match=r"contxt=3 is not known \(did you mean context\?\); allowed: pretrained, dtype"
    ):
        build(contxt=3)
    with pytest.raises(UserError, match="allowed are paper, release_2025, release_2026"):
        build(semantics="parper").generate_until(requests([0]))


def test_the_command_line_of_lmms_eval_reaches_every_argument(build, tmp_path):
    text = f"pretrained={TOY},semantics=paper,temporal=False,context=none,fps=1,max_frames=8,results={tmp_path}/a b"
    model = Qwen25VL.create_from_arg_string(text, {"batch_size": 1, "device": "cpu", "max_batch_size": None})
    config = model.config
    assert (config.matrix.context, config.matrix.fps, config.matrix.frames) == ([None], [1.0], [8])
    assert (config.model.name, config.model.device, config.method.temporal) == ("toy", "cpu", False)
    assert config.results == f"{tmp_path}/a b"
    assert {"pretrained", "semantics", "temporal", "layers", "context", "fps", "max_frames", "chunk_frames"} <= set(
        ARGUMENTS
    )


def test_likelihoods_rounds_and_images_are_refused(build, tmp_path):
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
    with pytest.raises(UserError, match="engine=local"):
        build()


def test_lmms_eval_finds_the_models_by_their_entry_point():
    from lmms_eval.models import get_model

    for name in ("adaretake_qwen2_5_vl", "adaretake_qwen2_vl", "adaretake_llava_onevision"):
        assert issubclass(get_model(name), room.HarnessModel)
