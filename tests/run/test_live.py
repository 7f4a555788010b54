"""The live view of a run and its page."""

from __future__ import annotations

import io
import logging
import time
from html.parser import HTMLParser

import pytest
from fake_model import make_order, make_video
from rich.console import Console

from harness.run import progress
from harness.run import progress as live
from harness.run.progress import Display, LivePage, asks_of, page, scene_of, view
from harness.run.status import StatusFile, status_path, take_snapshot
from harness.run.worker import work
from harness.store import Answer, failed_answer


@pytest.fixture
def order(tmp_path):
    return make_order(tmp_path, [make_video(tmp_path, f"v{i}", size=100 * i, ask_seconds=0.02) for i in range(3)])


def scene(order):
    return scene_of(take_snapshot(order.logs), order, asks_of(order))


def test_two_workers_of_one_order_make_one_scene(order, tmp_path):
    (siblings,) = order.siblings
    order.logs.mkdir(parents=True, exist_ok=True)
    first, second = (cell.id for cell in siblings.cells)
    for index in range(2):
        file = StatusFile(status_path(order.logs, index, 0), str(index))
        file.begin(siblings.name, tmp_path / f"<v{index}>.mp4")
        file.answered(first, Answer("q", "v", "ok", text="<script>alert(1)</script>\x1b[2J"))
        file.answered(second, failed_answer("q", "v", RuntimeError("no frames")))
        file.write()
    found = scene(order)
    assert (found.whole.done, found.whole.asks, found.whole.failed) == (4, 18, 2)
    assert [(s.name, s.done, s.asks, s.failed) for s in found.cells] == [(first, 2, 9, 0), (second, 2, 9, 2)]
    text = page(found, running=True)
    assert 'http-equiv="refresh"' in text and 'http-equiv="refresh"' not in page(found, running=False)
    assert "<script" not in text and "&lt;script&gt;" in text and "\x1b" not in text and "src=" not in text
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)
    parser.feed(text)
    assert tags.count("progress") == 2 and tags.count("h2") == 4
    console = Console(file=io.StringIO(), width=120)
    console.print(view(found))
    shown = console.file.getvalue()
    assert "4 of 18 answers, 2 failed" in shown and "RuntimeError: no frames" in shown and "\x1b" not in shown


def test_a_run_refreshes_its_page_and_ends_it(order, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "REFRESH_S", 0.02)
    monkeypatch.setattr(live, "PAGE_EVERY_S", 0.02)
    path, seen = tmp_path / "report" / "live.html", []
    written = LivePage.write

    def write(self, *args, **options):
        written(self, *args, **options)
        seen.append(path.read_text())

    monkeypatch.setattr(LivePage, "write", write)
    with Display(order, io.StringIO(), page=path):
        work(order)
        time.sleep(0.1)
    assert len(seen) > 2 and all(text.endswith("</html>\n") for text in seen)
    assert "running:" in seen[0] and "ended: 18 of 18 answers, 0 failed" in path.read_text()
    assert list(path.parent.iterdir()) == [path]


def test_a_page_that_cannot_be_written_is_a_warning_once(order, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(progress, "REFRESH_S", 0.02)
    monkeypatch.setattr(live, "PAGE_EVERY_S", 0.0)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(live.os, "replace", full)
    monkeypatch.setattr("harness.run.status.os.replace", full)
    with caplog.at_level(logging.WARNING), Display(order, io.StringIO(), page=tmp_path / "report" / "live.html"):
        time.sleep(0.2)
    said = [record for record in caplog.records if "cannot be written" in record.message]
    assert len(said) == 1 and "No space left" in said[0].message and "the run goes on" in said[0].message


def test_the_view_reads_no_answers(order, monkeypatch):
    work(order)
    for name in ("read_answers", "read_outcomes", "iter_answers"):
        monkeypatch.setattr(f"harness.store.{name}", None)
    for folder in order.siblings[0].folders:
        for file in folder.glob("answers*"):
            file.unlink()
    assert scene(order).whole.done == 18
