"""Which of the six steps an instruction belongs to, told from what it does.

    1 CALL       from V on
    2 TABLE_A    the first write of CR3 (on a way out of long mode, the first one at V)
    3 STATE      the first instruction that sets rsp, a segment, the gdt or the idt
    4 IDENTITY   the indirect jump that leaves the page at V
    5 TABLE_B    the next write of a control register
    6 COPY       what follows the CR3 write of step 5

Rules: steps only go forward, and nothing here knows a routine's labels, so that somebody else's
relocation code is told apart in the same way.
"""

from __future__ import annotations

from tightrope.memory import PAGE_SIZE, Virt, align_down
from tightrope.model import Step


class StepTracker:
    """The current step; `starts` keeps where each began."""

    def __init__(self, virt: Virt, *, way_out: bool = False) -> None:
        """V; with `way_out` other code comes before it, and loads tables of its own."""
        self.step = Step.CALL
        self.starts: list[tuple[int, Step]] = [(0, Step.CALL)]
        self._page = align_down(virt, PAGE_SIZE)
        self._table_b_loaded = False
        self._way_out = way_out

    def _go(self, index: int, step: Step) -> None:
        if step > self.step:
            self.step = step
            self.starts.append((index, step))

    def control_write(self, index: int, register: str, rip: int | None = None) -> None:
        """A write of CR0, CR3 or CR4 is about to run, at `rip`; None stands for V."""
        before_v = rip is not None and align_down(rip, PAGE_SIZE) != self._page
        if self._way_out and self.step is Step.CALL and before_v:
            return
        if self.step >= Step.IDENTITY:
            self._go(index, Step.TABLE_B)
            self._table_b_loaded = self._table_b_loaded or register == "cr3"
        elif register == "cr3":
            self._go(index, Step.TABLE_A)

    def after_control_write(self, index: int) -> None:
        """The next instruction: with page_table_b loaded, the copy begins."""
        if self._table_b_loaded:
            self._go(index, Step.COPY)

    def sets_state(self, index: int) -> None:
        """rsp, a segment register or a descriptor table is about to be loaded."""
        if self.step == Step.TABLE_A:
            self._go(index, Step.STATE)

    def indirect_jump(self, index: int, rip: int) -> None:
        """A jump whose target is data is about to run."""
        if self.step in (Step.TABLE_A, Step.STATE) and align_down(rip, PAGE_SIZE) == self._page:
            self._go(index, Step.IDENTITY)
