"""`tightrope rules`: what every rehearsal is checked for."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from tightrope.cli.arguments import as_json
from tightrope.cli.command import HOLDS, command
from tightrope.cli.show import show
from tightrope.cli.values import chosen


def which(parser: ArgumentParser) -> None:
    """One of them."""
    parser.add_argument(
        "rule",
        metavar="RULE",
        nargs="?",
        help="one of them, what mends it and what breaks it; without it all",
    )


@command(
    "rules",
    help="what every rehearsal is checked for, and who says so",
    takes=(which, as_json),
    examples=(
        "tightrope rules",
        "tightrope rules table-a-maps-v",
    ),
)
def rules(options: Namespace) -> int:
    from tightrope.check import RULES, WATCHED
    from tightrope.sabotage import SABOTAGES
    from tightrope.views.rules import RULE, VIEW

    criteria = {
        each.id: each.criterion(
            tuple(name for name, broken in SABOTAGES.items() if broken.rule == each.id)
        )
        for each in (*RULES, *WATCHED)
    }
    found = chosen(options.rule, criteria, what="a rule", lists="tightrope rules")
    if options.rule is None:
        show(options, VIEW, found)
    else:
        show(options, RULE, found[0])
    return HOLDS
