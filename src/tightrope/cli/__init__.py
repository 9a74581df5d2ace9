"""The command line: one file a command.  It knows everything and decides nothing.

    command      what a command is: its words, its arguments, what it does
    commands/    the commands
    arguments    arguments that several of them share
    values       numbers, extents and times on the command line
    parser       all of them as one parser
    shells       the parser as completions and man pages
    show         a result as text or JSON
    streams      output whose reader may go away
    signals      what ends a command
    files        what is read: images, hosts, initrds
    outputs      what is written: traces, loads, scripts
    manual       the parser as man pages
    asking       what `load` asks for, and the same load again
    crash_kernel which crash kernel `kdump check` tries
    hops         `rehearse --hops N`: several jumps, and what they come to
    segments     whose segments a rehearsal walks

Rules: files are opened in `files` and `outputs`, and below the command line only to be loaded;
everything else is a call of a deed and a report of what came back.  Heavy packages are imported
inside the command that needs them, and what `--help` does not need inside the function that does:
`tightrope --help` takes no longer than twice a bare interpreter with argparse.  Exit status: 0
holds, 1 a finding, 2 no verdict, 128 + n ended by signal n (130: Ctrl-C).

May import: abi, check, choices, deeds, errors, handover, host, image, kdump, memory, model,
participants, perform, plan, prove, record, report, sabotage, shipped, views, vmcore
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Sequence
from threading import current_thread
from threading import enumerate as enumerate_threads

from tightrope.cli import signals, streams
from tightrope.cli.command import UNKNOWN
from tightrope.cli.parser import Usage, parser, with_sizes
from tightrope.errors import TightropeError, visible

TRACEBACK = "TIGHTROPE_TRACEBACK"
"""The variable that shows where in us an error came from."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    streams.fill()
    with signals.Signals() as heard, streams.ready(lambda: heard.seen):
        try:
            with heard.raising():
                try:
                    options = parser(words).parse_args([*with_sizes(words)])
                    status = int(options.command.run(options))
                finally:
                    # Here, where what is wrong with our output can still be told, not at exit.
                    sys.stdout.flush()
        except SystemExit:  # --help and --version
            raise
        except BaseException as err:
            # After a signal it may be any error: ctypes makes its own of what a handler raises.
            status = UNKNOWN if heard.seen else _failed(err, as_json="--json" in words)
        if heard.number is not None:
            if heard.claim():
                print(f"tightrope: {signals.says(heard.number)}", file=sys.stderr)
            return 128 + heard.number
    return status


def program() -> int:
    """`main` of a process that ends with it."""
    try:
        status = main()
    except KeyboardInterrupt:  # before or after `main` hears signals
        status = 128 + signal.SIGINT
    if _is_alone():
        # All goes with the process.  To take it apart first takes 10 ms after a rehearsal, and the
        # interpreter's last search for cycles 60.  What `main` printed is flushed.
        atexit._run_exitfuncs()
        streams.flush(sys.stdout)
        streams.flush(sys.stderr)
        os._exit(status)
    return status  # whoever still works, or looks on, is waited for, as ever


def _is_alone() -> bool:
    """Whether nobody works any more, and no profiler or debugger has yet to say what it saw."""
    tools = getattr(sys, "monitoring", None)  # since Python 3.12
    watched = sys.gettrace() or sys.getprofile() or sys.flags.inspect
    if watched or (tools is not None and any(tools.get_tool(number) for number in range(6))):
        return False
    return all(thread.daemon or thread is current_thread() for thread in enumerate_threads())


def _failed(error: BaseException, *, as_json: bool) -> int:
    """Say in one line why there is no answer; the exit status."""
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT  # raised by none of the signals that `main` hears
    if os.environ.get(TRACEBACK):
        import traceback

        traceback.print_exception(error)
    message = visible(_message(error))
    print(f"tightrope: {message}", file=sys.stderr)
    if isinstance(error, Usage):
        print(f"tightrope: try `{error.hint}`", file=sys.stderr)
    if as_json and not isinstance(error, streams.OutputFailed):
        from tightrope.report import json

        try:
            print(json.failure(error, message, UNKNOWN))
            sys.stdout.flush()
        except streams.OutputFailed:
            pass  # it has been said on stderr
    return UNKNOWN


def _message(error: BaseException) -> str:
    """The line; where it is no error that we raise on purpose, what kind it is and where it came
    up."""
    if isinstance(error, TightropeError | Usage):
        return str(error)
    if isinstance(error, MemoryError):
        return f"out of memory{f': {error}' if str(error) else ''}"
    if isinstance(error, ModuleNotFoundError) and not (error.name or "tightrope").startswith(
        "tightrope"
    ):
        # A package of an extra that the rooms take for granted; ours are never missing.
        return f"needs {error.name}: install tightrope[all]"
    if isinstance(error, OSError):
        name = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{name}{error.strerror or error}"
    import traceback

    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(where.filename)}:{where.lineno}"
    said = " ".join(str(error).split())
    return (
        f"a mistake of ours, {type(error).__name__} at {place}{f': {said}' if said else ''}"
        f" ({TRACEBACK}=1 shows more)"
    )
