"""x86.walk against a CPU that nobody here wrote: Unicorn's own MMU, access by access.

Seeded worlds of random tables; in each, reads, writes and fetches at CPL 0 and 3.  Compared are the
physical address (from the marker that lies there, from where a store landed, or from Unicorn's own
complaint about a hole) and the accessed and dirty bits, or the fault: vector, error code, CR2.

What Unicorn 2.1 does otherwise than the manual is kept out of the worlds, and only that:
- MAXPHYADDR is 40, whatever CPUID says (SDM 4.1.4): `physical_bits` is 40 here.
- Reserved bits of PAE's PDPTEs are not checked (SDM 4.4.1: MOV to CR3 raises #GP): never set here.
- PDPTEs are re-read at each walk, and a CR3 write flushes global entries too (SDM 4.4.1, 4.10.4.1):
  CR3 is written before each access, so that nothing is cached.
- A non-canonical address through RSP gives #GP instead of #SS (SDM volume 1, 3.3.7.1): the stack is not used.
Default CPU models drop CR4.SMAP in silence: the model is Icelake-Server.
"""

from __future__ import annotations

import ctypes
import importlib
import mmap
import random
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from tests.x86.modes import (
    MODES,
    RW,
    SMEP,
    US,
    A,
    D,
    Mode,
    P,
)
from tests.x86.worlds import MARKED, RAM_SIZE, TABLES, World
from tightrope.machine.unicorn.context import ExceptionState
from tightrope.x86.walk import Access, Mmu, Refused, Translated, walk

if TYPE_CHECKING:
    from tightrope.machine.unicorn.engine import Engine

ACCESSES_PER_WORLD = 24
WORLDS = 525
"""For each of four formats at CPL 0 and 3: 4 * 2 * 525 * 24 = 100,800 cases."""

GDT, CODE, STACK = 0x1000, 0x2000, 0x3000
CODE_TABLES = 0x10000
LOAD, STORE = 0x10, 0x20
STORED = 0x5A5A_5A5A_5A5A_5A5A
AC = 1 << 18

DESCRIPTORS = {
    4: (0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x00CF_FB00_0000_FFFF, 0x00CF_F300_0000_FFFF),
    8: (0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x00AF_FB00_0000_FFFF, 0x00CF_F300_0000_FFFF),
}
"""Ring-0 code and data, ring-3 code and data, by the bytes of a word (SDM figure 3-8)."""


