"""Arguments that several commands share: the new kernel, the old kernel, a mode, JSON.

Rules: argparse and nothing heavy: what `--help` shows is here, in `choices`, and in
deeds.machines, which loads no machine.
"""

from __future__ import annotations

import argparse
from argparse import ArgumentParser
from collections.abc import Iterable

from tightrope.choices import (
    OURS,
    Design,
    Loader,
    OnDamage,
    Paging,
    Protocol,
    XenCrash,
    XenInterface,
)
from tightrope.cli.command import CRASH_SIZE
from tightrope.cli.values import line, number, path, size

FORMATS = "a bzImage, an ELF vmlinux, a Multiboot kernel or a unified kernel image"


def as_json(group: ArgumentParser | argparse._ArgumentGroup) -> None:
    """`--json`."""
    group.add_argument("--json", action="store_true", help="one JSON object instead of text")


def answered(group: ArgumentParser | argparse._ArgumentGroup) -> None:
    """`--json`, and `-q` for who needs the answer alone."""
    as_json(group)
    quiet(group)


def quiet(group: ArgumentParser | argparse._ArgumentGroup) -> None:
    """`-q`."""
    group.add_argument("-q", "--quiet", action="store_true", help="the answer alone, on one line")


def shown(group: ArgumentParser | argparse._ArgumentGroup) -> None:
    """How much of a result is shown, and as what: `--json`, `--html`, `-v`, `-q`."""
    as_json(group)
    group.add_argument(
        "--html",
        type=path,
        metavar="FILE",
        help="write it as one HTML file as well, with pictures; no script, no network",
    )
    group.add_argument(
        "-v", "--verbose", action="store_true", help="all that was seen, not only what is needed"
    )
    quiet(group)
    force(group)


def force(group: ArgumentParser | argparse._ArgumentGroup) -> None:
    """`--force`."""
    group.add_argument(
        "--force", action="store_true", help="replace a file that is there; never an input"
    )


def modes() -> list[str]:
    """The page-table formats by name."""
    return [each.value for each in Paging]


def loaders() -> list[str]:
    """Who may choose where segments go, by name."""
    return [each.value for each in Loader]


def loader(group: ArgumentParser | argparse._ArgumentGroup) -> None:
    """`--loader` and `--kexec`."""
    group.add_argument(
        "--loader",
        choices=loaders(),
        help="whose segments: Tightrope's own (tightrope), those of the installed kexec, asked under the recorder with"
        " nothing loaded (kexec-tools), or those that kexec_file_load of the old kernel would place"
        " (file-load); the latter two with their purgatory",
    )
    group.add_argument(
        "--kexec",
        metavar="PROGRAM",
        help="with --loader kexec-tools: another kexec than the installed one, a 32-bit one for a 32-bit"
        " old kernel",
    )


def interfaces() -> list[str]:
    """The ways of asking a hypervisor by name."""
    return [each.value for each in XenInterface]


def design(group: ArgumentParser | argparse._ArgumentGroup, help: str) -> None:
    """`--design`, of those that there are."""
    group.add_argument("--design", default=OURS, choices=[each.value for each in Design], help=help)


def machines(text: str) -> tuple[str, ...]:
    """Names of machines with commas between them, each once."""
    from tightrope.deeds.machines import MACHINES

    return _each_once(text.split(","), MACHINES)


def _each_once(names: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    once = tuple(dict.fromkeys(names))
    for name in once:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return once


def new_kernel(parser: ArgumentParser) -> None:
    """What the new kernel is and what it is handed."""
    new = parser.add_argument_group("the new kernel")
    new.add_argument(
        "kernel",
        metavar="KERNEL",
        nargs="?",
        help=f"{FORMATS}; without one the newest readable kernel of this machine, else the shipped one",
    )
    new.add_argument(
        "--shipped", action="store_true", help="the small kernel that comes with tightrope"
    )
    new.add_argument("--initrd", metavar="FILE", help="an initrd")
    new.add_argument("--append", type=line, metavar="TEXT", default="", help="the command line")
    new.add_argument(
        "--module",
        metavar='"FILE ARGUMENTS"',
        action="append",
        default=[],
        help="a module of a Multiboot or PVH kernel, with its own command line; repeatable",
    )
    new.add_argument(
        "--entry",
        choices=[each.value for each in Protocol],
        help="the entry to take; without it the first that the old kernel can reach",
    )
    flat(new)
    new.add_argument(
        "--unpack",
        action="store_true",
        help="unpack the bzImage first and enter the kernel inside it, without KASLR",
    )


def verify(parser: ArgumentParser) -> None:
    """`--verify` and `--from-top`, which `tightrope load` has by itself."""
    parser.add_argument(
        "--from-top",
        action="store_true",
        help="the kernel goes to the highest free place, where Linux loads most of it without a copy",
    )
    parser.add_argument(
        "--verify",
        choices=[each.value for each in OnDamage],
        help="put a purgatory before the entry stub, which looks at every segment and, when one is not"
        " what was loaded, says so on the first serial port and halts or resets",
    )


def flat(group: ArgumentParser | argparse._ArgumentGroup) -> None:
    """`--flat` and `--bits`."""
    group.add_argument(
        "--flat", type=number, metavar="ADDRESS", help="a flat binary that is loaded at ADDRESS"
    )
    group.add_argument(
        "--bits",
        type=int,
        choices=[32, 64],
        default=32,
        help="the width of a flat binary's code (%(default)s)",
    )


def old_kernel(parser: ArgumentParser) -> None:
    """The old kernel, and the kind of the kexec."""
    old = parser.add_argument_group("the old kernel")
    old.add_argument(
        "--host", metavar="FILE", help="a host description; without one `tightrope host example`"
    )
    old.add_argument(
        "--mode", choices=modes(), help="without --host: the example of that table format"
    )
    old.add_argument(
        "--xen",
        choices=interfaces(),
        help="the old kernel is dom0 and asks a hypervisor for the jump: v1 with its own tables and code"
        " (Xen 3.0 to 4.3), v2 with segments (4.4 on); --mode is the hypervisor's",
    )
    old.add_argument(
        "--dom0",
        type=int,
        choices=[32, 64],
        metavar="BITS",
        help="with --xen, without --host: the width of the example's dom0, 32 or 64 (as the hypervisor's)",
    )
    old.add_argument(
        "--crashed",
        choices=[each.value for each in XenCrash],
        default=XenCrash.DOM0.value,
        help="with --crash under Xen, who dies (%(default)s)",
    )
    old.add_argument(
        "--crash",
        action="store_true",
        help="a crash kexec: everything lies in the host's crash region beforehand; `--crash 256M` gives"
        " the host one of that size, where crashkernel=256M would have put it",
    )
    old.add_argument(f"--{CRASH_SIZE}", type=size, metavar="SIZE", help=argparse.SUPPRESS)
    old.add_argument(
        "--backup",
        action=argparse.BooleanOptionalAction,
        help="in a crash kexec, save what lies below 640 KiB in the crash region; without either it is"
        " saved where the host says that the old kernel keeps something there",
    )
    old.add_argument(
        "--scatter",
        type=int,
        metavar="SEED",
        help="hand out free frames in a shuffled order, as a kernel does after months",
    )
