"""Replicates ask the same questions with their options in another order; right answers follow their texts."""

from __future__ import annotations

import dataclasses

import pytest

from harness.benchmarks.questions import as_published, load_questions, order_of, reordered
from harness.errors import QuestionError

ASKED = [
    ("videomme", "release", "test"), ("videomme", "lmms_eval", "test"), ("mlvu", "release", "dev"),
    ("mlvu", "lmms_eval", "dev"), ("longvideobench", "release_subtitles", "val"),
    ("longvideobench", "lmms_eval", "val"), ("lvbench", "release", "test"), ("lvbench", "lmms_eval", "test"),
    ("vnbench", "official", "test"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "protocol", "split"), ASKED)
@pytest.mark.parametrize("replicate", [1, 7])
def test_every_prompt_lists_the_moved_options(data, protocol, split, replicate, root, task):
    setting = task(data, protocol, split)
    published = load_questions(setting, root)
    moved = load_questions(dataclasses.replace(setting, replicate=replicate), root)
    assert len(published) == len(moved) > 2
    for before, after in zip(published, moved, strict=True):
        if before.problem:
            assert after.problem == before.problem
            continue
        assert not after.problem and after.prompt != before.prompt
        assert sorted(after.options.values()) == sorted(before.options.values())
        if before.answer in before.options:
            assert after.options[after.answer] == before.options[before.answer]
        # A prompt moved back by hand, one option at a time through marks that no text holds, is the published one.
        order = order_of(before.question_id, before.options, replicate)
        text = after.prompt
        for shown, letter in order.items():
            heads = [f"\n{shown}. ", f"\n({shown}) "]
            head = next(h for h in heads if h + before.options[letter] in text)
            start = text.rindex(head + before.options[letter])
            text = text[:start] + head + f"<{shown}>" + text[start + len(head + before.options[letter]) :]
        for shown in order:
            text = text.replace(f"<{shown}>", before.options[shown])
        assert text == before.prompt


def test_orders_are_drawn_uniformly_without_the_published_one():
    drawn = ["".join(order_of(str(k), "ABC", 1).values()) for k in range(2000)]
    counts = {order: drawn.count(order) for order in set(drawn)}
    assert set(counts) == {"ACB", "BAC", "BCA", "CAB", "CBA"}
    assert all(330 < n < 470 for n in counts.values())
    assert order_of("q", "ABCD", 0) == dict(zip("ABCD", "ABCD", strict=True))
    assert len({"".join(order_of("q", "ABCD", r).values()) for r in range(1, 40)}) > 10
    assert order_of("q", "A", 3) == {"A": "A"} and order_of("q", "", 3) == {}


def test_letters_go_back_to_the_published_order(root, task):
    questions = load_questions(task("videomme", replicate=3), root)
    shown = [question.answer for question in questions]
    published = [question.answer for question in load_questions(task("videomme"), root)]
    asked = [(question.question_id, question.options) for question in questions]
    assert shown != published
    assert as_published(shown, asked, 3) == published
    assert as_published([None, *shown[1:]], asked, 3) == [None, *published[1:]]


def test_a_prompt_without_listed_options_is_refused(root, task):
    question = dataclasses.replace(load_questions(task("videomme"), root)[0], prompt="What is it?")
    with pytest.raises(QuestionError, match=r"task\.replicate=0"):
        reordered(question, 1)
