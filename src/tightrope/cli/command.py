"""A command: its words, its arguments and what it does, in one value.

    @command(
        "plan",
        help="where every byte would go",
        examples=("tightrope plan --shipped", "tightrope plan /boot/vmlinuz --json"),
        takes=(new_kernel, old_kernel, as_json),
    )
    def plan(options: Namespace) -> int:

Rules: a command is registered by being imported.  `takes` are
functions that add arguments to a parser; they run only when their command is on the command line,
so that they may ask registries that take longer to load than `--help` may.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, HelpFormatter, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tightrope.model import Outcome

HOLDS, FINDING, UNKNOWN = 0, 1, 2
"""The exit statuses of a command that came to its end."""

Takes = Callable[[ArgumentParser], None]
Run = Callable[[Namespace], int]


class Command(NamedTuple):
    """`name` is the words on the command line, "host example"; `run` gives the exit status."""

    name: str
    help: str
    description: str | None
    examples: tuple[str, ...]
    """Command lines, as they are typed; `--help` and the man page end with them."""
    status: str | None
    """What its exit status says, where that is not what every command's says."""
    takes: tuple[Takes, ...]
    run: Run


COMMANDS: dict[str, Command] = {}
"""Name -> command, of those whose file was imported: see `commands.known`."""

CRASH_SIZE = "crash-size"
"""What `--crash SIZE` is to argparse, which would take any word behind `--crash` for its value."""


def command(
    name: str,
    *,
    help: str,
    description: str | None = None,
    examples: tuple[str, ...],
    status: str | None = None,
    takes: tuple[Takes, ...] = (),
) -> Callable[[Run], Run]:
    """Register the function below as a command."""

    def register(run: Run) -> Run:
        COMMANDS[name] = Command(
            name=name,
            help=help,
            description=description,
            examples=examples,
            status=status,
            takes=takes,
            run=run,
        )
        return run

    return register


class Help(HelpFormatter):
    """argparse's, which leaves lines that begin with blanks as they are: examples are typed so."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        lines = text.splitlines()
        return "\n".join(
            each if each[:1] in ("", " ") else fill(each, width, indent) for each in lines
        )


def epilog(examples: tuple[str, ...], status: str | None = None) -> str:
    """What `--help` ends with; lines that begin with blanks stay lines."""
    lines = "".join(f"  {each}\n" for each in examples)
    said = f"\n\nExit status: {status}." if status else ""
    return f"examples:\n{lines}".rstrip() + said


def status(outcome: Outcome) -> int:
    """The exit status of a verdict."""
    return {"holds": HOLDS, "falls": FINDING, "unknown": UNKNOWN}[outcome.value]


def really(options: Namespace, what: str) -> bool:
    """Whether to change the machine; if not, it is said what would have been done."""
    if not options.really:
        print(f"tightrope: would {what}; say --really to do it", file=sys.stderr)
    return bool(options.really)
