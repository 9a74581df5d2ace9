"""`tightrope rehearse`: walk a handover, from a described old kernel or a real one, and say what
came of it."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from contextlib import closing
from typing import TYPE_CHECKING

from tightrope.cli import files, hops, outputs, segments
from tightrope.cli.arguments import design, loader, new_kernel, old_kernel, shown, verify
from tightrope.cli.command import HOLDS, UNKNOWN, command, status
from tightrope.cli.show import load_report, show
from tightrope.cli.values import count, path, seconds
from tightrope.errors import BadInput

if TYPE_CHECKING:
    from tightrope.model import Participant
    from tightrope.plan import Request


def real_old_kernel(parser: ArgumentParser) -> None:
    """An old kernel that is booted."""
    real = parser.add_argument_group("a real old kernel, with --on qemu")
    real.add_argument(
        "--old-kernel",
        metavar="FILE",
        help="boot this bzImage and walk from it, instead of a described one, to the new userspace",
    )
    real.add_argument(
        "--old-initrd", metavar="FILE", help="its initrd, which scripts/build-initramfs makes"
    )
    real.add_argument(
        "--old-memory",
        type=int,
        metavar="MIB",
        help="the PC's memory, of which crashkernel= is a quarter (512, with --crash 768)",
    )


def walk(parser: ArgumentParser) -> None:
    """How it is walked, and what is shown of it."""
    from tightrope.deeds.machines import MACHINES

    group = parser.add_argument_group("the walk")
    design(group, "the table design (%(default)s)")
    group.add_argument(
        "--relocation",
        type=path,
        metavar="FILE",
        help="walk your own relocation code, .S (GNU as), .o or raw bytes, instead of Tightrope's",
    )
    group.add_argument(
        "--contract",
        metavar="NAME",
        help="with --relocation: how it is called and what it may touch, see `tightrope contracts`",
    )
    group.add_argument(
        "--from",
        dest="old_code",
        metavar="FILE",
        help="walk the relocation code of the old kernel in FILE, a vmlinuz or a vmlinux, with the tables"
        " and the call of its version, instead of Tightrope's; `running` is the kernel that runs here",
    )
    loader(group)
    group.add_argument(
        "--segments",
        metavar="FILE",
        help="walk the segments that `tightrope record` wrote to FILE, with their purgatory",
    )
    group.add_argument(
        "--hops",
        type=count,
        metavar="N",
        help="with --from: walk N jumps, each from what the one before handed over; from the second on, the"
        " new kernel's own code jumps into the same kernel again",
    )
    group.add_argument(
        "--until",
        choices=["entry", "console", "userspace"],
        default="entry",
        help="stop at the new kernel's first instruction, when it has spoken, or, on qemu, when its init"
        " says the word behind tightrope.token= (%(default)s)",
    )
    group.add_argument(
        "--limit",
        type=seconds,
        default=900.0,
        metavar="SECONDS",
        help="how long to listen with --until console or userspace (%(default)g)",
    )
    group.add_argument(
        "--on",
        choices=tuple(MACHINES),
        default="emulator",
        help="the machine to walk on (%(default)s); what it cannot see, the report says",
    )
    group.add_argument(
        "--strict",
        action="store_true",
        help="exit with 2 where it holds only if what the host file assumes is so",
    )
    group.add_argument(
        "--sabotage", metavar="NAME", help="break one thing on purpose; `list` names them"
    )
    output = parser.add_argument_group("what is shown")
    shown(output)
    output.add_argument(
        "--trace", type=path, metavar="FILE", help="write every instruction to FILE"
    )
    output.add_argument(
        "--write",
        type=path,
        metavar="FILE",
        help="when it holds, write what `tightrope load` takes, or, with --xen v2, `tightrope perform xen`",
    )


@command(
    "rehearse",
    help="walk a handover on a watched CPU and say whether it holds",
    description="Walk from the old kernel's call at V to the new kernel's first instruction,"
    " instruction by instruction, and check every step.",
    takes=(new_kernel, verify, old_kernel, real_old_kernel, walk),
    examples=(
        "tightrope rehearse --shipped --until console",
        "tightrope rehearse /boot/vmlinuz --initrd /boot/initrd.img --from running",
        "tightrope rehearse --shipped --sabotage no-v -v",
    ),
)
def rehearse(options: Namespace) -> int:
    if options.sabotage == "list":
        return _sabotages(options)
    # Before anything else is loaded: it has a core of its own, and takes as long as the rest.
    begun = None if options.old_kernel else files.early(options)
    from tightrope import sabotage
    from tightrope.deeds import defaults, machines, performable
    from tightrope.deeds.rehearse import rehearse as deed
    from tightrope.deeds.until import ENTRY, Spoken, Until, Userspace
    from tightrope.model import Outcome
    from tightrope.report.progress import Bar

    if options.verify and options.on != "emulator":
        raise BadInput("a purgatory is walked by the emulator alone", source="--verify")
    if options.old_code and options.old_kernel:
        raise BadInput(
            "cannot be given with --old-kernel: that walk is by Tightrope's own relocation code",
            source="--from",
        )
    broken = sabotage.named(options.sabotage) if options.sabotage else None
    if options.write:
        performable.refuse(xen=options.xen, sabotage=broken)
    if options.old_kernel:
        return _booted(options)
    if options.hops is not None:
        return hops.hops(options, begun)
    for output in filter(None, (options.trace, options.write, options.html)):
        outputs.check(output, force=options.force, inputs=files.named(options))
    image, old, request = files.inputs(options, begun)
    unpacking = begun.unpacking if begun else None
    design: str | Participant
    if options.old_code:
        code = files.old_code(options)
        design, old, request = code.participant, code.host(old), code.request(request)
    else:
        design = files.relocation(options, old.paging)
    until: Until = ENTRY
    asked = request
    if options.until == "console":
        until = Spoken(seconds=options.limit)
        if options.segments is None:  # those have their command line already
            request = defaults.audible(image, request, whole=options.on.startswith("qemu"))
    elif options.until == "userspace":
        token, request = defaults.with_token(image, defaults.with_console(image, request))
        until = Userspace(token=token, seconds=options.limit)
    if request is not asked:
        _said(request)
    if (loaded := segments.asked(options, image, old, request.command_line)) is not None:
        from dataclasses import replace

        request = replace(request, loaded=loaded, crash=loaded.crash)
    # Loaded here, while the payload is still being unpacked beside us.
    from tightrope.views.rehearsal import VIEW

    load_report(options)
    with machines.opened(options.on) as machine:
        with closing(Bar()) as bar:
            verdict = deed(
                image,
                old,
                request,
                design=design,
                sabotage=broken,
                until=until,
                machine=machine,
                unpacking=unpacking,
                progress=bar,
            )
        if options.trace:
            outputs.write_trace(options.trace, verdict)
        if options.write and (load := performable.load(verdict)) is not None:
            outputs.write(options.write, load)
        show(options, VIEW, verdict)
    if options.strict and verdict.assumed and verdict.outcome is Outcome.HOLDS:
        return UNKNOWN
    return status(verdict.outcome)


def _booted(options: Namespace) -> int:
    """From a real old kernel."""
    if options.on != "qemu" or options.host or options.sabotage or options.trace:
        raise BadInput(
            "needs --on qemu, and cannot be given with --host, --sabotage or --trace",
            source="command line",
            field="--old-kernel",
        )
    from tightrope.deeds import defaults
    from tightrope.deeds.booted import OldKernel, rehearse_booted
    from tightrope.deeds.until import Userspace
    from tightrope.report.progress import Bar
    from tightrope.views.rehearsal import VIEW

    image, _, request = files.inputs(options)
    token, request = defaults.with_token(image, defaults.with_console(image, request))
    _said(request)
    mebibytes = options.old_memory or defaults.old_memory(crash=options.crash)
    old = OldKernel(
        kernel=files.read(options.old_kernel),
        initrd=files.read(options.old_initrd) if options.old_initrd else b"",
        mebibytes=mebibytes,
        reserve=defaults.crashkernel(mebibytes),
    )
    with closing(Bar()) as bar:
        verdict = rehearse_booted(
            old,
            image,
            request,
            until=Userspace(token=token, seconds=options.limit),
            design=options.design,
            progress=bar,
        )
    show(options, VIEW, verdict)
    return status(verdict.outcome)


def _said(request: Request) -> None:
    """Say what the command line is, where something was added to it."""
    line = request.command_line
    print(f"tightrope: the command line is {line!r}, so that it can be heard", file=sys.stderr)


def _sabotages(options: Namespace) -> int:
    from tightrope.model import Breakage
    from tightrope.sabotage import ENTRY_SABOTAGES, SABOTAGES, XEN_SABOTAGES
    from tightrope.views import rules

    every = (*SABOTAGES.values(), *ENTRY_SABOTAGES.values(), *XEN_SABOTAGES.values())
    breakages = [
        Breakage(name=each.name, says=each.says, rule=each.rule, step=each.step) for each in every
    ]
    show(options, rules.SABOTAGES, breakages)
    return HOLDS
