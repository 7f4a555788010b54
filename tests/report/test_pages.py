"""python -m pytest tests/report/test_pages.py"""

import csv
import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from cell_folders import VARIANTS, cell_record, configuration, questions, rewrite, write_cell

from harness.evidence.loading import load_cells
from harness.report.pages import published_markdown, published_table, tone
from harness.report.report import gather, main
from harness.settings.groups import ReportConfig


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report of a whole LVBench ablation and of a toy ladder over contexts."""
    results = tmp_path_factory.mktemp("results")
    rng = np.random.default_rng(0)
    asked = questions("lvbench", 103, 15) + questions("lvbench", 105, 2)[206:]
    for i, variant in enumerate(VARIANTS):
        write_cell(results, asked, list(rng.random(1549) < 0.40), variant=variant, digest=str(i))
    toy = questions("mlvu", 10)
    for context in (33, 66, 264):
        right = list(rng.random(30) < 0.5 + context / 1000)
        changes = {"model__name": "toy", "model__path": "harness/toy/checkpoint", "digest": f"t{context}"}
        folder = write_cell(results, toy, right, task="mlvu", context=context, failed={1}, **changes)
        rewrite(folder, lambda _, record, pairs=context * 2000: record | {"attended": pairs})
    assert main(configuration(results)) == 1  # some answers failed
    return results


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.addresses, self.ids, self.stack, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.addresses += [found[key] for key in ("href", "src", "xlink:href", "data") if key in found]
        self.ids += [found["id"]] if "id" in found else []
        assert tag != "script"

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_one_file_that_asks_nobody_for_anything(report):
    text = (report / "report" / "report.html").read_text()
    page = Page(text)
    assert page.addresses and all(a.startswith(("#", "data:", "explorer/index.html")) for a in page.addresses)
    assert not re.search(r"url\((?!#)|@import|<link[^>]+stylesheet", text)
    sections = [a[1:] for a in page.addresses if re.fullmatch(r"#[a-z]+", a)]
    assert {"scores", "numbers", "claims", "reasons", "figures", "cost"} <= set(sections) <= set(page.ids)
    assert 'name="viewport"' in text and text.count("<svg") == len(list((report / "report" / "figures").glob("*.svg")))


def test_every_cell_has_a_way_to_its_answers(report, tmp_path):
    page = Page((report / "report" / "report.html").read_text())
    for path in (report / "runs").iterdir():
        assert f"explorer/index.html#{path.name}" in page.addresses
    assert (report / "report" / "explorer" / "index.html").is_file()
    left_out = tmp_path / "report"
    main(configuration(report, "report.explorer=false", f"report.output={left_out}", "report.cells=['mlvu*']"))
    assert (left_out / "report.html").is_file() and not (left_out / "explorer").exists()
    assert "explorer/" not in (left_out / "report.html").read_text()


def test_the_page_says_what_the_tables_say(report):
    text = " ".join(Page((report / "report" / "report.html").read_text()).text)
    for words in (
        "temporal adaptation helps LVBench",
        "differs",
        "stale_first_chunk",
        "no baseline",
        "1 failed",
        "cache slots measured",
        "lmms_eval",
    ):
        assert words in text
    assert "margin 1 points" in text and "flip rate up to 5 %, assumed" in text


def test_figures_are_whole_images_of_what_there_is(report):
    names = {path.name for path in (report / "report" / "figures").iterdir()}
    for kind in ("scores", "differences", "cost", "scores_toy", "context_toy", "differences_toy"):
        assert f"{kind}.svg" in names
        ElementTree.parse(report / "report" / "figures" / f"{kind}.svg")
    assert "frames.svg" not in names  # one number of frames is no line


def test_csv_has_every_metric_with_its_interval_and_every_parser(report):
    rows = list(csv.DictReader(io.StringIO((report / "report" / "scores.csv").read_text())))
    overall = [row for row in rows if row["metric"] == "overall" and row["main"] == "True"]
    assert len(overall) == 4 and {row["variant"] for row in overall} == set(VARIANTS)
    assert all(float(row["low"]) <= float(row["score"]) <= float(row["high"]) for row in rows)
    assert {row["metric"] for row in rows} >= {"type_temporal_grounding", "m_avg", "m_avg_sample", "type_findneedle"}
    assert {row["failed"] for row in rows if row["model"] == "toy"} == {"1"}
    parsers = {row["parser"] for row in rows if row["cell"] == overall[0]["cell"] and row["metric"] == "overall"}
    assert parsers == {"anchored", "release", "lmms_eval"}


def test_tables_keep_their_published_shape_with_ours_beside(report):
    markdown = (report / "report" / "tables" / "readme_ablation.md").read_text()
    row = next(line for line in markdown.splitlines() if line.startswith("| full "))
    cells = [cell.strip() for cell in row.strip("|").split("|")][1:]
    assert cells[0] == "48.48" and re.fullmatch(r"\d\d\.\d\d ± \d\.\d", cells[1])
    assert cells[2:] == ["62.22", "-", "75.41", "-", "66.19", "-", "63.08", "-"]
    latex = (report / "report" / "tables" / "readme_ablation.tex").read_text()
    row = next(line for line in latex.splitlines() if line.startswith("full "))
    rest = r"62\.22 & - & 75\.41 & - & 66\.19 & - & 63\.08 & - \\\\"
    assert re.search(r"& 48\.48 & \d\d\.\d\d \$\\pm\$ \d\.\d & " + rest, row)
    assert r"no\_both" in latex and r"\toprule" in latex and r"\multicolumn{2}{c}{LVBench}" in latex
    for path in (report / "report" / "tables").glob("*.tex"):
        text = path.read_text()
        widths = {line.count("&") for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line}
        assert len(widths) == 1 and text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1


def test_of_two_cells_of_one_setting_the_newest_is_judged(tmp_path):
    asked = questions("lvbench", 103, 15) + questions("lvbench", 105, 2)[206:]
    for digest, share in (("old", 0.2), ("new", 0.485)):
        right = [i < share * 1549 for i in np.random.default_rng(0).permutation(1549)]
        write_cell(tmp_path, asked, right, digest=digest, code=digest)
    found = gather(load_cells(tmp_path), ReportConfig())
    judged = [v for v in found.numbers if v.published.id == "B.full.lvbench"]
    assert len(found.context.cells) == 2
    assert [v.cell.manifest.digest for v in judged] == ["new"] and judged[0].verdict != "differs"


def test_toy_numbers_never_reach_a_published_table(report):
    settings = ReportConfig()
    found = gather([cell for cell in load_cells(report) if cell.toy], settings)
    for table in found.context.tables:
        frame = published_table(table, found.numbers, settings.confidence)
        assert set(frame.xs("ours", axis=1, level=1).to_numpy().ravel()) == {"-"}
        assert "±" not in published_markdown(table, frame)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("reproduced", "good"),
        ("equals baseline", "good"),
        ("holds", "good"),
        ("differs", "bad"),
        ("3 of 60 answers changed, 1 flips", "bad"),
        ("cannot tell", "open"),
        ("not run", "open"),
    ],
)
def test_colours_follow_the_verdict(verdict, expected):
    assert tone(verdict) == expected


def test_a_method_without_semantics_has_a_page(tmp_path):
    record = cell_record("lvbench")
    record["method"] = {"name": "rekv", "chunk_frames": 64, "positions": "float", "window": 15000}
    write_cell(tmp_path, questions("lvbench", 2), [True] * 6, record=record)
    main(configuration(tmp_path))
    assert "rekv" in (tmp_path / "report" / "report.html").read_text()
