"""A sheet of questions to Bochs: tables and accesses in Bochs' RAM, and what has to come of each.

Rules: what has to come is said by `x86.walk` on a model of that RAM, access by access, with the
accessed and dirty bits that the CPU sets on the way.  The tables' slot 0 is the interpreter's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

from tests.bochs import machine
from tests.bochs.machine import NONE, STORED, Answer, Orders, marker
from tests.x86.modes import PGE, A, D, Mode
from tests.x86.worlds import MARKED, RAM_SIZE, TABLES
from tightrope.x86.walk import Access, Mmu, Refused, Translated, walk

AC = 1 << 18
KINDS = {Access.READ: 0, Access.WRITE: 1, Access.FETCH: 2}
Check = Callable[[Answer], None]


class Sheet:
    """The tables as they lie in Bochs' RAM, and the orders that bring them there."""

    def __init__(self, mode: Mode, *, user: bool) -> None:
        self.mode, self.user, self.root = mode, user, TABLES
        self.orders = Orders()
        self.checks: list[Check] = []
        """One for each answer that is due."""
        self.seen: Counter[str] = Counter()
        self._ram: dict[int, int] = dict(machine.identity(mode, user=user))
        self._root0 = self._ram[TABLES]

    def clear(self, start: int, size: int) -> None:
        """Zeros where anything is."""
        for at in [at for at, value in self._ram.items() if start <= at < start + size and value]:
            self._put(at, 0)

    def entry(self, table: int, index: int, value: int) -> None:
        """One page-table entry."""
        self._put(table + index * self.mode.entry_size, value)

    def lay_code(self) -> None:
        """The interpreter's own tables are there from the beginning; slot 0 of the root leads to them."""
        self._put(TABLES, self._root0)

    def _put(self, at: int, value: int) -> None:
        self._ram[at] = value
        if at != TABLES:  # the interpreter runs through slot 0: it is never gone
            self.orders.entry(at, value)

    def word(self, at: int, size: int) -> int | None:
        """What `x86.walk` reads with."""
        return self._ram.get(at, 0) if at + size <= RAM_SIZE else None

    def load(self, mmu: Mmu) -> None:
        """Bring the CPU into a paging state; what an older world left in the TLB is dropped with PGE."""
        if self.mode.entry_size == 8:
            self.orders.efer(mmu.efer)
        self.orders.cr0(mmu.cr0 | 1 << 4)
        self.orders.cr4(mmu.cr4 & ~PGE)
        self.orders.cr4(mmu.cr4 | PGE)
        self.orders.cr4(mmu.cr4)
        self.orders.flags(2 | (AC if mmu.ac else 0))

    def ask(self, mmu: Mmu, virt: int, access: Access) -> None:
        """One access, and what has to come of it."""
        said = walk(self.word, mmu, virt, access)
        here = f"{self.mode.name} {access} {virt:#x} {mmu} -> {said}"
        if isinstance(said, Refused) and "not in memory" in said.reason:
            self.seen["left out"] += 1
            return
        marked = isinstance(said, Refused) or MARKED <= said.phys < RAM_SIZE
        if access is Access.FETCH and not marked:
            self.seen["left out"] += 1
            return
        self.orders.cr3(TABLES)
        self.orders.access(KINDS[access], virt)
        if isinstance(said, Refused):
            self.seen[f"#{said.vector} {said.error_code:#x}"] += 1
            self.checks.append(partial(self._refused, said, virt, here))
            return
        self.seen["hole" if said.phys >= RAM_SIZE else f"{access} {said.page_size:#x}"] += 1
        self.checks.append(partial(self._answered, said, access, here))
        for number, visit in enumerate(said.visits):
            wanted = visit.entry
            if not (self.mode.name == "pae" and number == 0):
                wanted |= A
            if access is Access.WRITE and number == len(said.visits) - 1:
                wanted |= D
            self._ram[visit.at] = wanted
            self.orders.get_entry(visit.at)
            self.checks.append(partial(_is, wanted, here))
        if access is Access.WRITE and said.phys < RAM_SIZE:
            before = marker(said.phys) if said.phys >= MARKED else 0
            self.orders.get_physical(said.phys, before)
            low = before & 0xFFFF_FFFF_0000_0000 | STORED & 0xFFFF_FFFF
            self.checks.append(partial(_is, STORED if self._wide else low, here))

    @property
    def _wide(self) -> bool:
        return self.mode.linear_bits > 32

    @staticmethod
    def _refused(said: Refused, virt: int, here: str, got: Answer) -> None:
        assert (got.vector, got.error_code) == (said.vector, said.error_code), (here, got)
        if said.vector == 14:
            assert got.address == virt, (here, got)

    def _answered(self, said: Translated, access: Access, here: str, got: Answer) -> None:
        assert got.vector == (3 if access is Access.FETCH else NONE), (here, got)
        if access is Access.FETCH:
            assert got.value == said.phys // 8, (here, got)
        elif access is Access.READ and said.phys < RAM_SIZE:
            there = marker(said.phys) if said.phys >= MARKED else 0
            assert got.value == there & (1 << 64 if self._wide else 1 << 32) - 1, (here, got)

    def run(self, *, cr4: int, efer: int) -> None:
        """Ask Bochs everything, and hold each answer against what has to come."""
        answers = machine.run(self.mode, self.orders.done(), user=self.user, cr4=cr4, efer=efer)
        assert len(answers) == len(self.checks), answers[-1:]
        for check, answer in zip(self.checks, answers, strict=True):
            check(answer)


def _is(wanted: int, here: str, got: Answer) -> None:
    assert got.vector == NONE, (here, got)
    assert got.value == wanted, (here, hex(got.value), hex(wanted))
