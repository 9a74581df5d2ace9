"""`tightrope explain`: what a log of a failed kexec says, and what would leave such a log."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import ExitStack, closing

from tightrope.cli import files
from tightrope.cli.arguments import design, new_kernel, old_kernel, shown
from tightrope.cli.command import FINDING, HOLDS, UNKNOWN, command
from tightrope.cli.show import ready, show
from tightrope.errors import BadInput


def log(parser: ArgumentParser) -> None:
    """The log, and by whose code the handover went."""
    parser.add_argument("file", metavar="FILE", help="the log")
    group = parser.add_argument_group("the walk")
    group.add_argument(
        "--from",
        dest="old_code",
        metavar="OLD",
        help="the old kernel's image: compare with a rehearsal through its own relocation code",
    )
    design(group, "without --from: the table design (%(default)s)")


@command(
    "explain",
    help="what a log of a kexec that failed says, and what would leave such a log",
    description="Read what is left of a kexec that failed: a console, qemu -d int,cpu_reset, a trace of KVM's"
    " exits, what the control page's own handlers print.  With a KERNEL (and --host, --from) the same"
    " handover is rehearsed, addresses are compared, and the mistakes that would fall in just this way are named.",
    examples=(
        "tightrope explain serial.log",
        "tightrope explain qemu.log /boot/vmlinuz-7.3 --host host.toml",
    ),
    status="0 the log goes on into a new kernel, 1 it fell, 2 the log does not say",
    takes=(log, new_kernel, old_kernel, shown),
)
def explain(options: Namespace) -> int:
    from tightrope.deeds import machines
    from tightrope.deeds.explain import Rehearsed
    from tightrope.deeds.explain import explain as deed
    from tightrope.deeds.rehearse import rehearse
    from tightrope.report.progress import Bar
    from tightrope.views.explanation import VIEW

    options.relocation = options.contract = None
    kernel = options.kernel or options.shipped
    for name in ("host", "old_code", "initrd", "mode"):
        if getattr(options, name) and not kernel:
            word = {"old_code": "from"}.get(name, name)
            raise BadInput("is compared with a rehearsal: name the KERNEL too", source=f"--{word}")
    ready(options, [options.file, *files.named(options)])
    data = files.read(options.file)
    with ExitStack() as stack:
        bar = stack.enter_context(closing(Bar()))
        rehearsed = None
        if kernel:
            image, old, request = files.inputs(options)
            code = options.design
            if options.old_code:
                own = files.old_code(options)
                code, old, request = own.participant, own.host(old), own.request(request)
            machine = stack.enter_context(machines.opened("emulator"))
            verdict = rehearse(image, old, request, design=code, machine=machine, progress=bar)
            rehearsed = Rehearsed(verdict=verdict, machine=machine)
        found = deed(data, options.file, rehearsed=rehearsed, progress=bar)
    show(options, VIEW, found)
    return {True: FINDING, False: HOLDS, None: UNKNOWN}[found.fell]
