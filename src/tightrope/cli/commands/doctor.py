"""`tightrope doctor`: what this computer has, and what each missing part costs."""

from __future__ import annotations

from argparse import Namespace

from tightrope.cli.arguments import answered
from tightrope.cli.command import FINDING, HOLDS, command
from tightrope.cli.show import show


@command(
    "doctor",
    help="what this computer has of what tightrope uses, and what each missing part costs",
    description="Exit status 1: a rehearsal on the emulator cannot be done here.",
    takes=(answered,),
    examples=(
        "tightrope doctor",
        "tightrope doctor -q",
    ),
)
def doctor(options: Namespace) -> int:
    from tightrope.deeds.doctor import doctor as deed
    from tightrope.views.health import VIEW

    parts = deed()
    show(options, VIEW, parts)
    return FINDING if any(each.needed and each.found is None for each in parts) else HOLDS
