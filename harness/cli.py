"""The command line: one verb, then Hydra overrides."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from harness.errors import UserError, printable

VERBS = {
    "plan": ("harness.plan.plan", "cells, questions, videos and hours of a matrix, before anything runs"),
    "prepare": ("harness.fetch.prepare", "download or unpack a benchmark, or build the toy"),
    "verify": ("harness.fetch.verify", "check counts and decode frames of a benchmark on disk"),
    "run": ("harness.run.run", "answer every question of a matrix, or what is missing of it"),
    "score": ("harness.report.score", "score the stored answers through lmms-eval"),
    "report": ("harness.report.report", "tables, intervals and verdicts from the stored answers"),
    "check": ("harness.report.check", "compare with a stored baseline: 0 pass, 1 regression, 2 incomplete, 3 drift"),
    "submit": ("harness.benchmarks.submit", "write a leaderboard file"),
    "fit": ("harness.run.fit", "what a method takes from calibration videos, such as the recipe of fitprune"),
    "demo": ("harness.explore.demo", "one video, one question: the answer and which tokens were kept"),
    "doctor": ("harness.run.doctor", "check environment, accelerator, versions, disk, data and weights"),
}
"""Verb -> (module whose ``main(config) -> int`` carries it out, what it does)."""


def parse(argv: list[str]) -> tuple[str, argparse.Namespace, list[str]]:
    """Split a command line into verb, flags and Hydra overrides."""
    parser = argparse.ArgumentParser(
        prog="python -m harness",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="verbs:\n" + "\n".join(f"  {verb:8} {text}" for verb, (_, text) in VERBS.items()),
        epilog="overrides: profile=published matrix=ablation matrix.context=[1000,16000] model.path=... data.root=...",
    )
    parser.add_argument("verb", choices=VERBS, metavar="verb")
    parser.add_argument("--config", action="store_true", help="print the composed configuration and stop")
    parser.add_argument("--update-baseline", action="store_true", help="check: write a new baseline")
    parser.add_argument("--video", help="demo: video file")
    parser.add_argument("--question", help="demo: question")
    parser.add_argument("--options", nargs="+", help="demo: the options, in order")
    parser.add_argument("--output", help="demo: where the picture goes")
    flags, rest = parser.parse_known_args(argv)
    unknown = [word for word in rest if word.startswith("--")]
    if unknown:
        parser.error(f"unknown option {unknown[0]}; settings are written key=value, see the epilog of --help")
    return flags.verb, flags, rest


def main(argv: list[str]) -> int:
    """Run one verb.

    Returns:
        The verb's exit status; 2 for an error that the user can put right; 130 after Ctrl-C.
    """
    try:
        verb, flags, overrides = parse(argv)
        from harness.config import as_yaml, compose_config

        config = compose_config(overrides)
        config.check.update_baseline |= flags.update_baseline
        for name in ("video", "question", "options", "output"):
            if (value := getattr(flags, name)) is not None:
                setattr(config.demo, name, value)
        if flags.config:
            print(as_yaml(config))
            return 0
        os.environ["ADARETAKE_DATA"] = os.path.abspath(config.data.root)
        os.environ.setdefault("ADARETAKE_TOKENIZER", config.model.path)
        status: int = importlib.import_module(VERBS[verb][0]).main(config)
        return status
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output went away
        return 0
    except KeyboardInterrupt:
        print("interrupted: the same command goes on where this one stopped", file=sys.stderr)
        return 130
