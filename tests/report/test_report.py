"""python -m pytest tests/report/test_report.py"""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from cell_folders import VARIANTS, questions, write_cell

from harness.report.config import ReportConfig
from harness.report.report import main


def config(tmp_path, **changes):
    return SimpleNamespace(
        results=str(tmp_path),
        report=ReportConfig(output=str(tmp_path / "report"), cells=["*"], resamples=400, html=False, **changes),
    )


def test_report_of_a_toy_and_a_published_cell(tmp_path, capsys):
    rng = np.random.default_rng(0)
    asked = questions("mlvu", 725)[:2173]
    for i, variant in enumerate(VARIANTS):
        write_cell(tmp_path, asked, list(rng.random(2173) < 0.755), task="mlvu", variant=variant, digest=str(i))
    toy = questions("lvbench", 20)
    write_cell(tmp_path, toy, [True] * 55 + [None] * 5, model__name="toy", context=264, failed={2}, unparsed={4})
    assert main(config(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert "(incomplete)" in printed and "75.41 (B)" in printed
    text = (tmp_path / "report" / "report.md").read_text()
    toy_row = next(line for line in text.splitlines() if "| toy |" in line)
    fields = [field.strip() for field in toy_row.strip("|").split("|")]
    assert fields[:8] == ["lvbench", "overall", "toy", "adaretake release_2026 full", "release", "1024", "2", "264"]
    assert fields[8] == "96.4 (incomplete)" and fields[10:14] == ["60", "1", "1", "5"]
    assert fields[14:] == ["-", "incomplete"]
    row = next(
        line for line in text.splitlines() if line.startswith("| mlvu |") and "release_2026 full | release" in line
    )
    score, low, high = re.search(r"\| (\d+\.\d) \| (\d+\.\d) to (\d+\.\d) \|", row).groups()
    assert float(low) < float(score) < float(high)
    assert "| B2 | temporal adaptation helps MLVU | +0.31 |" in text


def test_nothing_answered_yet_says_what_to_run(tmp_path, capsys):
    settings = config(tmp_path)
    settings.report.cells = []
    assert main(settings) == 1
    assert "python -m harness run" in capsys.readouterr().out


@pytest.mark.parametrize("resamples", [400])
def test_the_same_report_comes_out_twice(tmp_path, resamples):
    asked = questions("mlvu", 50)
    for i, variant in enumerate(VARIANTS):
        right = list(np.random.default_rng(i).random(150) < 0.7)
        write_cell(tmp_path, asked, right, task="mlvu", variant=variant, digest=str(i))
    texts = []
    for _ in range(2):
        main(config(tmp_path))
        texts.append((tmp_path / "report" / "report.md").read_text())
    assert texts[0] == texts[1]
