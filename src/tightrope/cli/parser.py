"""The parser: every command by name, and the arguments of those that are on the command line.

Rules: argparse and nothing heavy: `--help` and `--version` answer from here.  What a command takes
stands beside the command.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, NoReturn

from tightrope import __version__
from tightrope.cli import commands
from tightrope.cli.command import CRASH_SIZE, Help, epilog
from tightrope.errors import near


class Group(NamedTuple):
    """What is said of a first word; `title` and `metavar` are of the second one."""

    help: str
    description: str | None
    title: str
    metavar: str
    examples: tuple[str, ...]


GROUPS = {
    "host": Group(
        help="descriptions of old kernels",
        description=None,
        title="commands",
        metavar="COMMAND",
        examples=("tightrope host example > old.toml", "tightrope host capture -o this.toml"),
    ),
    "kdump": Group(
        help="try a crash kernel before it is needed, and save a dump in one",
        description=None,
        title="commands",
        metavar="COMMAND",
        examples=(
            "tightrope kdump check",
            "tightrope kdump capture /proc/vmcore -o /mnt/crash",
        ),
    ),
    "dump": Group(
        help="what a dump of a dead kernel says",
        description=None,
        title="commands",
        metavar="COMMAND",
        examples=("tightrope dump info vmcore", "tightrope dump info vmcore --host old.toml"),
    ),
    "perform": Group(
        help="do on this machine what was rehearsed",
        description="Do on this machine what was rehearsed.  Without --really it only says what it"
        " would do.",
        title="ways",
        metavar="WAY",
        examples=("tightrope perform xen --json", "tightrope perform xen load --really"),
    ),
}
"""The first word of commands that have two."""
EXAMPLES = (
    "tightrope rehearse --shipped",
    "tightrope rehearse /boot/vmlinuz --initrd /boot/initrd.img --html verdict.html",
    "tightrope glossary V",
)
STATUS = "0 it holds, 1 a finding, 2 no verdict"


Subparsers = argparse._SubParsersAction


class Usage(Exception):
    """A command line that is none; `hint` is what to type to learn more."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Parser(argparse.ArgumentParser):
    """argparse's, which raises and leaves it to the caller to end."""

    def error(self, message: str) -> NoReturn:
        """Raise Usage."""
        raise Usage(message, f"{self.prog} --help")

    def parse_args(self, args: Sequence[str]) -> argparse.Namespace:  # type: ignore[override]
        """As argparse's; what is left over is told with the command whose help to look at."""
        options, rest = self.parse_known_args(args)
        if rest:
            names = f"{self.prog} {options.command.name} --help"
            behind = {word for before, word in pairwise(args) if before == "--crash"}
            if rest[0] in behind and hasattr(options, CRASH_SIZE.replace("-", "_")):
                raise Usage(
                    f"argument --crash: {rest[0]!r} is not a size, which 256M would be", names
                )
            typed = [each.removeprefix(f"--{CRASH_SIZE}=") for each in rest]
            raise Usage(f"does not know {' '.join(typed)}", names)
        return options

    def _get_formatter(self) -> argparse.HelpFormatter:
        """With its width: argparse makes one for every argument, and loads shutil to ask."""
        return self.formatter_class(self.prog, width=_columns() - 2)  # type: ignore[call-arg]

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """Name the nearest of the choices instead of all of them, where they are commands."""
        if isinstance(action, Subparsers) and value not in action.choices:
            kind = str(action.metavar).lower()
            hint = near(str(value), action.choices)
            raise argparse.ArgumentError(None, f"no {kind} {value!r}{hint}")
        super()._check_value(action, value)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> object:
        """Refuse `--option=--`, of which argparse makes an option without a value (bpo-14364)."""
        if action.option_strings and arg_strings == ["--"]:
            raise argparse.ArgumentError(action, "expected a value, found '--'")
        values: object = super()._get_values(action, arg_strings)
        return values


def with_sizes(words: Sequence[str]) -> Iterator[str]:
    """`--crash 256M` as argparse can have it: see `command.CRASH_SIZE`.

    `host example --crash=START+SIZE` says where, and stays as it is.
    """
    if next((each for each in words if each[:1] != "-"), "") == "host":
        yield from words
        return
    waiting = False
    for each in words:
        option, joined, value = each.partition("=")
        if waiting and _is_size(each):
            yield f"--{CRASH_SIZE}={each}"
        elif option == "--crash" and joined:
            yield from ("--crash", f"--{CRASH_SIZE}={value}")
        else:
            yield each
        waiting = each == "--crash"


def _columns() -> int:
    """Of the terminal, 80 where there is none."""
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said):
        return int(said)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ else 1).columns or 80
    except (OSError, ValueError):
        return 80


def _is_size(text: str) -> bool:
    from tightrope.cli.values import is_size

    return is_size(text)


def parser(words: Sequence[str] | None = None) -> Parser:
    """The parser for these words of a command line: commands that they do not ask for are known by
    name alone.  Without words it is whole.
    """
    asked = None if words is None else next((each for each in words if each[:1] != "-"), "")
    top = Parser(
        prog="tightrope",
        description="Plan and rehearse a kexec before anyone performs it.",
        epilog=epilog(EXAMPLES, STATUS),
        formatter_class=Help,
    )
    top.add_argument("--version", action="version", version=f"tightrope {__version__}")
    names = _words(top, "commands", "COMMAND")
    groups: dict[str, Subparsers[Parser]] = {}
    for command in commands.known(asked) if words is None or words[:1] != ["--version"] else ():
        first, _, second = command.name.partition(" ")
        if asked not in (None, first):
            if first not in names.choices:
                _by_name(names, first, GROUPS[first].help if second else command.help)
            continue
        if second and first not in groups:
            about = GROUPS[first]
            group = names.add_parser(
                first,
                help=about.help,
                description=about.description,
                epilog=epilog(about.examples),
                formatter_class=Help,
            )
            groups[first] = _words(group, about.title, about.metavar)
        one = (groups[first] if second else names).add_parser(
            second or first,
            help=command.help,
            description=command.description,
            epilog=epilog(command.examples, command.status),
            formatter_class=Help,
        )
        one.set_defaults(command=command)
        for take in command.takes:
            take(one)
    return top


def _words(before: Parser, title: str, metavar: str) -> Subparsers[Parser]:
    """What may follow a word, or the name of the program."""
    return before.add_subparsers(title=title, required=True, metavar=metavar, prog=before.prog)


def _by_name(words: Subparsers[Parser], word: str, help: str) -> None:
    """A word that the command line does not have: a line of the list costs less than a parser."""
    words._choices_actions.append(words._ChoicesPseudoAction(word, (), help))
    words.choices[word] = None  # type: ignore[assignment]
