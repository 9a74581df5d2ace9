"""`tightrope plan`: where every byte would go."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from tightrope.cli import files
from tightrope.cli.arguments import new_kernel, old_kernel, shown, verify
from tightrope.cli.command import HOLDS, command
from tightrope.cli.show import ready, show


def measured(parser: ArgumentParser) -> None:
    """Whose rates the blackout is told by."""
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="measure this machine's copying, digesting and unpacking for the blackout, a second or two",
    )


@command(
    "plan",
    help="where every byte would go, and why; nothing is run",
    takes=(new_kernel, verify, old_kernel, measured, shown),
    examples=(
        "tightrope plan --shipped",
        "tightrope plan /boot/vmlinuz --initrd /boot/initrd.img --crash 256M",
    ),
)
def plan(options: Namespace) -> int:
    from tightrope.deeds import blackout
    from tightrope.deeds.rehearse import prepare
    from tightrope.views.planned import VIEW, Planned

    ready(options, files.named(options))
    made = prepare(*files.inputs(options))
    rates = blackout.calibrated(made) if options.calibrate else blackout.STATED
    show(options, VIEW, Planned(plan=made, blackout=blackout.budget(made, rates)))
    return HOLDS
