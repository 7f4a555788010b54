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

from harness.errors import OF_THE_DISK, UserError, printable, refused
from harness.settings.groups import OF_ALL, SCHEMAS
from harness.settings.rules import check_settings, default_of, rule_of
from harness.settings.verbs import Verb, all_verbs
from harness.settings.words import AXES, spelled

SETTING = re.compile(r"[A-Za-z_~+][\w.]*=")
"""How a setting starts; every other word is the verb's own."""

PROGRAM = "python -m harness"
WORKING = ("run", "score", "prepare", "verify", "bridge", "fit")
"""Verbs that have not done their work when nobody reads their output any more."""


@dataclass(frozen=True)
class Command:
    """A command line, taken apart.

    Attributes:
        verb: the verb.
        settings: Hydra overrides, as the user wrote them.
        own: key -> value of the verb's section: its flags and words.
        show_config: whether only the configuration is wanted.
    """

    verb: Verb
    settings: list[str]
    own: dict[str, Any]
    show_config: bool


def parse(argv: Sequence[str]) -> Command:
    """Take a command line apart.

    Raises:
        SystemExit: 2 for a line that has no meaning, 0 after ``--help``.
    """
    verbs = all_verbs()
    top = argparse.ArgumentParser(
        prog=PROGRAM,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"{PROGRAM} VERB [words] [key=value ...]",
        description="verbs:\n" + "\n".join(f"  {name:8} {verb.help}" for name, verb in verbs.items()),
        epilog=f"{PROGRAM} VERB --help: the settings of one verb\n"
        "settings of all verbs: profile=published matrix=ablation context=[1000,16000] model.path=... data.root=...",
    )
    name = argv[0] if argv else ""
    if name in ("-h", "--help"):
        top.print_help()
        raise SystemExit(0)
    if name not in verbs:
        close = difflib.get_close_matches(name, verbs, n=1)
        meant = f" (did you mean {close[0]!r}?)" if close else ""
        top.print_help(sys.stderr)
        top.exit(2, f"\nerror: {f'there is no verb {name!r}{meant}' if name else 'a verb is missing'}\n")
    verb = verbs[name]
    parser = _parser(verb)
    ours = list(argv[1:])
    stop = ours.index("--") if "--" in ours else len(ours)
    flags, rest = parser.parse_known_args(ours[:stop])
    words = [word for word in rest if not SETTING.match(word)]
    unknown = [word for word in words if word.startswith("-")]
    if unknown:
        hint = f"; for a word that starts with a dash: {PROGRAM} {verb.name} -- {unknown[0]}" if verb.words else ""
        parser.error(f"unknown option {unknown[0]}; settings are written key=value, see --help{hint}")
    words += ours[stop + 1 :]  # after -- nothing is an option or a setting
    own = {key: value for key, value in vars(flags).items() if key != "config" and value is not None}
    for key, listed in own.items():
        if isinstance(listed, list):  # an option with several values takes all words after it
            other = [word for word in listed if _is_setting(word, verb, key)]
            rest += other
            own[key] = [word for word in listed if word not in other]
            if not own[key]:
                parser.error(f"argument --{key.replace('_', '-')}: a value is missing")
    if verb.words and words:
        own[verb.words] = words
        words = []
    settings = [_single(_full(word, verb), verb) for word in rest if SETTING.match(word)]
    return Command(verb, [*settings, *words], own, flags.config)


def _parser(verb: Verb) -> argparse.ArgumentParser:
    schema = verb.schema or SCHEMAS.get(verb.section)
    own = f"settings of this verb:\n{_listed(schema, f'{verb.section}.')}\n\n" if schema is not None else ""
    groups = ", ".join(SCHEMAS) if verb.reads is None else ", ".join(verb.reads)
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} {verb.name}",
        usage=f"{PROGRAM} {verb.name} {verb.words.upper() + ' ... ' if verb.words else ''}[options] [key=value ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=verb.help,
        epilog=f"{own}groups of settings that it takes too: {groups or 'none'}\n"
        f"all settings with their values: {PROGRAM} {verb.name} --config",
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="store_true", help="print the composed configuration and stop")
    types = get_type_hints(schema) if schema is not None else {}
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


def _listed(schema: Any, prefix: str) -> str:
    """A line for each setting of a schema: default, allowed values, what it is for."""
    lines = []
    for field in dataclasses.fields(schema):
        rule, default = rule_of(field), default_of(field)
        shown = str(default).lower() if isinstance(default, bool) else "null" if default is None else default
        about = [rule.help, *([f"({rule.range})"] if rule.range else [])]
        lines.append(f"  {prefix}{field.name}={shown}  {' '.join(about)}".rstrip())
    return "\n".join(lines)


