"""The command line: one file a command.  It knows everything and decides nothing.

    command      what a command is: its words, its arguments, what it does
    commands/    the commands
    arguments    arguments that several of them share
    values       numbers, extents and times on the command line
    parser       all of them as one parser
    files        what is read and written: images, hosts, initrds, traces

Rules: files are opened in `files` and nowhere below the command line; everything else is a call of a
deed and a report of what came back.  Heavy packages are imported inside the command that needs them.
Exit status: 0 holds, 1 a finding, 2 no verdict, 130 interrupted.

May import: abi, check, deeds, errors, handover, host, image, memory, model,
participants, perform, plan, prove, report, sabotage, shipped, vmcore
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from tightrope.cli.parser import parser
from tightrope.errors import TightropeError

UNKNOWN = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    _open_streams()
    try:
        try:
            words = sys.argv[1:] if arguments is None else arguments
            options = parser(words).parse_args(words)
            return int(options.command.run(options))
        finally:
            # Here, where a reader that has gone away can still be dealt with, not at exit.
            sys.stdout.flush()
    except TightropeError as err:
        print(f"tightrope: {err}", file=sys.stderr)
        return UNKNOWN
    except ModuleNotFoundError as err:
        # A package of an extra that the rooms take for granted; ours are never missing.
        if (err.name or "tightrope").startswith("tightrope"):
            raise
        print(f"tightrope: needs {err.name}: install tightrope[all]", file=sys.stderr)
        return UNKNOWN
    except KeyboardInterrupt:
        print("tightrope: interrupted; nothing was changed", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        _drop_output()
        return UNKNOWN
    except OSError as err:
        # Input is opened by _bytes: what is left is our own output, on a full disk for instance.
        print(f"tightrope: {err.strerror or err}", file=sys.stderr)
        _drop_output()
        return UNKNOWN


def _open_streams() -> None:
    """Give streams that were closed (`>&-`) a place to go; escape what a stream cannot encode."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - open until exit
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - open until exit
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """What is still in the buffer goes nowhere, so that Python does not complain at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
