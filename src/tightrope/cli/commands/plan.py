"""`tightrope plan`: where every byte would go."""

from __future__ import annotations

from argparse import Namespace

from tightrope.cli import files
from tightrope.cli.arguments import as_json, new_kernel, old_kernel
from tightrope.cli.command import HOLDS, command


@command(
    "plan",
    help="where every byte would go, and why; nothing is run",
    takes=(new_kernel, old_kernel, as_json),
)
def plan(options: Namespace) -> int:
    from tightrope.deeds.rehearse import prepare

    the_plan = prepare(*files.inputs(options))
    if options.json:
        from tightrope.report.document import plan_document

        files.print_json(plan_document(the_plan))
    else:
        from tightrope.report import planned

        print(planned.text(the_plan))
    return HOLDS
