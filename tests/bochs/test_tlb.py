"""What Bochs' TLB and its PDPTE registers keep, against the worst case that `machine.mmu` assumes.

A page is read, its entry is led elsewhere, something that may flush happens, and the page is read again.
Bochs really keeps what it may, so both ways show: whatever it answers is the new frame or one that
`WatchedMmu` calls stale, and a global entry does survive a write of CR3.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.bochs import machine
from tests.bochs.machine import NONE, Answer, Orders
from tests.bochs.test_walk_against_bochs import BOCHS_MODES
from tests.x86.modes import MODES, NXE, PG_PE_WP, PGE, RW, SMEP, A, D, G, Mode, P
from tests.x86.worlds import TABLES
from tightrope.memory import Extent, Phys
from tightrope.model import Cpu, Registers, Step
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.physical import Ram
from tightrope.x86.walk import Access, Refused, load_pdptes, walk

ONE, OTHER = 0x40_0000, 0x40_1000
"""Two frames of the marked RAM."""
OPEN = P | RW | A | D
SLOT = 3
CPU = Cpu(physical_bits=40, nx=True, pse=True, pge=True, gbpages=True, la57=False)

# What may flush: an order to Bochs, and the same for WatchedMmu.
Happening = tuple[Callable[[Orders, Mode, int], None], Callable[[WatchedMmu, Mode, int], None]]


def _cr4(*values: int) -> Happening:
    def orders(out: Orders, mode: Mode, _virt: int) -> None:
        for each in values:
            out.cr4(mode.cr4 ^ each)

    def watched(mmu: WatchedMmu, mode: Mode, _virt: int) -> None:
        for each in values:
            mmu.write_cr4(mode.cr4 ^ each)

    return orders, watched


def _then(*steps: Happening) -> Happening:
    def orders(out: Orders, mode: Mode, virt: int) -> None:
        for order, _ in steps:
            order(out, mode, virt)

    def watched(mmu: WatchedMmu, mode: Mode, virt: int) -> None:
        for _, each in steps:
            each(mmu, mode, virt)

    return orders, watched


CR3: Happening = (
    lambda out, _mode, _virt: out.cr3(TABLES),
    lambda mmu, _mode, _virt: mmu.write_cr3(TABLES),
)
INVLPG: Happening = (
    lambda out, _mode, virt: out.invlpg(virt),
    lambda mmu, _mode, virt: mmu.invlpg(virt),
)
HAPPENINGS = {
    "CR3": CR3,
    "CR3 twice": _then(CR3, CR3),
    "CR3, then INVLPG": _then(CR3, INVLPG),
    "CR3, then PGE off": _then(CR3, _cr4(PGE)),
    "CR3, then PGE off and on": _then(CR3, _cr4(PGE, 0)),
    "CR3, then SMEP on": _then(CR3, _cr4(SMEP)),
    "PGE off, then CR3": _then(_cr4(PGE), CR3),
}
KEPT = {"CR3", "CR3 twice"}
"""After these Bochs still has a global translation; SMEP flushes its TLB, which the manual leaves open."""


class Tables:
    """One page, mapped by tables of its own under slot 3 of the root; the rest is the interpreter's."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.entries = dict(machine.identity(mode, user=False))
        self.virt = mode.address([SLOT] * mode.levels)
        table = TABLES
        for level in range(mode.levels - 1):
            below = TABLES + 0x1000 * (level + 1)
            at = table + SLOT * mode.entry_size
            self.entries[at] = below | (P if mode.name == "pae" and level == 0 else OPEN)
            table = below
        self.leaf = table + SLOT * mode.entry_size

    def orders(self) -> Orders:
        out = Orders()
        for at, value in self.entries.items():
            if at >= TABLES and at != TABLES:
                out.entry(at, value)
        return out

    def ram(self) -> Ram:
        out = Ram((Extent(0, 8 << 20),))
        for at, value in self.entries.items():
            out.write(Phys(at), value.to_bytes(self.mode.entry_size, "little"))
        return out

    def registers(self) -> Registers:
        return Registers(
            general={}, rip=0, rflags=2, cr0=PG_PE_WP | 0x30, cr2=0, cr3=TABLES, cr4=self.mode.cr4,
            efer=self.mode.efer, segments={}, gdt=(0, 0), idt=(0, 0),
        )  # fmt: skip

    def ask(self, orders: Orders) -> list[Answer]:
        mode = self.mode
        return machine.run(mode, orders.done(), user=False, cr4=mode.cr4, efer=mode.efer)


