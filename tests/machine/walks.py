"""Walks for the machine room's tests: a small old kernel, handovers with the real or a made routine.

Rules: routines are written as bytes with the instruction beside them; nothing is assembled here.
A made routine stands at V like the real one and is called with the same registers:
rdi = head, rsi = P, rdx = entry, rcx = page_table_a, r8 = page_table_b.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.makers.bzimage import bzimage
from tests.makers.hosts import small_host
from tightrope import handover, image, participants, routines
from tightrope import world as world_room
from tightrope.memory import Extent
from tightrope.model import Code, Fault, Handover, Host, Image, Plan, Run, Stop, with_code
from tightrope.plan import Request, prepare

PAGE = 4096
MIB = 1 << 20
GIB = 1 << 30

NOP, HLT, UD2, INT3, RET, STD, CLD = (
    b"\x90",
    b"\xf4",
    b"\x0f\x0b",
    b"\xcc",
    b"\xc3",
    b"\xfd",
    b"\xfc",
)
WRMSR, LRETQ, POPFQ = b"\x0f\x30", b"\x48\xcb", b"\x9d"
TO_CR0, TO_CR3, TO_CR4 = b"\x0f\x22\xc0", b"\x0f\x22\xd8", b"\x0f\x22\xe0"
"""mov %rax, %cr0 and so on."""
TABLE_A_TO_CR3, TABLE_B_TO_CR3 = b"\x0f\x22\xd9", b"\x41\x0f\x22\xd8"
"""mov %rcx, %cr3; mov %r8, %cr3."""
REP_MOVSB, REP_MOVSQ, REP_STOSQ = b"\xf3\xa4", b"\xf3\x48\xa5", b"\xf3\x48\xab"
LOOP_FOREVER = b"\xeb\xfe"
PUSH_RAX = b"\x50"
JMP_RAX = b"\xff\xe0"
STACK_ON_CONTROL_PAGE = b"\x48\x8d\xa6\x00\x10\x00\x00"
"""lea 4096(%rsi), %rsp."""


def put(register: str, value: int) -> bytes:
    """movabs $value, %register, for the eight old registers."""
    number = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi").index(register)
    return bytes([0x48, 0xB8 + number]) + (value % (1 << 64)).to_bytes(8, "little")


def to_identity(host_: Host) -> bytes:
    """Load page_table_a, clear CR4.PGE, put the stack on the control page and jump to P.

    What follows runs at P, at the same offset; rax and the stack are used.
    """
    head = TABLE_A_TO_CR3 + put("rax", host_.cr4 & ~(1 << 7)) + TO_CR4 + STACK_ON_CONTROL_PAGE
    # lea offset(%rsi), %rax; jmp *%rax
    after = len(head) + 7 + 2
    return head + b"\x48\x8d\x86" + after.to_bytes(4, "little") + JMP_RAX


@functools.cache
def kernel(**fields: Any) -> Image:
    """A small made kernel; keywords as `bzimage` takes them."""
    return image.read(bzimage(**({"init_size": 0x10000} | fields)), "made.bzimage")


@functools.cache
def old_kernel() -> Host:
    """32 MiB of RAM, nothing busy."""
    return small_host(32)


def plan(old: Host | None = None, new: Image | None = None, **request: Any) -> Plan:
    """A plan; without arguments that of a small kernel with nothing to copy."""
    return prepare(new or kernel(), old or old_kernel(), Request(**request))


def moving(pages: int = 3, *, scatter: int = 7, initrd: int = 5000) -> Plan:
    """A plan with copies: the old kernel is busy where the new one goes."""
    busy = Extent.sized(16 * MIB, pages * PAGE)
    return plan(
        small_host(32, busy=[busy]),
        kernel(),
        initrd=bytes(n * 7 % 251 for n in range(initrd)),
        command_line="console=ttyS0",
        scatter=scatter,
    )


def sound(the_plan: Plan) -> Handover:
    """The handover of a plan with the shipped routine."""
    return built(the_plan, routines.read(routines.RELOCATE_X86_64))


def built(the_plan: Plan, code: Code) -> Handover:
    """The handover of a plan with any routine."""
    chain = with_code(participants.chain(the_plan, participants.OURS), code)
    return handover.build(the_plan, world_room.lay(the_plan.host, code), chain)


def made(data: bytes, the_plan: Plan | None = None) -> Handover:
    """The handover of a plan with a routine made of `data`."""
    return built(the_plan or plan(), Code(name="made", data=data, symbols={}))


def with_registers(handover_: Handover, **changes: Any) -> Handover:
    """The same handover, called with other registers; `general` is merged."""
    general: Mapping[str, int] = changes.pop("general", {})
    now = handover_.registers
    return replace(
        handover_,
        registers=replace(now, general={**now.general, **general}, **changes),
    )


def fault_of(run: Run) -> Fault:
    """The fault that ended a run."""
    assert run.stop is Stop.FAULT, run.stop
    assert run.fault is not None
    return run.fault
