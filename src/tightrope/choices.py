"""What can be asked for by a word of the command line, and has a value in the hall by that word.

    --mode i386  --entry linux64  --loader kexec-tools  --xen v2  --crashed dom0  --verify halt
    --design two-tables

Rules: enums whose values are those words, and nothing is imported but `enum`: `--help` of a command
lists them, and takes no longer than argparse itself.  What a choice leads to stands in the room
that owns it; `model` names those that are part of its nouns.

May import: nothing
"""

from __future__ import annotations

from enum import StrEnum


class Paging(StrEnum):
    """The four page-table formats; the value is the name used in host files, too."""

    I386 = "i386"
    PAE = "pae"
    X86_64 = "x86_64"
    LA57 = "la57"

    @property
    def long_mode(self) -> bool:
        """64-bit code: paging cannot be turned off where it runs, so there is a page_table_b."""
        return self in (Paging.X86_64, Paging.LA57)


class Protocol(StrEnum):
    """What state and arguments an entry point expects; the sources are in `abi`."""

    LINUX_64 = "linux64"
    LINUX_32 = "linux32"
    PVH = "pvh"
    MULTIBOOT = "multiboot"
    MULTIBOOT2 = "multiboot2"
    FLAT = "flat"
    """No arguments: the first byte, or an ELF file's e_entry, in flat segments."""


class Loader(StrEnum):
    """Who chooses where the new kernel's segments go."""

    TIGHTROPE = "tightrope"
    KEXEC_TOOLS = "kexec-tools"
    FILE_LOAD = "file-load"


class OnDamage(StrEnum):
    """What a purgatory does with a segment that is not what was loaded, once it has said so."""

    HALT = "halt"
    RESET = "reset"


class XenInterface(StrEnum):
    """How dom0 asks the hypervisor for the jump."""

    V1 = "v1"
    """The thread's: dom0's own tables, list and code; a fixmap for each page."""
    V2 = "v2"
    """Xen 4.4 on: segments; list, tables and code are the hypervisor's."""


class XenCrash(StrEnum):
    """Who dies in a crash kexec under Xen."""

    DOM0 = "dom0"
    """It panics and asks for the jump by hypercall."""
    HYPERVISOR = "hypervisor"
    """It starts what was loaded by itself; dom0's tables need not be the current ones."""


class Design(StrEnum):
    """This project's designs of the tables, in the order of history but for the thread's own."""

    IN_PLACE = "in-place"
    TWO_TABLES = "two-tables"
    ONE_TABLE = "one-table"
    DAMM_V4 = "damm-v4"
    SPLIT_FUNCTION = "split-function"


OURS = Design.TWO_TABLES.value
"""What a rehearsal has when none is asked for."""
