"""The anchored parser case by case, and the other code bases' rules where they differ from it."""

import json
import random
import time
from pathlib import Path

import pytest

from harness.benchmarks.benchmark import benchmark
from harness.benchmarks.parse import PARSERS, parse_letter

OPTIONS = {"A": "Cats are sleeping.", "B": "Dogs are running.", "C": "A man is walking", "D": "Nothing"}


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        (" B) ", "B"),
        ("[b].", "B"),
        ("**B**", "B"),
        ('"B".', "B"),
        ("B\n", "B"),
        ("B. Dogs are running", "B"),
        ("(b) Dogs are running.", "B"),
        ("B: something else", "B"),
        ("B Dogs are running.", "B"),
        ("B.\nBecause A is wrong.", "B"),
        ("Answer: B", "B"),
        ("Answer:B", "B"),
        ("answer: b", "B"),
        ("**Answer:** B", "B"),
        ("The answer is B", "B"),
        ("The answer is (B) because A is wrong", "B"),
        ("The answer is B because A is wrong", "B"),
        ("The best answer is B. Dogs are running", "B"),
        ("The best answer is: B", "B"),
        ("The correct option is B", "B"),
        ("The correct answer is option B.", "B"),
        ("Best Option: (B", "B"),
        ("Option B", "B"),
        ("Option B.", "B"),
        ("Option A is wrong, so the answer is B", "B"),
        ("The answer: (B) Dogs", "B"),
        ("The final answer is **B**.", "B"),
        ("The answer is A", "A"),
        ("The answer is A because of it", "A"),
        ("The answer is dogs are running.", "B"),
        ("At first the answer is A. No, the answer is B.", "B"),
        ("Based on the video, B", "B"),
        ("I looked closely.\nB.", "B"),
        ("I would choose: (B)", "B"),
        ("Dogs are running", "B"),
        ("dogs  are running.", "B"),
        ("A man is walking", "C"),  # an option's text; its first word is no letter
        ("nothing", "D"),
        ("B\n\nThe video shows dogs that run.", "B"),
        ("A\n\nThe video", "A"),
        ("B is the correct option", "B"),
        ("I believe B is the correct answer.", "B"),
        ("Option B is correct", "B"),
        ("Option A is wrong. Option B is correct.", "B"),
        ("(B) is correct", "B"),
        ("A is correct.", "A"),
        ("B - Dogs", "B"),
        ("B — dogs", "B"),
        ("**B** - Dogs", "B"),
        ("B, because", "B"),
        ("B, since the dogs run", "B"),
        ("<answer>B</answer>", "B"),
        ("First A, then no. <answer>\nB. Dogs\n</answer>", "B"),
        ("<answer>Dogs are running</answer>", "B"),
        ("<answer>A</answer> wait <answer>B", "B"),
        ("\\boxed{C}", "C"),
        ("So the answer is $\\boxed{\\text{C}}$.", "C"),
        ("I think option D because the man leaves", "D"),
        ("I think option D, because the man leaves", "D"),
        ("答案是B", "B"),
        ("答案：B", "B"),
        ("正确答案是 (B)。", "B"),
        ("答案是B，因为狗在跑", "B"),
        ("选项C", "C"),
        ("选项B是正确的", "B"),
        ("选B", "B"),
        ("1) B", "B"),
        ("1. B. Dogs are running", "B"),
        ("The answer is B, not A.", "B"),
        ("The answer is not A. The answer is B.", "B"),
        ("The correct answer is:\n\n**B. Dogs are running.**", "B"),
        ("(B)Dogs", "B"),
    ],
)
def test_anchored(text, letter):
    assert parse_letter(text, OPTIONS) == letter


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "E",  # not an option
        "(F)",
        "The answer is E.",
        "A dog barks",  # an article
        "The answer is a dog",
        "I think it is about Berlin",
        "Both A and B are shown",
        "He belongs to group A",
        "Dogs",
        "The answer is not given.",
        "The answer is not B",
        "Option B is wrong",
        "None of the options is right",
        "42",
        "是",
        "A man walks",
        "Both A and B",
        "A and B",
        "A, B",
        "A/B",
        "A - B",
        "A: B",
        "A or B",
        "(A) and (B) are shown",
        "A. and B. are both right",
        "A. B. C. D.",
        "The answer is A or B",
        "The answer is A and B",
        "option A and option B are right",
        "neither A nor B is correct",
        "both A and B is correct",
        "B is not correct",
        "Option A is not correct",
        "It is not B",
        "A is wrong",
        "A is the man on the left",
        "Vitamin C is best",
        "A frame-by-frame view",
        "A, a man walks",
        "B-roll is shown",
        "The man leaves through gate D",
        "There are three options: A, B, C",
        "1. A man walks",
        "1) A 2) B",
        "<answer></answer>",
        "<answer>A and B</answer>",
        "\\boxed{A, B}",
        "\\boxed{12}",
        "选项A和B都对",
        "选项A、B都对",
        "选项A是错的",
        "答案不是B",
        "答案是A和B",
    ],
)
def test_unparsed_is_an_outcome_of_its_own(text):
    assert parse_letter(text, OPTIONS) is None


def test_a_text_that_two_options_share_is_unparsed():
    assert parse_letter("same", {"A": "same", "B": "same", "C": "other"}) is None
    assert parse_letter("other", {"A": "same", "B": "same", "C": "other"}) == "C"


def test_six_options():
    options = dict(zip("ABCDEF", ("red", "blue", "green", "grey", "pink", "black"), strict=True))
    assert parse_letter("Answer: F", options) == "F"
    assert PARSERS["lmms_eval"]("F", options) is None  # lmms-eval knows A to D, also on MLVU test
    assert PARSERS["lmms_eval"]("E. pink", options) is None


