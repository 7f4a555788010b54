"""The command line: verbs, errors without traceback, exit statuses."""

import subprocess
import sys

import pytest

from harness.cli import VERBS, parse
from harness.config import REPO


def run(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "harness", *words], capture_output=True, text=True, cwd=REPO, timeout=120
    )


def test_help_names_every_verb():
    result = run("--help")
    assert result.returncode == 0
    for verb in VERBS:
        assert verb in result.stdout


@pytest.mark.parametrize("words", [("paln",), ("plan", "--fast"), ()])
def test_a_wrong_call_is_refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(list(words))
    assert stop.value.code == 2


def test_a_user_error_has_no_traceback():
    result = run("plan", "matrix=ablatio")
    assert result.returncode == 2
    assert "ablation, main_results" in result.stderr
    assert "Traceback" not in result.stderr


def test_overrides_reach_the_configuration():
    result = run("plan", "--config", "matrix.context=[8,16]")
    assert result.returncode == 0, result.stderr
    assert "- 8\n  - 16\n" in result.stdout


def test_every_verb_has_a_module_with_main():
    import importlib

    for module, _ in VERBS.values():
        assert callable(importlib.import_module(module).main)
