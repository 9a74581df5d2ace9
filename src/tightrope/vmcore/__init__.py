"""The crashed kernel's page tables, read out of a dump of its memory, whatever its format.

    file     the bytes of a dump where they lie
    formats  which format they are in -> Core: which physical memory it holds, and its notes
      flattened   a file that was written into a pipe, put in its places again
      core        an ELF core
      diskdump    a compressed dump
      packed      its pages as if they lay in a row, unpacked when they are asked for
      codecs      how one of them is unpacked: zlib, lzo, snappy, zstd
      parts       the files of a split dump as one
    root     Core -> Root: where the crashed kernel's pgd lies, and who says so
    sweep    Core, Root -> Sweep: every mapping, every missing table, every impossible entry
    other_tables   the tables that a core has, where VMCOREINFO is of another boot
    ranges   mappings merged into ranges, and the difference of two such lists
    judgement   all of it in one value: the answer, its faults and doubts in words
    planned  what a crash may write, held against what the dump says was changed
    notes    VMCOREINFO, and the control registers that a hypervisor left
    dead     the dead kernel's memory by linear address
    symbols  its own symbol table, in there
    information   Core -> Dead: release, time, panic, CPUs, taint, log; whether a host file is its

    from tightrope import vmcore

    pgd = vmcore.pgd(vmcore.read("/var/crash/vmcore"))
    print(pgd.answer, pgd.faults, pgd.doubts)

Rules: the file is never written, and read where its page tables are and hardly anywhere else.  A
core is written by a kernel that has just died: nothing in it is believed before it is checked.

May import: abi, errors, lzo, memory, model, printk, x86
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tightrope.model.dump import Core
    from tightrope.model.pgd import Change, Pgd, Range
    from tightrope.model.root import Root
    from tightrope.vmcore.formats import parse, read
    from tightrope.vmcore.judgement import pgd
    from tightrope.vmcore.ranges import difference, merged
    from tightrope.vmcore.root import find_root

__all__ = [
    "Change",
    "Core",
    "Pgd",
    "Range",
    "Root",
    "difference",
    "find_root",
    "merged",
    "parse",
    "pgd",
    "read",
]

_HOMES = {
    "Change": "model.pgd",
    "Core": "model.dump",
    "Pgd": "model.pgd",
    "Range": "model.pgd",
    "Root": "model.root",
    "difference": "vmcore.ranges",
    "find_root": "vmcore.root",
    "merged": "vmcore.ranges",
    "parse": "vmcore.formats",
    "pgd": "vmcore.judgement",
    "read": "vmcore.formats",
}
"""Name -> the module that has it.  Only what is asked for is imported: root, notes and dead need no
numpy, and a crash kernel's initramfs may have none."""


def __getattr__(name: str) -> object:
    """One of the names, from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"tightrope.{_HOMES[name]}"), name)
