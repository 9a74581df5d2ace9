"""`tightrope watch`: the next kexec of a running QEMU guest, checked before it is let go."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from contextlib import closing
from typing import TYPE_CHECKING

from tightrope.cli import files
from tightrope.cli.arguments import shown
from tightrope.cli.command import FINDING, HOLDS, command
from tightrope.cli.show import ready, show
from tightrope.cli.values import seconds

if TYPE_CHECKING:
    from tightrope.deeds.watch.kernel import GuestKernel
    from tightrope.deeds.watch.xen import GuestXen


def guest(parser: ArgumentParser) -> None:
    """The guest's sockets, and what it runs and loads."""
    parser.add_argument(
        "kernel",
        nargs="?",
        metavar="KERNEL",
        help="the kernel that it will enter; without it, what the guest has loaded",
    )
    parser.add_argument(
        "--qmp",
        required=True,
        metavar="SOCKET",
        help="QEMU's QMP socket: a path or HOST:PORT (-qmp unix:PATH,server=on,wait=off)",
    )
    parser.add_argument(
        "--gdb",
        required=True,
        metavar="SOCKET",
        help="QEMU's gdb stub: a path or HOST:PORT (-gdb unix:PATH,server=on,wait=off; -s is :1234)",
    )
    parser.add_argument(
        "--from",
        dest="old_code",
        metavar="OLD",
        help="the image that the guest runs, where its own kallsyms cannot be read",
    )
    parser.add_argument(
        "--console",
        metavar="FILE",
        help="the file that QEMU writes the guest's console to, for the new kernel's first line"
        " (-serial file:FILE, or logfile=FILE of a chardev)",
    )
    parser.add_argument(
        "--limit",
        type=seconds,
        default=600.0,
        metavar="SECONDS",
        help="how long to wait for the kexec (%(default)g)",
    )
    parser.add_argument(
        "--stop-on-finding",
        action="store_true",
        help="leave the guest standing at the call when something is wrong, with its gdb port free",
    )
    parser.add_argument(
        "--no-walk",
        action="store_true",
        help="check what lies there, and do not walk it on the emulator first",
    )


@command(
    "watch",
    help="the next kexec of a running QEMU guest: checked before it is let go, and followed",
    description="Attach to a QEMU guest of yours, wait for its kexec or its crash, check the whole handover"
    " while it stands at the call, let it go and follow it by breakpoints.  Nothing in the guest is written;"
    " when the watch ends, also by Ctrl-C, its breakpoints are out and it runs on.",
    examples=(
        "tightrope watch --qmp qmp.sock --gdb localhost:1234 --console serial.log",
        "tightrope watch --qmp qmp.sock --gdb gdb.sock --stop-on-finding --no-walk",
    ),
    status="0 it holds, 1 a finding, or it came no further, 2 there is no verdict",
    takes=(guest, shown),
)
def watch(options: Namespace) -> int:
    from tightrope import image
    from tightrope.cli import signals
    from tightrope.deeds.watch import LEAVE_SECONDS, attached
    from tightrope.deeds.watch import watch as deed
    from tightrope.report.progress import Bar
    from tightrope.views.watched import VIEW

    ready(options, [each for each in (options.kernel, options.old_code) if each])
    new = image.read(files.read(options.kernel), options.kernel) if options.kernel else None
    old = files.read(options.old_code) if options.old_code else None
    signals.takes_leave(LEAVE_SECONDS)
    with attached(options.qmp, options.gdb) as found, closing(Bar()) as bar:
        print("tightrope: attached; looking for its kernel", file=sys.stderr)
        done = deed(
            found,
            old=old,
            old_source=options.old_code or "--from",
            new=new,
            limit=options.limit,
            walk=not options.no_walk,
            stop_on_finding=options.stop_on_finding,
            console=options.console,
            waiting=_found,
            progress=bar,
        )
    show(options, VIEW, done)
    return FINDING if done.verdict.findings or done.ended else HOLDS


def _found(kernel: GuestKernel | GuestXen) -> None:
    version = (kernel.version or "of no version").split(" ", 1)[0]
    print(
        f"tightrope: {kernel.name} {version} at {kernel.text:#x}; waiting for its kexec",
        file=sys.stderr,
    )
