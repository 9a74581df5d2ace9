"""The parser as completions for a shell: shtab writes them, this says what a word may be.

Rules: names that a command looks up itself, and that are therefore no choices of the parser, are
choices here, from the registries that own them.  A completion is a script that asks nobody: it is
as old as the tightrope that printed it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

from tightrope.cli.parser import parser
from tightrope.errors import MissingPart

PROGRAM = "tightrope"
FOLDERS = ("DIR",)
"""Placeholders of directories."""
FILES = ("FILE", "KERNEL", "VMCORE", "OLD", "NEW", "FACTS", "PATH", "FILE ARGUMENTS")
"""Placeholders of files; a path that is to be written is one, too."""


def completions(shell: str) -> str:
    """The script for bash, zsh or fish.  Raises MissingPart without shtab."""
    try:
        import shtab
    except ModuleNotFoundError as err:
        raise MissingPart("completions need shtab: install tightrope[shell]") from err
    whole = parser()
    for command, action in actions(whole):
        if isinstance(action.metavar, str):
            # zsh's scripts have it between quotes: one within would be the end of them.
            action.metavar = action.metavar.replace('"', "")
        if action.choices is None and (names := _names(command, action)):
            action.choices = names
        elif isinstance(action.metavar, str) and action.metavar in FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif isinstance(action.metavar, str) and action.metavar in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    text: str = shtab.complete(whole, shell)
    return text if text.endswith("\n") else f"{text}\n"


def actions(one: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """Every argument of every command, with the words of the command."""
    for action in one._actions:
        yield one.prog.removeprefix(PROGRAM).strip(), action
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from actions(each)


def _names(command: str, action: argparse.Action) -> list[str]:
    """What may stand there, where a registry knows."""
    asked = NAMES.get((command, action.dest))
    return asked() if asked else []


def _sabotages() -> list[str]:
    from tightrope.sabotage import ENTRY_SABOTAGES, SABOTAGES, XEN_SABOTAGES

    return ["list", *SABOTAGES, *ENTRY_SABOTAGES, *XEN_SABOTAGES]


def _contracts() -> list[str]:
    from tightrope.model import Paging
    from tightrope.participants import from_file

    return list(dict.fromkeys(name for each in Paging for name in from_file.contracts(each)))


def _rules() -> list[str]:
    from tightrope.check import RULES, WATCHED

    return [each.id for each in (*RULES, *WATCHED)]


def _words() -> list[str]:
    from tightrope.model.glossary import TERMS

    return [each.word for each in TERMS if " " not in each.word]


def _documents() -> list[str]:
    from tightrope.views.every import SHAPES

    return [*SHAPES, "error"]


def _commands() -> list[str]:
    from tightrope.cli.command import COMMANDS

    return list(COMMANDS)


NAMES: dict[tuple[str, str], Callable[[], list[str]]] = {
    ("rehearse", "sabotage"): _sabotages,
    ("rehearse", "contract"): _contracts,
    ("rules", "rule"): _rules,
    ("glossary", "word"): _words,
    ("schema", "document"): _documents,
    ("man", "command_name"): _commands,
}
"""Command and argument to the names that may stand there."""
