"""The command line: one verb, its words and flags, then settings as ``key=value``."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import importlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from harness.advice import OF_ONE_VERB
from harness.errors import OF_THE_DISK, UserError, printable, refused

SETTING = re.compile(r"[A-Za-z_~+][\w.]*=")
"""How a setting starts; every other word is the verb's own."""


@dataclass(frozen=True)
class Verb:
    """One row of the command line: a module whose ``main(config) -> int`` carries the verb out.

    Attributes:
        module: where `main` is.
        text: what it does, in one line.
        section: the group of the configuration with the settings of this verb. They may be written without the name of
            the group (``cell=...`` for ``show.cell=...``) where no group bears their name.
        words: the setting of the section, a list of texts, that takes the words without ``=``; empty: there are none.
        flags: settings of the section that may be written as options too (``update_baseline``: ``--update-baseline``).
        reads: groups of settings that it obeys beside its section, profile, results and data. None: all but those of
            one other verb, so that every step of a reproduction takes the same words.
        of_cells: those flags whose words are themselves settings of a cell (``--candidates video=stock context=130``).
    """

    module: str
    text: str
    section: str = ""
    words: str = ""
    flags: tuple[str, ...] = ()
    of_cells: tuple[str, ...] = ()
    reads: tuple[str, ...] | None = None


VERBS = {
    "plan": Verb("harness.plan.plan", "cells, questions, videos and hours of a matrix, before anything runs", "matrix"),
    "prepare": Verb("harness.fetch.prepare", "download or unpack a benchmark, or build the toy", "data"),
    "verify": Verb("harness.fetch.verify", "check counts and decode frames of a benchmark on disk", "data"),
    "run": Verb("harness.run.run", "answer every question of a matrix, or what is missing of it", "run"),
    "score": Verb("harness.report.score", "score the stored answers through lmms-eval"),
    "report": Verb("harness.report.report", "tables, intervals and verdicts from the stored answers", "report"),
    "check": Verb(
        "harness.report.check", "compare with a stored baseline: 0 pass, 1 regression, 2 incomplete, 3 drift",
        "check", flags=("update_baseline",),
    ),
    "import": Verb(
        "harness.exchange.importing", "take other people's per-question results as cells of their own kind",
        "foreign", "files", reads=(),
    ),
    "export": Verb(
        "harness.exchange.exporting", "write cells as lmms-eval's samples, VLMEvalKit's tables or Inspect's logs",
        "export", "formats", reads=(),
    ),
    "submit": Verb("harness.benchmarks.submit", "write a leaderboard file", "task"),
    "fit": Verb("harness.run.fit", "what a method takes from calibration videos, as the recipe of fitprune", "fit"),
    "demo": Verb(
        "harness.explore.demo", "one video, one question: the answer and which tokens were kept",
        "demo", flags=("video", "question", "options", "output"),
    ),
    "analyze": Verb(
        "harness.analysis.analyze", "what the paper says of attention, measured: heavy_hitters, bound",
        "analyze", words="names",
    ),
    "show": Verb(
        "harness.explore.show", "stored questions answered again: which tokens each cell kept, side by side",
        "show", words="questions", flags=("flips", "limit"),
    ),
    "compare": Verb(
        "harness.report.side_by_side", "two results folders: settings, scores, flips, kept tokens; 0 same, 1 differs",
        "compare", words="folders", flags=("limit", "output"), reads=("report",),
    ),
    "bridge": Verb(
        "harness.bridge.bridge", "why two results differ: one factor at a time, by twin cells",
        "bridge", words="cells", flags=("order", "both", "plan", "candidates", "search", "quirks"),
        of_cells=("candidates",),
    ),
    "doctor": Verb("harness.run.doctor", "check environment, accelerator, versions, disk, data and weights"),
}  # fmt: skip
"""Every verb, in the order of use."""

PROGRAM = "python -m harness"


@dataclass(frozen=True)
class Command:
    """A command line, taken apart.

    Attributes:
        verb: key of `VERBS`.
        settings: Hydra overrides, as the user wrote them.
        own: key -> value of the verb's section: its flags and words.
        show_config: whether only the configuration is wanted.
    """

    verb: str
    settings: list[str]
    own: dict[str, Any]
    show_config: bool


def parse(argv: Sequence[str]) -> Command:
    """Take a command line apart.

    Raises:
        SystemExit: 2 for a line that cannot be meant, 0 behind ``--help``.
    """
    top = argparse.ArgumentParser(
        prog=PROGRAM,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"{PROGRAM} VERB [words] [key=value ...]",
        description="verbs:\n" + "\n".join(f"  {name:8} {verb.text}" for name, verb in VERBS.items()),
        epilog=f"{PROGRAM} VERB --help: the settings of one verb\n"
        "settings of all: profile=published matrix=ablation matrix.context=[1000,16000] model.path=... data.root=...",
    )
    name = argv[0] if argv else ""
    if name in ("-h", "--help"):
        top.print_help()
        raise SystemExit(0)
    if name not in VERBS:
        close = difflib.get_close_matches(name, VERBS, n=1)
        meant = f" (did you mean {close[0]!r}?)" if close else ""
        top.print_help(sys.stderr)
        top.exit(2, f"\nerror: {f'there is no verb {name!r}{meant}' if name else 'a verb is missing'}\n")
    verb = VERBS[name]
    parser = _parser(name, verb)
    flags, rest = parser.parse_known_args(argv[1:])
    words = [word for word in rest if not SETTING.match(word)]
    unknown = [word for word in words if word.startswith("-")]
    if unknown:
        parser.error(f"unknown option {unknown[0]}; settings are written key=value, see --help")
    own = {key: value for key, value in vars(flags).items() if key != "config" and value is not None}
    for key, listed in own.items():
        if isinstance(listed, list):  # an option with several values takes all words behind it
            other = [word for word in listed if _is_setting(word, verb, key)]
            rest += other
            own[key] = [word for word in listed if word not in other]
    if verb.words and words:
        own[verb.words] = words
        words = []
    settings = [_full(word, verb) for word in rest if SETTING.match(word)]
    return Command(name, [*settings, *words], own, flags.config)


