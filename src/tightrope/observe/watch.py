"""What happens before each instruction of a watched walk.

An engine executes; this file looks first.  Control registers, EFER, descriptors and far returns are
checked against `x86.cpu` because Unicorn lets every one of those errors pass; a repeated string
move is done as one memmove per page and recorded as one copy (both are the same: `prove`'s lemma).
A CPU that does not need that does its copies itself (`copy` of a subclass).

Rules: nothing is judged here but what a CPU refuses.  A refusal or a fault ends the walk with a
record of where and why.
"""

from __future__ import annotations

from array import array
from dataclasses import replace

from tightrope.memory import PAGE_SIZE
from tightrope.model import Buffer, RegisterWrite
from tightrope.observe.bulk import Bulk
from tightrope.observe.decode import Kind, Operation
from tightrope.observe.digest import Digests
from tightrope.observe.expectations import Expectations
from tightrope.observe.familiar import NONE, Familiar
from tightrope.observe.known_code import KnownCode
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.observed import ObservedCpu
from tightrope.observe.physical import Ram
from tightrope.observe.privileged import Privileged
from tightrope.observe.read_ahead import ReadAhead
from tightrope.observe.settled import Settled
from tightrope.observe.steps import StepTracker
from tightrope.observe.touches import Touch, exactly, touches
from tightrope.observe.trouble import Trouble
from tightrope.x86 import cpu as x86
from tightrope.x86.walk import Access, Refused

LOST_AFTER = 16
"""Pages that a walk without paging may use besides its own.  With paging on a walk that goes astray
faults; without it zeros are instructions, and a CPU runs through all of memory."""
ACCESS_BYTE = 5
"""Where in a descriptor its type is, bit 0 of which is the accessed bit (SDM figure 3-8)."""
STACK_FAULT, GENERAL_PROTECTION, MACHINE_CHECK = 12, 13, 18