def _is_setting(word: str, verb: Verb, flag: str) -> bool:
    """Whether a word after an option of many values is a setting of the command and not one of the values."""
    fields = {field.name: field for field in dataclasses.fields(verb.schema or Verb)}
    named = bool(SETTING.match(word)) and re.split(r"[.=]", word)[0] in {*SCHEMAS, *OF_ALL, *fields}
    return named and not (rule_of(fields[flag]).of_cells and _of_cell(word.partition("=")[0]))


def _of_cell(key: str) -> bool:
    """Whether a setting can change an answer."""
    group, _, name = key.partition(".")
    if group not in ("model", "method", "video", "context", "task"):
        return False
    schema = SCHEMAS[group]
    fields = {field.name: field for field in dataclasses.fields(schema)} if schema is not None else {}
    return name not in fields or not rule_of(fields[name]).runtime


def _full(word: str, verb: Verb) -> str:
    key = word.partition("=")[0]
    schema = verb.schema or SCHEMAS.get(verb.section)
    own = {field.name for field in dataclasses.fields(schema)} if schema is not None else set()
    return f"{verb.section}.{word}" if key in own and key not in {*SCHEMAS, *OF_ALL} else word


def _single(word: str, verb: Verb) -> str:
    """A list of one value as that value, for an axis of which the verb takes one value.

    Raises:
        UserError: the list has several values.
    """
    key, _, value = word.partition("=")
    values = [part.strip() for part in value[1:-1].split(",")]
    if key not in verb.single or not value.startswith("[") or not values[0]:
        return word
    if len(values) > 1:
        raise UserError(f"{word}: {verb.name} takes one {key}; give one: {PROGRAM} {verb.name} {key}={values[0]}")
    return f"{key}={values[0]}"


def check_once(command: Command) -> None:
    """Refuse two values of one option or one axis.

    Raises:
        UserError: names both words.
    """
    given: dict[str, tuple[str, str]] = {}
    axes = {*(f"matrix.{axis}" for axis in AXES), *(name for names in AXES.values() for name in names), *SCHEMAS}
    for word, full in zip(command.settings, spelled(command.settings, {}), strict=True):
        key, _, value = full.partition("=")
        first, before = given.setdefault(key, (word, value))
        if before != value and key in axes:
            raise UserError(f"{first} and {word} both set {key}; keep one of them")


def check_read(command: Command) -> None:
    """Refuse a setting that the verb would not read: one that is given is obeyed.

    Raises:
        UserError: the first, and what the verb reads.
    """
    verb, known = command.verb, {*SCHEMAS, *(verb.section for verb in all_verbs().values())}
    read = {*(SCHEMAS if verb.reads is None else verb.reads), *OF_ALL, "data", verb.section}
    for word in command.settings:
        group = re.split(r"[.=]", word)[0]
        axis = group in AXES and AXES[group][0].split(".")[0] in read
        if group not in read and not axis and (group in known or group in AXES):
            schema = verb.schema or SCHEMAS.get(verb.section)
            own = [f"{verb.section}.{field.name}" for field in dataclasses.fields(schema)] if schema else []
            shown = [*own, *sorted(read - {verb.section, ""})]
            raise UserError(
                f"{verb.name} does not read {word}; allowed: {', '.join(shown)}; see {PROGRAM} {verb.name} --help"
            )


def main(argv: list[str]) -> int:
    """Run one verb.

    Returns:
        The verb's exit status; 2 for an error that the user can put right; 130 after Ctrl-C.
    """
    try:
        if sys.flags.optimize > 1:
            raise UserError("python -OO takes away the docstrings that transformers needs; start without -OO")
        command = parse(argv)
        check_read(command)
        check_once(command)
        from harness.settings.compose import as_yaml, compose_verb  # late: Hydra, of which --help has no need

        verb = command.verb
        config, own = compose_verb(verb, command.settings)
        if own is not None:
            own = dataclasses.replace(own, **command.own)
            check_settings(own, f"{verb.section}.")
        if command.show_config:
            print(as_yaml(dataclasses.asdict(config) | ({verb.section: dataclasses.asdict(own)} if own else {})))
            return 0
        os.environ["ADARETAKE_DATA"] = os.path.abspath(config.data.root)
        os.environ.setdefault("ADARETAKE_TOKENIZER", config.model.path)
        carry_out = importlib.import_module(verb.module).main
        try:
            status: int = carry_out(config) if own is None else carry_out(config, own)
        except SystemExit as error:  # of rich, where the reader of standard output went away
            raise BrokenPipeError from error
        return status
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if argv[0] not in WORKING:
            return 0
        print(
            "stopped: the reader of the output went away; the same command goes on where this one stopped",
            file=sys.stderr,
        )
        return 2
    except OSError as error:
        if error.errno not in OF_THE_DISK:
            raise
        print(f"error: {printable(refused(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on where this one stopped", file=sys.stderr)
        return 130
