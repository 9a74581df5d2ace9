"""`tightrope kdump`: a crash kernel tried before it is needed, and what is done in one.

Rules: as `load`: only the standard library is imported on the way to `capture`.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack, closing

from tightrope.cli.arguments import shown
from tightrope.cli.command import FINDING, HOLDS, command, status
from tightrope.cli.values import seconds

_SECONDS = 2.0
"""Between two lines of progress where there is no terminal."""


def wanted(parser: ArgumentParser) -> None:
    """What is saved where."""
    parser.add_argument("vmcore", metavar="VMCORE", help="/proc/vmcore, or an ELF core like it")
    parser.add_argument(
        "-o", "--output", metavar="DIR", required=True, help="the folder that it is saved in"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--compress",
        metavar="HOW",
        choices=("zlib", "zstd"),
        help="pack each page (zlib, zstd), in the format that makedumpfile writes; zstd needs its package",
    )
    how.add_argument(
        "--filter",
        metavar="LEVEL",
        type=int,
        choices=range(32),
        help="through makedumpfile, at this dump level (31: all that can go), by lzo",
    )
    parser.add_argument(
        "--digest",
        metavar="HOW",
        choices=("sha256", "none"),
        default="sha256",
        help="of what is saved (sha256, none; default: %(default)s); none is faster with a single CPU",
    )
    parser.add_argument(
        "--anyway",
        action="store_true",
        help="begin also with less room than it may take: pages of zeros take none",
    )
    parser.add_argument("--force", action="store_true", help="replace a dump that is there")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


@command(
    "kdump capture",
    help="save a dead kernel's memory: its log first, sparse, to be gone on with, with a digest",
    description="In the crash kernel: save /proc/vmcore.  The panic's log is saved first, as text; pages"
    " of zeros take no room; what a signal or a full disk has ended goes on where it was"
    " when the same command is given again.",
    takes=(wanted,),
    examples=(
        "tightrope kdump capture /proc/vmcore -o /mnt/crash",
        "tightrope kdump capture /proc/vmcore -o /mnt/crash --filter 31",
    ),
)
def capture(options: Namespace) -> int:
    from tightrope.cli import signals
    from tightrope.kdump.capture import Wanted, capture
    from tightrope.kdump.ring import Digest

    packing = None
    if options.compress is not None:
        from tightrope.kdump.compressed import Packing

        packing = Packing(options.compress)
    wanted = Wanted(
        vmcore=options.vmcore,
        folder=options.output,
        level=options.filter,
        packing=packing,
        digest=Digest(options.digest),
        anyway=options.anyway,
        force=options.force,
    )
    signals.leaves("the same command goes on with what it has saved")
    done = capture(wanted, progress=_Told(), meanwhile=_importing)
    from tightrope.report import json, text
    from tightrope.views.captured import VIEW

    if options.json:
        print(json.document(VIEW.name, VIEW.version, VIEW.facts(done)))
    else:
        print(text.text(VIEW.sheet(done), colour=False, width=80, detail=True))
    return FINDING if done.whole is False else HOLDS


def _importing() -> None:
    """What a capture is shown with."""
    from tightrope.report import json, text
    from tightrope.views import captured

    del json, text, captured


class _Told:
    """Progress on stderr: a line that is written over on a terminal, else one every few seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last = 0.0

    def __call__(self, done: int, whole: int, seconds: float) -> None:
        if done < whole and seconds - self._last < (0.2 if self._terminal else _SECONDS):
            return
        self._last = seconds
        rate = done / seconds if seconds else 0.0
        left = f", {(whole - done) / rate:.0f} s left" if rate and done < whole else ""
        line = f"{done >> 20:,} of {whole >> 20:,} MiB, {rate / (1 << 20):,.0f} MiB/s{left}"
        end = "\r" if self._terminal and done < whole else "\n"
        print(
            f"tightrope: {line:<60}".rstrip() if end == "\n" else f"tightrope: {line:<60}",
            end=end,
            file=sys.stderr,
            flush=True,
        )


