"""`tightrope plan`: where every byte would go."""

from __future__ import annotations

from argparse import Namespace

from tightrope.cli import files
from tightrope.cli.arguments import as_json, new_kernel, old_kernel
from tightrope.cli.command import HOLDS, command
from tightrope.cli.show import show


@command(
    "plan",
    help="where every byte would go, and why; nothing is run",
    takes=(new_kernel, old_kernel, as_json),
)
def plan(options: Namespace) -> int:
    from tightrope.deeds.rehearse import prepare
    from tightrope.views.plan import VIEW

    show(options, VIEW, prepare(*files.inputs(options)))
    return HOLDS
