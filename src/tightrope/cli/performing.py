"""`tightrope perform`: its arguments, and what it does.

Rules: as in `parser` and `deeds`.  Nothing is changed without `--really`; what it says it would do is
what it then does.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tightrope.cli import files
from tightrope.errors import BadInput, PerformError

if TYPE_CHECKING:
    from tightrope.model import Verdict

HOLDS = 0


def perform_arguments(deeds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The arguments of `tightrope perform`."""
    deed = deeds.add_parser(
        "perform",
        help="do on this machine what was rehearsed",
        description="Do on this machine what was rehearsed.  Without --really it is only told.",
    )
    ways = deed.add_subparsers(title="ways", required=True, metavar="WAY")
    xen = ways.add_parser(
        "xen",
        help="from Xen's dom0, by hypercall",
        description="Hand a load to the hypervisor under this dom0 and ask for the jump.  Without FILE:"
        " what Xen says of this machine.  It needs root and a Python, and no other package.",
        epilog="Exit status: 0 done, or told; 2 refused, with the reason.",
    )
    xen.add_argument(
        "file", metavar="FILE", nargs="?", help="what `tightrope rehearse --xen v2 --write` wrote"
    )
    xen.add_argument("--really", action="store_true", help="do it; without it nothing is changed")
    xen.add_argument(
        "--stay", action="store_true", help="load it and do not jump; a crash load never jumps"
    )
    xen.add_argument("--unrehearsed", action="store_true", help="take a load that did not hold")
    xen.add_argument(
        "--unload", choices=["kexec", "crash"], help="make Xen forget what was loaded, no FILE"
    )
    xen.add_argument("--json", action="store_true", help="without FILE: one JSON object")
    xen.set_defaults(deed="perform xen")


def perform_xen(options: argparse.Namespace) -> int:
    """`tightrope perform xen`."""
    from tightrope.abi.xen import KexecType
    from tightrope.perform import load_file, xen
    from tightrope.perform.privcmd import Privcmd

    if options.unload and options.file:
        raise BadInput("give a FILE or --unload, not both", source="command line")
    load = None
    if options.file:
        load = load_file.read(files.read(options.file), options.file)
        if not options.unrehearsed:
            xen.refuse_unrehearsed(load)
    xen.refuse_outside_dom0(files.text_or_none)
    with Privcmd() as calls:
        kexec = xen.XenKexec(calls)
        if options.unload:
            kind = KexecType.CRASH if options.unload == "crash" else KexecType.DEFAULT
            there = "is" if kexec.status(kind) else "is not"
            print(f"a {options.unload} image {there} loaded", flush=True)
            if _really(options, f"unload the {options.unload} image"):
                kexec.unload(kind)
            return HOLDS
        if load is None:
            said = xen.facts(kexec, files.text_or_none)
            if options.json:
                files.print_json(said)
            else:
                print("\n".join(xen.told(said)))
            return HOLDS
        kexec.refuse(load)
        print("\n".join(xen.load_told(load)), flush=True)
        if not _really(options, "load it" if load.crash or options.stay else "load it and jump"):
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


def refuse_write(options: argparse.Namespace) -> None:
    """Raise BadInput for a --write that no way of performing takes, before anything is rehearsed."""
    if options.write and options.xen != "v2":
        raise BadInput("only what goes by --xen v2 can be written", source="--write")
    if options.write and options.sabotage:
        raise BadInput("what is sabotaged is not to be performed", source="--write")


def write_load(path: Path | None, verdict: Verdict) -> None:
    """`--write`: what `perform` takes, when it held."""
    from tightrope.model import Outcome
    from tightrope.perform import load_file

    if path and verdict.outcome is Outcome.HOLDS:
        load = load_file.of(verdict.handover.plan, verdict.outcome.value)
        files.write(path, load_file.write(load))


def _really(options: argparse.Namespace, what: str) -> bool:
    """Whether to go on; if not, it is said what would have been done."""
    if not options.really:
        print(f"tightrope: would {what}; say --really to do it", file=sys.stderr)
    return bool(options.really)


def host_xen(options: argparse.Namespace) -> int:
    """`tightrope host xen`."""
    import json

    from tightrope import host

    try:
        facts = json.loads(bytes(files.read(options.facts)))
    except (ValueError, RecursionError) as err:
        raise BadInput(f"is no JSON: {err}", source=options.facts) from err
    if not isinstance(facts, dict):
        raise BadInput("is no JSON object", source=options.facts)
    print(host.xen_file(facts, options.facts), end="")
    return HOLDS
