"""The command line: verbs, errors without traceback, exit statuses."""

import dataclasses
import errno
import os
import subprocess
import sys

import pytest

from harness.cli import check_once, check_read, main, parse
from harness.errors import UserError
from harness.settings.compose import REPO, compose_verb
from harness.settings.groups import SCHEMAS
from harness.settings.rules import rule_of
from harness.settings.verbs import all_verbs

VERBS = all_verbs()


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

    for verb in VERBS.values():
        assert callable(importlib.import_module(verb.module).main)


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_shows_its_own_settings(name, capsys):
    verb = VERBS[name]
    with pytest.raises(SystemExit) as stop:
        parse([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert verb.help in text
    schema = verb.schema or SCHEMAS.get(verb.section)
    for field in dataclasses.fields(schema) if schema else ():
        assert f"{verb.section}.{field.name}=" in text and rule_of(field).help in text
        assert field.name not in verb.flags or f"--{field.name.replace('_', '-')}" in text


def test_words_and_flags_and_bare_settings_reach_the_section():
    command = parse(["demo", "--options", "a", "b", "--video", "x=1.mp4", "output=here.png", "model=toy"])
    assert command.own == {"options": ["a", "b"], "video": "x=1.mp4"}
    assert command.settings == ["demo.output=here.png", "model=toy"]


def test_candidates_are_settings_and_other_settings_are_not_candidates():
    tried = ["frames=64", "context=130", "video=stock", "task.protocol=lmms_eval", "method=random"]
    others = ["data.root=here", "model.path=there", "results=r", "output=o"]
    command = parse(["bridge", "A", "B", "--candidates", *tried, *others])
    assert command.own == {"candidates": tried, "cells": ["A", "B"]}
    assert command.settings == ["data.root=here", "model.path=there", "results=r", "bridge.output=o"]


def test_words_go_to_the_verb_that_takes_them():
    command = parse(["show", "first", "model=toy", "./a=b.txt"])
    assert command.own == {"questions": ["first", "./a=b.txt"]}
    assert command.settings == ["model=toy"]


def test_no_verb_lists_the_verbs(capsys):
    with pytest.raises(SystemExit) as stop:
        parse([])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "a verb is missing" in error
    assert all(name in error for name in VERBS)


def test_a_flag_is_checked_as_its_setting_is():
    result = run("demo", "--output", "")
    assert result.returncode == 2
    assert "demo.output=''" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "read"),
    [
        (["import", "FILE", "task=mlvu"], "imported.of, "),
        (["export", "inspect", "matrix.task=[mlvu]"], "export.cell, "),
        (["compare", "A", "B", "method.chunk_frames=8"], "report, "),
        (["run", "show.limit=3"], "run.retry, "),
    ],
)
def test_a_setting_that_the_verb_would_not_read_is_refused(words, read, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert f"{words[0]} does not read {words[-1]}; allowed: " in said and read in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("plan frames=16 frames=32", ["frames=16", "frames=32", "keep one"]),
        ("plan frames=[16] matrix.frames=[32]", ["frames=[16]", "matrix.frames=[32]", "keep one"]),
        ("plan context=16k context=1k", ["context=16k", "context=1k", "keep one"]),
        ("plan context=33 context.tokens=65", ["context=33", "context.tokens=65", "keep one"]),
        ("verify task=[mlvu,lvbench]", ["task=[mlvu,lvbench]", "verify task=mlvu"]),
        ("verify task=[nope]", ["task=nope", "videomme"]),
        ("fit method=[fitprune,none]", ["method=[fitprune,none]", "fit method=fitprune"]),
        ("demo context=[33,65]", ["context=[33,65]", "demo context=33"]),
        ("plan frames=banana", ["frames", "banana", "at least 2 and at most 100000"]),
        ("plan context=[16x]", ["context", "16x", "at least 1"]),
        ("plan frames={a:1}", ["frames", "'a': 1", "not allowed"]),
        ("plan context=" + "9" * 5000, ["context", "999", "too long"]),
        ("plan context=１６", ["context=１６", "allowed: 16k"]),
        ("plan matrix.rows=[3]", ["matrix.rows[0]=3", "frames, fps"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_word_is_named_with_what_is_allowed(line, named, capsys):
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in named) and "Traceback" not in said, said


def test_a_value_that_is_given_twice_alike_and_a_list_of_one_are_taken():
    verify = parse(["verify", "task=[mlvu]", "matrix.task=[mlvu,lvbench]"])
    check_once(verify)
    assert verify.settings == ["task=mlvu", "matrix.task=[mlvu,lvbench]"]
    check_once(parse(["run", "frames=16", "frames=16", "engine.cpu_workers=2", "engine.cpu_workers=1"]))
    words = ["matrix.rows=[{frames:16,task:mlvu}]", "matrix.by_task.mlvu={fps:3}"]
    rows = compose_verb(VERBS["plan"], words)[0].matrix
    assert (rows.rows[0].frames, rows.rows[0].task, rows.by_task["mlvu"].fps) == ([16], ["mlvu"], [3.0])


def test_an_option_without_values_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse(["bridge", "a", "b", "--candidates", "results=x"])
    assert "--candidates" in capsys.readouterr().err


def test_every_step_takes_the_same_words_and_only_what_is_of_one_verb_is_refused(capsys):
    shared = [
        "profile=toy",
        "model.path=x",
        "task.subset=mini",
        "engine.workers=2",
        "run.retry=failed",
        "report.cells=[x]",
    ]
    for verb in ("plan", "prepare", "verify", "run", "score", "report", "check", "submit", "doctor"):
        check_read(parse([verb, *shared]))
    with pytest.raises(UserError, match="report does not read check.exact=true"):
        check_read(parse(["report", "check.exact=true"]))
    assert compose_verb(VERBS["check"], ["profile=toy", "check.exact=true"])[0].words == ["profile=toy"]
    assert main(["run", "fetch=full"]) == 2 and "did you mean 'model.fetch'?" in capsys.readouterr().err


def test_a_disk_that_refuses_is_no_traceback_and_a_fault_of_ours_is_one(monkeypatch, capsys):
    def refuse(number):
        def fail(_):
            raise OSError(number, os.strerror(number), "results/x")

        monkeypatch.setattr("harness.plan.plan.main", fail)
        return main(["plan"])

    assert refuse(errno.ENOSPC) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: results/x: No space left on device. Free space") and "results=<folder>" in said
    with pytest.raises(OSError):
        refuse(errno.EBADF)
    assert main(["show", "Q", "results=nowhere"]) == 2
    assert "nowhere/runs holds no cell yet: " in capsys.readouterr().err
