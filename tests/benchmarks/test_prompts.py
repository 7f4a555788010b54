"""Prompts, character by character, against what the releases and lmms-eval build from the same row."""

import pytest

from harness.benchmarks.benchmark import benchmark
from harness.benchmarks.questions import load_questions
from harness.errors import QuestionError, UserError

ANSWER = "Answer with the option's letter from the given choices directly."


def prompts(task, root, *args, **settings):
    return {question.question_id: question.prompt for question in load_questions(task(*args, **settings), root)}


def test_videomme_release(task, root):
    assert prompts(task, root, "videomme")["001-1"] == (
        f"How many birds are there?\nOptions:\nA. 1.\nB. 2.\nC. 3.\nD. 4.\n{ANSWER}"
    )


def test_videomme_release_subtitles(task, root):
    found = prompts(task, root, "videomme", "release_subtitles")
    plain = f"How many birds are there?\nOptions:\nA. 1.\nB. 2.\nC. 3.\nD. 4.\n{ANSWER}"
    assert found["003-1"] == (
        "This video's subtitles are listed below:\nHello there.\nTwo lines\n" + plain  # pysubs2 drops the font tags
    )
    assert found["001-1"] == plain  # no srt file: the prompt without subtitles


def test_videomme_lmms_eval(task, root):
    assert prompts(task, root, "videomme", "lmms_eval")["001-1"] == (
        "Select the best answer to the following multiple-choice question based on the video and the subtitles. "
        "Respond with only the letter (A, B, C, or D) of the correct option.\n"
        f"How many birds are there?\nA. 1.\nB. 2.\nC. 3.\nD. 4.\n\n{ANSWER}"
    )


def test_mlvu_release(task, root):
    question = next(q for q in load_questions(task("mlvu", split="dev"), root) if q.video_id == "needle_32")
    assert question.prompt == f"What is it?\nOptions:\nA. a dog.\nB. a cat.\nC. a hen.\nD. a cow.\n{ANSWER}"
    assert question.answer == "C"


def test_mlvu_test_release_has_six_options(task, root):
    assert prompts(task, root, "mlvu")["AR_0"] == (
        f"Which colour?\nOptions:\nA. red.\nB. blue.\nC. green.\nD. grey.\nE. pink.\nF. black.\n{ANSWER}"
    )


def test_mlvu_lmms_eval(task, root):
    dev = load_questions(task("mlvu", "lmms_eval", split="dev"), root)
    assert next(q for q in dev if q.video_id == "needle_32").prompt == (
        "What is it?\n(A) a dog\n(B) a cat\n(C) a hen\n(D) a cow\nOnly give the best option.\nBest option: ("
    )
    assert prompts(task, root, "mlvu", "lmms_eval")["AR_0"].endswith("\n(F) black")  # its test task instructs nothing


def test_longvideobench_release(task, root):
    found = prompts(task, root, "longvideobench", "release_subtitles", split="val")
    four = "Options:\nA. the red one.\nB. the blue one.\nC. the green one.\nD. the grey one.\n"
    assert found["86CxyhFV9M0_0"] == (f"Subtitles: First  line second.\nWhich subtitle comes first?\n{four}{ANSWER}")
    assert found["86CxyhFV9M1_0"] == (  # the other subtitle schema, five options
        f"Subtitles: First  line second.\nWhich subtitle comes first?\n{four}E. the pink one.\n{ANSWER}"
    )
    plain = prompts(task, root, "longvideobench", "release", split="val")
    assert all(found[key] == "Subtitles: First  line second.\n" + plain[key] for key in plain)


def test_longvideobench_lmms_eval(task, root):
    assert prompts(task, root, "longvideobench", "lmms_eval", split="val")["86CxyhFV9M0_0"] == (
        f"Which subtitle comes first?\nA. the red one\nB. the blue one\nC. the green one\nD. the grey one\n{ANSWER}\n"
    )


