"""`tightrope pairs`: old kernels' own code into new kernels, as one table."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from tightrope.cli import files, outputs
from tightrope.cli.arguments import FORMATS, loader, shown
from tightrope.cli.command import FINDING, HOLDS, UNKNOWN, command
from tightrope.cli.show import ready, show
from tightrope.cli.values import line, path, seconds
from tightrope.errors import BadInput, TightropeError, visible

if TYPE_CHECKING:
    from tightrope.model.pairs import Pair

CANNOT_BE_TOLD = 125
"""`git bisect run` skips a commit whose command ends so."""


def kernels(parser: ArgumentParser) -> None:
    """From which kernels into which."""
    parser.add_argument(
        "--from",
        dest="olds",
        nargs="+",
        required=True,
        metavar="OLD",
        help="old kernels: vmlinuz, vmlinux, or `running`",
    )
    parser.add_argument(
        "--to", dest="news", nargs="+", required=True, metavar="NEW", help=f"new kernels: {FORMATS}"
    )
    parser.add_argument("--initrd", metavar="FILE", help="the initrd of all of them")
    parser.add_argument(
        "--append", type=line, default="", metavar="WORDS", help="their command line"
    )
    parser.add_argument(
        "--crash", action="store_true", help="kexec and crash kexec, not kexec alone"
    )
    loader(parser)
    parser.add_argument(
        "--until",
        choices=["entry", "console"],
        default="entry",
        help="stop at the new kernel's first instruction, or when it has spoken (%(default)s)",
    )
    parser.add_argument(
        "--limit",
        type=seconds,
        default=900.0,
        metavar="SECONDS",
        help="how long to listen to each with --until console (%(default)g)",
    )
    parser.add_argument(
        "--lines",
        type=path,
        metavar="FILE",
        help="a JSON line for each pair, written as it is told",
    )
    parser.add_argument(
        "--bisect",
        action="store_true",
        help="exit as `git bisect run` asks: 0 all hold, 1 one falls, 125 it cannot be told",
    )


@command(
    "pairs",
    help="walk old kernels' own code into new kernels, kexec and crash, and print a table",
    description="Every old kernel's own relocation code, with the tables and the call of its version,"
    " into every new kernel, in each mode that the old one can be in.",
    takes=(kernels, shown),
    examples=(
        "tightrope pairs --from running --to /boot/vmlinuz-new",
        "tightrope pairs --from vmlinuz-6.1 vmlinuz-6.12 --to vmlinuz-7.3 --crash --json",
    ),
)
def pairs(options: Namespace) -> int:
    try:
        found = _pairs(options)
    except TightropeError as err:
        if not options.bisect:
            raise
        print(f"tightrope: {visible(str(err))}", file=sys.stderr)
        return CANNOT_BE_TOLD
    return _status(found, unknown=CANNOT_BE_TOLD if options.bisect else UNKNOWN)


def _pairs(options: Namespace) -> Sequence[Pair]:
    import json

    from tightrope import image
    from tightrope.deeds import defaults
    from tightrope.deeds.loaders import By
    from tightrope.deeds.machines import opened
    from tightrope.deeds.pairs import pairs as deed
    from tightrope.deeds.pairs import read
    from tightrope.deeds.until import ENTRY, Spoken
    from tightrope.model import Loader
    from tightrope.plan import Request
    from tightrope.report.progress import Bar
    from tightrope.views.pairs import VIEW, fact

    placed = Loader(options.loader) if options.loader else Loader.TIGHTROPE
    if options.kexec is not None and placed is not Loader.KEXEC_TOOLS:
        raise BadInput(
            "names the program for --loader kexec-tools, which is not given", source="--kexec"
        )
    if placed is not Loader.TIGHTROPE and options.until == "console":
        raise BadInput(
            "walks to the entry alone: --until console cannot be given with it", source="--loader"
        )

    given = [defaults.running_kernel() if each == "running" else each for each in options.olds]
    inputs = [*given, *options.news, *([options.initrd] if options.initrd else [])]
    ready(options, inputs)
    if options.lines is not None:
        outputs.check(options.lines, force=options.force, inputs=inputs)
    olds = [read(files.read(each), each) for each in dict.fromkeys(given)]
    news = [image.read(files.read(each), each) for each in dict.fromkeys(options.news)]
    request = Request(
        initrd=files.read(options.initrd) if options.initrd else None,
        initrd_source=options.initrd or "no initrd",
        command_line=options.append,
    )
    with ExitStack() as stack:
        machine = stack.enter_context(opened("emulator"))
        written = None
        if options.lines is not None:
            written = stack.enter_context(outputs.growing(options.lines, whole=True))
        bar = stack.enter_context(closing(Bar()))
        found = deed(
            olds,
            news,
            kinds=(False, True) if options.crash else (False,),
            request=request,
            until=Spoken(seconds=options.limit) if options.until == "console" else ENTRY,
            by=By(loader=placed, program=options.kexec),
            machine=machine,
            progress=bar,
            told=(lambda pair: written(f"{json.dumps(fact(pair))}\n")) if written else None,
        )
    show(options, VIEW, found)
    return found


def _status(found: Sequence[Pair], *, unknown: int) -> int:
    """What falls counts before what cannot be told."""
    from tightrope.model import Outcome

    outcomes = {pair.outcome for pair in found}
    if Outcome.FALLS in outcomes:
        return FINDING
    return unknown if None in outcomes else HOLDS
