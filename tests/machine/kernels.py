"""New kernels of a few instructions that say something on the first serial port.

Rules: bytes with the instruction beside them.  A kernel is loaded at `LOAD` with its 64-bit entry
at +0x200; the 512 bytes before it hold its idt, because nothing else is there.

    +0x030  idt, 15 gates; those of #UD, #GP and #PF are filled, at +0x090, +0x100 and +0x110
    +0x1f0  the operand of lidt
    +0x200  the code
"""

from __future__ import annotations

import struct
from dataclasses import replace

from tests.machine.walks import MIB, PAGE, kernel, plan, sound
from tests.makers.hosts import table_b
from tightrope.model import Handover, Host

LOAD = 16 * MIB
ENTRY = LOAD + 0x200
IDT, LIDT_OPERAND = LOAD + 0x30, 0x1F0
HLT, UD2, FOREVER, STI = b"\xf4", b"\x0f\x0b", b"\xeb\xfe", b"\xfb"
UNMAPPED = 0x3000_0000
COM1, LINE_CONTROL, LINE_STATUS = 0x3F8, 0x3FB, 0x3FD
LIDT = b"\x0f\x01\x1c\x25" + (LOAD + LIDT_OPERAND).to_bytes(4, "little")
OUT_AL = b"\xee"
"""out %al, (%dx)"""


def port(number: int) -> bytes:
    """mov $number, %edx"""
    return b"\xba" + number.to_bytes(4, "little")


def say(text: str) -> bytes:
    """Each character: mov $c, %al; out %al, (%dx)."""
    return port(COM1) + b"".join(b"\xb0" + bytes([c]) + OUT_AL for c in text.encode("latin-1"))


def out(number: int, value: int) -> bytes:
    """One byte to a port."""
    return port(number) + b"\xb0" + bytes([value]) + OUT_AL


def load_rbx(value: int) -> bytes:
    """mov $value, %ebx"""
    return b"\xbb" + value.to_bytes(4, "little")


def gate(handler: int) -> bytes:
    """An interrupt gate of ring 0 (SDM figure 6-8)."""
    return struct.pack(
        "<HHBBHII", handler & 0xFFFF, 0x10, 0, 0x8E, handler >> 16 & 0xFFFF, handler >> 32, 0
    )


def handover(code: bytes, *, handler: int | None = None, old: Host | None = None) -> Handover:
    """A sound handover to a kernel of `code`; `handler` is an offset into it, for #UD, #GP and #PF."""
    low = bytearray(512)
    if handler is not None:
        low[0x090:0x0A0] = gate(ENTRY + handler)
        low[0x100:0x120] = gate(ENTRY + handler) * 2
    low[LIDT_OPERAND : LIDT_OPERAND + 10] = struct.pack("<HQ", 15 * 16 - 1, IDT)
    assert len(code) <= 512
    new = kernel(code32=bytes(low), code64=code, payload=b"", pref_address=LOAD)
    return sound(plan(old, new))


def with_leaf(built: Handover, virt: int, entry: int | None, *, clear: int = 0) -> Handover:
    """page_table_b's 4 KiB leaf for `virt` replaced (flags kept), or with bits cleared."""
    table = table_b(built)
    at, shift = int(table.root), 39
    while shift > 12:
        row = table.pages[at]
        at = int.from_bytes(row[8 * (virt >> shift & 511) :][:8], "little") & 0x000F_FFFF_FFFF_F000
        shift -= 9
    page = bytearray(table.pages[at])
    slot = 8 * (virt >> 12 & 511)
    value = int.from_bytes(page[slot : slot + 8], "little")
    value = (value if entry is None else entry | value & (PAGE - 1)) & ~clear
    page[slot : slot + 8] = value.to_bytes(8, "little")
    pages = {**table.pages, at: memoryview(bytes(page))}
    return replace(built, page_table_b=replace(table, pages=pages))
