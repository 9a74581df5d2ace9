"""`tightrope agree`: random handovers on several machines, compared."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import ExitStack, closing

from tightrope.cli.arguments import as_json, machines
from tightrope.cli.command import FINDING, HOLDS, UNKNOWN, command
from tightrope.cli.show import show
from tightrope.cli.values import count
from tightrope.errors import BadInput


def cases(parser: ArgumentParser) -> None:
    """Which cases, on which machines."""
    from tightrope.deeds.machines import MACHINES

    parser.add_argument(
        "--count", type=count, default=100, metavar="N", help="how many cases (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="S", help="where they come from (%(default)s)"
    )
    parser.add_argument("--only", type=int, metavar="K", help="case K of the seed, and no other")
    parser.add_argument(
        "--on",
        type=machines,
        metavar="MACHINE,...",
        help=f"of {', '.join(MACHINES)}; without it the emulator, unicorn and, where it is, kvm-free",
    )


@command(
    "agree",
    help="walk random handovers, sound and broken, on several machines and compare them",
    description="Seeded random old kernels, images, placements and breakages, in every mode. The"
    " first machine is what the others are compared with: verdict, fault, registers at the entry,"
    " memory. Each difference is printed with the command that replays it.",
    takes=(cases, as_json),
    examples=(
        "tightrope agree --count 20",
        "tightrope agree --on emulator,kvm --seed 7 --json",
    ),
)
def agree(options: Namespace) -> int:
    from tightrope.deeds.agree import agree as deed
    from tightrope.deeds.machines import opened, present
    from tightrope.report.progress import Bar
    from tightrope.views.agreement import VIEW

    numbers = range(options.count) if options.only is None else [options.only]
    with ExitStack() as stack:
        if options.on is None:
            on = stack.enter_context(present())
        else:
            on = [stack.enter_context(opened(name)) for name in options.on]
        if len(on) < 2:
            raise BadInput("it takes two machines to agree", source="--on")
        bar = stack.enter_context(closing(Bar()))
        got = deed(on, seed=options.seed, numbers=numbers, total=len(numbers), progress=bar)
    show(options, VIEW, got)
    if not any(got.compared.values()):
        return UNKNOWN
    return FINDING if got.unexplained else HOLDS
