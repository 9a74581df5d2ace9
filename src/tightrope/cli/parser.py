"""The arguments of every subcommand.

Rules: argparse and nothing heavy: `--help` and `--version` answer from here.  A subcommand's deed is
named by a word, and looked up only when it is to be done.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tightrope import __version__
from tightrope.cli.new_kernel import FORMATS, flat_arguments, kernel_arguments
from tightrope.cli.performing import perform_arguments
from tightrope.cli.proving import code_arguments
from tightrope.cli.values import count, extent, number, seconds

DESIGNS = ("in-place", "two-tables", "one-table", "damm-v4", "split-function")
"""The names in `handover.DESIGNS`, which is too heavy to import for `--help`; a test compares them."""
MACHINES = ("emulator", "unicorn", "kvm", "kvm-free", "qemu", "qemu-kvm")
"""The names in `machines.MACHINES`; the same test compares them."""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="tightrope",
        description="Plan and rehearse a kexec before anyone performs it.",
        epilog="Exit status: 0 it holds, 1 a finding, 2 it could not be told.",
    )
    top.add_argument("--version", action="version", version=f"tightrope {__version__}")
    deeds = top.add_subparsers(title="deeds", required=True, metavar="DEED")

    deed = deeds.add_parser(
        "rehearse",
        help="walk a handover on a watched CPU and say whether it holds",
        description="Walk from the old kernel's call at V to the new kernel's first instruction,"
        " instruction by instruction, and check every step.",
    )
    kernel_arguments(deed, optional=True)
    _request_arguments(deed)
    real = deed.add_argument_group("a real old kernel, with --on qemu")
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
        default=512,
        metavar="MIB",
        help="the PC's memory; crashkernel= is a quarter of it, half with --crash (%(default)s)",
    )
    walk = deed.add_argument_group("the walk")
    walk.add_argument(
        "--design",
        default="two-tables",
        choices=DESIGNS,
        help="the table design (%(default)s)",
    )
    walk.add_argument(
        "--until",
        choices=["entry", "console", "userspace"],
        default="entry",
        help="stop at the new kernel's first instruction, when it has spoken, or, on qemu, when its init"
        " says the word behind tightrope.token= (%(default)s)",
    )
    walk.add_argument(
        "--limit",
        type=seconds,
        default=900.0,
        metavar="SECONDS",
        help="how long to listen with --until console or userspace (%(default)s)",
    )
    walk.add_argument(
        "--on",
        choices=MACHINES,
        default="emulator",
        help="the machine to walk on (%(default)s); what it cannot see, the report says",
    )
    walk.add_argument(
        "--sabotage", metavar="NAME", help="break one thing on purpose; `list` names them"
    )
    shown = deed.add_argument_group("what is shown")
    _json_argument(shown)
    shown.add_argument("--trace", type=Path, metavar="FILE", help="write every instruction to FILE")
    shown.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="with --xen v2, when it holds: what `tightrope perform xen` takes",
    )
    deed.set_defaults(deed="rehearse")

    deed = deeds.add_parser(
        "inspect",
        help="what a kernel image is, what it asks of memory, what entry points it has",
    )
    deed.add_argument("kernel", metavar="KERNEL", help=FORMATS)
    flat_arguments(deed)
    _json_argument(deed)
    deed.set_defaults(deed="inspect")

    deed = deeds.add_parser("plan", help="where every byte would go, and why; nothing is run")
    kernel_arguments(deed, optional=True)
    _request_arguments(deed)
    _json_argument(deed)
    deed.set_defaults(deed="plan")

    deed = deeds.add_parser(
        "compare",
        help="the thread's rival designs on one host, side by side",
        description="One row for each design; the exit status is that of two-tables, the default.",
    )
    kernel_arguments(deed, optional=True)
    _request_arguments(deed)
    _json_argument(deed)
    deed.set_defaults(deed="compare")

    deed = deeds.add_parser(
        "matrix",
        help="rehearse kernels on every mode and split, for kexec and kdump, and print a table",
    )
    deed.add_argument(
        "kernels", metavar="KERNEL", nargs="*", help=f"{FORMATS}; without one the shipped kernel"
    )
    deed.add_argument(
        "--on",
        type=_machines,
        default=("emulator",),
        metavar="MACHINE,...",
        help=f"the machines to walk on, of {', '.join(MACHINES)} (emulator)",
    )
    _json_argument(deed)
    deed.set_defaults(deed="matrix")

    deed = deeds.add_parser(
        "agree",
        help="walk random handovers, sound and broken, on several machines and compare them",
        description="Seeded random old kernels, images, placements and breakages, in every mode. The"
        " first machine is what the others are compared with: verdict, fault, registers at the entry,"
        " memory. Each difference is printed with the command that replays it.",
    )
    deed.add_argument(
        "--count", type=count, default=100, metavar="N", help="how many cases (%(default)s)"
    )
    deed.add_argument(
        "--seed", type=int, default=1, metavar="S", help="where they come from (%(default)s)"
    )
    deed.add_argument("--only", type=int, metavar="K", help="case K of the seed, and no other")
    deed.add_argument(
        "--on",
        type=_machines,
        metavar="MACHINE,...",
        help=f"of {', '.join(MACHINES)}; without it the emulator, unicorn and, where it is, kvm-free",
    )
    _json_argument(deed)
    deed.set_defaults(deed="agree")

    deed = deeds.add_parser("host", help="descriptions of old kernels")
    hosts = deed.add_subparsers(title="deeds", required=True, metavar="DEED")
    example = hosts.add_parser("example", help="print a host, a commented TOML document")
    example.add_argument(
        "--mode",
        choices=["i386", "pae", "x86_64", "la57"],
        default="x86_64",
        help="the old kernel's page-table format (%(default)s)",
    )
    example.add_argument(
        "--split",
        type=number,
        metavar="PAGE_OFFSET",
        help="the memory split of a 32-bit kernel, such as 0xc0000000; 0x02000000 is 4G/4G, with V in"
        " a fixmap",
    )
    example.add_argument(
        "--crash",
        type=extent,
        metavar="START+SIZE",
        help="a crash region, such as 0x33000000+0x10000000",
    )
    example.add_argument(
        "--pc",
        type=int,
        metavar="MIB",
        help="with the memory of QEMU's pc that has so many MiB, for --on qemu",
    )
    example.add_argument(
        "--xen", choices=["v1", "v2"], help="a hypervisor with a dom0 that knows this interface"
    )
    example.add_argument(
        "--dom0", type=int, choices=[32, 64], help="with --xen: dom0's width (the hypervisor's)"
    )
    example.set_defaults(deed="host example")
    capture = hosts.add_parser("capture", help="describe this machine, changing nothing")
    capture.set_defaults(deed="host capture")
    of_xen = hosts.add_parser("xen", help="describe a Xen from what it says of itself")
    of_xen.add_argument(
        "facts", metavar="FACTS", help="what `tightrope perform xen --json` printed in its dom0"
    )
    of_xen.set_defaults(deed="host xen")

    deed = deeds.add_parser(
        "pgd",
        help="walk a crashed kernel's page tables in an ELF core, and say whether they are whole",
    )
    deed.add_argument("vmcore", metavar="VMCORE", help="an ELF core, as /proc/vmcore is")
    deed.add_argument("--cr3", type=number, metavar="ADDR", help="the root, where no note names it")
    deed.add_argument("--mode", choices=["i386", "pae", "x86_64", "la57"], help="the table format")
    deed.add_argument(
        "--physical-bits",
        type=number,
        default=52,
        metavar="N",
        help="MAXPHYADDR of the crashed machine (%(default)s)",
    )
    deed.add_argument("--print", action="store_true", help="list what is mapped where")
    deed.add_argument("--diff", metavar="OTHER", help="compare with another core's tables")
    _json_argument(deed)
    deed.set_defaults(deed="pgd")

    _prove_arguments(deeds)

    perform_arguments(deeds)

    deed = deeds.add_parser("rules", help="what every rehearsal is checked for, and who says so")
    deed.set_defaults(deed="rules")
    return top


THEOREMS = {
    "tables": "page_table_a maps V and P and nothing else, for all V and P",
    "designs": "exactly when the rival designs are right",
    "split": "on which memory splits and Xen layouts they always are",
    "switch": "which orders of the table switch are safe, and that ours is",
    "copy": "the page list does what the plan wants, for lists of any length",
    "code": "the relocation code, on its bytes, for all V, P and lists; or somebody else's",
}
"""The words of `prove.run.THEOREMS`, for `--help`; a test compares them."""


def _prove_arguments(
    deeds: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    deed = deeds.add_parser(
        "prove",
        help="the theorems behind it, for all memory maps, or the counterexample",
        description="Prove the theorems about tables, designs, the switch, the copy and the code;"
        " without a word all of them.  Some need z3: install tightrope[prove].",
        epilog="Exit status: 0 all is as the theorems say, 1 a counterexample, 2 something was not"
        " decided.",
    )
    _proof_options(deed, default=None)
    words = deed.add_subparsers(title="theorems", metavar="THEOREM")
    for word, says in THEOREMS.items():
        one = words.add_parser(word, help=says, description=f"{says[0].upper()}{says[1:]}.")
        _proof_options(one, default=argparse.SUPPRESS)
        one.set_defaults(theorem=word)
        if word == "code":
            code_arguments(one)
    one = words.add_parser(
        "plan",
        help="what the theorems take for granted, checked on one plan",
        description="Make the plan that `tightrope plan` with these arguments shows, lay it out with"
        " two tables (or --design), and check every hypothesis of the theorems on it.",
    )
    kernel_arguments(one, optional=True)
    _request_arguments(one)
    one.add_argument("--design", choices=DESIGNS, default="two-tables", help="(%(default)s)")
    _json_argument(one)
    one.set_defaults(theorem="plan")
    deed.set_defaults(deed="prove", theorem=None)


def _proof_options(deed: argparse.ArgumentParser, *, default: str | None) -> None:
    """The options of `prove` and of each of its words; a word leaves what was said before it."""
    first = default is None
    deed.add_argument(
        "--mode",
        choices=["i386", "pae", "x86_64", "la57"],
        default=default,
        help="only what is about this page-table format",
    )
    deed.add_argument("--design", default=default, help="only what is about this table design")
    deed.add_argument(
        "--limit",
        type=seconds,
        default=60.0 if first else default,
        metavar="SECONDS",
        help="for each goal; then it is not decided (60)",
    )
    deed.add_argument(
        "--smt",
        type=Path,
        default=default,
        metavar="PATH",
        help="write the obligations as SMT-LIB too: into one file NAME.smt2, or into a directory",
    )
    deed.add_argument(
        "--mutants",
        action="store_true",
        default=False if first else default,
        help="break what is proved, piece by piece, and see each mistake refused",
    )
    deed.add_argument(
        "--json",
        action="store_true",
        default=False if first else default,
        help="one JSON object instead of text",
    )


def _request_arguments(deed: argparse.ArgumentParser) -> None:
    old = deed.add_argument_group("the old kernel")
    old.add_argument(
        "--host", metavar="FILE", help="a host description; without one `tightrope host example`"
    )
    old.add_argument(
        "--mode",
        choices=["i386", "pae", "x86_64", "la57"],
        help="without --host: the example of that table format",
    )
    old.add_argument(
        "--xen",
        choices=["v1", "v2"],
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
        choices=["dom0", "hypervisor"],
        default="dom0",
        help="with --crash under Xen, who dies (%(default)s)",
    )
    old.add_argument(
        "--crash",
        action="store_true",
        help="a crash kexec: everything lies in the host's crash region beforehand",
    )
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


def _machines(text: str) -> tuple[str, ...]:
    """Names of machines with commas between them, each once."""
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in MACHINES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(MACHINES)}")
    return names


def _json_argument(group: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    group.add_argument("--json", action="store_true", help="one JSON object instead of text")