class Watch:
    """The observer of one walk.  `trouble` is set when it ends badly."""

    def __init__(
        self,
        engine: ObservedCpu,
        mmu: WatchedMmu,
        steps: StepTracker,
        expected: Expectations,
        limit: int,
        code: KnownCode,
        in_bulk: bool = False,
    ) -> None:
        """`code` has what was decoded in this walk or before, and grows; `in_bulk`: see `bulk`."""
        self._expects = expected.frames
        self._code = code
        self._engine = engine
        self._mmu = self.mmu = mmu
        self._steps = self.steps = steps
        self._until = expected.entry
        self.digests = Digests(engine, expected.digests, self._data, self.access, self.hole)
        self._limit = limit
        self.arrived = False
        """The next instruction is the new kernel's.  No exit address: its page is asked first."""
        self.operations = self._operations = dict[int, Operation]()
        self._privileged = Privileged(engine, mmu, steps)
        self._string = engine.batch("rcx", "rsi", "rdi", "rax", "rflags")
        self._texts: dict[int, str] = {}
        self.trace = array("Q")
        self.loads = array("q")
        self.stores = array("q")
        self.copies = array("q")
        self.ports: list[tuple[int, int]] = []
        """(port, value) of each OUT."""
        self.trouble: Trouble | None = None
        self.over_limit = self.halted = False
        self.code_overwritten = False
        """Code that had been executed was written over: Unicorn may have translated both."""
        self._astray = 0
        self._ahead = ReadAhead(engine, mmu, self._privileged)
        self._bulk = Bulk(engine, mmu, code, on=in_bulk)
        self._plain: set[int] = set()
        self.familiar = Familiar(NONE, self.trace, limit, self._meet)
        self.settled = Settled(expected.program, expected.saves, self.familiar)

    # ----------------------------------------------------------------------------- from the CPU

    def instruction(self, rip: int) -> None:
        """Called ahead of every instruction."""
        trace = self.trace
        self.arrived = rip == self._until
        if self.arrived or (len(trace) > self.settled.pause and self.settled.stands(rip)):
            self._engine.stop()
            return
        if self._bulk.on and trace and rip < trace[-1]:
            self._go_round(rip)
        trace.append(rip)
        if self._privileged.unsettled:
            self._privileged.settle(len(trace) - 1)
        operation = self._operations.get(rip)
        if operation is None:
            operation = self._met(rip)
        if self._ahead.pages and (beyond := self._ahead.beyond(rip, operation)):
            self._refused(*beyond, Access.FETCH)
            self._engine.stop()
            return
        if not operation.plain:
            self._special(operation)
        calm = not (self._privileged.unsettled or self._ahead.pages or self._bulk.wanted)
        self.familiar.rips = self._plain if calm else NONE
        if rip in self.digests.starts:
            self.digests.make()
        if len(trace) > self._limit:
            self.over_limit = True
            self._engine.stop()

    def access(self, is_write: bool, phys: int, size: int) -> None:
        """Called for every data access, with its physical address."""
        log = self.stores if is_write else self.loads
        log.extend((len(self.trace) - 1, self._steps.step, phys, size))
        if is_write:
            self._written(phys, size)

    def translation(self, page: int, access: Access) -> int | None:
        """Called for the first read, write or fetch of a page."""
        if self.over:
            return None  # Unicorn looks around once more on its way out: at the exit address
        got = self._mmu.translate(page, access, instruction=self.index, step=self._steps.step)
        if isinstance(got, Refused):
            shown = self._ahead.shown(page, got) if access is Access.FETCH else None
            if shown is not None:
                self.familiar.rips = NONE
                return shown
            self._refused(got, page, access)
            return None
        if access is Access.FETCH:
            self._ahead.pages.pop(page, None)
            # Where a program may go round and round each of its instructions is asked about.
            if not self.settled.program.size:
                known = self._code.plain(page, got, self._privileged.bits)
                if known:
                    looked_at = {self._until, *self.digests.starts, *self._operations}
                    self.familiar.expect(known, but=looked_at)
        if not self._mmu.mmu.cr0 & x86.CR0_PG and not self._expects(got >> 12):
            self._astray += 1
            if self._astray > LOST_AFTER:
                self.over_limit = True
                return None
        return got

    def hole(self, phys: int) -> bool:
        """Called for an access to a physical address where nothing is: that ends the walk."""
        self._trouble(MACHINE_CHECK, None, f"no memory answers at physical {phys:#x}")
        return False

    def exception(self, vector: int, *, explained: bool = False) -> None:
        """Called for an exception; `explained` where the instruction is there to raise it."""
        if self.trouble is None:
            self.trouble = Trouble(
                vector=vector,
                error_code=0 if vector in x86.WITH_ERROR_CODE else None,
                address=None,
                access=None,
                reason="raised by the CPU while it executed the instruction",
                rip=self.rip,
                explained=explained,
            )
        self._engine.stop()

    def invalid(self) -> None:
        """Called for bytes that are no instruction."""
        self._trouble(6, None, "no such instruction on this CPU")

    # ------------------------------------------------------------------------------ the answers

    @property
    def index(self) -> int:
        """The number of the instruction that ran last; -1 before the first."""
        return len(self.trace) - 1

    @property
    def rip(self) -> int:
        """Where it lies; 0 before the first."""
        return self.trace[-1] if self.trace else 0

    @property
    def writes(self) -> list[RegisterWrite]:
        """The register writes, in order."""
        return self._privileged.writes

    @property
    def over(self) -> bool:
        """The walk has ended."""
        return self.arrived or self.trouble is not None or self.over_limit or self.halted

    @property
    def memory(self) -> Ram:
        """The CPU's memory."""
        return self._engine.ram

    def texts(self) -> dict[int, str]:
        """rip -> the instruction there."""
        return {rip: each.text for rip, each in self._operations.items()} | self._texts

    def current(self) -> Operation | None:
        """The instruction that ran last."""
        return self._operations.get(self.rip)

    # ---------------------------------------------------------------------------------- private

    def _met(self, rip: int) -> Operation:
        """The instruction at `rip`, met for the first time."""
        operation = self.familiar.ready.pop(rip, None) or self._decode(rip)
        self._meet(rip, operation)
        return operation

    def _meet(self, rip: int, operation: Operation) -> None:
        self._operations[rip] = operation
        if operation.plain and rip not in self.digests.starts and not self._bulk.head(rip):
            self._plain.add(rip)

    def _decode(self, rip: int) -> Operation:
        """The instruction at `rip`, whose page the CPU has just fetched from."""
        phys = self._mmu.cached(rip, Access.FETCH)
        self.settled.new(rip, self.index)
        return self._code.decode(rip, phys, self._privileged.bits, self._mmu)

    def _written(self, phys: int, size: int) -> None:
        """Memory was written: what was decoded there may be something else now."""
        self._mmu.written()
        if self._code.hit(phys, size):
            self._texts = self.texts()
            self._operations.clear()
            self._plain.clear()
            self.familiar.ready.clear()
            self._code.drop_instructions()
            self.code_overwritten = True
            self._bulk.forget()

    def _go_round(self, head: int) -> None:
        """The CPU stands at what may be a loop's head: do what turns of it only copy."""
        calm = not (self._privileged.unsettled or self._ahead.pages)
        left, step = self._limit - self.index - 1 if calm else 0, self._steps.step
        for turns in self._bulk.turns(head, self._privileged.bits, left):
            for rip in turns.instructions_at:
                self._operations.get(rip) or self._met(rip)
            for at, news in turns.questions(len(self.trace)):
                self._mmu.note(news.virt, news.access, news.got, instruction=at, step=step)
            turns.record(self.trace, self.loads, self.copies, step)
            self._mmu.written()
        if self._bulk.head(head):
            self._plain.discard(head)

    def _special(self, operation: Operation) -> None:
        index, rip = self.index, self.rip
        if operation.sets_state:
            self._steps.sets_state(index)
        kind, read = operation.kind, self._engine.read
        privileged, refusal = self._privileged, None
        privileged.index, privileged.rip = index, rip
        if kind is Kind.STRING:
            self._bulk.wanted = self._bulk.on
            self._string_move(operation)
        elif kind is Kind.INDIRECT:
            self._steps.indirect_jump(index, rip)
        elif kind is Kind.CONTROL_WRITE:
            refusal = privileged.control_write(operation.target, read(operation.source))
        elif kind is Kind.CONTROL_READ:
            privileged.control_read(operation.target, operation.source)
        elif kind is Kind.WRMSR:
            refusal = privileged.wrmsr()
        elif kind is Kind.RDMSR:
            privileged.rdmsr()
        elif kind is Kind.DESCRIPTOR_TABLE:
            refusal = privileged.descriptor_table(operation)
        elif kind is Kind.SEGMENT_LOAD and operation.source != "none":
            refusal = privileged.segment(operation.target, read(operation.source) & 0xFFFF)
        elif kind in (Kind.FAR_RETURN, Kind.FAR_JUMP):
            self._steps.indirect_jump(index, rip)
            self.familiar.ready.clear()  # what lies there may be other instructions from here on
            raw = self._mmu.look(operation.selector_at(read), 2)
            if isinstance(raw, bytes):
                selector = int.from_bytes(raw, "little")
                refusal = privileged.segment("cs", selector)
                if refusal is None:
                    self._mark_descriptor(selector)
        elif kind is Kind.DEBUG_WRITE:
            refusal = privileged.debug_write(operation.target, operation.source)
        elif kind is Kind.HOSTED:
            refusal = privileged.asks_the_host()
        elif kind in (Kind.FLAGS, Kind.STACK):
            privileged.record_later(operation.target)
        elif kind is Kind.HALT or (kind is Kind.STAYS and rip in self.settled.program):
            self.halted = True
        elif kind is Kind.INVLPG and (address := operation.memory_operand(read)) is not None:
            self._mmu.invlpg(address)
        if refusal:
            self._trouble(refusal.vector, refusal.error_code, refusal.reason)
            self._engine.stop()

    def _mark_descriptor(self, selector: int) -> None:
        """CS is about to be loaded: a CPU sets its descriptor's accessed bit (SDM 3.4.5.1)."""
        at = self._engine.table("gdtr")[0] + (selector & 0xFFF8) + ACCESS_BYTE
        raw = self._mmu.look(at, 1)
        if selector & 0xFFF8 and isinstance(raw, bytes) and not raw[0] & x86.TYPE_ACCESSED:
            phys = self._data(at, Access.WRITE)
            view = None if phys is None else self._engine.ram.view(phys, 1)
            if phys is not None and view is not None:
                self.access(True, phys, 1)
                self.mark(view)

    def mark(self, access_byte: memoryview) -> None:
        """Set the accessed bit: Unicorn's far returns and jumps do not (QEMU 5.0, seg_helper.c)."""
        access_byte[0] |= x86.TYPE_ACCESSED

    def _string_move(self, operation: Operation) -> None:
        """REP MOVS or STOS as memmoves by pages; left to the CPU where that is not the same."""
        values = self._string.read()
        mask = (1 << self._privileged.bits) - 1
        count, source, destination, accumulator, flags = (each & mask for each in values)
        width, stores = abs(operation.string_width), operation.string_width < 0
        # Onto itself it is a memmove as well: Linux copies a page that is in its place.
        overlaps = not stores and 0 < abs(source - destination) < count * width
        # An element may straddle two pages, and fault between them.
        straddles = (destination | (0 if stores else source)) % width
        if flags & x86.RFLAGS_DF or overlaps or straddles:
            return
        ram = self._engine.ram
        left = count * width
        while left:
            part = min(left, PAGE_SIZE - destination % PAGE_SIZE)
            if not stores:
                part = min(part, PAGE_SIZE - source % PAGE_SIZE)
            target = self._data(destination, Access.WRITE)
            origin = target if stores else self._data(source, Access.READ)
            if target is None or origin is None:
                break
            into, out_of = ram.view(target, part), ram.view(origin, part)
            if into is None or out_of is None:
                self.hole(target if into is None else origin)
                self._engine.stop()
                break
            over = target >> 12 in self._code.frames and (stores or bytes(into) != bytes(out_of))
            self.copy(into, accumulator.to_bytes(8, "little")[:width] if stores else out_of)
            self._mmu.written()
            if over:  # not where code is copied onto itself, through a swap page
                self._written(target, part)
                self._engine.forget_code()
            self.copies.extend((self.index, target, -1 if stores else origin, part))
            destination += part
            source += 0 if stores else part
            left -= part
        values[0], values[1], values[2] = left // width, source, destination
        self._string.write()

    def touches(self, operation: Operation) -> list[Touch]:
        """What the instruction is about to touch."""
        return touches(operation, self._engine, self._mmu, self._privileged.bits)

    def copy(self, into: memoryview, what: Buffer) -> None:
        """Do a part of a string move: `what`, over and over, into a piece of memory."""
        into[:] = bytes(what) * (len(into) // len(what)) if len(what) < len(into) else what

    def _data(self, virt: int, access: Access) -> int | None:
        got = self._mmu.translate(virt, access, instruction=self.index, step=self._steps.step)
        if isinstance(got, Refused):
            self._refused(got, virt, access, exact=True)
            self._engine.stop()
            return None
        return got

    def _refused(self, got: Refused, page: int, access: Access, *, exact: bool = False) -> None:
        """Record a refused translation with the exact address, which a page's question lacks."""
        address = page
        if access is Access.FETCH:
            rip = self._engine.read("rip")
            address = rip if rip & -PAGE_SIZE == page & -PAGE_SIZE else page
        elif not exact and (operation := self.current()):
            touched = self.touches(operation)
            address, access, got = exactly(page, access, got, touched, self._mmu.refusal)
            general = got.vector == GENERAL_PROTECTION
            if general and address in operation.on_stack(self._engine.read):
                got = replace(got, vector=STACK_FAULT)
        self.trouble = Trouble(
            vector=got.vector,
            error_code=got.error_code,
            address=address if got.vector == 14 else None,
            access=access,
            reason=got.reason,
            visits=got.visits,
        )

    def _trouble(self, vector: int, error_code: int | None, reason: str) -> None:
        self.trouble = Trouble(
            vector=vector, error_code=error_code, address=None, access=None, reason=reason
        )
