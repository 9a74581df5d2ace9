"""`tightrope rules`: what every rehearsal is checked for."""

from __future__ import annotations

from argparse import Namespace

from tightrope.cli.command import HOLDS, command


@command("rules", help="what every rehearsal is checked for, and who says so")
def rules(_options: Namespace) -> int:
    from tightrope.check import RULES

    for rule in RULES:
        print(f"{rule.id:<24} step {int(rule.step)}  {rule.says}")
        print(f"{'':<24}         {rule.source}")
    return HOLDS
