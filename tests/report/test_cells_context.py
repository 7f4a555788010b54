"""python -m pytest tests/report/test_cells_context.py"""

import numpy as np
import pytest
from cell_folders import VARIANTS, cell_record, context, questions, rewrite, write_cell

from harness.benchmarks.benchmark import benchmark
from harness.errors import UserError
from harness.evidence.cells import subtitles
from harness.evidence.loading import load_cells
from harness.evidence.statistics import main_metric
from harness.store import Answer, AnswerLog, QuestionRecord


def right(n, seed=0, share=0.6):
    return list(np.random.default_rng(seed).random(n) < share)


@pytest.mark.parametrize("task", ["videomme", "mlvu", "longvideobench", "lvbench"])
def test_every_metric_is_the_benchmarks_own(tmp_path, task):
    asked = questions(task, 30)
    write_cell(tmp_path, asked, right(90), task=task)
    (cell,) = load_cells(tmp_path)
    known = benchmark(task).metrics.scores(cell.items())
    assert main_metric(task) == next(iter(known)) and len(known) > 1
    for name, value in known.items():
        assert context([cell]).estimate(cell, name).value == pytest.approx(value, abs=1e-9), name


def test_circular_scoring_counts_a_sample_once(tmp_path):
    asked = [
        QuestionRecord(f"{s}-{t}", f"v{s}", {"A": "x", "B": "y"}, "A", {"type": "ret", "task": "ret", "sample": str(s)})
        for s in range(6)
        for t in range(4)
    ]
    record = cell_record("lvbench")
    record["task"] |= {"name": "vnbench", "data": "vnbench", "protocol": "official"}
    write_cell(tmp_path, asked, [i != 5 for i in range(24)], record=record)
    (cell,) = load_cells(tmp_path)
    found = context([cell]).estimate(cell, "overall")
    assert (found.value, found.n) == (pytest.approx(100 * 5 / 6), 6)
    assert context([cell]).estimate(cell, "single_try").value == pytest.approx(100 * 23 / 24)


def test_a_group_counts_once_with_what_it_is_worth(tmp_path):
    tags = {"group_type": "relevance", "group_structure": "none", "group_level": "1"}
    asked = [
        QuestionRecord(f"{v}-{p}", f"v{v}", {"A": "x", "B": "y"}, "A", tags | {"group": f"v{v}", "place": str(p)})
        for p in (3, 1, 4, 2)
        for v in range(6)
    ]
    record = cell_record("lvbench")
    record["task"] |= {"name": "videomme_v2", "data": "videomme_v2", "protocol": "lmms_eval"}
    for digest, wrong in (("1", {0}), ("2", {0, 6, 1})):
        write_cell(tmp_path, asked, [i not in wrong for i in range(24)], record=record, digest=digest)
    one, two = load_cells(tmp_path)
    found = context([one]).estimate(one, "overall")
    assert (found.value, found.n, found.clusters) == (pytest.approx(100 * (5 + 9 / 16) / 6), 6, 6)
    assert context([one]).estimate(one, "accuracy").n == 24
    for name, value in benchmark("videomme_v2").metrics.scores(two.items()).items():
        assert context([two]).estimate(two, name).value == pytest.approx(value), name
    paired = context([one, two]).paired(one, two)
    assert (paired.n, paired.gained, paired.lost) == (6, 2, 0)
    assert paired.value == pytest.approx(100 * (9 / 16 - 4 / 16 + 1 - 9 / 16) / 6)


def test_failed_and_unparsed_are_wrong_and_missing_is_nowhere(tmp_path):
    asked = questions("lvbench", 10)
    answers = [True] * 30
    answers[7] = answers[8] = None
    write_cell(tmp_path, asked, answers, failed={0}, unparsed={1, 2})
    (cell,) = load_cells(tmp_path)
    assert (cell.n, cell.failed, cell.unparsed, cell.missing, cell.complete) == (30, 1, 2, 2, False)
    assert (
        context([cell]).estimate(cell).value == pytest.approx(100 * 25 / 28) and context([cell]).estimate(cell).n == 28
    )


def test_answers_of_several_workers_are_one_cell_and_a_later_success_wins(tmp_path):
    asked = questions("lvbench", 2)
    folder = write_cell(tmp_path, asked, [True] * 6, failed={4}, worker="w0")
    with AnswerLog(folder, "w1") as log:
        log.append(Answer("v1-1", "v1", "ok", text=asked[4].answer))
    (cell,) = load_cells(tmp_path)
    assert (cell.failed, context([cell]).estimate(cell).value) == (0, 100)


def test_no_gold_answer_means_no_score(tmp_path):
    from dataclasses import replace

    asked = [replace(q, answer=None) for q in questions("lvbench", 3)]
    write_cell(tmp_path, asked, [True] * 9)
    (cell,) = load_cells(tmp_path)
    assert cell.complete and cell.n == 9 and len(cell.answered()) == 0 and context([cell]).estimate(cell) is None


