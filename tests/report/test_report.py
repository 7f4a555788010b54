"""python -m pytest tests/report/test_report.py"""

import re

import numpy as np
from cell_folders import VARIANTS, configuration, questions, rewrite, write_cell

from harness.report.report import main

PLAIN = "report.html=false"


def test_report_of_a_toy_and_a_published_cell(tmp_path, capsys):
    rng = np.random.default_rng(0)
    asked = questions("mlvu", 725)[:2173]
    for i, variant in enumerate(VARIANTS):
        write_cell(tmp_path, asked, list(rng.random(2173) < 0.755), task="mlvu", variant=variant, digest=str(i))
    toy = questions("lvbench", 20)
    write_cell(tmp_path, toy, [True] * 55 + [None] * 5, model__name="toy", context=264, failed={2}, unparsed={4})
    assert main(configuration(tmp_path, PLAIN)) == 1
    printed = capsys.readouterr().out
    assert (
        "not whole: 0 cells absent, 5 questions missing, 1 failed; go on with: " in printed
        and "-m harness run" in printed
    )
    assert printed.rstrip().endswith("run.retry=failed")
    assert "incomplete" in printed and "75.41 (B)" in printed
    text = (tmp_path / "report" / "report.md").read_text()
    toy_row = next(line for line in text.splitlines() if re.search(r"\| toy +\|", line))
    fields = [field.strip() for field in toy_row.strip("|").split("|")]
    assert fields[:8] == ["lvbench", "overall", "toy", "adaretake release_2026 full", "release", "1024", "2", "264"]
    assert fields[8:10] == ["264", "96.4 (incomplete)"] and fields[11:15] == ["60", "1", "1", "5"]
    assert fields[-2:] == ["-", "incomplete"]
    row = next(line for line in text.splitlines() if line.startswith("| mlvu ") and "release_2026 full" in line)
    score, low, high = re.search(r"\| +(\d+\.\d) \| +(\d+\.\d) to (\d+\.\d) \|", row).groups()
    assert float(low) < float(score) < float(high)
    assert re.search(r"\| B2 +\| temporal adaptation helps MLVU +\| +\+0\.31 \|", text)


def test_nothing_answered_yet_says_what_to_run(tmp_path, capsys):
    settings = configuration(tmp_path, "context.tokens=77")
    settings.report.cells = []
    assert main(settings) == 1
    assert "python -m harness run results=" in (printed := capsys.readouterr().out) and "context.tokens=77" in printed


def test_cells_of_weights_that_are_not_here_are_no_success(tmp_path, capsys):
    write_cell(tmp_path, questions("lvbench", 20), [True] * 60, model__name="toy", context=264)
    settings = configuration(tmp_path, PLAIN, "profile=published", f"model.path={tmp_path / 'weights'}")
    assert main(settings) == 0, "named cells need no weights"
    settings.report.cells = []
    assert main(settings) == 1
    printed = capsys.readouterr().out
    assert "cannot be told here" in printed and "hf" in printed and "report.cells=[PATTERN]" in printed


def test_the_same_report_comes_out_twice(tmp_path):
    asked = questions("mlvu", 50)
    for i, variant in enumerate(VARIANTS):
        right = list(np.random.default_rng(i).random(150) < 0.7)
        write_cell(tmp_path, asked, right, task="mlvu", variant=variant, digest=str(i))
    texts = []
    for _ in range(2):
        main(configuration(tmp_path, PLAIN))
        texts.append((tmp_path / "report" / "report.md").read_text())
    assert texts[0] == texts[1]


def test_control_codes_of_stored_answers_are_written_out(tmp_path, capsys):
    asked = questions("lvbench", 103, 15) + questions("lvbench", 105, 2)[206:]
    folder = write_cell(tmp_path, asked, [i % 5 == 0 for i in range(1549)], failed={1})
    error = {"type": "Evil\x1b[31m", "message": "\x1b]0;title\x07"}
    rewrite(folder, lambda i, record: record | ({"error": error} if record["status"] == "failed" else {}))
    assert main(configuration(tmp_path)) == 1
    written = [path.read_text() for path in (tmp_path / "report").glob("*.*")]
    assert "Evil\\x1b[31m" in " ".join(written)
    assert not any("\x1b" in text or "\x07" in text for text in [*written, capsys.readouterr().out])


def test_one_table_answered_by_different_code_says_so(tmp_path, capsys):
    for i, variant in enumerate(("full", "no_both")):
        write_cell(tmp_path, questions("lvbench", 4), [True] * 12, variant=variant, digest=str(i), code=f"c{i}")
    main(configuration(tmp_path, PLAIN))
    said = "Answered by different code: c1 (1 cells), c0 (1 cells)"
    assert said in capsys.readouterr().out and said in (tmp_path / "report" / "report.md").read_text()


def test_the_reason_stands_where_a_number_is_missing(tmp_path, capsys):
    write_cell(tmp_path, questions("lvbench", 4), [True] * 12, method__semantics="paper", digest="1")
    write_cell(tmp_path, questions("vnbench", 4), [True] * 12, task="vnbench", digest="2", task__protocol="official")
    main(configuration(tmp_path, PLAIN))
    text = (tmp_path / "report" / "report.md").read_text()
    assert "not comparable with 48.5 (A): semantics: paper here, release_2026 published; questions" in text
    assert "none published for qwen2_5_vl_7b on vnbench" in text
