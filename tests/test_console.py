"""What a pipe gets. python -m pytest tests/test_console.py"""

import io

import pandas as pd
import pytest

from harness.advice import open_console
from harness.evidence.section import Section

CELL = "longvideobench_nosub.ci-qwen2_5_vl_7b-adaretake-release_2026-no_temporal-f2048-fps2-c16384-0123456789ab"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_an_id_stays_whole_in_a_pipe(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    frame = pd.DataFrame({"cell": [CELL] * 2, **{f"a longer name {i}": ["12.34"] * 2 for i in range(12)}})
    pipe = io.StringIO()
    Section("title", frame, left=("cell",)).show(open_console(pipe))
    assert pipe.getvalue().count(CELL) == 2
    assert "\x1b" not in pipe.getvalue()


def test_a_terminal_keeps_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal()
    Section("title", pd.DataFrame({"cell": [CELL]}), left=("cell",)).show(open_console(terminal))
    assert max(map(len, terminal.getvalue().splitlines())) <= 90  # with the codes of its colours
