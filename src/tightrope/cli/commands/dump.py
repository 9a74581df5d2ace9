"""`tightrope dump`: what a dump of a dead kernel says."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from tightrope.cli import files
from tightrope.cli.arguments import shown
from tightrope.cli.command import FINDING, HOLDS, UNKNOWN, command
from tightrope.cli.show import ready, show


def dump(parser: ArgumentParser) -> None:
    """Which dump, and what to hold it against."""
    parser.add_argument(
        "vmcore", metavar="VMCORE", nargs="+", help="a dump; all parts of a split one"
    )
    parser.add_argument(
        "--host", metavar="FILE", help="a host file: whether it is of the same machine and boot"
    )
    parser.add_argument(
        "--log", action="store_true", help="the dead kernel's log alone, as dmesg prints it"
    )


@command(
    "dump info",
    help="whose dump it is: release, time, panic, CPUs and where each stood, taint, log",
    takes=(dump, shown),
    examples=(
        "tightrope dump info vmcore",
        "tightrope dump info vmcore --host old.toml --json",
    ),
)
def info(options: Namespace) -> int:
    from tightrope import printk, vmcore
    from tightrope.model.dead import Belonging
    from tightrope.views.dump_info import LOG_LINES, VIEW, Told
    from tightrope.vmcore.information import information

    ready(options, [*options.vmcore, options.host])
    host = files.host_file(options.host) if options.host else None
    dead = information(vmcore.read(*options.vmcore), host)
    if options.log and not options.json:
        for record in dead.log:
            print(*printk.lines(record), sep="\n")
        return HOLDS if dead.log else UNKNOWN
    show(options, VIEW, Told(dead=dead, log_lines=None if options.log else LOG_LINES))
    match dead.match and dead.match.belonging:
        case Belonging.APART:
            return FINDING
        case Belonging.UNTOLD:
            return UNKNOWN
        case _:
            return HOLDS if dead.release or dead.log or dead.cpus else UNKNOWN
