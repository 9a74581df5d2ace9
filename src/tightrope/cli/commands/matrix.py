"""`tightrope matrix`: kernels on every mode and split."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import ExitStack, closing

from tightrope.cli import files
from tightrope.cli.arguments import FORMATS, machines, shown
from tightrope.cli.command import FINDING, HOLDS, command
from tightrope.cli.show import ready, show


def kernels(parser: ArgumentParser) -> None:
    """Which kernels, on which machines."""
    from tightrope.deeds.machines import MACHINES

    parser.add_argument(
        "kernels", metavar="KERNEL", nargs="*", help=f"{FORMATS}; without one the shipped kernel"
    )
    parser.add_argument(
        "--on",
        type=machines,
        default=("emulator",),
        metavar="MACHINE,...",
        help=f"the machines to walk on, of {', '.join(MACHINES)} (emulator)",
    )


@command(
    "matrix",
    help="rehearse kernels on every mode and split, for kexec and kdump, and print a table",
    takes=(kernels, shown),
    examples=(
        "tightrope matrix",
        "tightrope matrix /boot/vmlinuz --on emulator,kvm --html matrix.html",
    ),
)
def matrix(options: Namespace) -> int:
    from tightrope import image, shipped
    from tightrope.deeds import defaults
    from tightrope.deeds.machines import opened
    from tightrope.deeds.matrix import matrix as deed
    from tightrope.model import Outcome
    from tightrope.report.progress import Bar
    from tightrope.views.matrix import VIEW

    ready(options, options.kernels)
    given = [image.read(files.read(path), path) for path in options.kernels]
    with ExitStack() as stack:
        on = [stack.enter_context(opened(name)) for name in options.on]
        bar = stack.enter_context(closing(Bar()))
        given = given or [image.read(shipped.read(), defaults.SHIPPED)]
        cells = deed(given, on=on, progress=bar)
    show(options, VIEW, cells)
    outcomes = {cell.outcome for cell in cells} - {None}
    return HOLDS if outcomes == {Outcome.HOLDS} else FINDING
