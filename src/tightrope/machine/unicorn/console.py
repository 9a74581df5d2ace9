"""The new kernel runs on, and says something.

After the entry nothing is watched any more: the new kernel has its own tables and its own idt, and
Unicorn's own MMU serves it at full speed (ours costs a Python call for each page that Unicorn forgot;
it stays where RAM lies above 1 TiB, which Unicorn's cannot reach).  Exceptions are delivered to the
guest's idt from here, in long mode and in 32 bits; the first serial port answers as an idle 16550; what nobody answers reads as
ones.  The timer and the rest of a PC are not there: this is a boot proof up to the console, not a
boot to userspace.

Rules: memory may be written here, as the new kernel's CPU would.  Long runs report progress and stop
at a time limit; what was said by then is kept.
"""

from __future__ import annotations

from tightrope.machine.port import Progress
from tightrope.machine.unicorn.context import ExceptionState
from tightrope.machine.unicorn.engine import Engine, Failed
from tightrope.machine.unicorn.ticker import Ticker
from tightrope.model import Console
from tightrope.x86.cpu import (
    CR0_PE,
    CR4_PAE,
    EFER_LMA,
    INTERRUPT_GATE,
    RFLAGS_IF,
    RFLAGS_NT,
    RFLAGS_TF,
    WITH_ERROR_CODE,
    Gate,
)
from tightrope.x86.walk import Access, Mmu, Refused, Translated, walk

COM1 = 0x3F8
LINE_CONTROL, LINE_STATUS = COM1 + 3, COM1 + 5
INTERRUPT_ENABLE, MODEM_CONTROL, MODEM_STATUS, SCRATCH = COM1 + 1, COM1 + 4, COM1 + 6, COM1 + 7
LOOPBACK = 0x10
"""16550 modem control: the low four bits come back in the high four of the modem status, in the order
DCD, RI, DSR, CTS of bits 3, 2, 0, 1.  Xen takes a port for a 16550 by it (xen/drivers/char/ns16550.c)."""
DIVISOR_LATCH = 0x80
"""16550 line control: while it is set, COM1 is the baud rate divisor and not the data register."""
TRANSMITTER_EMPTY = 0x60
"""16550 line status: holding register and shift register empty."""
PIT_COUNTER, PIT_STATUS_PORT = 0x40, 0x61
OWN_MMU_ABOVE = 1 << 40
"""Unicorn 2.1's own walk takes physical address bits above this one for reserved."""
PAGE_FAULT = 14
ACCESSED, DIRTY = 0x20, 0x40


def listen(engine: Engine, *, seconds: float, whole: bool, progress: Progress) -> Console:
    """Run until the first whole line (not with `whole`), a halt, a dead end or the time limit."""
    return _Listener(engine, seconds, whole, progress).run()


