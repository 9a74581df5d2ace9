"""The new kernel's MMU: its tables walked by our walker, answered in the way that costs least.

What takes time is not the walk.  Unicorn looks at each store to a page that may be executed, for
translated code that the store might hit: 70 ns, two thirds of what a decompressor takes.  To a page
that may not be executed it does so once, and then takes the short way (Unicorn 2.1.4,
accel/tcg/cputlb.c, notdirty_write()).  So a page is executable for it only when something was
executed from its frame:

    a frame that nothing was executed from    read, and write where the tables allow it
    a frame that has been code                all three where the tables allow it

Unicorn keeps 256 translations at first, and makes room for twice as many when it is told to forget
them while it has many; so it is told so at the sizes in `_GROW`.

Rules: accessed and dirty bits are written as a CPU would.  The first write to a page whose dirty
bit is clear is a question of its own.
"""

from __future__ import annotations

from tightrope.machine.unicorn.engine import Engine
from tightrope.memory import PAGE_SHIFT
from tightrope.x86.cpu import CR4_PAE, CR4_SMEP, EFER_LMA
from tightrope.x86.walk import Access, Mmu, Refused, Translated, walk

ACCESSED, DIRTY = 0x20, 0x40
_GROW = frozenset(512 * (2**n - 1) for n in range(1, 9))
"""After so many questions: each time twice as many as there was room for, so that it is full."""


class Translations:
    """See above.  `asked` counts the questions: a CPU that asks nothing more touches nothing
    new."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._state = engine.batch("cr0", "cr3", "cr4", "rflags", "cs")
        self._code: set[int] = set()
        self._data: dict[int, int] = {}
        """Frame -> the page that it was last written or read through, while it was no code."""
        self.asked = 0

    def mmu(self) -> Mmu:
        """The state that a translation depends on, now."""
        cr0, cr3, cr4, flags, cs = self._state.read()
        return Mmu(
            cr0=cr0,
            cr3=cr3,
            cr4=cr4,
            efer=self._engine.efer(),
            physical_bits=52,
            user=cs & 3 == 3,
            ac=bool(flags & 1 << 18),
        )

    def walk(self, virt: int, access: Access) -> Translated | Refused:
        """Where an address leads, without a trace in the tables."""
        return walk(self._engine.ram.word, self.mmu(), virt, access)

    def answer(self, page: int, access: Access) -> Refused | tuple[int, frozenset[Access]]:
        """The physical page, and what else may be done there without another question."""
        mmu = self.mmu()
        got = walk(self._engine.ram.word, mmu, page, access)
        if isinstance(got, Refused):
            return got
        self.asked += 1
        if self.asked in _GROW:
            self._engine.forget_translations()
        if got.sets_accessed:
            self._mark(got, mmu, access)
        frame = got.phys >> PAGE_SHIFT
        also = {Access.READ, access}
        if access is Access.FETCH and frame not in self._code:
            self._code.add(frame)
            if self._data.pop(frame, page) != page:
                # Stores through the other page would go the short way, past the code that is here
                # now.
                self._engine.forget_translations()
        if frame in self._code:
            if got.executable and not (got.user and mmu.cr4 & CR4_SMEP):
                also.add(Access.FETCH)
        else:
            self._data[frame] = page
        dirty = not got.visits or bool(got.visits[-1].entry & DIRTY)
        if got.writable and dirty:
            also.add(Access.WRITE)
        return got.phys, frozenset(also)

    def _mark(self, got: Translated, mmu: Mmu, access: Access) -> None:
        """Set the accessed bits on the way, and the dirty bit of a page that is written (SDM
        4.8)."""
        long_mode = bool(mmu.efer & EFER_LMA)
        size = 8 if long_mode or mmu.cr4 & CR4_PAE else 4
        for number, visit in enumerate(got.visits):
            if visit.level == "PDPT" and not long_mode:
                continue  # PAE's PDPTEs have no accessed bit
            last = number == len(got.visits) - 1
            bits = ACCESSED | (DIRTY if last and access is Access.WRITE else 0)
            self._engine.ram.write(visit.at, (visit.entry | bits).to_bytes(size, "little"))
