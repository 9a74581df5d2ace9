"""The contract of the relocation code, played in plain Python: a machine for tests.

No machine code runs.  The six steps are done as the thread describes them: the same registers are
written in the same order, every address goes through the same MMU, the page list is followed word by
word.  So checks can be tested without an engine, and the emulator has a second opinion: on a sound
handover both must leave the same memory, copies and registers.

Rules: what the code itself might do wrong cannot be seen here, and `blind` says so.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tightrope.errors import MachineError
from tightrope.machine.expected import expectations
from tightrope.machine.layout import lay
from tightrope.machine.port import Ends, Progress
from tightrope.memory import PAGE_SIZE, Virt
from tightrope.model import (
    Bare,
    Console,
    Fault,
    Handover,
    Protocol,
    RegisterWrite,
    Run,
    Step,
    Stop,
    WayOut,
)
from tightrope.observe.delivery import follow
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.physical import Ram, backed
from tightrope.x86 import cpu as x86
from tightrope.x86.walk import Access, Refused

CODE, DATA = 0x10, 0x18
KEPT_CR4 = x86.CR4_PAE | x86.CR4_LA57
KNOWN_CR0 = 0x8000_0033
DESTINATION, INDIRECTION, DONE, SOURCE, ZERO = 1, 2, 4, 8, 16


class _Fell(Exception):
    """A translation was refused."""

    def __init__(self, virt: int, access: Access, refused: Refused) -> None:
        super().__init__(refused.reason)
        self.virt, self.access, self.refused = virt, access, refused


class Fake:
    """See `machine.port.Machine`."""

    name = "fake"
    blind = ("the relocation code and the entry stub: their contract is played, not run",)

    def run(self, handover: Handover) -> Run:
        """Play the walk.  Raises MachineError when there is no room, or for code at V that it does not know."""
        if handover.at_v is not None:
            raise MachineError(f"the fake machine cannot play {handover.at_v.name}")
        return _Play(handover).run(self.name, self.blind)

    def close(self) -> None:
        """Nothing is held."""

    def console(self, *, seconds: float, ends: Ends, progress: Progress) -> Console:
        """There is no code to listen to.  Raises MachineError."""
        raise MachineError("the fake machine runs no code: there is no console")


class _Play:
    """One walk."""

    def __init__(self, handover: Handover) -> None:
        plan, host = handover.intent, handover.host
        self.handover = handover
        self.ram = Ram(backed(host.memory, host.firmware))
        lay(handover, self.ram)
        expected = expectations(handover)
        self.mmu = WatchedMmu(self.ram, host.cpu, handover.registers, expected.tables)
        self.steps = expected.steps()
        self.index = -1
        self.writes: list[RegisterWrite] = []
        self.trace: list[int] = []
        self.stores: list[tuple[int, int, int, int]] = []
        self.loads: list[tuple[int, int, int, int]] = []
        self.copies: list[tuple[int, int, int, int]] = []
        self.registers = handover.registers
        self.top = plan.control_page + PAGE_SIZE
        self.word = plan.word

    # -------------------------------------------------------------------------------- the means

    def _at(self, virt: int) -> None:
        """The next instruction, fetched at `virt`."""
        self._translate(virt, Access.FETCH)
        self.index += 1
        self.trace.append(virt)
        self.registers = replace(self.registers, rip=virt)

    def _translate(self, virt: int, access: Access) -> int:
        got = self.mmu.translate(virt, access, instruction=self.index, step=self.steps.step)
        if isinstance(got, Refused):
            raise _Fell(virt, access, got)
        return got

    def _write(self, register: str, before: int, after: int) -> None:
        self.writes.append(
            RegisterWrite(
                instruction=self.index,
                step=self.steps.step,
                rip=Virt(self.registers.rip),
                register=register,
                before=before,
                after=after,
            )
        )

    def _push(self, virt: int, value: int, word: int) -> None:
        phys = self._translate(virt, Access.WRITE)
        self.ram.write(phys, value.to_bytes(word, "little"))
        self.stores.append((self.index, self.steps.step, phys, word))

    # -------------------------------------------------------------------------------- the steps

    def run(self, name: str, blind: tuple[str, ...]) -> Run:
        """All six, or as far as it goes."""
        fault = None
        try:
            if self.handover.world.way_out is not None:
                self._leave_long_mode(self.handover.world.way_out)
            self._to_identity()
            self._table_b()
            self._copy()
            self._enter()
        except _Fell as fell:
            fault = self._fault(fell)
        descriptors = {}
        if fault is None:
            segments = self.registers.segments
            slots = {
                selector: x86.flat_descriptor(code=selector == CODE, bits=self._entry_bits())
                for selector in (CODE, DATA)
            }
            descriptors = {key: slots[value] for key, value in segments.items()}
        return Run(
            machine=name,
            stop=Stop.FAULT if fault else Stop.ENTRY,
            instructions=self.index + 1,
            trace=np.array(self.trace, np.uint64),
            texts={},
            step_starts=tuple(self.steps.starts),
            translations=tuple(self.mmu.log),
            register_writes=tuple(self.writes),
            stores=np.array(self.stores, np.int64).reshape(-1, 4),
            loads=np.array(self.loads, np.int64).reshape(-1, 4),
            copies=np.array(self.copies, np.int64).reshape(-1, 4),
            fault=fault,
            registers=self.registers,
            memory=self.ram,
            descriptors=descriptors,
            blind=blind,
        )

    def _leave_long_mode(self, way: WayOut) -> None:
        """Before V: from the hypervisor's text in long mode to PAE paging."""
        old = self.registers
        self._at(way.virt)
        self._write("rflags", old.rflags, x86.RFLAGS_FIXED)
        self._control("cr3", way.wide.root)
        self._control("cr4", x86.CR4_PAE)
        self._at(way.code)
        self._control("cr0", old.cr0 & ~x86.CR0_PG)
        self._control("cr3", way.narrow.root)
        efer = old.efer & ~(x86.EFER_LME | x86.EFER_LMA)
        self._write("efer", self.mmu.mmu.efer, efer)
        self.mmu.write_efer(efer)
        self._control("cr0", old.cr0)
        self.registers = replace(
            old, cr3=way.narrow.root, cr4=x86.CR4_PAE, efer=efer, rflags=x86.RFLAGS_FIXED
        )

    def _to_identity(self) -> None:
        """Steps 1 to 4: from V under the tables of the call to P under page_table_a."""
        plan, old = self.handover.intent, self.registers
        virt, control = plan.relocation, plan.control_page
        self._at(virt)
        self._write("rflags", old.rflags, x86.RFLAGS_FIXED)
        self._at(virt)
        self.steps.control_write(self.index, "cr3", virt)
        self._write("cr3", old.cr3, self.handover.page_table_a.root)
        self.mmu.write_cr3(self.handover.page_table_a.root)
        self._at(virt)
        self._write("cr4", old.cr4, old.cr4 & KEPT_CR4)
        self.mmu.write_cr4(old.cr4 & KEPT_CR4)
        self._at(virt)
        self.steps.sets_state(self.index)
        self._write("rsp", old.general["rsp"], self.top)
        self._push(self.top - self.word, 0, self.word)
        self._write("idt", 0, 0)
        self._write("gdt", 0, control << 16 | 0x1F)
        for register in ("ds", "es", "ss", "fs", "gs"):
            self._write(register, 0, DATA)
        self.steps.indirect_jump(self.index, virt)
        self._write("cs", old.segments["cs"], CODE)
        self._at(control)

    def _control(self, register: str, value: int) -> None:
        """One control-register write, followed by a fetch where the CPU now runs."""
        now = self.mmu.mmu
        self.steps.control_write(self.index, register, self.registers.rip)
        before = {"cr0": now.cr0, "cr3": now.cr3, "cr4": now.cr4}[register]
        self._write(register, before, value)
        {"cr0": self.mmu.write_cr0, "cr3": self.mmu.write_cr3, "cr4": self.mmu.write_cr4}[register](
            value
        )
        self._at(self.registers.rip)

    def _table_b(self) -> None:
        """Step 5, at the identity address: page_table_b, or paging off."""
        tables = self.handover.page_table_b
        if tables is None:
            self._control("cr0", KNOWN_CR0 & ~x86.CR0_PG)
            self._control("cr4", 0)
            self._control("cr3", 0)
        else:
            self._control("cr0", KNOWN_CR0)
            self._control("cr3", tables.root)
        self.steps.after_control_write(self.index)

    def _copy(self) -> None:
        """Step 6: the page list, in the order of the flags."""
        # A hypervisor hands the head over in memory or in another register: the plan's is played.
        plan = self.handover.plan
        xen = not isinstance(plan.through, Bare)
        word = plan.head if xen else self.handover.registers.general["rdi"]
        where, destination = 0, 0
        while True:
            page = word & -PAGE_SIZE
            if word & DESTINATION:
                destination = page
            elif word & INDIRECTION:
                where = page
            elif word & DONE:
                return
            elif word & SOURCE:
                if page != destination:
                    self._copy_page(page, destination)
                destination += PAGE_SIZE
            elif word & ZERO and xen:
                into = self._translate(destination, Access.WRITE)
                self.ram.write(into, bytes(PAGE_SIZE))
                self.copies.append((self.index, into, -1, PAGE_SIZE))
                destination += PAGE_SIZE
            phys = self._translate(where, Access.READ)
            self.loads.append((self.index, self.steps.step, phys, self.word))
            word = self.ram.word(phys, self.word) or 0
            where += self.word

    def _copy_page(self, source: int, destination: int) -> None:
        into = self._translate(destination, Access.WRITE)
        out_of = self._translate(source, Access.READ)
        data = self.ram.view(out_of, PAGE_SIZE)
        if data is None:
            raise MachineError(f"no memory at {out_of:#x}")
        self.ram.write(into, bytes(data))
        self.copies.append((self.index, into, out_of, PAGE_SIZE))

    def _entry_bits(self) -> int:
        return self.handover.intent.entry_bits

    def _enter(self) -> None:
        """The entry, and the stub's contract: the state of the boot protocol."""
        plan = self.handover.intent
        self._at(plan.entry)
        stack = plan.entry + PAGE_SIZE
        word = self._entry_bits() // 8
        self._push(stack - word, 0, word)
        known = KNOWN_CR0 & ~x86.CR0_PG
        if plan.protocol is Protocol.PVH:
            known &= ~(x86.CR0_NE | x86.CR0_MP)
        if self._entry_bits() == 32:
            self._control("cr0", known)
        if self._entry_bits() == 32 and self.mmu.mmu.efer & (x86.EFER_LME | x86.EFER_LMA):
            self.mmu.write_efer(self.mmu.mmu.efer & ~x86.EFER_LME)
            self._control("cr4", 0)
            self._control("cr3", 0)
        for saved in plan.backup:
            for page in saved.source.pages:
                kept = saved.copy + page * PAGE_SIZE - saved.source.start
                self._copy_page(page * PAGE_SIZE, kept)
        self._at(plan.kernel_entry)
        general = dict.fromkeys(x86.GENERAL, 0)
        general |= {"rsp": stack - word, **plan.arguments}
        now = self.mmu.mmu
        self.registers = replace(
            self.registers,
            general=general,
            rflags=x86.RFLAGS_FIXED,
            cr0=now.cr0,
            cr3=now.cr3,
            cr4=now.cr4,
            efer=now.efer,
            segments={"cs": CODE, **dict.fromkeys(("ds", "es", "ss", "fs", "gs"), DATA)},
            idt=(0, 0),
        )

    def _fault(self, fell: _Fell) -> Fault:
        gone = (
            replace(self.registers, idt=(0, 0)) if self.steps.step > Step.STATE else self.registers
        )
        lines, triple = follow(self.mmu, gone, fell.refused.vector)
        return Fault(
            instruction=self.index,
            step=self.steps.step,
            vector=fell.refused.vector,
            error_code=fell.refused.error_code,
            address=fell.virt,
            access=fell.access,
            rip=Virt(self.registers.rip),
            text="(played)",
            reason=fell.refused.reason,
            visits=fell.refused.visits,
            escalation=lines,
            triple=triple,
        )
