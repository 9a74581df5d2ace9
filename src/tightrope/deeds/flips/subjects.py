"""What a bit can be flipped in.

    in memory      a byte that lies there before the walk: plan and rules know what it should be
    as planned     wrong in plan, source and destination alike: only who asks the image, the files, the line
                   and the host can see it
    at the call    what the CPU holds, or what is wrong with the old kernel altogether

Rules: one bit of one byte, by random numbers that are given; places are drawn evenly among the
bytes of a subject, or among its present entries where most bytes mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tightrope.memory import Extent
from tightrope.model import Handover


class Subject(StrEnum):
    """What is flipped; the value is what a report calls it."""

    CONTROL_PAGE = "control page, memory only"
    CODE = "code, at V and in the control page"
    AT_V = "code at V, memory only"
    TABLE_A = "page_table_a, any bit"
    TABLE_A_ENTRIES = "page_table_a, present entries"
    TABLE_B = "page_table_b, any bit"
    TABLE_B_ENTRIES = "page_table_b, present entries"
    LIST = "page list, used words, memory only"
    LIST_PLANNED = "page list, as planned"
    LOADED = "a segment in memory only"
    BOOT_PARAMS = "boot_params, as planned"
    COMMAND_LINE = "command line, as planned"
    INITRD = "initrd, as planned"
    KERNEL = "kernel, as planned"
    STUB = "entry stub, as planned"
    CORE_HEADER = "core header, as planned"
    REGISTERS = "registers, at the call only"
    OLD_REGISTERS = "registers, the old kernel's own"
    OLD_TABLES = "the old kernel's tables, present entries"
    OLD_GDT = "the old kernel's gdt"
    OLD_IDT = "the old kernel's idt"
    HANDED = "words that the call hands over in memory"
    WAY_OUT = "the hypervisor's way out of long mode"
    DOM0 = "dom0's tables and code"
    NOTES = "crash notes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A handover with a bit flipped.  `places` is physical memory that differs for that reason
    alone."""

    handover: Handover
    says: str
    places: tuple[Extent, ...] = ()


def flipped(data: bytes | bytearray | memoryview, at: int, bit: int) -> bytes:
    """The bytes with one bit of one of them turned over."""
    out = bytearray(data)
    out[at] ^= 1 << bit
    return bytes(out)