def test_pairs_use_the_shared_questions_only(tmp_path):
    asked = questions("videomme", 20)
    a = [True] * 60
    b = [i % 5 != 0 for i in range(60)]
    b[:10] = [None] * 10
    write_cell(tmp_path, asked, a, task="videomme", variant="full", digest="1")
    write_cell(tmp_path, asked, b, task="videomme", variant="no_both", digest="2")
    cells = {cell.variant: cell for cell in load_cells(tmp_path)}
    found = context(list(cells.values())).paired(cells["full"], cells["no_both"])
    assert (found.n, found.gained, found.lost) == (50, 10, 0)
    assert found.value == pytest.approx(20)


def test_macro_pairs_are_differences_of_macro_scores(tmp_path):
    asked = questions("mlvu", 30)
    for i, variant in enumerate(("full", "no_both")):
        write_cell(tmp_path, asked, right(90, seed=i), task="mlvu", variant=variant, digest=str(i))
    cells = {cell.variant: cell for cell in load_cells(tmp_path)}
    measured = context(list(cells.values()))
    found = measured.paired(cells["full"], cells["no_both"])
    gap = measured.estimate(cells["full"]).value - measured.estimate(cells["no_both"]).value
    assert found.value == pytest.approx(gap)


def test_setting_speaks_the_words_of_the_expected_tables(tmp_path):
    asked = questions("longvideobench", 2)
    for i, variant in enumerate(VARIANTS):
        write_cell(tmp_path, asked, [True] * 6, task="longvideobench", variant=variant, digest=str(i))
    write_cell(tmp_path, asked, [True] * 6, task="longvideobench", variant="none", digest="9")
    cells = load_cells(tmp_path)
    assert [cell.variant for cell in cells] == ["", "no_both", "no_layer", "no_temporal", "full"]
    assert cells[1].setting["subtitles"] is True and cells[1].setting["protocol"] == "release"
    assert cells[0].setting["context"] == "full" and "semantics" not in cells[0].setting


@pytest.mark.parametrize(("protocol", "shown"), [("release", False), ("release_subtitles", True), ("lmms_eval", False)])
def test_subtitles_follow_from_the_protocol(protocol, shown):
    assert subtitles(protocol) is shown


def test_a_pattern_that_matches_nothing_names_what_there_is(tmp_path):
    folder = write_cell(tmp_path, questions("lvbench", 1), [True] * 3)
    assert len(load_cells(tmp_path, ["lvbench-*"])) == 1
    with pytest.raises(UserError, match=folder.name):
        load_cells(tmp_path, ["mlvu-*"])


def test_unknown_metric_names_the_known(tmp_path):
    write_cell(tmp_path, questions("lvbench", 1), [True] * 3)
    (cell,) = load_cells(tmp_path)
    with pytest.raises(UserError, match="overall, type_<question_type>"):
        context([cell]).estimate(cell, "m_avg")


def test_each_parser_scores_the_stored_texts_once(tmp_path):
    folder = write_cell(tmp_path, questions("lvbench", 10), [True] * 30)
    rewrite(folder, lambda i, answer: answer | {"text": f"Answer: {answer['text']}"})
    (cell,) = load_cells(tmp_path)
    measured = context([cell])
    # The release's parser takes the A of "Answer" wherever that is not the right letter.
    assert measured.estimate(cell, parser="anchored").value == 100
    assert measured.estimate(cell, parser="release").value == pytest.approx(100 * 8 / 30)
    assert cell.parser not in cell.other_parsers and {"anchored", "release"} <= {cell.parser, *cell.other_parsers}
    assert cell.frame("release") is cell.frame("release")


def test_a_method_without_the_ablations_switches_has_its_options_in_the_setting(tmp_path):
    record = cell_record("lvbench")
    record["method"] = {"name": "window", "size": 7, "frames": 3}
    write_cell(tmp_path, questions("lvbench", 1), [True] * 3, record=record)
    (cell,) = load_cells(tmp_path)
    assert (cell.variant, cell.method_title, cell.short_title) == ("", "window", "window")
    assert (cell.setting["size"], cell.setting["method.frames"], cell.setting["frames"]) == (7, 3, 1024)


def test_a_damaged_score_file_is_no_score(tmp_path):
    folder = write_cell(tmp_path, questions("lvbench", 1), [True] * 3)
    (folder / "score.json").write_text('{"schema": 2, "inputs": ')
    (cell,) = load_cells(tmp_path)
    assert cell.score is None


def test_questions_that_were_cut_short_are_damage_and_no_better_score(tmp_path):
    asked = questions("mlvu", 4)
    runtime = {"overrides": ["profile=toy", "task.subset=mini"]}
    folder = write_cell(tmp_path, asked, [True] * 6 + [False] * 6, task="mlvu", runtime=runtime)
    path = folder / "questions.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
    again = f"rm -f {path} && .*python -m harness run profile=toy task.subset=mini"
    with pytest.raises(UserError, match=rf"lacks 7 questions that are answered \(the first: v1-2\).*{again}"):
        load_cells(tmp_path)
