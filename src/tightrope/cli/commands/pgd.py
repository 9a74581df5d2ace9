"""`tightrope pgd`: a crashed kernel's page tables."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tightrope.cli.arguments import modes, shown
from tightrope.cli.command import FINDING, HOLDS, UNKNOWN, command
from tightrope.cli.show import ready, show
from tightrope.cli.values import number

if TYPE_CHECKING:
    from tightrope.model.pgd import Pgd


def core(parser: ArgumentParser) -> None:
    """Which core, and what no note of it says."""
    parser.add_argument(
        "vmcore",
        metavar="VMCORE",
        nargs="+",
        help="a dump: ELF, as /proc/vmcore is, compressed or flattened; all parts of a split one",
    )
    parser.add_argument(
        "--cr3", type=number, metavar="ADDR", help="the root, where no note names it"
    )
    parser.add_argument("--mode", choices=modes(), help="the table format")
    parser.add_argument(
        "--physical-bits",
        type=number,
        default=52,
        metavar="N",
        help="MAXPHYADDR of the crashed machine (%(default)s)",
    )
    parser.add_argument("--print", action="store_true", help="list what is mapped where")
    parser.add_argument("--diff", metavar="OTHER", help="compare with another core's tables")
    parser.add_argument(
        "--plan",
        metavar="HOST",
        help="a host file from before the crash: nothing but what a crash may write has changed",
    )


@command(
    "pgd",
    help="walk a crashed kernel's page tables in a dump, and say whether they are whole",
    takes=(core, shown),
    examples=(
        "tightrope pgd /var/crash/vmcore",
        "tightrope pgd vmcore --print --html tables.html",
        "tightrope pgd vmcore --plan web1.toml",
    ),
)
def pgd(options: Namespace) -> int:
    from tightrope import vmcore
    from tightrope.cli import files
    from tightrope.model import Paging
    from tightrope.views.pgd import VIEW, Looked
    from tightrope.vmcore.planned import planned

    ready(options, [*options.vmcore, options.diff, options.plan])
    paging = Paging(options.mode) if options.mode else None

    def found(*paths: str) -> Pgd:
        return vmcore.pgd(
            vmcore.read(*paths), cr3=options.cr3, paging=paging, physical_bits=options.physical_bits
        )

    one = found(*options.vmcore)
    ranges = vmcore.merged(one.found) if options.print else None
    changes = vmcore.difference(one.found, found(options.diff).found) if options.diff else None
    plan = planned(one, files.host_file(options.plan)) if options.plan else None
    looked = Looked(pgd=one, ranges=ranges, changes=changes, other=options.diff or "", plan=plan)
    show(options, VIEW, looked)
    if one.faults or changes or (plan is not None and plan.differ):
        return FINDING
    return HOLDS if one.whole else UNKNOWN