@pytest.mark.parametrize("mode", BOCHS_MODES, ids=lambda mode: mode.name)
def test_what_bochs_remembers_is_what_the_worst_case_allows(mode: Mode) -> None:
    tables = Tables(mode)
    orders, expected = tables.orders(), []
    for name, (order, happen) in HAPPENINGS.items():
        for flags in (OPEN, OPEN | G):
            tables.entries[tables.leaf] = ONE | flags
            orders.entry(tables.leaf, ONE | flags)
            orders.cr4(mode.cr4 ^ PGE)
            orders.cr4(mode.cr4)
            orders.access(0, tables.virt)
            ram = tables.ram()
            page = tables.leaf & -0x1000
            frozen = {page: bytes(ram.read(Extent.sized(page, 0x1000)))}
            mmu = WatchedMmu(ram, CPU, tables.registers(), frozen)
            orders.entry(tables.leaf, OTHER | flags)
            ram.write(Phys(tables.leaf), (OTHER | flags).to_bytes(mode.entry_size, "little"))
            order(orders, mode, tables.virt)
            orders.access(0, tables.virt)
            happen(mmu, mode, tables.virt)
            now = mmu.translate(tables.virt, Access.READ, instruction=0, step=Step.CALL)
            allowed = {now, *(each.phys for each in mmu.log[-1].stale)}
            expected.append((name, flags, allowed))
    answers = tables.ask(orders)
    assert len(answers) == 2 * len(expected)
    for (name, flags, allowed), first, second in zip(
        expected, answers[::2], answers[1::2], strict=True
    ):
        assert (first.vector, _frame(first)) == (NONE, ONE), name
        assert second.vector == NONE, name
        assert _frame(second) in allowed, (name, flags)
        kept = name in KEPT and bool(flags & G)
        assert _frame(second) == (ONE if kept else OTHER), (name, flags)
        assert len(allowed) == 1 or flags & G, name


def _frame(answer: Answer) -> int:
    """The physical address that a marker says it has; its low half tells."""
    return (answer.value & 0xFFFF_FFFF) >> 8 << 3


def test_pdptes_are_those_of_the_last_load_of_cr3() -> None:
    mode = MODES["pae"]
    tables = Tables(mode)
    tables.entries[tables.leaf] = ONE | OPEN
    pdpte = TABLES + 8 * SLOT
    good = tables.entries[pdpte]
    orders = tables.orders()
    orders.cr3(TABLES)
    orders.entry(pdpte, 0)
    orders.access(0, tables.virt)
    orders.cr3(TABLES)
    orders.access(0, tables.virt)
    kept, gone = tables.ask(orders)
    ram = tables.ram()
    loaded = load_pdptes(ram.word, mode.mmu(TABLES, physical_bits=40))
    assert isinstance(loaded, tuple)
    ram.write(Phys(pdpte), bytes(8))
    said = walk(
        ram.word, mode.mmu(TABLES, physical_bits=40, pdptes=loaded), tables.virt, Access.READ
    )
    assert not isinstance(said, Refused)
    assert (kept.vector, _frame(kept), said.phys) == (NONE, ONE, ONE)
    then = walk(ram.word, mode.mmu(TABLES, physical_bits=40), tables.virt, Access.READ)
    assert isinstance(then, Refused)
    assert (gone.vector, gone.error_code) == (then.vector, then.error_code) == (14, 0)
    assert good & P


@pytest.mark.parametrize("bit", [1, 2, 5, 6, 7, 8, 40, 51, 52, 62, 63])
def test_a_reserved_bit_in_a_pdpte_is_refused_where_bochs_refuses_it(bit: int) -> None:
    """All bits in one run would be faster, but a refused CR3 leaves what was loaded before."""
    mode = MODES["pae"]
    tables = Tables(mode)
    tables.entries[tables.leaf] = ONE | OPEN
    pdpte = TABLES + 8 * SLOT
    orders = tables.orders()
    orders.cr3(TABLES)
    orders.efer(NXE)
    orders.entry(pdpte, tables.entries[pdpte] | 1 << bit)
    orders.cr3(TABLES)
    orders.access(0, tables.virt)
    refused, after = tables.ask(orders)
    ram = tables.ram()
    ram.write(Phys(pdpte), (tables.entries[pdpte] | 1 << bit).to_bytes(8, "little"))
    said = load_pdptes(ram.word, mode.mmu(TABLES, physical_bits=40))
    assert isinstance(said, Refused)
    assert (refused.vector, refused.error_code) == (said.vector, said.error_code) == (13, 0)
    assert (after.vector, _frame(after)) == (NONE, ONE)
