"""`tightrope rules`: what every rehearsal is checked for."""

from __future__ import annotations

from argparse import Namespace

from tightrope.cli.arguments import as_json
from tightrope.cli.command import HOLDS, command
from tightrope.cli.show import show


@command("rules", help="what every rehearsal is checked for, and who says so", takes=(as_json,))
def rules(options: Namespace) -> int:
    from tightrope.check import RULES
    from tightrope.model import Criterion
    from tightrope.views.rules import VIEW

    criteria = [
        Criterion(rule=each.id, step=each.step, says=each.says, source=each.source)
        for each in RULES
    ]
    show(options, VIEW, criteria)
    return HOLDS