class _Listener:
    def __init__(self, engine: Engine, seconds: float, whole: bool, progress: Progress) -> None:
        self._engine = engine
        self._progress = progress
        self._limit = seconds
        self._whole = whole
        self._said = bytearray()
        self._counter = 0xFFFF
        self._divisor = False
        self._uart = dict.fromkeys((INTERRUPT_ENABLE, LINE_CONTROL, MODEM_CONTROL, SCRATCH), 0)
        self._state = engine.batch("cr0", "cr3", "cr4", "rflags", "cs")
        self._pending: tuple[int, int | None, int | None] | None = None
        self._exceptions = ExceptionState(engine)
        self._done = ""

    def run(self) -> Console:
        engine = self._engine
        hooks = (
            engine.on_translation(self._translate),
            engine.on_exception(self._exception),
            engine.on_invalid(self._invalid),
            engine.on_hole(self._hole),
            *engine.on_port(self._port_in, self._port_out),
        )
        engine.own_mmu(engine.ram.extents[-1].end > OWN_MMU_ABOVE)
        engine.forget_code()
        try:
            with Ticker(seconds=self._limit, progress=self._progress, stop=engine.stop) as ticker:
                while not self._done:
                    if ticker.over:
                        self._done = f"no whole line within {self._limit:.0f} s"
                    else:
                        self._until_exception(ticker)
        finally:
            engine.unhook(*hooks)
            engine.own_mmu(True)
        text = self._said.decode("latin-1").replace("\r", "")
        return Console(
            lines=tuple(line for line in text.split("\n") if line.strip()),
            seconds=ticker.passed,
            stopped=self._done,
        )

    def _until_exception(self, ticker: Ticker) -> None:
        """Run until something stops it, and deliver that."""
        engine = self._engine
        try:
            engine.start(engine.read("rip"))
        except Failed as err:
            if self._pending is None and not self._done:
                self._done = f"the emulator gave up at {engine.read('rip'):#x}: {err}"
        if self._pending is not None:
            vector, code, address = self._pending
            self._pending = None
            self._deliver(vector, code, address)
        elif not self._done and not ticker.over and self._halted():
            self._done = f"halted at {engine.read('rip'):#x}"

    def _halted(self) -> bool:
        """HLT with interrupts off ends it: nothing will ever wake this CPU."""
        code = self._bytes(self._engine.read("rip") - 1, 1)
        return code == b"\xf4" and not self._engine.read("rflags") & RFLAGS_IF

    # ---------------------------------------------------------------------------------- the MMU

    def _mmu(self) -> Mmu:
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

    def _walk(self, virt: int, access: Access) -> Translated | Refused:
        return walk(self._engine.ram.word, self._mmu(), virt, access)

    def _translate(self, page: int, access: Access) -> int | None:
        got = self._walk(page, access)
        if isinstance(got, Refused):
            address = page
            if access is Access.FETCH:
                rip = self._engine.read("rip")
                address = rip if rip >> 12 == page >> 12 else page
            else:
                address = self._exact(page)
            self._pending = (got.vector, got.error_code, address if got.vector == 14 else None)
            return None
        if got.sets_accessed:
            mmu = self._mmu()
            long_mode = bool(mmu.efer & EFER_LMA)
            size = 8 if long_mode or mmu.cr4 & CR4_PAE else 4
            for number, visit in enumerate(got.visits):
                if visit.level == "PDPT" and not long_mode:
                    continue  # PAE's PDPTEs have no accessed bit
                last = number == len(got.visits) - 1
                bits = ACCESSED | (DIRTY if last and access is Access.WRITE else 0)
                self._engine.ram.write(visit.at, (visit.entry | bits).to_bytes(size, "little"))
        return got.phys

    def _exact(self, page: int) -> int:
        """The very address of a data access that faulted, from the instruction's operands."""
        from tightrope.observe.decode import Operation

        rip = self._engine.read("rip")
        operation = Operation(self._bytes(rip, 15), rip, 64 if self._long_mode() else 32)
        for at, size, _access in operation.accesses(self._engine.read):
            if at >> 12 <= page >> 12 <= (at + size - 1) >> 12:
                return max(at, page)
        return page

    def _bytes(self, virt: int, size: int) -> bytes:
        out = b""
        while len(out) < size:
            got = self._walk(virt + len(out), Access.READ)
            if isinstance(got, Refused):
                break
            part = min(size - len(out), 4096 - got.phys % 4096)
            view = self._engine.ram.view(got.phys, part)
            if view is None:
                break
            out += view
        return out

    # ------------------------------------------------------------------------------- exceptions

    def _exception(self, vector: int) -> None:
        code = self._exceptions.error_code() if vector in WITH_ERROR_CODE else None
        address = self._engine.read("cr2") if vector == PAGE_FAULT else None
        self._pending = (vector, code, address)
        self._engine.stop()

    def _invalid(self) -> None:
        self._pending = (6, None, None)

    def _hole(self, phys: int) -> bool:
        self._engine.open_bus(phys)
        return True

    def _long_mode(self) -> bool:
        return bool(self._engine.efer() & EFER_LMA)

    def _deliver(self, vector: int, code: int | None, address: int | None) -> None:
        """Push the frame and go to the gate (SDM 6.12, 6.14); same ring, no IST."""
        engine = self._engine
        self._exceptions.forget()
        registers = engine.registers()
        if not registers.cr0 & CR0_PE:
            # The vector's entry in the table at 0 would be the BIOS's.
            at = f"{registers.segments['cs']:#x}:{registers.rip:#x}"
            self._done = f"int {vector:#x} in real mode at {at}, and there is no BIOS to call"
            return
        base, limit = registers.idt
        long_mode = self._long_mode()
        size = Gate.size(long_mode=long_mode)
        raw = self._bytes(base + size * vector, size) if size * (vector + 1) <= limit + 1 else b""
        gate = Gate.decode(raw) if len(raw) == size else None
        if gate is None or not gate.present:
            where = f"exception {vector} at {registers.rip:#x}"
            at = "" if address is None else f", address {address:#x}"
            self._done = f"{where}{at}, and the new kernel has no handler for it"
            return
        frame = [registers.rflags, registers.segments["cs"], registers.rip]
        stack, width = registers.general["rsp"], 4
        if long_mode:
            frame = [registers.segments["ss"], stack, *frame]
            stack, width = stack & ~0xF, 8
        if code is not None:
            frame.append(code)
        for word in frame:
            stack = stack - width & (1 << 8 * width) - 1
            got = self._walk(stack, Access.WRITE)
            if isinstance(got, Refused):
                self._done = f"exception {vector} at {registers.rip:#x}: no stack at {stack:#x}"
                return
            engine.ram.write(got.phys, word.to_bytes(width, "little"))
        if address is not None:
            engine.write("cr2", address)
        engine.write("rsp", stack)
        flags = registers.rflags & ~(RFLAGS_TF | RFLAGS_NT)
        engine.write("rflags", flags & ~RFLAGS_IF if gate.type == INTERRUPT_GATE else flags)
        engine.write("rip", gate.handler)

    # -------------------------------------------------------------------------------- the ports

    def _port_in(self, port: int, _size: int) -> int:
        if port == LINE_STATUS:
            return TRANSMITTER_EMPTY
        if port == PIT_COUNTER:
            self._counter = (self._counter - 50) & 0xFFFF
            return self._counter & 0xFF
        if port == MODEM_STATUS:
            return _modem_status(self._uart[MODEM_CONTROL])
        return 0x20 if port == PIT_STATUS_PORT else self._uart.get(port, 0)

    def _port_out(self, port: int, _size: int, value: int) -> None:
        if port == LINE_CONTROL:
            self._divisor = bool(value & DIVISOR_LATCH)
        if port in self._uart and not (self._divisor and port == INTERRUPT_ENABLE):
            self._uart[port] = value & (0x0F if port == INTERRUPT_ENABLE else 0xFF)
        # Once it is over: Unicorn stops at the end of a block, and a block may have more to say.
        if port != COM1 or self._divisor or self._done:
            return
        self._said.append(value & 0xFF)
        if value & 0xFF == 0x0A and self._said.strip() and not self._whole:
            self._line()

    def _line(self) -> None:
        self._done = "the first line is whole"
        self._engine.stop()


def _modem_status(control: int) -> int:
    """Nothing is connected but, in loopback, the outputs: OUT2, OUT1, DTR, RTS in bits 7 to 4."""
    if not control & LOOPBACK:
        return 0
    dtr, rts, out = control & 1, control >> 1 & 1, control >> 2 & 3
    return out << 6 | dtr << 5 | rts << 4
