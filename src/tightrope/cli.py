"""The command line: one subcommand per deed.  It knows everything and decides nothing.

Rules: files are opened here and nowhere below; everything else is a call of a deed and a report of
what came back.  Heavy packages are imported inside the subcommand that needs them.  Exit status: 0
holds, 1 a finding, 2 could not tell.

May import: errors, host, image, model, plan, rehearse, report, sabotage, shipped, check
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from tightrope import __version__
from tightrope.errors import BadInput, ImageError, MissingPart, TightropeError

if TYPE_CHECKING:
    from tightrope.model import Host, Image, Outcome, Verdict
    from tightrope.plan import Request
    from tightrope.sabotage import Sabotage

HOLDS, FINDING, UNKNOWN = 0, 1, 2
INTERRUPTED = 130
SHIPPED = "the shipped kernel"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    _open_streams()
    try:
        try:
            options = _parser().parse_args(arguments)
            return int(options.deed(options))
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


# ---------------------------------------------------------------------------------- the arguments


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="tightrope",
        description="Plan and rehearse a kexec before anyone performs it.",
        epilog="Exit status: 0 it holds, 1 a finding, 2 it could not be told.",
    )
    top.add_argument("--version", action="version", version=f"tightrope {__version__}")
    deeds = top.add_subparsers(title="deeds", required=True, metavar="DEED")

    deed = deeds.add_parser(
        "rehearse",
        help="walk a handover on a watched CPU and say whether it holds",
        description="Walk from the old kernel's call at V to the new kernel's first instruction,"
        " instruction by instruction, and check every step.",
    )
    _kernel_arguments(deed, optional=True)
    _request_arguments(deed)
    walk = deed.add_argument_group("the walk")
    walk.add_argument(
        "--design",
        default="two-tables",
        choices=["two-tables"],
        help="the table design (%(default)s)",
    )
    walk.add_argument(
        "--until",
        choices=["entry", "console"],
        default="entry",
        help="stop at the new kernel's first instruction, or when it has spoken (%(default)s)",
    )
    walk.add_argument(
        "--limit",
        type=_seconds,
        default=900.0,
        metavar="SECONDS",
        help="how long to listen with --until console (%(default)s)",
    )
    walk.add_argument(
        "--sabotage", metavar="NAME", help="break one thing on purpose; `list` names them"
    )
    shown = deed.add_argument_group("what is shown")
    _json_argument(shown)
    shown.add_argument("--trace", type=Path, metavar="FILE", help="write every instruction to FILE")
    deed.set_defaults(deed=_rehearse)

    deed = deeds.add_parser(
        "inspect",
        help="what a kernel image is, what it asks of memory, what entry points it has",
    )
    deed.add_argument("kernel", metavar="KERNEL", help="a bzImage")
    _json_argument(deed)
    deed.set_defaults(deed=_inspect)

    deed = deeds.add_parser("plan", help="where every byte would go, and why; nothing is run")
    _kernel_arguments(deed, optional=True)
    _request_arguments(deed)
    _json_argument(deed)
    deed.set_defaults(deed=_plan)

    deed = deeds.add_parser("host", help="descriptions of old kernels")
    hosts = deed.add_subparsers(title="deeds", required=True, metavar="DEED")
    example = hosts.add_parser("example", help="print the default host, a commented TOML document")
    example.set_defaults(deed=_host_example)

    deed = deeds.add_parser("rules", help="what every rehearsal is checked for, and who says so")
    deed.set_defaults(deed=_rules)
    return top


def _kernel_arguments(deed: argparse.ArgumentParser, *, optional: bool) -> None:
    new = deed.add_argument_group("the new kernel")
    new.add_argument(
        "kernel",
        metavar="KERNEL",
        nargs="?" if optional else None,
        help="a bzImage; without one the newest readable /boot/vmlinuz-*, else the shipped kernel",
    )
    new.add_argument(
        "--shipped", action="store_true", help="the small kernel that comes with tightrope"
    )
    new.add_argument("--initrd", metavar="FILE", help="an initrd")
    new.add_argument("--append", metavar="TEXT", default="", help="the command line")


def _request_arguments(deed: argparse.ArgumentParser) -> None:
    old = deed.add_argument_group("the old kernel")
    old.add_argument(
        "--host", metavar="FILE", help="a host description; without one `tightrope host example`"
    )
    old.add_argument(
        "--scatter",
        type=int,
        metavar="SEED",
        help="hand out free frames in a shuffled order, as a kernel does after months",
    )


def _seconds(text: str) -> float:
    """Seconds of an argument; `nan` would never be over."""
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a time to listen for")
    return seconds


def _json_argument(group: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    group.add_argument("--json", action="store_true", help="one JSON object instead of text")


# -------------------------------------------------------------------------------------- the deeds


def _rehearse(options: argparse.Namespace) -> int:
    if options.sabotage == "list":
        return _sabotages()
    from tightrope import sabotage
    from tightrope.rehearse import CONSOLE_WORDS, rehearse, speaks_for_itself

    broken: Sabotage | None = sabotage.named(options.sabotage) if options.sabotage else None
    image, old, request = _inputs(options)
    console = options.until == "console"
    if console and not speaks_for_itself(image) and "earlyprintk" not in request.command_line:
        from dataclasses import replace

        words = f"{request.command_line} {CONSOLE_WORDS}".strip()
        print(f"tightrope: the command line is {words!r}, so that it can be heard", file=sys.stderr)
        request = replace(request, command_line=words)
    from tightrope.report.progress import Bar

    bar = Bar()
    try:
        verdict = rehearse(
            image,
            old,
            request,
            design=options.design,
            sabotage=broken,
            console=console,
            console_seconds=options.limit,
            progress=bar,
        )
    finally:
        bar.close()
    if options.trace:
        _write_trace(options.trace, verdict)
    if options.json:
        from tightrope.report.document import verdict_document

        _print_json(verdict_document(verdict))
    else:
        from tightrope.report import terminal

        print(terminal.text(verdict, colour=_colour()))
    return _status(verdict.outcome)


def _inspect(options: argparse.Namespace) -> int:
    from tightrope import image
    from tightrope.report import inspect

    read = image.read(_bytes(options.kernel), options.kernel)
    unpacked: bytes | TightropeError | None
    try:
        unpacked = image.unpack(read) if read.payload else None
    except (ImageError, MissingPart) as err:
        unpacked = err
    if options.json:
        _print_json(inspect.inspect_json(read, unpacked))
    else:
        print(inspect.inspect_text(read, unpacked))
    return FINDING if isinstance(unpacked, ImageError) else HOLDS


def _plan(options: argparse.Namespace) -> int:
    from tightrope.rehearse import prepare

    image, old, request = _inputs(options)
    the_plan = prepare(image, old, request)
    if options.json:
        from tightrope.report.document import plan_document

        _print_json(plan_document(the_plan))
    else:
        from tightrope.report import planned

        print(planned.text(the_plan))
    return HOLDS


def _host_example(_options: argparse.Namespace) -> int:
    from tightrope import host

    print(host.example(), end="")
    return HOLDS


def _rules(_options: argparse.Namespace) -> int:
    from tightrope.check import RULES

    for rule in RULES:
        print(f"{rule.id:<24} step {int(rule.step)}  {rule.holds}")
        print(f"{'':<24}         {rule.source}")
    return HOLDS


def _sabotages() -> int:
    from tightrope.sabotage import SABOTAGES

    for each in SABOTAGES.values():
        where = f"step {int(each.step)}" if each.step else "before"
        print(f"{each.name:<26} {each.says}")
        print(f"{'':<26} found by {each.rule}, {where}")
    return HOLDS


# --------------------------------------------------------------------------------- in and out


def _inputs(options: argparse.Namespace) -> tuple[Image, Host, Request]:
    """Image, host and request from the arguments.  Raises BadInput."""
    from tightrope import host, image, shipped
    from tightrope.plan import Request

    if options.host:
        try:
            text = bytes(_bytes(options.host)).decode("utf-8")
        except UnicodeDecodeError as err:
            raise BadInput("not UTF-8 text", source=options.host, offset=err.start) from err
        old = host.read(text, options.host)
    else:
        old = host.read(host.example(), "the default host")
    kernel = options.kernel
    if kernel and options.shipped:
        raise BadInput("give a KERNEL or --shipped, not both", source="command line")
    if kernel is None and not options.shipped:
        kernel = _newest_kernel()
    initrd = _bytes(options.initrd) if options.initrd else None
    line = options.append
    if kernel is None:
        read = image.read(shipped.read(), SHIPPED)
        if initrd is None:
            initrd = shipped.example_initrd()
        line = f"{line} {shipped.initrd_argument(initrd)}".strip()
    else:
        read = image.read(_bytes(kernel), kernel)
    return (
        read,
        old,
        Request(
            initrd=initrd,
            initrd_source=options.initrd or "the shipped initrd",
            command_line=line,
            scatter=options.scatter,
        ),
    )


def _newest_kernel() -> str | None:
    """The newest readable kernel under /boot."""
    kernels = [path for path in Path("/boot").glob("vmlinuz-*") if os.access(path, os.R_OK)]
    newest = max(kernels, key=lambda path: (path.stat().st_mtime, path.name), default=None)
    return None if newest is None else str(newest)


def _bytes(path: str) -> bytes:
    """A file's bytes.  Raises BadInput with the system's reason."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
        raise BadInput(reason, source=path) from err


def _write_trace(path: Path, verdict: Verdict) -> None:
    """One line per instruction: number, step, address, text.  Raises BadInput."""
    run = verdict.run
    starts = [*run.step_starts, (len(run.trace), run.step_starts[-1][1])]
    try:
        with path.open("w", encoding="utf-8") as out:
            for (first, step), (end, _) in pairwise(starts):
                out.writelines(
                    f"{first + number}\t{int(step)}\t{rip:#x}\t{run.texts.get(rip, '?')}\n"
                    for number, rip in enumerate(run.trace[first:end].tolist())
                )
    except OSError as err:
        raise BadInput(err.strerror or str(err), source=str(path)) from err


def _print_json(document: object) -> None:
    import json

    print(json.dumps(document, indent=2))


def _colour() -> bool:
    """Colour on a terminal, unless NO_COLOR says otherwise (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _status(outcome: Outcome) -> int:
    return {"holds": HOLDS, "falls": FINDING, "unknown": UNKNOWN}[outcome.value]
