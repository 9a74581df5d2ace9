"""How far an exception gets: the idt, the gate, the segment, the stack, the handler."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.machine.tables import OPEN, RW, XD, Trees, registers
from tests.machine.walks import fault_of, made, moving, sound
from tests.makers.hosts import table_b
from tests.stand_ins.played import Fake
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent
from tightrope.model import Registers
from tightrope.observe.delivery import follow

IDT, GDT, STACK, HANDLER = 0x10_0000, 0x11_0000, 0x12_0000, 0x13_0000
CODE64, DATA, CODE32 = 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x00CF_9B00_0000_FFFF
PAGE_FAULT, DOUBLE_FAULT, GENERAL_PROTECTION = 14, 8, 13


def gate(handler: int = HANDLER, selector: int = 0x10, kind: int = 0x8E) -> bytes:
    return struct.pack(
        "<HHBBHII", handler & 0xFFFF, selector, 0, kind, handler >> 16 & 0xFFFF, handler >> 32, 0
    )


@dataclass
class Scene:
    """A kernel with an idt; tests start from one that takes every exception and break it."""

    gates: dict[int, bytes] = field(default_factory=lambda: dict.fromkeys(range(32), gate()))
    slots: tuple[int, ...] = (0, CODE32, CODE64, DATA)
    idt: tuple[int, int] = (IDT, 0xFFF)
    gdt: tuple[int, int] = (GDT, 31)
    rsp: int = STACK + 0x800
    mapped: dict[int, int] = field(
        default_factory=lambda: dict.fromkeys((IDT, GDT, STACK, HANDLER), OPEN)
    )

    def follow(self, vector: int = PAGE_FAULT) -> tuple[tuple[str, ...], bool]:
        trees = Trees()
        root = trees.table()
        for at, flags in self.mapped.items():
            trees.map(root, at, at, flags)
        for number, raw in self.gates.items():
            trees.ram.write(IDT + 16 * number, raw)
        trees.ram.write(GDT, struct.pack(f"<{len(self.slots)}Q", *self.slots))
        now: Registers = registers(cr3=root, rsp=self.rsp, gdt=self.gdt, idt=self.idt)
        return follow(trees.mmu(root), now, vector)


def test_a_live_idt_takes_it() -> None:
    lines, triple = Scene().follow()
    assert not triple
    assert lines == (f"#PF would be taken to {HANDLER:#x}, a handler of the old kernel",)


def test_a_handler_in_the_high_half_is_read_whole() -> None:
    scene = Scene()
    high = 0xFFFF_FFFF_8123_4567
    scene.gates[PAGE_FAULT] = gate(high)
    lines, _ = scene.follow()
    assert f"its handler {high:#x} cannot be fetched" in lines[0]
    scene.mapped[high & -4096] = OPEN
    # The tables map linear to equal physical; a high handler needs a frame of its own.
    trees = Trees()
    root = trees.table()
    for at in (IDT, GDT, STACK):
        trees.map(root, at, at)
    trees.map(root, high & -4096, HANDLER)
    trees.ram.write(IDT + 16 * PAGE_FAULT, gate(high))
    trees.ram.write(GDT, struct.pack("<4Q", *scene.slots))
    now = registers(cr3=root, rsp=scene.rsp, gdt=scene.gdt, idt=scene.idt)
    assert follow(trees.mmu(root), now, PAGE_FAULT) == (
        (f"#PF would be taken to {high:#x}, a handler of the old kernel",),
        False,
    )


def test_an_idt_of_limit_zero_is_a_triple_fault() -> None:
    lines, triple = Scene(idt=(0, 0)).follow()
    assert triple
    assert lines == (
        "#PF cannot be delivered: the idt's limit is 0x0",
        "#DF cannot be delivered: the idt's limit is 0x0",
        "triple fault: the machine resets",
    )


@pytest.mark.parametrize(("limit", "taken"), [(16 * 14 + 15, True), (16 * 14 + 14, False)])
def test_the_limit_is_the_last_byte_of_the_last_gate(limit: int, taken: bool) -> None:
    lines, triple = Scene(idt=(IDT, limit)).follow()
    assert lines[0].startswith("#PF would be taken" if taken else "#PF cannot be delivered")
    # Gate 8 is still inside.
    assert not triple
    assert len(lines) == (1 if taken else 2)


BREAKS: dict[str, tuple[str, dict[str, Any]]] = {
    "the idt is not mapped": ("the idt at 0x100000 is not readable", {"mapped": (IDT, None)}),
    "the gdt is not mapped": ("the gdt at 0x110000 is not readable", {"mapped": (GDT, None)}),
    "the stack is not mapped": ("its frame cannot be pushed", {"mapped": (STACK, None)}),
    "the stack is read-only": ("its frame cannot be pushed", {"mapped": (STACK, OPEN & ~RW)}),
    "the handler is not mapped": ("its handler 0x130000 cannot be", {"mapped": (HANDLER, None)}),
    "the handler is not executable": (
        "its handler 0x130000 cannot be fetched: the page is not executable",
        {"mapped": (HANDLER, OPEN | XD)},
    ),
    "the gates are not present": ("the gate is not present", {"gate": gate(kind=0x0E)}),
    "the selector is beyond the gdt": (
        "its selector 0x20 is beyond the gdt's limit",
        {"gate": gate(selector=0x20)},
    ),
    "the selector is data": ("its selector 0x18 is not 64-bit", {"gate": gate(selector=0x18)}),
    "the selector is 32-bit code": ("its selector 0x8 is not", {"gate": gate(selector=8)}),
    "the selector is not present": (
        "its selector 0x10 is not 64-bit code",
        {"slot": CODE64 & ~(1 << 47)},
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_stands_in_the_way_is_said_and_twice_is_a_triple_fault(name: str) -> None:
    words, how = BREAKS[name]
    scene = Scene()
    if "mapped" in how:
        at, flags = how["mapped"]
        del scene.mapped[at]
        if flags is not None:
            scene.mapped[at] = flags
    if "gate" in how:
        scene.gates = dict.fromkeys(scene.gates, how["gate"])
    if "slot" in how:
        scene.slots = (0, CODE32, how["slot"], DATA)
    lines, triple = scene.follow()
    assert words in lines[0]
    assert lines[0].startswith("#PF cannot be delivered: ")
    assert lines[1].startswith("#DF cannot be delivered: ")
    assert words in lines[1]
    assert lines[2] == "triple fault: the machine resets"
    assert triple


def test_a_double_fault_handler_saves_the_machine() -> None:
    scene = Scene()
    scene.gates[PAGE_FAULT] = gate(kind=0)
    lines, triple = scene.follow()
    assert not triple
    assert lines[0] == "#PF cannot be delivered: the gate is not present"
    assert lines[1] == f"#DF would be taken to {HANDLER:#x}, a handler of the old kernel"


def test_a_double_fault_is_not_tried_twice() -> None:
    lines, triple = Scene(idt=(0, 0)).follow(DOUBLE_FAULT)
    assert triple
    assert len(lines) == 2


def test_the_frame_is_48_bytes_below_an_aligned_stack() -> None:
    # STACK + 47 aligns down to STACK + 32: the frame begins in the page below, which is not there.
    assert "its frame cannot be pushed at 0x11fff0" in Scene(rsp=STACK + 47).follow()[0][0]
    assert not Scene(rsp=STACK + 48).follow()[1]


# -------------------------------------------------------------------------------- in a whole walk


def test_an_exception_before_the_switch_is_taken_by_the_old_kernel() -> None:
    fault = fault_of(Emulator().run(made(b"\x0f\x0b")))
    assert not fault.triple
    assert fault.escalation[0].startswith("#UD would be taken to ")


def test_the_same_exception_after_the_switch_resets_the_machine() -> None:
    fault = fault_of(Emulator().run(made(b"\x0f\x22\xd9\x0f\x0b")))
    assert fault.triple
    assert "the idt at" in fault.escalation[0]
    assert "is not readable" in fault.escalation[0]


def test_both_machines_tell_the_same_escalation() -> None:
    handover = sound(moving())
    table = table_b(handover)
    empty = memoryview(bytes(4096))
    gone: dict[int, memoryview] = {table.root: empty}
    broken = replace(handover, page_table_b=replace(table, pages={**table.pages, **gone}))
    one, other = fault_of(Emulator().run(broken)), fault_of(Fake().run(broken))
    assert one.escalation == other.escalation
    assert one.triple
    assert other.triple
    assert Extent.sized(handover.intent.control_page, 4096).start == (one.address or 0) & -4096