class Lab:
    """One Unicorn CPU at one privilege level, on page tables that change under it."""

    def __init__(self, mode: Mode, *, user: bool) -> None:
        self.mode, self.user = mode, user
        self.ram = mmap.mmap(-1, RAM_SIZE)
        self.words = np.frombuffer(self.ram, np.uint64)
        at = np.arange(MARKED // 8, RAM_SIZE // 8, dtype=np.uint64)
        self.words[MARKED // 8 :] = np.uint64(0xB8) | at << np.uint64(8) | np.uint64(0xF4 << 40)
        self._start()

    def _start(self) -> None:
        unicorn: Any = importlib.import_module("unicorn")
        self.x86: Any = importlib.import_module("unicorn.x86_const")
        self.failed: type[Exception] = unicorn.UcError
        word = 8 if self.mode.linear_bits > 32 else 4
        uc = unicorn.Uc(
            unicorn.UC_ARCH_X86, unicorn.UC_MODE_64 if word == 8 else unicorn.UC_MODE_32
        )
        uc.ctl_set_cpu_model(self.x86.UC_CPU_X86_ICELAKE_SERVER)
        uc.ctl_set_tlb_mode(unicorn.UC_TLB_CPU)
        self._pin = ctypes.c_char.from_buffer(self.ram)
        uc.mem_map_ptr(0, RAM_SIZE, unicorn.UC_PROT_ALL, ctypes.addressof(self._pin))
        self.uc = uc
        self.registers = {
            name: getattr(self.x86, f"UC_X86_REG_{name.upper()}")
            for name in ("cr0", "cr2", "cr3", "cr4", "eflags", "msr", "gdtr")
        }
        wide = {"ax": "RAX", "bx": "RBX", "sp": "RSP"} if word == 8 else {}
        for name in ("ax", "bx", "sp"):
            full = wide.get(name, f"E{name.upper()}")
            self.registers[name] = getattr(self.x86, f"UC_X86_REG_{full}")
        rex = b"\x48" if word == 8 else b""
        self.put(CODE, b"\x48\xcf" if word == 8 else b"\xcf")  # iretq, iretd
        self.put(CODE + LOAD, rex + b"\x8b\x03")  # mov (%rbx), %rax
        self.put(CODE + STORE, rex + b"\x89\x03")  # mov %rax, (%rbx)
        for slot, descriptor in enumerate(DESCRIPTORS[word], 1):
            self.put(GDT + 8 * slot, descriptor.to_bytes(8, "little"))
        self.write("gdtr", (0, GDT, 0x27, 0))
        self.root = TABLES
        self.lay_code()
        self.faults: list[int] = []
        self.holes: list[int] = []
        uc.hook_add(unicorn.UC_HOOK_INTR, self._fault)
        uc.hook_add(unicorn.UC_HOOK_MEM_UNMAPPED, self._hole)
        self.exception = ExceptionState(cast("Engine", SimpleNamespace(uc=uc)))
        self.enter(self.mode.mmu(self.root))
        if self.user:
            frame = (CODE + LOAD, 0x1B, 2, STACK + 0x800, 0x23)
            self.put(STACK, b"".join(value.to_bytes(word, "little") for value in frame))
            self.write("sp", STACK)
            uc.emu_start(CODE, 0, count=1)
            assert not self.faults
            assert uc.reg_read(self.x86.UC_X86_REG_CS) == 0x1B

    def put(self, at: int, data: bytes) -> None:
        """Bytes into RAM."""
        self.ram[at : at + len(data)] = data

    def word(self, at: int, size: int) -> int | None:
        """What `x86.walk` reads with."""
        if at + size > RAM_SIZE:
            return None
        return int.from_bytes(self.ram[at : at + size], "little")

    def clear(self, start: int, size: int) -> None:
        """Zeros into RAM."""
        self.ram[start : start + size] = bytes(size)

    def write(self, name: str, value: object) -> None:
        """One register."""
        self.uc.reg_write(self.registers[name], value)

    def read(self, name: str) -> int:
        """One register."""
        return int(self.uc.reg_read(self.registers[name]))

    def entry(self, table: int, index: int, value: int) -> None:
        """One page-table entry."""
        size = self.mode.entry_size
        self.put(table + index * size, value.to_bytes(size, "little"))

    def lay_code(self) -> None:
        """Map GDT, code and stack at themselves, by slot 0 of the root; user pages at CPL 3 only."""
        rights = P | RW | A | (US if self.user else 0)
        table = self.root
        for level in range(self.mode.levels - 1):
            below = CODE_TABLES + 0x1000 * level
            pdpt = self.mode.name == "pae" and level == 0
            self.entry(table, 0, below | (P if pdpt else rights))
            table = below
        for page in (GDT, CODE, STACK):
            self.entry(table, page >> 12, page | rights | D)

    def enter(self, mmu: Mmu) -> None:
        """Put the CPU into a paging state; PAE and LME before PG."""
        self.write("cr4", mmu.cr4)
        self.write("msr", (0xC000_0080, mmu.efer))
        self.write("cr3", mmu.cr3)
        self.write("cr0", mmu.cr0 | 1 << 4)  # ET is always set (SDM 2.5)
        assert self.read("cr4") == mmu.cr4

    def _fault(self, uc: Any, vector: int, _data: object) -> None:
        self.faults.append(vector)
        uc.emu_stop()

    def _hole(self, _uc: Any, _kind: int, at: int, _size: int, _value: int, _data: object) -> bool:
        self.holes.append(at)
        return False

    def access(self, virt: int, access: Access) -> None:
        """One instruction that makes this access; what came of it is in `faults` and `holes`."""
        self.faults.clear()
        self.holes.clear()
        self.write("cr3", self.root)
        self.write("bx", virt)
        self.write("ax", STORED)
        begin = {Access.READ: CODE + LOAD, Access.WRITE: CODE + STORE, Access.FETCH: virt}[access]
        try:
            self.uc.emu_start(begin, 0, count=1)
        except self.failed:
            assert self.holes


def compare(lab: Lab, mmu: Mmu, virt: int, access: Access) -> str:
    """Ask both sides; AssertionError where they differ, else the sort of case this was."""
    said = walk(lab.word, mmu, virt, access)
    here = f"{lab.mode.name} {access} {virt:#x} {mmu} -> {said}"
    before = [lab.word(visit.at, lab.mode.entry_size) for visit in said.visits]
    lab.access(virt, access)
    if isinstance(said, Refused):
        assert lab.faults == [said.vector], (here, lab.holes)
        assert lab.exception.error_code() == said.error_code, here
        if said.vector == 14:
            assert lab.read("cr2") == virt, here
        lab.exception.forget()
        return f"#{said.vector} {said.error_code:#x}"
    assert not lab.faults, (here, lab.faults, hex(lab.exception.error_code()))
    set_by_unicorn = before != [lab.word(visit.at, lab.mode.entry_size) for visit in said.visits]
    assert said.sets_accessed == set_by_unicorn, here
    if said.phys >= RAM_SIZE:
        assert lab.holes == [said.phys], (here, [hex(at) for at in lab.holes])
        return "hole"
    check_marker(lab, said, access, here)
    return f"{access} {said.page_size:#x}"


def check_marker(lab: Lab, said: Translated, access: Access, here: str) -> None:
    """The access reached the very bytes that the walk named."""
    assert said.phys >= MARKED, here
    mark = int(lab.words[said.phys // 8])
    full = (1 << 64) - 1 if lab.mode.linear_bits > 32 else 0xFFFF_FFFF
    if access is Access.READ:
        assert lab.read("ax") == mark & full, here
    elif access is Access.FETCH:
        assert lab.read("ax") == said.phys // 8, here
    else:
        assert mark & full == STORED & full, here
        lab.words[said.phys // 8] = 0xB8 | said.phys // 8 << 8 | 0xF4 << 40


@pytest.mark.parametrize("user", [False, True], ids=["cpl0", "cpl3"])
@pytest.mark.parametrize("mode", MODES.values(), ids=lambda mode: mode.name)
def test_walk_agrees_with_unicorns_own_mmu(mode: Mode, user: bool) -> None:
    rng = random.Random(f"{mode.name} {user}")
    lab = Lab(mode, user=user)
    seen: Counter[str] = Counter()
    for _ in range(WORLDS):
        world = World(lab, rng)
        lab.enter(world.mmu)
        lab.write("eflags", 2 | (AC if world.mmu.ac else 0))
        for _ in range(ACCESSES_PER_WORLD):
            seen[compare(lab, world.mmu, world.address(), rng.choice(list(Access)))] += 1
    assert sum(seen.values()) == WORLDS * ACCESSES_PER_WORLD
    assert expected_sorts(mode, user=user) <= set(seen)


def expected_sorts(mode: Mode, *, user: bool) -> set[str]:
    """What a run has to have met, or it has compared less than it says."""
    codes = [0x0, 0x2, 0x10, 0x1, 0x3, 0x11, 0x9, 0xB, 0x19]
    sorts = {f"#14 {code | (4 if user else 0):#x}" for code in codes}
    sorts |= {f"{access} {size:#x}" for access in Access for size in mode.page_sizes}
    return sorts | {"hole"} | ({"#13 0x0"} if mode.linear_bits > 32 else set())


def test_a_walk_that_is_wrong_about_one_bit_would_be_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = walk

    def blind_to_smep(read: Any, mmu: Mmu, virt: int, access: Access) -> Translated | Refused:
        return real(read, replace(mmu, cr4=mmu.cr4 & ~SMEP), virt, access)

    monkeypatch.setitem(globals(), "walk", blind_to_smep)
    with pytest.raises(AssertionError):
        test_walk_agrees_with_unicorns_own_mmu(MODES["x86_64"], user=False)