@pytest.mark.parametrize(
    ("text", "anchored", "release", "lmms_eval"),
    [
        ("Answer: C", "C", "A", "C"),
        ("Based on the video, C", "C", "B", "C"),
        ("Best Option: (C", "C", "B", "C"),
        ("The answer is (B) because A is wrong", "B", "B", "A"),
        ("b", "B", None, None),
        ("The best answer is C", "C", "C", "C"),
        ("C", "C", "C", "C"),
        ("no idea at all", None, None, None),
    ],
)
def test_where_the_parsers_differ(text, anchored, release, lmms_eval):
    options = dict.fromkeys("ABCD", "")
    found = {name: PARSERS[name](text, options) for name in ("anchored", "release", "lmms_eval")}
    assert found == {"anchored": anchored, "release": release, "lmms_eval": lmms_eval}


def test_all_but_ours_take_an_article_for_a_letter():
    parsers = benchmark("longvideobench").parsers | benchmark("vnbench").parsers
    assert {name: parser("A man is walking", dict.fromkeys("ABCD", "x")) for name, parser in parsers.items()} == {
        "anchored": None,
        "release": "A",
        "lmms_eval": "A",
        "lmms_eval_longvideobench": "A",
        "vnbench": "A",
    }


@pytest.mark.parametrize(
    ("text", "letter"), [("B. C", "B"), ("C or B", "B"), ("So it is. D", None), ("(D", "D"), ("", None), ("E", None)]
)
def test_vnbench_takes_the_first_in_the_alphabet_before_the_first_stop(text, letter):
    assert benchmark("vnbench").parser("official")(text, {}) == letter


@pytest.mark.parametrize(
    ("name", "protocol", "parser"),
    [
        ("videomme", "release", "release"),
        ("videomme", "release_subtitles", "release"),
        ("mlvu", "release", "release"),
        ("longvideobench", "release_subtitles", "release"),
        ("lvbench", "release", "release"),
        ("lvbench", "lmms_eval", "lmms_eval"),
        ("longvideobench", "lmms_eval", "lmms_eval_longvideobench"),
        ("vnbench", "official", "vnbench"),
    ],
)
def test_a_protocol_is_scored_by_the_parser_that_made_its_published_numbers(name, protocol, parser):
    assert benchmark(name).protocols[protocol].parser == parser
    assert benchmark(name).parser(protocol) is benchmark(name).parsers[parser]


def test_a_long_answer_is_read_in_no_time():
    start = time.perf_counter()
    for piece in ("A ", "((", "option ", "B is ", "1) ", "<answer>", "A, ", "A\n", "答案是"):
        parse_letter(piece * 20_000, OPTIONS)
    assert time.perf_counter() - start < 10


def chatty_answers(n: int) -> list[str]:
    rng = random.Random(0)
    pieces = [
        *"ABCDEabcd",
        *"(). :,!",
        "\n",
        "The answer is ",
        "answer is",
        "Best option:",
        "the best option is ",
        "I pick",
    ]
    pieces += ["Dogs ", "because", "The best answer is", " and ", "选", "Because "]
    return ["".join(rng.choice(pieces) for _ in range(rng.randint(1, 8))) for _ in range(n)]


def test_lmms_eval_rule_equals_lmms_eval():
    from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer

    for text in chatty_answers(4000):
        assert (PARSERS["lmms_eval"](text, {}) or "") == extract_mcq_answer(text, choices=list("ABCD")), repr(text)


def test_no_parser_is_random():
    texts = chatty_answers(300)
    for parser in PARSERS.values():
        assert [parser(text, OPTIONS) for text in texts] == [parser(text, OPTIONS) for text in texts]


SAID = (
    "B",
    "(B)",
    "b.",
    "**C**",
    "C)",
    "The answer is D.",
    "the answer: **E**",
    "Final Answer: F",
    "I say\nG",
    "H\nso",
)
SAID += ("Best option: A because", "It is thing 3", "It is thing 3 or thing 4", "**A.** and **A.**", "**A.** or **B.**")
SAID += (
    "",
    "none",
    "option would be c",
    "Answer is A. No, the answer is B!",
    "A dog",
    "I think A",
    "A) x\nThe answer is B",
)


def test_videomme_v2_parses_as_lmms_eval():
    import itertools

    utils = pytest.importorskip("lmms_eval.tasks.videomme_v2.utils")
    options = {letter: f"thing {k}." for k, letter in enumerate("ABCDEFGH")}
    listed = "\n".join(f"{letter}. {text}" for letter, text in options.items())
    parse = benchmark("videomme_v2").parser("lmms_eval")
    for text in (*SAID, *(" ".join(pair) for pair in itertools.product(SAID, repeat=2))):
        theirs = utils.extract_characters_regex(text) or utils.extract_option(text, listed)
        assert (parse(text, options) or "Z") == theirs, text


def test_videomme_v2_options_may_go_on_for_lines():
    options_of = benchmark("videomme_v2").functions.options_of
    assert options_of("A. x\nB. y:\n- z\nA. again\nC. w\n") == {"A": "x", "B": "y:\n- z\nA. again", "C": "w"}
    with pytest.raises(ValueError, match="options begin with 'x'"):
        options_of("x\nA. y")


CASES = json.loads((Path(__file__).parents[1] / "cases" / "answers_52.json").read_text())


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["text"][:40])
def test_answers_are_read_as_a_person_reads_them(case):
    assert parse_letter(case["text"], CASES["options"]) == case["read_as"]


@pytest.mark.parametrize(
    "text",
    ["<think>B is right", "It is a green cone.", "It is not C.", "I pick the cone", "A. A red cube\nB. A blue ball"],
)
def test_no_answer_is_read_out_of_thoughts_or_lists(text):
    assert parse_letter(text, CASES["options"]) is None
