"""python -m pytest tests/report/test_explorer.py"""

import importlib.metadata
import json
import re
import tempfile
from collections import Counter
from pathlib import Path

import bench_explorer
import numpy as np
import pytest
from bench_explorer import browser
from cell_folders import LETTERS, rewrite, write_cell

from harness.benchmarks.benchmark import benchmark
from harness.errors import UserError
from harness.evidence.loading import load_cells
from harness.report.explorer import page
from harness.report.style import picture
from harness.store import QuestionRecord

HOSTILE = "</script><script>hacked=1</script><img src=x onerror=hacked=1>&amp;\u2028\"'`"
"""What would run if any text were taken for markup."""


def annotation(root: Path, n: int = 40) -> list[dict]:
    """LVBench's file with hostile texts everywhere; two questions per video."""
    rows = []
    for v in range(n // 2):
        name = f"video{v}" if v else HOSTILE
        asked = [
            {
                "uid": f"{v}-{j}" if v or j else "q/1?a#b%2F <i>",
                "question": f"What is {HOSTILE} {v}?\n(A) <b>a cup</b>\n(B) a hat {v}\n(C) {HOSTILE}\n(D) a map",
                "answer": LETTERS[(v + j) % 4],
                "question_type": [["reasoning", "entity recognition"], ["temporal grounding"]][j],
            }
            for j in range(2)
        ]
        rows.append({"key": name, "type": ("sport", "tv")[v % 2], "video_info": {"duration_minutes": 1}, "qa": asked})
    (root / "lvbench").mkdir(parents=True)
    (root / "lvbench" / "video_info.meta.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [{**row, **question} for row in rows for question in row["qa"]]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Results of three contexts of one benchmark and of another benchmark without an annotation; a data root."""
    folder = tmp_path_factory.mktemp("store")
    items = [benchmark("lvbench").item(row) for row in annotation(folder / "data")]
    asked = [QuestionRecord(i.question_id, i.video_id, i.options, i.answer, i.tags) for i in items]
    for k, context in enumerate((1000, 2000, 4000)):
        right = [None if i == 39 else (i + k) % 3 > 0 for i in range(40)]
        made = {"context": context, "digest": f"{k}" * 8, "failed": {3 + k}, "unparsed": {7, 8 + k}}
        cell = write_cell(folder / "results", asked, right, **made)
        rewrite(cell, lambda i, record, k=k: record | spoken(i, record, k))
    others = [
        QuestionRecord(f"m{i}", f"film{i}", {"A": "x", "B": "y"}, "A", {"question_type": "ego"}) for i in range(5)
    ]
    write_cell(folder / "results", others, [True] * 5, task="mlvu", context=1000)
    page.write_explorer(load_cells(folder / "results"), folder / "results" / "report", folder / "data")
    return folder


def spoken(i: int, record: dict, k: int) -> dict:
    if record["status"] != "ok":
        return {"error": {"type": "QuestionError", "message": HOSTILE}}
    text = f"{record['text']}. {HOSTILE} said{k}" if i == 0 else record["text"]
    return {"text": text, "chunk_budget": [10 * (k + 1), 20, 30, 7 + i]}


@pytest.fixture(scope="module")
def cells(store):
    return {cell.setting["context"]: cell for cell in load_cells(store / "results") if cell.benchmark == "lvbench"}


@pytest.fixture(scope="module")
def wide(store):
    yield from opened(1280)


@pytest.fixture(scope="module")
def narrow(store):
    yield from opened(390)


def opened(width):
    try:
        with browser(width, record=True) as driver:
            yield driver
    except (FileNotFoundError, ModuleNotFoundError) as error:
        pytest.skip(f"no browser to look with: {error}")


@pytest.fixture
def look(store, request):
    """Opens the page at a fragment; afterwards nothing must have run, been asked of the network, or been logged."""
    used = []

    def go(driver, fragment=""):
        driver.get("about:blank")
        driver.get((store / "results" / "report" / "explorer" / "index.html").as_uri() + fragment)
        used.append(driver)
        return driver

    yield go
    for driver in used:
        assert driver.execute_script("return typeof hacked") == "undefined"
        events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        assert len(asked) > 5 and all(url.startswith(("file:///", "data:")) for url in asked)
        assert not driver.get_log("browser")


def texts(driver, selector):
    script = "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)"
    return driver.execute_script(script, selector)


def choose(driver, **values):
    """Sets the filters as a user's input does; returns the ids of the first page's questions."""
    driver.execute_script("document.getElementById('filters').reset()")
    for name, value in values.items():
        script = """const node = document.getElementById(arguments[0]), label = arguments[1];
            const option = [...(node.options ?? [])].find((each) => each.text === label || each.value === label);
            if (node.options && !option) throw new Error(`no option ${label}`);
            node.value = option ? option.value : label;
            node.dispatchEvent(new Event("input", { bubbles: true }));"""
        driver.execute_script(script, name, str(value))
    wait(driver, "document.getElementById('count').textContent")
    return found(driver)


def found(driver):
    count = texts(driver, "#count")[0]
    return int(count.split()[0].replace(",", ""))


def wait(driver, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, 10).until(lambda _: driver.execute_script(f"return {condition}"))


def press(driver, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


def at_question(driver, text):
    return wait(driver, f"document.querySelector('#body p')?.textContent.includes({json.dumps(text)})")


def fragment(cell, question):
    from urllib.parse import quote

    return f"#{quote(cell.id, safe='')}" + (f"/{quote(question, safe='')}" if question is not None else "")


def test_pieces_hold_every_answer_as_it_is_stored(store):
    held = load_cells(store / "results")
    rows = page.Answers.of(held)
    pieces = [row for piece in page.chunks(rows) for row in piece]
    assert len(pieces) == len(rows.rows) == 45
    seen = Counter()
    for row, listed in zip(rows.rows, pieces, strict=True):
        for number, letters, frames, text, error, *rest in listed:
            answer = held[number].answers[row.question.question_id]
            kept = dict(zip(page.FIELDS, (text, error, *rest), strict=True))
            assert all(kept[name] == getattr(answer, name) for name in page.FIELDS) and frames in (3, None)
            place = [q.question_id for q in held[number].questions].index(row.question.question_id)
            assert letters[0] == held[number].letters()[place] and len(letters) == 1 + len(held[number].other_parsers)
            seen[number] += 1
    assert seen == {i: len(cell.answers) for i, cell in enumerate(held)}


def test_states_count_what_the_report_counts(store, cells):
    listed = {cell["id"]: cell for cell in page.index(page.Answers.of(load_cells(store / "results")), store)["cells"]}
    for cell in cells.values():
        counted = Counter(listed[cell.id]["states"])
        assert (counted["f"], counted["m"], counted["u"]) == (cell.failed, cell.missing, cell.unparsed) == (1, 1, 2)
        assert counted["r"] == sum(value == 1 for value in cell.correct())


def test_a_question_that_differs_is_another_one(tmp_path):
    asked = [QuestionRecord("q", "v", {"A": "x", "B": "y"}, "A", {"question_type": "ego"})]
    changed = [QuestionRecord("q", "v", {"A": "x", "B": "y"}, "B", {"question_type": "ego"})]
    for digest, of in (("1" * 8, asked), ("2" * 8, asked), ("3" * 8, changed)):
        write_cell(tmp_path, of, [True], task="mlvu", digest=digest)
    rows = page.Answers.of(load_cells(tmp_path)).rows
    assert sorted(len(row.answers) for row in rows) == [1, 2]


def test_columns_of_one_benchmark_have_names_of_their_own(tmp_path):
    asked = [QuestionRecord("q", "v", {"A": "x", "B": "y"}, "A", {"question_type": "ego"})]
    for digest, changes in {
        "1" * 8: {},
        "2" * 8: {},
        "3" * 8: {"method__positions": "float"},
        "4" * 8: {"context": 9},
    }.items():
        write_cell(tmp_path, asked, [True], task="mlvu", digest=digest, **changes)
    names = page.labels(load_cells(tmp_path))
    assert len(set(names)) == 4 and sum("positions float" in name for name in names) == 1


def test_words_of_a_question_are_taken_where_it_is_the_one_that_was_asked(store):
    rows = page.Answers.of(load_cells(store / "results")).rows
    known, remarks = page.question_texts(rows, store / "data")
    assert known["lvbench", "test", "1-0"] == f"What is {HOSTILE} 1?" and len(known) == 40
    assert len(remarks) == 1 and "MLVU" in remarks[0]
    other = [page.AnswerRow(r.group, r.source, QuestionRecord(r.question.question_id, "other video")) for r in rows]
    assert not page.question_texts(other, store / "data")[0]


def test_data_cannot_leave_their_script():
    made = page.script("x", {"text": HOSTILE, "kept": [1.5, None]})
    assert "<" not in made and made.isascii() and "\n" not in made.rstrip("\n")
    assert json.loads(made[2:].rstrip(";\n"))["text"] == HOSTILE


def test_without_its_package_the_way_out_is_named(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(UserError, match=r"pip install .* itables; .*report\.explorer=false"):
        page.datatables()


def test_written_again_nothing_old_is_left(store, tmp_path):
    cells = load_cells(store / "results")
    page.write_explorer(cells, tmp_path, store / "data")
    first = {path.name: path.read_bytes() for path in (tmp_path / "explorer").rglob("*") if path.is_file()}
    (tmp_path / "explorer" / "data" / "7.js").write_text("old")
    page.write_explorer(cells, tmp_path, store / "data")
    assert {p.name: p.read_bytes() for p in (tmp_path / "explorer").rglob("*") if p.is_file()} == first
    assert [path.name for path in tmp_path.iterdir()] == ["explorer"]


def test_filters_find_what_the_cells_say(wide, look, cells):
    look(wide)
    one, two, three = (cells[context] for context in (1000, 2000, 4000))
    a, b, c = (cell.correct() for cell in (one, two, three))
    names = {
        cell: next(n for n in texts(wide, "#a option") if f"context {cell.setting['context']}" in n)
        for cell in (one, two)
    }
    assert found(wide) == 45
    assert choose(wide, group="MLVU") == 5
    assert (
        choose(wide, category="question type: temporal grounding") == 20
        and choose(wide, category="video type: tv") == 20
    )
    assert choose(wide, duration="up to 1 min") == 45 and choose(wide, duration="over 1 h") == 0
    for outcome, letter in {"right": "r", "wrong": "w", "unparsed": "u", "failed": "f", "missing": "m"}.items():
        wanted = page.states(one).count(letter)
        assert choose(wide, group="LVBench", a=names[one], outcome=outcome) == wanted > 0
    only = sum((a == 1) & (b == 0)), sum((a == 0) & (b == 1))
    both = {"group": "LVBench", "a": names[one], "b": names[two]}
    assert choose(wide, **both, outcome="onlyA") == only[0] > 0
    assert choose(wide, **both, outcome="onlyB") == only[1] > 0
    assert choose(wide, **both, outcome="flip") == sum(only)
    any_flip = sum((max(row) == 1) and (min(row) == 0) for row in zip(a, b, c, strict=True))
    assert choose(wide, outcome="flip") == any_flip
    assert (
        choose(wide, search="A HAT 7") == 2 and choose(wide, search="film3") == 1 and choose(wide, search="said2") == 1
    )
    assert choose(wide, search="nothing says this") == 0 and "No question passes" in texts(wide, "#table")[0]
    assert choose(wide) == 45


def test_one_question_shows_all_that_is_stored(wide, look, cells):
    cell = cells[2000]
    look(wide, fragment(cell, "6-0"))
    at_question(wide, "6-0")
    place = [q.question_id for q in cell.questions].index("6-0")
    heads = texts(wide, "#body .card h3")
    assert (
        len(heads) == 3
        and [f"context {n}" in head for n, head in zip((1000, 2000, 4000), heads, strict=True)] == [True] * 3
    )
    assert "context 2000" in texts(wide, "#body .card.linked h3")[0]
    shown = texts(wide, "#body .card")[1]
    for name in (cell.parser, *cell.other_parsers):
        assert re.search(rf"{name}( \(scores\))? {cell.letters(name)[place]} (right|wrong)", shown)
    for words in (
        "2,000 of the video in 3 frames",
        "prompt 2,100",
        "264 cache slots per layer, 13 % of the prompt",
        "0.90 s (decode 0.10 s, encode 0.20 s, ",
    ):
        assert words in shown
    assert texts(wide, "#body .said")[1] == cell.answers["6-0"].text
    paths = wide.execute_script(
        "return [...document.querySelectorAll('#body .card:nth-child(2) .line')].map((e) => e.getAttribute('d'))"
    )
    budget = cell.answers["6-0"].chunk_budget
    heights = [float(y) for y in re.findall(r"V([\d.]+)", paths[0])]
    assert heights == pytest.approx([100 - 96 * value / max(budget) for value in budget])
    assert "about 0:01 long" in texts(wide, "#body p")[0] and "temporal" not in texts(wide, "#body p")[0]
    assert texts(wide, "#body li.gold")[0].startswith(f"{cell.questions[place].answer}. ")


def test_hostile_texts_are_only_texts(wide, look, cells):
    from selenium.webdriver.common.by import By

    cell = cells[1000]
    look(wide, fragment(cell, "q/1?a#b%2F <i>"))
    at_question(wide, "q/1?a#b%2F <i>")
    assert texts(wide, "#body h2")[0] == f"What is {HOSTILE} 0?"
    assert f"video {HOSTILE}" in texts(wide, "#body p")[0] and "<b>a cup</b>" in texts(wide, "#body .options")[0]
    assert [text.partition(". ")[2] for text in texts(wide, "#body .said")] == [f"{HOSTILE} said{k}" for k in range(3)]
    assert not wide.find_elements(
        By.CSS_SELECTOR, "#body img, #body i, #body script, #table img, #table i, #table script"
    )
    wide.find_element(By.ID, "budgets").click()
    wait(wide, "document.querySelectorAll('#table .tile svg').length")
    wide.find_element(By.ID, "budgets").click()
    wide.execute_script("location.hash = '#%E0%A4/%zz'")
    wait(wide, "!document.body.classList.contains('open')")


def test_failures_say_why_and_missing_answers_that_they_are(wide, look, cells):
    name = cells[1000].questions[3].question_id
    look(wide, fragment(cells[1000], name))
    at_question(wide, name)
    assert texts(wide, "#body .said.failed") == [f"QuestionError: {HOSTILE}"]
    name = cells[1000].questions[39].question_id
    wide.execute_script("location.hash = arguments[0]", fragment(cells[1000], name))
    at_question(wide, name)
    assert texts(wide, "#body .card .chip") == ["missing"] * 3


def test_pictures_hang_at_their_question(wide, look, store, cells):
    from matplotlib.image import imsave

    report, name = store / "results" / "report", "q/1?a#b%2F <i>"
    for stem, size in {cells[1000].id: 7, "lvbench.side_by_side": 8, "mlvu.side_by_side": 9}.items():
        path = picture(report, name, stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        imsave(path, np.zeros((2, size, 3)))
    page.hang_pictures(report)
    look(wide, fragment(cells[1000], name))
    at_question(wide, name)
    wide.execute_script("document.querySelector('.card img').scrollIntoView()")
    sizes = "[...document.images].map((each) => each.naturalWidth)"
    assert wait(wide, f"{sizes}.every(Boolean) && {sizes}") == [8, 7]
    assert ["context 1000" in head for head in texts(wide, ".card:has(img) h3")] == [True]
    wide.execute_script("location.hash = arguments[0]", fragment(cells[1000], "1-0"))
    at_question(wide, "1-0")
    assert not wide.execute_script("return document.images.length")


def test_by_keyboard_alone(wide, look, cells):
    from selenium.webdriver.common.keys import Keys

    look(wide)
    press(wide, "/")
    press(wide, "a hat 1")
    assert wait(wide, "document.getElementById('count').textContent.startsWith('22 ')")
    press(wide, Keys.ESCAPE, "j")
    at_question(wide, "1-0")
    press(wide, "j")
    at_question(wide, "1-1")
    press(wide, Keys.ARROW_LEFT, "k")
    at_question(wide, "1-0")
    assert texts(wide, "#place") == ["1 of 22"] and texts(wide, "#table tr.open .dim")[0].startswith("1-0 ")
    for _ in range(21):
        press(wide, "j")
    press(wide, "j")
    assert texts(wide, "#place") == ["22 of 22"]
    press(wide, Keys.ESCAPE)
    wait(wide, "!document.body.classList.contains('open')")
    assert wide.execute_script("return document.activeElement.closest('#table tbody a') !== null")
    press(wide, Keys.ENTER)
    assert wait(wide, "document.body.classList.contains('open')")


def test_a_link_to_a_cell_shows_its_questions(wide, look, cells):
    look(wide, fragment(cells[4000], None))
    assert found(wide) == 40 and texts(wide, "#a option:checked")[0].endswith("context 4000")
    assert texts(wide, "#group option:checked") == ["LVBench"]


def test_columns_sort_and_pages_turn(wide, look):
    from selenium.webdriver.common.by import By

    look(wide)
    first = texts(wide, "#table tbody .question .dim")
    assert len(first) == 25
    wide.find_element(By.CSS_SELECTOR, "th.answers .dt-column-order").click()
    fewest = [len(wide.find_elements(By.CSS_SELECTOR, f"#table tbody tr:nth-child({i}) .mark.r")) for i in range(1, 26)]
    assert fewest == sorted(fewest) and fewest[0] == 0
    wide.find_element(By.CSS_SELECTOR, ".dt-paging-button.next").click()
    assert len(texts(wide, "#table tbody .question .dim")) == 20


def test_everything_that_is_operated_has_a_name(wide, look, cells):
    look(wide, fragment(cells[1000], "2-0"))
    at_question(wide, "2-0")
    tree = wide.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "link", "combobox", "searchbox", "textbox", "image", "img", "table", "article"}
    nodes = [node for node in tree if not node["ignored"] and node.get("role", {}).get("value") in roles]
    assert len(nodes) > 60 and all(node.get("name", {}).get("value", "").strip() for node in nodes)


def test_on_a_phone_nothing_is_wider_than_the_screen(narrow, look, cells):
    from selenium.webdriver.common.by import By

    wider = "document.documentElement.scrollWidth <= innerWidth"
    shown = "getComputedStyle(document.getElementById('list')).display !== 'none'"
    look(narrow)
    assert narrow.execute_script(f"return innerWidth === 390 && {wider} && {shown}")
    narrow.find_element(By.CSS_SELECTOR, "#table tbody a").click()
    at_question(narrow, "q/1?a#b%2F <i>")
    assert narrow.execute_script(f"return {wider} && !({shown})")
    narrow.find_element(By.ID, "next").click()
    at_question(narrow, "0-1")
    narrow.find_element(By.ID, "close").click()
    assert wait(narrow, f"{shown} && {wider}")
    narrow.find_element(By.ID, "budgets").click()
    assert wait(narrow, f"document.querySelectorAll('#table .tile svg').length && {wider}")


def test_what_it_costs_is_measured(wide, store, monkeypatch, capsys):
    monkeypatch.setattr(bench_explorer, "REPEATS", 1)
    status = bench_explorer.main(["--results", str(store / "results"), "--data", str(store / "data")])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["answers"] == 122 and not found["errors"]
    assert status == any(found[name] > most for name, most in bench_explorer.LIMITS.items())
    assert found["open_ms"] > 0 and found["memory_mib"] > 5 and found["slowest_filter_ms"] > 0


def test_a_folder_that_cannot_be_written_is_named(store, tmp_path):
    (tmp_path / "report").write_text("a file")
    with pytest.raises(UserError, match=r"report.explorer=false"):
        page.write_explorer(load_cells(store / "results"), tmp_path / "report", store / "data")


def test_a_browser_leaves_nothing_behind(monkeypatch):
    with tempfile.TemporaryDirectory() as folder:  # a short path: the socket in it takes 107 bytes
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        try:
            with browser(390) as driver:
                driver.get("about:blank")
        except (FileNotFoundError, ModuleNotFoundError) as error:
            pytest.skip(f"no browser to look with: {error}")
        assert not [*Path(folder).iterdir()]