def test_longvideobench_parquet_options(folder):
    """The hub's parquet writes absent options as N/A: the release drops the fifth, and prints any other."""
    asked = benchmark("longvideobench")
    row = {"question": "q?", "option0": "x", "option1": "y", "option2": "z", "option3": "N/A", "option4": "N/A"}
    prompt = asked.prompt(row, "release", folder("longvideobench"))
    assert prompt == (f"q?\nOptions:\nA. x.\nB. y.\nC. z.\nD. N/A.\n{ANSWER}")
    row |= {"id": "1", "video_id": "v", "video_path": "v.mp4", "duration_group": 15, "question_category": "TOS"}
    assert asked.item(row).options == {"A": "x", "B": "y", "C": "z"}


def test_lvbench(task, root):
    assert prompts(task, root, "lvbench")["1"] == (
        f"What is on the table?\nOptions:\nA. a cup\nB. a hat\nC. a key\nD. a map.\n{ANSWER}"
    )
    assert prompts(task, root, "lvbench", "lmms_eval")["1"] == (
        "What is on the table?\n(A) a cup\n(B) a hat\n(C) a key\n(D) a map\nAnswer the question with the option letter"
    )


def test_vnbench(task, root):
    assert prompts(task, root, "vnbench", "official")["v_0_ord_insert2_ord_insert2_1"] == (
        f"Which word?\nA. two\nB. three\nC. four\nD. one\n{ANSWER}"
    )


def test_videomme_v2(task, root):
    listed = "\n".join(f"{letter}. thing {k}." for k, letter in enumerate("ABCDEFGH"))
    asked = f"Question: What is on the table?\n{listed}\n"
    plain = (
        "Select the best answer to the following multiple-choice question based on the video. Respond with only the "
        "letter (A, B, C, D, E, F, G, or H) of the correct option."
    )
    tails = {"lmms_eval": plain, "qwen3_vl": "Answer with the option letter only."}
    for protocol, tail in tails.items():
        assert prompts(task, root, "videomme_v2", protocol)["003-2"] == asked + tail
        said = prompts(task, root, "videomme_v2", f"{protocol}_subtitles")
        assert said["001-1"] == f"This video's subtitles are listed below:\nHello there.\n\n{asked}{tail}"
        assert said["002-1"] == asked + tail  # without subtitles


def test_videomme_v2_prompts_are_those_of_lmms_eval(folder):
    utils = pytest.importorskip("lmms_eval.tasks.videomme_v2.utils")
    asked, kwargs = benchmark("videomme_v2"), {"format": "qwen3_vl", "pre_prompt": "Question: "}
    kwargs["post_prompt"] = "Answer with the option letter only."
    for row in asked.load(folder("videomme_v2"), "test"):
        assert asked.prompt(row, "lmms_eval", folder("videomme_v2")) == utils.videomme_v2_doc_to_text(row)
        assert asked.prompt(row, "qwen3_vl", folder("videomme_v2")) == utils.videomme_v2_doc_to_text(row, kwargs)


@pytest.mark.parametrize("protocol", ["release", "release_subtitles", "lmms_eval"])
def test_the_releases_take_their_placeholder_out_of_any_text(protocol, folder):
    row = benchmark("videomme").load(folder("videomme"), "test")[6]
    row |= {"question": "What is <video>this?", "options": ["A. <video>.", "B. 2.", "C. 3.", "D. 4."]}
    prompt = benchmark("videomme").prompt(row, protocol, folder("videomme"))
    assert ("<video>" in prompt) == (protocol == "lmms_eval")
    assert protocol == "lmms_eval" or "What is this?\nOptions:\nA. .\nB. 2." in prompt


def test_unknown_split_names_the_known_ones(task, root):
    with pytest.raises(UserError, match="task.split=train is not known for mlvu; allowed: dev, generation, test"):
        load_questions(task("mlvu", split="train"), root)


def test_lvbench_release_is_defined_for_four_options(folder):
    row = {"uid": "7", "question": "q?\n(A) a\n(B) b\n(C) c\n(D) d\n(E) e"}
    with pytest.raises(QuestionError, match="question 7 has a fifth option.*task=lvbench_stock"):
        benchmark("lvbench").prompt(row, "release", folder("lvbench"))


def test_unknown_protocol_names_the_known_ones(task, root):
    with pytest.raises(UserError, match="task.protocol=releas is not known.*release, lmms_eval"):
        load_questions(task("lvbench", "releas"), root)
