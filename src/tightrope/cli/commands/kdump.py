"""`tightrope kdump`: what is done in a crash kernel.

Rules: as `load`: only the standard library is imported on the way.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from tightrope.cli.command import FINDING, HOLDS, command

_SECONDS = 2.0
"""Between two lines of progress where there is no terminal."""


def wanted(parser: ArgumentParser) -> None:
    """What is saved where."""
    parser.add_argument("vmcore", metavar="VMCORE", help="/proc/vmcore, or an ELF core like it")
    parser.add_argument(
        "-o", "--output", metavar="DIR", required=True, help="the folder that it is saved in"
    )
    parser.add_argument(
        "--filter",
        metavar="LEVEL",
        type=int,
        choices=range(32),
        help="through makedumpfile, at this dump level (31: all that can go), by lzo",
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
    from tightrope.kdump.capture import Wanted, capture
    from tightrope.report import json, text
    from tightrope.views.captured import VIEW

    wanted = Wanted(
        vmcore=options.vmcore,
        folder=options.output,
        level=options.filter,
        anyway=options.anyway,
        force=options.force,
    )
    done = capture(wanted, progress=_Told())
    if options.json:
        print(json.document(VIEW.name, VIEW.version, VIEW.facts(done)))
    else:
        print(text.text(VIEW.sheet(done), colour=False, width=80, detail=True))
    return FINDING if done.whole is False else HOLDS


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
