"""The new kernel runs on, and says something.

After the entry nothing is watched any more: the new kernel has its own tables, walked by
`translations`, and its own idt, to which exceptions are delivered from here, in long mode and in 32
bits.  The first serial port answers as an idle 16550; what nobody answers reads as ones.  The timer
and the rest of a PC are not there: this is a boot proof up to the console, not a boot to userspace,
and a kernel that waits for a tick is told where it waits.

Rules: memory may be written here, as the new kernel's CPU would.  Long runs report progress and
stop at a time limit; what was said by then is kept.
"""

from __future__ import annotations

from tightrope.machine.heard import heard_line, lines_of
from tightrope.machine.port import Ends, Progress
from tightrope.machine.unicorn.context import ExceptionState
from tightrope.machine.unicorn.cpuid import LACKING, cpuid
from tightrope.machine.unicorn.engine import Answer, Engine, Failed
from tightrope.machine.unicorn.ticker import Ticker
from tightrope.machine.unicorn.translations import Translations
from tightrope.model import Console, Ending
from tightrope.x86.cpu import (
    CR0_PE,
    CR4_NAMES,
    EFER_LMA,
    INTERRUPT_GATE,
    RFLAGS_IF,
    RFLAGS_NT,
    RFLAGS_TF,
    WITH_ERROR_CODE,
    Gate,
)
from tightrope.x86.walk import Access, Refused, Translated

COM1 = 0x3F8
LINE_CONTROL, LINE_STATUS = COM1 + 3, COM1 + 5
INTERRUPT_ENABLE, MODEM_CONTROL, MODEM_STATUS, SCRATCH = COM1 + 1, COM1 + 4, COM1 + 6, COM1 + 7
LOOPBACK = 0x10
"""16550 modem control: the low four bits come back in the high four of the modem status, in the
order DCD, RI, DSR, CTS of bits 3, 2, 0, 1.  Xen takes a port for a 16550 by it
(xen/drivers/char/ns16550.c)."""
DIVISOR_LATCH = 0x80
"""16550 line control: while it is set, COM1 is the baud rate divisor and not the data register."""
TRANSMITTER_EMPTY = 0x60
"""16550 line status: holding register and shift register empty."""
PIT_COUNTER, PIT_STATUS_PORT = 0x40, 0x61
PAGE_FAULT, INVALID_OPCODE = 14, 6
OSFXSR = CR4_NAMES["OSFXSR"]
HALTS = 1000
"""A CPU that halts with interrupts on is let go on, as if one had come; this often without any
other sign."""
IDLE = "this machine has no timer and nothing else that interrupts"


def listen(engine: Engine, *, seconds: float, ends: Ends, progress: Progress) -> Console:
    """Run until a line that `ends` it, a halt, a dead end or the time limit."""
    return _Listener(engine, seconds, ends, progress).run()


