"""One instruction on many states in one go: ten thousand on Unicorn's CPU, some on this computer's
own.

    in: records --load all registers and flags--> instruction --store them all--> out: records
    every state has 64 bytes of memory of its own: its slot

Rules: the guest is a loop written here as bytes, so that ten thousand states cost one call; what
the model says is computed apart, with numpy.  Of `tightrope.machine` nothing takes part but the
door to /dev/kvm.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightrope.abi import kvm as abi
from tightrope.errors import MachineError
from tightrope.machine.kvm.device import Device
from tightrope.machine.kvm.vcpu import VirtualCpu
from tightrope.machine.kvm.watchdog import Watchdog
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Cpu, Registers
from tightrope.observe.physical import Ram
from tightrope.x86 import cpu as x86

unicorn: Any = importlib.import_module("unicorn")
const: Any = importlib.import_module("unicorn.x86_const")

Words = NDArray[np.uint64]
CODE, CURSOR_IN, CURSOR_OUT, SAVED, COUNT = 0x1_0000, 0x2_0000, 0x2_0008, 0x2_0010, 0x2_0018
GDT, RECORDS_IN, RECORDS_OUT, SLOTS = 0x3_0000, 0x10_0000, 0x40_0000, 0x80_0000
PAGES, MEMORY = 0xC0_0000, 0x100_0000
TABLES, LARGE = 0x8000, 0xE3
"""Page tables for KVM, which needs some in long mode: all of MEMORY in pages of 2 MiB."""
CR0_IN_KVM = x86.CR0_PG | x86.CR0_NE | x86.CR0_ET | x86.CR0_PE
KVM_SECONDS = 120.0
SLOT, MIDDLE = 64, 32
"""Bytes of a slot, and where in it a register points that addresses memory."""
CONTROL = ("cr0", "cr3", "cr4")
ORDER = ("rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi")
GDT_WORDS = (0, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CF9B000000FFFF)


def _at(address: int) -> bytes:
    return address.to_bytes(4, "little")


def _program(body: bytes, bits: int) -> tuple[bytes, int]:
    """The loop around `body`, and where in it the body lies."""
    extra = range(8, 16) if bits == 64 else range(0)
    w = b"\x48" if bits == 64 else b""
    load = w + (b"\x8b\x24\x25" if bits == 64 else b"\x8b\x25")
    save = w + (b"\x89\x24\x25" if bits == 64 else b"\x89\x25")
    push = b"\xff\x34\x25" if bits == 64 else b"\xff\x35"
    add = w + (b"\x81\x04\x25" if bits == 64 else b"\x81\x05")
    sub = w + (b"\x83\x2c\x25" if bits == 64 else b"\x83\x2d")
    old = (0, 1, 2, 3, 5, 6, 7)
    size = (9 if bits == 32 else 17) * (bits // 8)
    head = load + _at(CURSOR_IN) + b"\x9d"
    head += bytes(0x58 + n for n in old) + b"".join(bytes([0x41, 0x58 + n - 8]) for n in extra)
    head += w + b"\x8b\x24\x24"
    tail = save + _at(SAVED) + load + _at(CURSOR_OUT) + push + _at(SAVED)
    tail += b"".join(bytes([0x41, 0x50 + n - 8]) for n in reversed(extra))
    tail += bytes(0x50 + n for n in reversed(old)) + b"\x9c\x6a\x02\x9d"
    # The last push and pop use the word below a record: records come out one word apart.
    tail += add + _at(CURSOR_IN) + _at(size) + add + _at(CURSOR_OUT) + _at(size + bits // 8)
    tail += sub + _at(COUNT) + b"\x01"
    code = head + body + tail
    back = -(len(code) + 6)
    return code + b"\x0f\x85" + back.to_bytes(4, "little", signed=True) + b"\xf4", len(head)


def body_address(bits: int) -> int:
    """Where the body of every batch lies."""
    return CODE + _program(b"", bits)[1]


@dataclass(frozen=True, slots=True)
class Batch:
    """States: a word per state for each register, the flags, and (n, 64) bytes of slots."""

    registers: dict[str, Words]
    flags: Words
    slots: NDArray[np.uint8]
    memory: bytes = b""
    """What lies at PAGES, for moves of whole pages; and what lies there afterwards."""
    control: Mapping[str, int] = field(default_factory=dict)
    """Control registers as the CPU has them at first."""


def names(bits: int) -> tuple[str, ...]:
    """The registers of a record, in its order."""
    return (*ORDER, *(f"r{n}" for n in range(8, 16) if bits == 64), "rsp")


def run(body: bytes, before: Batch, bits: int) -> Batch:
    """The states after `body`, on Unicorn."""
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64 if bits == 64 else unicorn.UC_MODE_32)
    uc.mem_map(0, MEMORY)
    code, _ = _program(body, bits)
    for address, data in _world(code, before, bits):
        uc.mem_write(address, data)
    uc.reg_write(const.UC_X86_REG_GDTR, (0, GDT, len(GDT_WORDS) * 8 - 1, 0))
    if bits == 32:
        for name, selector in (("CS", 0x20), ("SS", 0x18), ("DS", 0x18), ("ES", 0x18)):
            uc.reg_write(getattr(const, f"UC_X86_REG_{name}"), selector)
    control = {name: uc.reg_read(getattr(const, f"UC_X86_REG_{name.upper()}")) for name in CONTROL}
    uc.emu_start(CODE, CODE + len(code) - 1)
    return _after(before, bits, control, lambda address, size: bytes(uc.mem_read(address, size)))


def run_on_kvm(device: Device, watchdog: Watchdog, body: bytes, before: Batch) -> Batch:
    """The states after `body` on this computer's CPU, in 64-bit code.

    Raises MachineError where it does not come to the end of the loop.
    """
    ram = Ram((Extent(0, MEMORY),))
    code, _ = _program(body, 64)
    tables = ((TABLES, TABLES + PAGE_SIZE | 3), (TABLES + PAGE_SIZE, TABLES + 2 * PAGE_SIZE | 3))
    pages = b"".join((n << 21 | LARGE).to_bytes(8, "little") for n in range(MEMORY >> 21))
    ram.write(TABLES + 2 * PAGE_SIZE, pages)
    for address, entry in tables:
        ram.write(address, entry.to_bytes(8, "little"))
    for address, data in _world(code, before, 64):
        ram.write(address, data)
    cpu = Cpu(
        physical_bits=device.physical_bits, nx=True, pse=True, pge=True, gbpages=True, la57=True
    )
    virtual = VirtualCpu(device, ram, cpu, watchdog)
    control = {"cr0": CR0_IN_KVM, "cr3": TABLES, "cr4": x86.CR4_PAE}
    selectors = {"cs": 0x10, **dict.fromkeys(("ss", "ds", "es", "fs", "gs"), 0x18)}
    try:
        virtual.load(
            Registers(
                general=dict.fromkeys(x86.GENERAL, 0),
                rip=CODE,
                rflags=x86.RFLAGS_FIXED,
                cr2=0,
                efer=x86.EFER_LME | x86.EFER_LMA,
                segments=selectors,
                gdt=(GDT, len(GDT_WORDS) * 8 - 1),
                idt=(0, 0),
                **control,
            ),
            {name: GDT_WORDS[selector >> 3] for name, selector in selectors.items()},
        )
        with watchdog.limit(KVM_SECONDS):
            left = virtual.go()
        rip = virtual.general()["rip"]
    finally:
        virtual.close()
    if left is None or left.reason != abi.EXIT_HLT or rip != CODE + len(code):
        raise MachineError(f"the batch ends at {rip - CODE:#x}: {left.name if left else 'no end'}")
    return _after(
        before, 64, control, lambda address, size: bytes(ram.read(Extent(address, address + size)))
    )


def _world(code: bytes, before: Batch, bits: int) -> Iterator[tuple[int, bytes]]:
    """What lies in memory at first: (address, bytes)."""
    count = len(before.flags)
    kind = np.dtype(f"<u{bits // 8}")
    columns = [before.flags, *(before.registers[name] for name in names(bits))]
    records = np.stack(columns, axis=1).astype(kind)
    size = records.shape[1] * (bits // 8)
    yield CODE, code
    yield RECORDS_IN, records.tobytes()
    yield SLOTS, before.slots.tobytes()
    yield GDT, b"".join(word.to_bytes(8, "little") for word in GDT_WORDS)
    if before.memory:
        yield PAGES, before.memory
    stride = size + bits // 8
    starts = ((CURSOR_IN, RECORDS_IN), (CURSOR_OUT, RECORDS_OUT + stride), (COUNT, count))
    for where, value in starts:
        yield where, value.to_bytes(bits // 8, "little")


def _after(
    before: Batch, bits: int, control: Mapping[str, int], read: Callable[[int, int], bytes]
) -> Batch:
    """The states that were stored."""
    count, word = len(before.flags), bits // 8
    stride = (len(names(bits)) + 2) * word
    out = np.frombuffer(read(RECORDS_OUT, stride * count), np.dtype(f"<u{word}"))
    table = out.reshape(count, -1)[:, 1:].astype(np.uint64)
    slots = np.frombuffer(read(SLOTS, SLOT * count), np.uint8)
    return Batch(
        registers={name: table[:, n + 1] for n, name in enumerate(names(bits))},
        flags=table[:, 0],
        slots=slots.reshape(count, SLOT),
        memory=read(PAGES, len(before.memory)) if before.memory else b"",
        control=control,
    )
