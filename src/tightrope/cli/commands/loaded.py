"""`tightrope exec`, `unload`, `status` and `refusals`: what is loaded here, and what would be.

Rules: as `load`; only the standard library is imported on the way.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tightrope.cli import signals
from tightrope.cli.asking import damage, line, logged
from tightrope.cli.command import FINDING, HOLDS, command, really
from tightrope.cli.commands.load import image, printed, word
from tightrope.errors import BadInput

if TYPE_CHECKING:
    from tightrope.deeds.loading import Files, Planner
    from tightrope.perform.linux.state import Files as MachineFiles
    from tightrope.perform.load_file import Load


def as_object(parser: ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


@command(
    "exec",
    help="jump into the kernel that is loaded",
    description="Jump into what `load` loaded: through systemd where it runs this machine, so that"
    " services end first; else what is not written yet is written and the kernel is asked.",
    takes=(word, as_object),
    examples=(
        "tightrope exec",
        "tightrope exec --really",
    ),
)
def jump(options: Namespace) -> int:
    from tightrope.perform.linux.calls import Linux
    from tightrope.perform.linux.kexec import LinuxKexec
    from tightrope.perform.linux.state import machine_file

    kexec = LinuxKexec(Linux(), machine_file)
    kexec.refuse_jump()
    way, cautions = kexec.way, kexec.cautions()
    for each in cautions:
        print(f"tightrope: {each}", file=sys.stderr)
    jumping = really(options, kexec.deed)
    if options.json:
        # Before the jump: where it works nothing is said behind it.
        printed("exec", {"way": way, "cautions": [*cautions], "jumping": jumping})
        sys.stdout.flush()
    if jumping:
        kexec.jump()
    return HOLDS


def which(parser: ArgumentParser) -> None:
    """Which image."""
    parser.add_argument("--crash", action="store_true", help="the crash image")


@command(
    "unload",
    help="forget what is loaded",
    takes=(which, word, as_object),
    examples=(
        "tightrope unload --really",
        "tightrope unload --crash --really",
    ),
)
def unload(options: Namespace) -> int:
    from tightrope.perform.linux import kept
    from tightrope.perform.linux.calls import Linux
    from tightrope.perform.linux.kexec import LinuxKexec
    from tightrope.perform.linux.lock import locked
    from tightrope.perform.linux.state import machine_file

    kexec = LinuxKexec(Linux(), machine_file)
    kind = "crash image" if options.crash else "kexec image"
    if done := really(options, f"unload the {kind}"):
        with locked(), signals.sheltered(f"the {kind} is unloaded"):
            kexec.unload(crash=options.crash)
            kept.forget(crash=options.crash)
            logged(f"{kind} unloaded by uid {os.getuid()}")
    if options.json:
        printed("unload", {"crash": options.crash, "done": done})
    elif done:
        print("unloaded")
    return HOLDS


def tree(parser: ArgumentParser) -> None:
    """Another machine's files."""
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="a copy of another machine's /proc, /sys and /boot instead of this one's",
    )


@command(
    "status",
    help="what is loaded here, and what this kernel allows",
    takes=(tree, as_object),
    examples=(
        "tightrope status",
        "tightrope status --root sosreport-web1/ --json",
    ),
)
def status(options: Namespace) -> int:
    from tightrope.perform.linux import kept
    from tightrope.perform.linux.kexec import facts, told
    from tightrope.perform.linux.state import read_state

    files = _files(options)
    state = read_state(files)
    last = [each for crash in (False, True) if (each := kept.read(files, crash=crash))]
    if options.json:
        printed("status", facts(state, last))
    else:
        print("\n".join(told(state, last)))
    return HOLDS


@command(
    "refusals",
    help="what this kernel would answer to such a load, and why",
    description="Every reason that can be told without asking, without root: the system call, its errno,"
    " what was found, what mends it.  `ours` is what Linux would take and the machine would not survive.",
    takes=(image, tree),
    examples=(
        "tightrope refusals /boot/vmlinuz",
        "tightrope refusals /boot/vmlinuz --crash --via kexec_file_load",
    ),
    status="0 none, 1 it would be refused, 2 bad input",
)
def refusals(options: Namespace) -> int:
    from dataclasses import asdict

    from tightrope.deeds import loading
    from tightrope.perform.linux import refusals as room
    from tightrope.perform.linux.state import read_state

    state = read_state(_files(options))
    with loading.opened(
        options.kernel,
        options.initrd,
        line(options),
        crash=options.crash,
        via=loading.Via(options.via),
        state=state,
        rehearsed=False,
        planner=_planner(options) if options.via == "kexec_load" else None,
    ) as what:
        found = room.refusals(state, what.request)
    if options.json:
        from dataclasses import asdict

        rows = [asdict(each) | {"answer": each.answer} for each in found]
        printed("refusals", {"call": what.request.call, "refusals": rows})
    else:
        print(
            "\n".join(map(str, found))
            or f"{what.request.call}: nothing is known that speaks against it"
        )
    return FINDING if found else HOLDS


def _planner(options: Namespace) -> Planner:
    """Plans for the machine that is asked about, without a rehearsal."""

    def plan(files: Files) -> Load:
        from tightrope import host
        from tightrope.deeds import surveyed

        read = None if options.root is None else host.read_copy(options.root)
        old = surveyed.survey(read, options.root or "this machine").host
        return surveyed.planned(files, old, unpack=options.unpack, verify=damage(options))

    return plan


def _files(options: Namespace) -> MachineFiles:
    from tightrope.perform.linux.state import machine_file

    if options.root is None:
        return machine_file
    if not os.path.isdir(options.root):
        raise BadInput("is not a directory", source=options.root)
    return lambda path: machine_file(os.path.join(options.root, path[1:]))
