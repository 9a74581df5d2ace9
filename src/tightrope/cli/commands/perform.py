"""`tightrope perform`: do on this machine what was rehearsed.

Rules: nothing is changed without `--really`; what it says it would do is what it then does.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import cast

from tightrope.cli import files
from tightrope.cli.command import HOLDS, command, really
from tightrope.errors import BadInput, PerformError


def load_for_xen(parser: ArgumentParser) -> None:
    """A load, and how far to go with it."""
    parser.add_argument(
        "file", metavar="FILE", nargs="?", help="what `tightrope rehearse --xen v2 --write` wrote"
    )
    parser.add_argument(
        "--really", action="store_true", help="do it; without it nothing is changed"
    )
    parser.add_argument(
        "--stay", action="store_true", help="load it and do not jump; a crash load never jumps"
    )
    parser.add_argument("--unrehearsed", action="store_true", help="take a load that did not hold")
    parser.add_argument(
        "--unload", choices=["kexec", "crash"], help="make Xen forget what was loaded, no FILE"
    )
    parser.add_argument("--json", action="store_true", help="without FILE: one JSON object")


@command(
    "perform xen",
    help="from Xen's dom0, by hypercall",
    description="Hand a load to the hypervisor under this dom0 and ask for the jump.  Without FILE:"
    " what Xen says of this machine.  It needs root and a Python, and no other package.",
    takes=(load_for_xen,),
    examples=(
        "tightrope perform xen --json > facts.json",
        "tightrope perform xen load-file --stay --really",
    ),
    status="0 done, or told; 2 refused, with the reason",
)
def xen(options: Namespace) -> int:
    from tightrope.abi.xen import KexecType
    from tightrope.perform import load_file
    from tightrope.perform import xen as room
    from tightrope.perform.privcmd import Privcmd

    if options.unload and options.file:
        raise BadInput("give a FILE or --unload, not both", source="command line")
    if options.json and (options.unload or options.file):
        raise BadInput(
            "prints what Xen is: give neither FILE nor --unload with it", source="--json"
        )
    load = None
    if options.file:
        load = load_file.read(files.read(options.file), options.file)
        if not options.unrehearsed:
            room.refuse_unrehearsed(load)
    room.refuse_outside_dom0(files.text_or_none)
    with Privcmd() as calls:
        kexec = room.XenKexec(calls)
        if options.unload:
            kind = KexecType.CRASH if options.unload == "crash" else KexecType.DEFAULT
            there = "is" if kexec.status(kind) else "is not"
            print(f"a {options.unload} image {there} loaded", flush=True)
            if really(options, f"unload the {options.unload} image"):
                kexec.unload(kind)
            return HOLDS
        if load is None:
            from tightrope.report import json
            from tightrope.views import xen_says

            said = room.facts(kexec, files.text_or_none)
            if options.json:
                print(json.document(xen_says.NAME, xen_says.VERSION, said))
            else:
                print("\n".join(xen_says.told(cast("xen_says.XenSaysFacts", said))))
            return HOLDS
        kexec.refuse(load)
        print("\n".join(room.load_told(load)), flush=True)
        if not really(options, "load it" if load.crash or options.stay else "load it and jump"):
            return HOLDS
        try:
            kexec.load(load)
        except KeyboardInterrupt as err:
            raise PerformError(
                "interrupted while loading: --unload makes Xen forget what it may have"
            ) from err
        print("loaded", flush=True)
        if not load.crash and not options.stay:
            print("jumping", flush=True)
            kexec.kexec(KexecType.DEFAULT)
        return HOLDS
