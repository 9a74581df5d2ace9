"""`rehearse --hops N`: several jumps, each out of what the one before handed over.

Rules: arguments become the deed's; what goes with several jumps and what does not is said here.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import TYPE_CHECKING

from tightrope.cli import files, segments
from tightrope.cli.command import FINDING, HOLDS, UNKNOWN
from tightrope.cli.show import ready, show
from tightrope.errors import BadInput

if TYPE_CHECKING:
    from tightrope.cli.files import Early

ALONE = (
    "segments", "sabotage", "trace", "write", "xen", "verify", "relocation", "flat", "crash", "strict",
)  # fmt: skip
"""What is about one jump."""


def hops(options: argparse.Namespace, begun: Early | None) -> int:
    """Walk, show, and the exit status.  Raises BadInput."""
    if not options.old_code:
        raise BadInput(
            "every hop is by a kernel's own code: name the first old kernel, --from",
            source="--hops",
        )
    for name in ALONE:
        if getattr(options, name) not in (None, False):
            raise BadInput(f"--{name} cannot be given with several jumps", source="--hops")
    if options.until != "entry" or options.on != "emulator":
        raise BadInput("walks to each entry, on the emulator alone", source="--hops")
    if options.kernel is None:
        raise BadInput(
            "needs the KERNEL to be named: it is the old kernel of the next hop", source="--hops"
        )
    from tightrope.deeds import hops as deed
    from tightrope.deeds.loaders import By
    from tightrope.deeds.machines import opened
    from tightrope.deeds.unpacking import Unpacking
    from tightrope.model import Loader, Outcome
    from tightrope.report.progress import Bar
    from tightrope.views.hops import VIEW

    path = files.old_image(options)
    ready(options, [*files.named(options), path])
    segments.judge(options)
    first = deed.left(files.read(path), path)
    # Of one jump alone the new kernel is not left.
    then = deed.left(files.read(options.kernel), options.kernel) if options.hops > 1 else first
    image, old, request = files.inputs(options, begun)
    with opened("emulator") as machine, closing(Bar()) as bar:
        found = deed.hops(
            image,
            old,
            request,
            options.hops,
            first=first,
            then=then,
            by=By(loader=Loader(options.loader or "tightrope"), program=options.kexec),
            machine=machine,
            unpacking=begun.unpacking if begun else Unpacking(image, request.initrd),
            progress=bar,
        )
    show(options, VIEW, found)
    outcomes = [each.verdict.outcome for each in found.made]
    if Outcome.FALLS in outcomes:
        return FINDING
    return HOLDS if outcomes == [Outcome.HOLDS] * found.asked else UNKNOWN