class _Listener:
    def __init__(self, engine: Engine, seconds: float, ends: Ends, progress: Progress) -> None:
        self._engine = engine
        self._progress = progress
        self._limit = seconds
        self._ends = ends
        self._said = bytearray()
        self._line_at = 0
        self._counter = 0xFFFF
        self._divisor = False
        self._uart = dict.fromkeys((INTERRUPT_ENABLE, LINE_CONTROL, MODEM_CONTROL, SCRATCH), 0)
        self._translations = Translations(engine)
        self._pending: tuple[int, int | None, int | None] | None = None
        self._exceptions = ExceptionState(engine)
        self._events = 0
        """Bytes said, and what a port or an exception had not shown before: with the questions to
        the MMU, what shows that it gets on.  Who polls a port that never changes waits."""
        self._met: set[tuple[object, ...]] = set()
        self._halts = 0, 0
        """How often it halted with interrupts on since the last event, and which that was."""
        self._last: str | None = None
        self._done = ""
        self._ending = Ending.HEARD

    def run(self) -> Console:
        engine = self._engine
        hooks = (
            engine.on_translation(self._translate),
            engine.on_exception(self._exception),
            engine.on_invalid(self._invalid),
            *engine.on_hole(self._hole),
            engine.on_cpuid(cpuid),
            *engine.on_port(self._port_in, self._port_out),
        )
        engine.forget_code()
        engine.forget_translations()
        try:
            with Ticker(
                seconds=self._limit,
                progress=self._progress,
                stop=engine.stop,
                signs=lambda: self._events + self._translations.asked,
            ) as ticker:
                while not self._done:
                    if ticker.idle:
                        self._end(Ending.WAITS, f"it goes round in circles {self._where()}: {IDLE}")
                    elif ticker.over:
                        words = (
                            f"no such line within {self._limit:.0f} s; the CPU is {self._where()}"
                        )
                        self._end(Ending.TIME, words)
                    else:
                        self._until_exception(ticker)
        finally:
            engine.unhook(*hooks)
            engine.forget_translations()
        return Console(
            lines=lines_of(bytes(self._said)),
            seconds=ticker.passed,
            stopped=self._done,
            ending=self._ending,
            rip=engine.read("rip"),
            exception=self._last,
        )

    def _end(self, ending: Ending, words: str) -> None:
        self._ending, self._done = ending, words

    def _where(self) -> str:
        return f"at {self._engine.read('rip'):#x}"

    def _until_exception(self, ticker: Ticker) -> None:
        """Run until something stops it, and deliver that."""
        engine = self._engine
        try:
            engine.start(engine.read("rip"))
        except Failed as err:
            if self._pending is None and not self._done:
                self._end(Ending.UNABLE, f"the emulator gave up {self._where()}: {err}")
        if self._pending is not None:
            vector, code, address = self._pending
            self._pending = None
            self._deliver(vector, code, address)
        elif not self._done and not ticker.over and self._halted():
            if not engine.read("rflags") & RFLAGS_IF:
                self._end(Ending.HALTED, f"halted {self._where()}")
            self._halts = (
                (self._halts[0] + 1, self._events)
                if self._halts[1] == self._events
                else (1, self._events)
            )
            if self._halts[0] > HALTS:
                self._end(Ending.WAITS, f"it waits for an interrupt {self._where()}: {IDLE}")

    def _halted(self) -> bool:
        """The CPU has executed HLT: with interrupts off nothing will ever wake it."""
        return self._bytes(self._engine.read("rip") - 1, 1) == b"\xf4"

    # ---------------------------------------------------------------------------------- the MMU

    def _walk(self, virt: int, access: Access) -> Translated | Refused:
        return self._translations.walk(virt, access)

    def _translate(self, page: int, access: Access) -> Answer:
        got = self._translations.answer(page, access)
        if not isinstance(got, Refused):
            return got
        if access is Access.FETCH:
            rip = self._engine.read("rip")
            address = rip if rip >> 12 == page >> 12 else page
        else:
            address = self._exact(page)
        self._pending = (got.vector, got.error_code, address if got.vector == PAGE_FAULT else None)
        return None

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

    def _new(self, *sight: object) -> None:
        """Count what is seen for the first time."""
        if sight not in self._met:
            self._met.add(sight)
            self._events += 1

    def _exception(self, vector: int) -> None:
        code = self._exceptions.error_code() if vector in WITH_ERROR_CODE else None
        address = self._engine.read("cr2") if vector == PAGE_FAULT else None
        self._new("exception", vector, self._engine.read("rip"), address)
        self._pending = (vector, code, address)
        self._engine.stop()

    def _invalid(self) -> None:
        from tightrope.observe.decode import decoded

        rip = self._engine.read("rip")
        self._new("no instruction", rip)
        operation = decoded(self._bytes(rip, 15), rip, 64 if self._long_mode() else 32)
        if operation.text.startswith(LACKING) and not self._engine.read("cr4") & OSFXSR:
            # See `cpuid`: a kernel that does not ask first may meet such an instruction all the
            # same.
            words = (
                f"the emulator cannot execute `{operation.text}` at {rip:#x} while CR4.OSFXSR is 0"
            )
            self._end(Ending.UNABLE, words)
        else:
            self._pending = (INVALID_OPCODE, None, None)

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
        at = "" if address is None else f", address {address:#x}"
        self._last = f"exception {vector} at {registers.rip:#x}{at}"
        if not registers.cr0 & CR0_PE:
            # The vector's entry in the table at 0 would be the BIOS's.
            at = f"{registers.segments['cs']:#x}:{registers.rip:#x}"
            words = f"int {vector:#x} in real mode at {at}, and there is no BIOS to call"
            self._end(Ending.UNABLE, words)
            return
        base, limit = registers.idt
        long_mode = self._long_mode()
        size = Gate.size(long_mode=long_mode)
        raw = self._bytes(base + size * vector, size) if size * (vector + 1) <= limit + 1 else b""
        gate = Gate.decode(raw) if len(raw) == size else None
        if gate is None or not gate.present:
            self._end(Ending.FELL, f"{self._last}, and the new kernel has no handler for it")
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
                self._end(Ending.FELL, f"{self._last}: no stack at {stack:#x}")
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
        value = self._read_port(port)
        self._new("in", port, value)
        return value

    def _read_port(self, port: int) -> int:
        if port == LINE_STATUS:
            return TRANSMITTER_EMPTY
        if port == PIT_COUNTER:
            self._counter = (self._counter - 50) & 0xFFFF
            return self._counter & 0xFF
        if port == MODEM_STATUS:
            return _modem_status(self._uart[MODEM_CONTROL])
        return 0x20 if port == PIT_STATUS_PORT else self._uart.get(port, 0)

    def _port_out(self, port: int, _size: int, value: int) -> None:
        self._new("out", port, value)
        if port == LINE_CONTROL:
            self._divisor = bool(value & DIVISOR_LATCH)
        if port in self._uart and not (self._divisor and port == INTERRUPT_ENABLE):
            self._uart[port] = value & (0x0F if port == INTERRUPT_ENABLE else 0xFF)
        # Once it is over: Unicorn stops at the end of a block, and a block may have more to say.
        if port != COM1 or self._divisor or self._done:
            return
        self._events += 1
        self._said.append(value & 0xFF)
        if value & 0xFF == 0x0A:
            line = lines_of(bytes(self._said[self._line_at :]))
            self._line_at = len(self._said)
            if line and self._ends(line[0]):
                self._end(Ending.HEARD, heard_line(len(lines_of(bytes(self._said)))))
                self._engine.stop()


def _modem_status(control: int) -> int:
    """Nothing is connected but, in loopback, the outputs: OUT2, OUT1, DTR, RTS in bits 7 to 4."""
    if not control & LOOPBACK:
        return 0
    dtr, rts, out = control & 1, control >> 1 & 1, control >> 2 & 3
    return out << 6 | dtr << 5 | rts << 4
