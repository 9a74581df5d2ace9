"""`tightrope tables`: what the page tables of a handover map."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from tightrope.cli import files
from tightrope.cli.arguments import design, new_kernel, old_kernel, shown
from tightrope.cli.command import HOLDS, command
from tightrope.cli.show import ready, show


def walk(parser: ArgumentParser) -> None:
    """Whose tables."""
    design(parser.add_argument_group("the walk"), "the table design (%(default)s)")


@command(
    "tables",
    help="what the page tables of a walk map, as few ranges, and what lies there; nothing is run",
    takes=(new_kernel, old_kernel, walk, shown),
    examples=(
        "tightrope tables --shipped",
        "tightrope tables /boot/vmlinuz --host old.toml --html tables.html",
    ),
)
def tables(options: Namespace) -> int:
    from tightrope.deeds.rehearse import build, prepare
    from tightrope.views.trees import VIEW

    ready(options, files.named(options))
    plan = prepare(*files.inputs(options))
    show(options, VIEW, build(plan, design=options.design))
    return HOLDS