def _parser(name: str, verb: Verb) -> argparse.ArgumentParser:
    fields = _fields(verb.section)
    plain = [key for key in fields if key != verb.words and key not in verb.flags]
    listed = "\n".join(f"  {verb.section}.{key}={_default(fields[key])}{_rule(fields[key])}" for key in plain)
    own = f"settings of this verb:\n{listed}\n\n" if listed else ""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} {name}",
        usage=f"{PROGRAM} {name} {verb.words.upper() + ' ... ' if verb.words else ''}[options] [key=value ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=verb.text,
        epilog=f"{own}all settings with their values: {PROGRAM} {name} --config",
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="store_true", help="print the composed configuration and stop")
    types = get_type_hints(_schema(verb.section)) if verb.section else {}
    for key in verb.flags:
        flag, kind = f"--{key.replace('_', '-')}", types[key]
        if kind is bool:
            parser.add_argument(flag, action="store_true", default=None, help=f"as {verb.section}.{key}=true")
        elif kind == list[str]:
            parser.add_argument(flag, nargs="+", help=f"as {verb.section}.{key}=[...]")
        else:
            parser.add_argument(
                flag, type=int if kind in (int, int | None) else str, help=f"as {verb.section}.{key}=..."
            )
    return parser


def _schema(section: str) -> Any:
    from harness.config import Config

    return get_type_hints(Config)[section]


def _fields(section: str) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(_schema(section))} if section else {}


def _default(field: dataclasses.Field[Any]) -> str:
    from harness.setting import REQUIRED

    if field.default_factory is not dataclasses.MISSING:
        return str(field.default_factory())
    if field.default is None or isinstance(field.default, bool):
        return "null" if field.default is None else str(field.default).lower()
    return "..." if field.default == REQUIRED else str(field.default)


def _rule(field: dataclasses.Field[Any]) -> str:
    from harness.setting import Rule, rule_of

    rule = str(rule_of(field))
    return "" if rule == str(Rule()) else f"  ({rule})"


def _is_setting(word: str, verb: Verb, flag: str) -> bool:
    """Whether a word behind a flag of many words is a setting of the command and none of the flag's words."""
    from harness.config import Config

    known = {field.name for field in dataclasses.fields(Config)} | set(_fields(verb.section))
    named = bool(SETTING.match(word)) and re.split(r"[.=]", word)[0] in known
    return named and not (flag in verb.of_cells and _of_cell(word.partition("=")[0]))


def _of_cell(key: str) -> bool:
    """Whether a setting can change an answer."""
    from harness.setting import rule_of

    group, _, name = key.partition(".")
    if group not in ("model", "method", "video", "context", "task"):
        return False
    field = _fields(group).get(name) if group in ("model", "video", "task") else None
    return field is None or not rule_of(field).runtime


def _full(word: str, verb: Verb) -> str:
    from harness.config import Config

    key = word.partition("=")[0]
    groups = {field.name for field in dataclasses.fields(Config)}
    return f"{verb.section}.{word}" if key in _fields(verb.section) and key not in groups else word


def check_read(command: Command) -> None:
    """Refuse a setting that the verb would not read: one that is given is obeyed.

    Raises:
        UserError: the first, and what the verb reads.
    """
    from harness.config import Config

    verb = VERBS[command.verb]
    groups = {field.name for field in dataclasses.fields(Config)} - {"overrides"}
    of_all = {"profile", "results", "data", verb.section}
    read = groups - {*OF_ONE_VERB} if verb.reads is None else groups & {*verb.reads}
    for word in command.settings:
        if re.split(r"[.=]", word)[0] not in read | of_all:
            own = [f"{verb.section}.{key}" for key in _fields(verb.section)]
            shown = [*own, *sorted((read | of_all) - {verb.section, ""})]
            raise UserError(
                f"{command.verb} does not read {word}; allowed: {', '.join(shown)}; see {PROGRAM} {command.verb} --help"
            )


def main(argv: list[str]) -> int:
    """Run one verb.

    Returns:
        The verb's exit status; 2 for an error that the user can put right; 130 after Ctrl-C.
    """
    try:
        command = parse(argv)
        from harness.config import as_yaml, compose_config
        from harness.setting import check_settings

        verb, config = VERBS[command.verb], compose_config(command.settings)
        check_read(command)
        if command.own:
            section = getattr(config, verb.section)
            for key, value in command.own.items():
                setattr(section, key, value)
            check_settings(section, f"{verb.section}.")
        if command.show_config:
            print(as_yaml(config))
            return 0
        os.environ["ADARETAKE_DATA"] = os.path.abspath(config.data.root)
        os.environ.setdefault("ADARETAKE_TOKENIZER", config.model.path)
        status: int = importlib.import_module(verb.module).main(config)
        return status
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output went away
        return 0
    except OSError as error:
        if error.errno not in OF_THE_DISK:
            raise
        print(f"error: {printable(refused(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on where this one stopped", file=sys.stderr)
        return 130
