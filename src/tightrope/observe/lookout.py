"""A watch for a CPU that reports nothing while it runs, so everything is asked before an
instruction.

Unicorn calls back for each access that it makes.  A virtual CPU does not, so what an instruction is
going to fetch, read and write is worked out from its operands, and translated, before it runs.

Rules: memory is only looked at; the CPU itself writes it.
"""

from __future__ import annotations

from tightrope.memory import PAGE_SIZE
from tightrope.model import Buffer
from tightrope.observe.decode import Kind
from tightrope.observe.expectations import Expectations
from tightrope.observe.known_code import KnownCode
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.observed import ObservedCpu
from tightrope.observe.steps import StepTracker
from tightrope.observe.watch import Watch
from tightrope.x86.walk import Access

INVALID_OPCODE = 6


class Lookout(Watch):
    """See `Watch`; `ahead` is called for each instruction instead of an engine's hooks."""

    def __init__(
        self,
        cpu: ObservedCpu,
        mmu: WatchedMmu,
        steps: StepTracker,
        expected: Expectations,
        limit: int,
    ) -> None:
        super().__init__(cpu, mmu, steps, expected, limit, KnownCode(cpu.ram))
        self._cpu = cpu

    def ahead(self, rip: int) -> None:
        """The CPU stands at `rip`: everything that its next instruction will ask of the MMU."""
        if self._mmu.cached(rip, Access.FETCH) is None:
            self.translation(rip & -PAGE_SIZE, Access.FETCH)
        phys = self._mmu.cached(rip, Access.FETCH)
        if phys is not None and self.memory.view(phys, 1) is None and not self.over:
            self.hole(phys)
        if self.over:
            return
        self.instruction(rip)
        operation = self.current()
        if operation is not None and operation.cut and not self.over:
            # It runs on into the next page, which its bytes could not be read from.
            self.translation((rip & -PAGE_SIZE) + PAGE_SIZE, Access.FETCH)
        self._will_touch()

    def _will_touch(self) -> None:
        """The data accesses of the instruction that is about to run."""
        operation = self.current()
        if self.over or operation is None:
            return
        raised = operation.raises
        if not operation.valid or raised == INVALID_OPCODE:
            self.invalid()
        elif raised is not None:
            self.exception(raised, explained=True)
        elif operation.kind is not Kind.STRING or not self._moved():
            for address, size, access in self.touches(operation):
                self._touch(address, size, access)

    def _moved(self) -> bool:
        """The string move that is about to run was recorded as copies; otherwise its first element
        is looked at, and the rest is the CPU's."""
        return len(self.copies) > 0 and self.copies[-4] == self.index

    def copy(self, into: memoryview, what: Buffer) -> None:
        """The CPU copies."""

    def mark(self, access_byte: memoryview) -> None:
        """The CPU writes it."""

    def _touch(self, address: int, size: int, access: Access) -> None:
        """One data access, page by page."""
        while size and not self.over:
            part = min(size, PAGE_SIZE - address % PAGE_SIZE)
            phys = self._mmu.cached(address, access)
            if phys is None and access is Access.READ:
                # What may be written may be read: a CPU does not ask again.
                phys = self._mmu.cached(address, Access.WRITE)
            if phys is None:
                page = self.translation(address & -PAGE_SIZE, access)
                if page is None:
                    return
                phys = self._mmu.cached(address, access)
                assert phys is not None
            if self.memory.view(phys, part) is None:
                self.hole(phys)
                return
            self.access(access is Access.WRITE, phys, part)
            address += part
            size -= part
