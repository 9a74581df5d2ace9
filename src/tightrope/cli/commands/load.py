"""`tightrope load`: a kernel for the next kexec of this Linux, or of the Xen under it.

Rules: nothing is changed without `--really`; what is said that would be done is what is then
done.  Only the standard library is imported on the way: these commands run in an initramfs.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tightrope.cli import values
from tightrope.cli.asking import Rehearsing, again, as_kept, line, log, opened
from tightrope.cli.command import HOLDS, command, really
from tightrope.errors import BadInput

if TYPE_CHECKING:
    from tightrope.deeds.loading import Digests, Loading
    from tightrope.perform.linux.kexec import LinuxKexec
    from tightrope.perform.linux.refusals import Request
    from tightrope.perform.linux.state import State


def word(parser: ArgumentParser) -> None:
    """The word that changes the machine."""
    parser.add_argument(
        "--really", action="store_true", help="do it; without it nothing is changed"
    )


def image(parser: ArgumentParser) -> None:
    """What is loaded, and how."""
    parser.add_argument(
        "kernel", metavar="FILE", help="a kernel image, or what `tightrope rehearse --write` left"
    )
    parser.add_argument("--initrd", metavar="FILE", help="its initrd")
    words = parser.add_mutually_exclusive_group()
    words.add_argument(
        "--append", type=values.line, default="", metavar="WORDS", help="its command line"
    )
    words.add_argument(
        "--reuse-cmdline",
        action="store_true",
        help="the running kernel's command line, without its loader's words",
    )
    parser.add_argument("--crash", action="store_true", help="for a crash, into the crash region")
    parser.add_argument(
        "--unpack",
        action="store_true",
        help="unpack a bzImage now and not after the jump, and enter the kernel inside it, without KASLR",
    )
    parser.add_argument(
        "--no-verify",
        action="store_true",
        help="no purgatory: what was damaged since the load is entered, and the jump is shorter",
    )
    parser.add_argument(
        "--on-damage",
        choices=["halt", "reset"],
        default="halt",
        help="what the purgatory does when a segment is not what was loaded (%(default)s)",
    )
    parser.add_argument(
        "--via",
        choices=["auto", "kexec_load", "kexec_file_load"],
        default="auto",
        help="the system call: kexec_load where the places are found here, kexec_file_load where only"
        " signed images or files are taken, and for an unrehearsed crash (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def unrehearsed(parser: ArgumentParser) -> None:
    """Without a rehearsal."""
    parser.add_argument(
        "--no-rehearsal",
        action="store_true",
        help="load what nobody has walked, a plan that did not hold too; needs Python alone",
    )


@command(
    "load",
    help="load a kernel for the next kexec of this machine",
    description="Survey this machine, plan, rehearse the plan through the running kernel's own relocation"
    " code, and load it.  A plan that falls is not loaded; every refusal that can be told is told first.",
    takes=(image, unrehearsed, word),
    examples=(
        "tightrope load /boot/vmlinuz --initrd /boot/initrd.img --reuse-cmdline",
        "tightrope load /boot/vmlinuz --initrd /boot/initrd.img --reuse-cmdline --really",
        "tightrope load written-by-rehearse --really",
    ),
    status="0 done, or told; 2 refused, or the rehearsal falls, with the reason",
)
def load(options: Namespace) -> int:
    from tightrope.perform.linux.calls import Linux
    from tightrope.perform.linux.kexec import LinuxKexec
    from tightrope.perform.linux.lock import locked
    from tightrope.perform.linux.state import machine_file

    kexec = LinuxKexec(Linux(), machine_file)
    state = kexec.state()
    if options.really and state.may_boot is False:
        raise BadInput("no CAP_SYS_BOOT: be root to load", source="this process")
    if state.xen_pv:
        return _load_under_xen(options)
    if options.really:
        with locked():
            return _load(options, kexec, state)
    return _load(options, kexec, state)


def _load(options: Namespace, kexec: LinuxKexec, state: State) -> int:
    from tightrope.cli import signals
    from tightrope.deeds import loading
    from tightrope.perform.linux import kept
    from tightrope.perform.linux.kexec import left_behind
    from tightrope.perform.linux.state import machine_file

    survey = Rehearsing(options)
    with opened(options, state, survey) as what:
        if what.via is loading.Via.FILE_LOAD and options.unpack:
            raise BadInput("kexec_file_load takes a bzImage as it is", source="--unpack")
        if not options.json:
            print("\n".join((*_told(what), *survey.told())), flush=True)
        kexec.refuse(what.load, state)
        if lost := left_behind(state, what.load):
            print(f"tightrope: {lost}", file=sys.stderr)
        crash, outcome = what.request.crash, survey.outcome or what.rehearsed
        kind = "crash image" if crash else "kexec image"
        if done := really(options, f"load it by {what.via.value}"):
            with signals.sheltered(f"a {kind} is loaded, `tightrope unload` forgets it"):
                before = kept.read(machine_file, crash=True) if crash else None
                kexec.load(what.load, None if before is None else again(before, kexec, state))
                log(kind, what.digests)
                if problem := kept.write(as_kept(options, what, outcome)):
                    said = "loaded, but what was loaded is not kept, to be loaded again"
                    print(f"tightrope: {said}: {problem}", file=sys.stderr)
        if options.json:
            printed("load", _facts(what.request, what.digests, outcome, done=done))
        elif done:
            print(f"loaded: a {kind}")
    return HOLDS


def _load_under_xen(options: Namespace) -> int:
    """In dom0: the plan is for the hypervisor, and goes to it by hypercall."""
    from contextlib import closing

    from tightrope.cli import files, signals
    from tightrope.deeds import loading, surveyed
    from tightrope.perform import xen
    from tightrope.perform.linux.kexec import request_of
    from tightrope.perform.linux.lock import locked
    from tightrope.perform.privcmd import Privcmd
    from tightrope.report.progress import Bar

    if options.no_rehearsal:
        raise BadInput(
            "under Xen a load is planned here: `tightrope perform xen` takes one that was planned"
            " elsewhere",
            source="--no-rehearsal",
        )
    xen.refuse_outside_dom0(files.text_or_none)
    whole, digests = loading.read_whole(
        options.kernel, options.initrd, line(options), crash=options.crash
    )
    with Privcmd() as calls:
        kexec = xen.XenKexec(calls)
        said = xen.facts(kexec, files.text_or_none)
        with closing(Bar()) as bar:
            verdict = surveyed.rehearsed_under_xen(whole, said, unpack=options.unpack, progress=bar)
        what = surveyed.load_of(verdict)
        kexec.refuse(what)
        if not options.json:
            print("\n".join(xen.load_told(what)), flush=True)
        kind = "crash image" if options.crash else "kexec image"
        if done := really(options, "load it by hypercall"):
            with locked(), signals.sheltered(f"Xen has a {kind}: `tightrope perform xen --unload`"):
                kexec.load(what)
                log(kind, digests)
        if options.json:
            facts = _facts(request_of(what), digests, what.rehearsed, done=done)
            printed("load", facts | {"call": xen.LOAD})
        elif done:
            print(f"loaded: a {kind}, in Xen")
    return HOLDS


def printed(name: str, facts: Mapping[str, object]) -> None:
    from tightrope.report import json
    from tightrope.views.linux_says import SHAPES

    print(json.document(name, SHAPES[name][0], facts))


def _told(what: Loading) -> Iterator[str]:
    """What would be loaded: files with their digests, and where it goes where that is known."""
    request = what.request
    for name, digest, size in what.digests:
        yield f"{name}: {size:,} bytes, sha256 {digest}"
    if what.rehearsed:
        yield f"rehearsed: {what.rehearsed}, when it was written"
    for (name, where), size in zip(request.destinations, request.sizes, strict=True):
        yield f"  {where} {size:,} bytes, {name}"
    if request.destinations:
        yield f"  entered at {request.entry:#x}"


def _facts(
    request: Request, digests: Digests, outcome: str | None, *, done: bool
) -> dict[str, object]:
    """The same as numbers; `outcome` is what the rehearsal said."""
    places = zip(request.destinations, request.sizes, strict=True)
    return {
        "call": request.call,
        "crash": request.crash,
        "files": [
            {"name": name, "sha256": digest, "bytes": size} for name, digest, size in digests
        ],
        "segments": [
            {"name": name, "start": where.start, "size": where.size, "bytes": size}
            for (name, where), size in places
        ],
        "entry": request.entry,
        "rehearsed": outcome,
        "done": done,
    }