def tried(parser: ArgumentParser) -> None:
    """What is tried, and how."""
    what = parser.add_argument_group("the crash kernel")
    what.add_argument(
        "--host", metavar="FILE", help="a host file with a crash region; without one this machine"
    )
    what.add_argument(
        "--kernel",
        metavar="FILE",
        help="the crash kernel; without one the configuration of kdump-tools or kdump-utils says it,"
        " with initrd and command line",
    )
    what.add_argument("--initrd", metavar="FILE", help="its initrd")
    what.add_argument("--append", metavar="TEXT", help="its command line")
    what.add_argument(
        "--from",
        dest="old_code",
        metavar="FILE",
        help="the old kernel, whose own relocation code is walked: the crash kernel's file where none is named",
    )
    how = parser.add_argument_group("how it is tried")
    how.add_argument(
        "--disk",
        metavar="FILE",
        help="a disk's image, seen as the first NVMe disk: then it is followed until a dump is saved; what"
        " it writes is forgotten",
    )
    how.add_argument(
        "--needs",
        metavar="MODULE",
        action="append",
        default=[],
        help="a module without which the host's root is not there; of this machine that is known; repeatable",
    )
    how.add_argument(
        "--size",
        action="store_true",
        help="find the smallest crash region that still works: several boots",
    )
    how.add_argument(
        "--limit",
        type=seconds,
        default=900.0,
        metavar="SECONDS",
        help="how long to listen to each boot (%(default)g)",
    )
    shown(parser.add_argument_group("what is shown"))


@command(
    "kdump check",
    help="try this machine's crash kernel in QEMU: does it get to where a dump is saved?",
    description="Lay the machine in QEMU's memory as a crash leaves it, walk through the old kernel's own"
    " relocation code, and let the crash kernel run, with its initrd, in its region.  Nothing"
    " of this machine is changed.",
    takes=(tried,),
    examples=(
        "tightrope kdump check",
        "tightrope kdump check --host this.toml --kernel vmlinuz --initrd initrd.img --append 'root=/dev/sda1'",
        "tightrope kdump check --size",
    ),
    status="0 the crash kernel works, 1 it does not, 2 that cannot be told",
)
def check(options: Namespace) -> int:
    from dataclasses import replace

    from tightrope import image
    from tightrope.cli import crash_kernel, files
    from tightrope.cli.show import ready, show
    from tightrope.deeds import kdump_check, old_kernel
    from tightrope.plan import Request
    from tightrope.report.progress import Bar
    from tightrope.views.crash_boot import VIEW

    named = [options.host, options.kernel, options.initrd, options.old_code, options.disk]
    ready(options, [each for each in named if each])
    chosen = crash_kernel.chosen(options)
    host = crash_kernel.host(options)
    kernel = files.read(chosen.kernel)
    new = image.read(kernel, chosen.kernel)
    old = options.old_code or chosen.kernel
    code = old_kernel.code_of(kernel if old == chosen.kernel else files.read(old), old)
    request = Request(
        initrd=None if chosen.initrd is None else files.read(chosen.initrd),
        initrd_source=chosen.initrd or "no initrd",
        command_line=chosen.command_line,
        crash=True,
    )
    with ExitStack() as stack:
        drive = None
        if options.disk:
            drive = stack.enter_context(crash_kernel.opened(options.disk))
        asked = kdump_check.Asked(
            image=new,
            host=code.host(host),
            request=code.request(request),
            design=code.participant,
            code=f"the code of {old}",
            drive=drive,
            needed=chosen.needed,
            seconds=options.limit,
            target=chosen.target,
        )
        bar = stack.enter_context(closing(Bar()))
        boot = kdump_check.check(asked, bar)
        if options.size:
            boot = replace(boot, smallest=kdump_check.smallest(asked, boot, bar))
    show(options, VIEW, boot)
    return status(boot.outcome)
