"""`tightrope compare`: rival designs side by side."""

from __future__ import annotations

from argparse import Namespace
from contextlib import closing

from tightrope.choices import OURS
from tightrope.cli import files
from tightrope.cli.arguments import new_kernel, old_kernel, shown
from tightrope.cli.command import FINDING, HOLDS, command
from tightrope.cli.show import ready, show


@command(
    "compare",
    help="the thread's rival designs on one host, side by side",
    description="One row for each design; the exit status is that of two-tables, the default.",
    takes=(new_kernel, old_kernel, shown),
    examples=(
        "tightrope compare --shipped",
        "tightrope compare /boot/vmlinuz --mode la57 --json",
    ),
)
def compare(options: Namespace) -> int:
    from tightrope.deeds.compare import compare as deed
    from tightrope.model import Outcome
    from tightrope.report.progress import Bar
    from tightrope.views.comparison import VIEW

    ready(options, files.named(options))
    image, old, request = files.inputs(options)
    with closing(Bar()) as bar:
        rows = deed(image, old, request, progress=bar)
    show(options, VIEW, rows)
    ours = next(row for row in rows if row.design == OURS)
    return HOLDS if ours.outcome is Outcome.HOLDS else FINDING
