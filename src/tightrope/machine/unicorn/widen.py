"""A 64-bit engine in the state of a 32-bit one.

A new kernel that is entered in 32 bits may go on to long mode by itself, which Unicorn's 32-bit
engine does not follow.  Its 64-bit engine does, from any mode, but begins in long mode: so it is
taken out of it by the instructions that a CPU needs for that (SDM 9.8.5.4), run in a page that is
put back.

Rules: memory is the same before and after; paging is off, as it is at every 32-bit entry.
"""

from __future__ import annotations

import struct
from dataclasses import replace

from tightrope.errors import MachineError
from tightrope.machine.unicorn.engine import Engine
from tightrope.memory import PAGE_SIZE, align_up
from tightrope.model import Registers
from tightrope.x86 import cpu as x86
from tightrope.x86.walk import Access

CODE, DATA, CODE_64 = 0x10, 0x18, 0x20
"""CODE and DATA as at every entry of ours: CS keeps its selector and its flat 32-bit descriptor."""
GDT_AT = 0x100
GDT = struct.pack(
    "<5Q",
    0,
    0,
    x86.flat_descriptor(code=True, bits=32),
    x86.flat_descriptor(code=False, bits=32),
    x86.flat_descriptor(code=True, bits=64),
)


def _way_down(page: int, cr0: int) -> bytes:
    """From 64-bit code to protected mode without paging; it stops in front of its last `hlt`."""
    known = cr0.to_bytes(4, "little").hex()
    head = bytes.fromhex("6a10 b8 00000000 50 48cb")  # push $CODE; mov $next, %eax; push; lretq
    head = head.replace(bytes(4), (page + len(head)).to_bytes(4, "little"))
    return head + bytes.fromhex(
        f"b8 {known} 0f22c0"  # mov $cr0, %eax; mov %eax, %cr0
        "b9 800000c0 0f32 2500feffff 0f30"  # EFER without LME and SCE
        "31c0 0f22e0 0f22d8"  # CR4 = CR3 = 0
        # mov $DATA, %eax; to ss, ds, es, fs, gs: their size counts only outside 64-bit code.
        "b8 18000000 8ed0 8ed8 8ec0 8ee0 8ee8"
        "f4"
    )


def widened(engine: Engine) -> Engine:
    """The same CPU over the same memory, able to enter long mode.  Raises MachineError under
    paging."""
    registers = engine.registers()
    if registers.cr0 & x86.CR0_PG or registers.segments["cs"] != CODE:
        raise MachineError("only the state of a 32-bit entry can be handed to a 64-bit engine")
    ram = engine.ram
    # The walk is over, and the entry's own pages lie above the first MiB.
    page = align_up(ram.extents[0].start, PAGE_SIZE)
    room = ram.view(page, PAGE_SIZE)
    if room is None or page + PAGE_SIZE > 1 << 32:
        raise MachineError(f"no page of memory at {page:#x} to switch modes in")
    kept = bytes(room)
    code = _way_down(page, registers.cr0)
    ram.write(page, code)
    ram.write(page + GDT_AT, GDT)
    wide = Engine(ram, 64)
    end = page + len(code) - 1

    def before(rip: int) -> None:
        if rip == end:
            wide.stop()

    wide.before = before
    hooks = (wide.on_instruction(), wide.on_translation(_itself))
    try:
        wide.load(_in_long_mode(registers, page))
        wide.start(page)
        _settle(wide, registers)
    finally:
        wide.forget_code()
        wide.unhook(*hooks)
        ram.write(page, kept)
        wide.forget_translations()
    return wide


def _itself(page: int, _access: Access) -> int:
    return page


def _in_long_mode(registers: Registers, page: int) -> Registers:
    """A long mode that maps each address to itself, with its gdt in the page."""
    return replace(
        registers,
        general={**registers.general, "rsp": page + PAGE_SIZE},
        rip=page,
        cr0=registers.cr0 | x86.CR0_PG,
        cr4=x86.CR4_PAE,
        efer=registers.efer | x86.EFER_LME | x86.EFER_LMA,
        segments={"cs": CODE_64, **dict.fromkeys(("ss", "ds", "es", "fs", "gs"), DATA)},
        gdt=(page + GDT_AT, len(GDT) - 1),
    )


def _settle(wide: Engine, registers: Registers) -> None:
    """What the way down used or cannot keep; the selectors are the ones that were there."""
    wide.set_table("gdtr", *registers.gdt)
    for name, value in registers.general.items():
        wide.write(name, value)
    wide.write("rflags", registers.rflags)
    wide.write("rip", registers.rip)
    got = wide.registers()
    if replace(got, efer=registers.efer) != registers:
        raise MachineError("the 64-bit engine did not take over the state of the entry")
