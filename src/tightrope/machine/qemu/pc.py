"""A PC: the QEMU process, its RAM, its gdb stub, its QMP and its serial console, in one loop.

    serial   the guest's console, as lines
    gdb      registers, breakpoints, stop and go
    qmp      what gdb cannot: the log of exceptions, registers that the stub does not have

Rules: whoever waits for one of the three reads all of them, because QEMU stalls when nobody reads;
no thread is needed.  This file knows no handover.  Every wait has a time limit, and what it raises
then says how far the guest got.
"""

from __future__ import annotations

import os
import selectors
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tightrope.errors import MachineError, WireError
from tightrope.machine import stub, wire
from tightrope.machine.heard import shown
from tightrope.machine.qemu.memory import MIB, SPLIT, SharedRam
from tightrope.machine.qemu.process import OLDEST, Process, as_file, fill_standard, too_old
from tightrope.model import Buffer

START_SECONDS = 60.0
ANSWER_SECONDS = 30.0
"""How long a gdb or QMP answer may take on a busy computer."""
TURN = 0.1
"""Seconds between two looks at what a caller wants to look at."""

Turn = Callable[[], bool]
"""Called now and then during a wait; True ends it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    """What a PC is made of.  `kernel` is what firmware boots; `drive` a file of bytes, or none."""

    size: int
    """Bytes of RAM, whole MiB."""
    split: bool = False
    """3 GiB of it are below 4 GiB and the rest above; less than 3.5 GiB are all below."""
    kernel: Buffer
    initrd: Buffer | None = None
    command_line: str = ""
    cpu: str = "max,la57=off"
    accelerator: str = "tcg"
    counted: bool = False
    """Its clock is what it executes, an instruction a nanosecond, whatever else this computer does
    (TCG alone); a CPU that waits is at the end of its wait at once."""
    drive: int | None = None
    """Descriptor of a file that the guest sees as its first NVMe disk."""
    drive_kept: bool = True
    """What the guest writes gets into that file; else it is forgotten with the PC."""
    second_port: int | None = None
    """Descriptor of a file that gets what the guest writes to its second serial port."""
    modules: tuple[tuple[Buffer, str], ...] = ()
    """What a Multiboot kernel is handed, each with its command line; then there is no `initrd`."""
    firmware: tuple[Buffer, Buffer] | None = None
    """An EFI firmware's code and its variables, which it may write; None: QEMU's own BIOS."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The CPU stands: at a breakpoint, or because the machine shut down or reset."""

    shut_down: bool


class Pc:
    """A machine that stands at its reset vector.  Close it, or use it in a `with`."""

    def __init__(self, board: Board) -> None:
        """Raises MissingPart where there is no QEMU that can be this PC, CannotBe without
        the memory for it, MachineError where this process may not open what it needs."""
        fill_standard()
        self.board = board
        self.ram = SharedRam(board.size, split=board.split)
        self._files: list[int] = []
        self.lines: list[str] = []
        """Whole lines that the console has said, see `machine.heard`."""
        self.line_times: list[float] = []
        """When each line was whole, by time.monotonic()."""
        self._line = ""
        self._gdb, self._qmp = wire.GdbReader(), wire.QmpReader()
        self._packets: deque[bytes] = deque()
        self._answers: deque[wire.QmpEvent] = deque()
        self._number = 0
        self._process: Process | None = None
        self._selector: selectors.BaseSelector | None = None
        self._registers: stub.Described = ()
        self._breaks: set[int] = set()
        self.running = False
        try:
            self._selector = selectors.DefaultSelector()
            self._files.append(as_file(board.kernel, "tightrope-kernel"))
            if board.initrd is not None:
                self._files.append(as_file(board.initrd, "tightrope-initrd"))
            for data, _ in board.modules:
                self._files.append(as_file(data, "tightrope-module"))
            for data in board.firmware or ():
                self._files.append(as_file(data, "tightrope-firmware"))
            self._process = Process(
                arguments(board, self.ram.descriptor, self._files),
                sockets=("qmp", "gdb"),
                descriptors=[
                    self.ram.descriptor,
                    *self._files,
                    *(each for each in (board.drive, board.second_port) if each is not None),
                ],
            )
            for name, each in self._process.sockets.items():
                self._selector.register(each, selectors.EVENT_READ, name)
            self._selector.register(self._process.output, selectors.EVENT_READ, "serial")
            self._greet()
        except OSError as err:
            self.close()
            raise MachineError(f"QEMU cannot be started: {err.strerror}") from err
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End QEMU and give everything back; calling it again does nothing."""
        if self._process is not None:
            self._process.close()
            self._process = None
        if self._selector is not None:
            self._selector.close()
        self.ram.close()
        for each in self._files:
            os.close(each)
        self._files.clear()

    @property
    def process(self) -> Process:
        """The running QEMU.  Raises MachineError when it is closed."""
        if self._process is None:
            raise MachineError("this PC is closed")
        return self._process

    # --------------------------------------------------------------------------------- the loop

    def _read(self, seconds: float) -> None:
        """Take in what has come on any of the three, waiting at most `seconds` for something."""
        assert self._selector is not None
        for key, _ in self._selector.select(max(0.0, seconds)):
            try:
                data = os.read(key.fd, 1 << 16)
            except ConnectionError:
                data = b""
            if not data:
                raise self.process.why_it_ended()
            if key.data == "serial":
                self._hear(data)
            elif key.data == "gdb":
                for event in self._gdb.feed(data):
                    if isinstance(event, wire.Packet):
                        if wire.is_farewell(event.payload):
                            raise self.process.why_it_ended()
                        self._send("gdb", b"+")
                        self._packets.append(event.payload)
            else:
                self._answers += self._qmp.feed(data)

    def _send(self, name: str, data: bytes) -> None:
        """Raises MissingPart when QEMU has ended."""
        try:
            self.process.sockets[name].sendall(data)
        except OSError as err:
            raise self.process.why_it_ended() from err

    def _hear(self, data: bytes) -> None:
        *whole, self._line = (self._line + data.decode("latin-1")).split("\n")
        for line in whole:
            said = shown(line).rstrip()
            if said:
                self.lines.append(said)
                self.line_times.append(time.monotonic())

    @property
    def begun(self) -> str:
        """What the console has said since its last whole line."""
        return shown(self._line).rstrip()

    def _until(self, what: str, there: Callable[[], bool], seconds: float) -> None:
        limit = time.monotonic() + seconds
        while not there():
            left = limit - time.monotonic()
            if left <= 0:
                raise MachineError(f"QEMU gave no answer to {what} within {seconds:.0f} s")
            self._read(left)

    def _greet(self) -> None:
        self._until("its start", lambda: bool(self._answers), START_SECONDS)
        greeting = self._answers.popleft()
        if not isinstance(greeting, wire.Greeting):
            raise WireError("QMP does not begin with a greeting")
        if greeting.version[:2] < OLDEST:
            raise too_old(greeting.version)
        self.version = greeting.version
        self.qmp("qmp_capabilities")
        self.gdb(b"qSupported:qXfer:features:read+")
        self._registers = stub.described(self.gdb)

    # ----------------------------------------------------------------------------- the protocols

    def qmp(self, name: str, arguments: Mapping[str, object] | None = None) -> object:
        """One QMP command and what it returned.  Raises MachineError when it is refused."""
        self._number += 1
        number = self._number
        self._send("qmp", wire.command(name, arguments or {}, number))
        found: list[wire.QmpEvent] = []

        def answered() -> bool:
            while self._answers:
                event = self._answers.popleft()
                if isinstance(event, wire.Returned | wire.Failed) and event.number == number:
                    found.append(event)
            return bool(found)

        self._until(name, answered, ANSWER_SECONDS)
        answer = found[0]
        if isinstance(answer, wire.Failed):
            raise MachineError(f"QEMU refused {name}: {answer.text}")
        assert isinstance(answer, wire.Returned)
        return answer.value

    def monitor(self, line: str) -> str:
        """One line for the human monitor, and its answer."""
        return str(self.qmp("human-monitor-command", {"command-line": line}))

    def gdb(self, payload: bytes) -> bytes:
        """One gdb command and its answer, while the CPU stands."""
        self._send("gdb", wire.packet(payload))
        self._until(payload[:20].decode("latin-1"), lambda: bool(self._packets), ANSWER_SECONDS)
        return self._packets.popleft()

    # --------------------------------------------------------------------------------- the CPU

    def registers(self) -> dict[str, int]:
        """Every register of the stub by its gdb name (rax, eflags, cr3, efer ...)."""
        return stub.values(self._registers, self.gdb(b"g"))

    def set_register(self, name: str, value: int) -> None:
        """Write one register.  Raises MachineError where the stub takes no such value."""
        names = [each for each, _ in self._registers]
        number = names.index(name)
        size = self._registers[number][1]
        answer = self.gdb(b"P%x=%b" % (number, value.to_bytes(size, "little").hex().encode()))
        if answer != b"OK":
            raise MachineError(
                f"QEMU does not set {name} to {value:#x}: {answer.decode('latin-1')}"
            )

    def write(self, virt: int, data: bytes) -> None:
        """Put a few bytes at a linear address, as a debugger does: also into read-only pages."""
        self._done(b"M%x,%x:%b" % (virt, len(data), data.hex().encode()))

    def say(self, text: str) -> None:
        """Type on the console."""
        try:
            self.process.say(text.encode())
        except OSError as err:
            raise self.process.why_it_ended() from err

    def break_at(self, virt: int) -> None:
        """Stop before the instruction at a linear address."""
        if virt not in self._breaks:
            self._done(b"Z1,%x,1" % virt)
            self._breaks.add(virt)

    def unbreak(self, virt: int) -> None:
        """No longer stop there."""
        if virt in self._breaks:
            self._breaks.remove(virt)
            self._done(b"z1,%x,1" % virt)

    def unbreak_all(self) -> None:
        """No longer stop anywhere."""
        for virt in sorted(self._breaks):
            self.unbreak(virt)

    def _done(self, payload: bytes) -> None:
        answer = self.gdb(payload)
        if answer != b"OK":
            raise MachineError(f"QEMU's gdb stub refused {payload[:40]!r}: {answer!r}")

    def go(
        self, *, seconds: float, turn: Turn | None = None, interrupt: bool = True
    ) -> Stopped | None:
        """Run until the CPU stands, `turn` says True, or the time is over (None).

        `interrupt` stops the CPU in the latter cases; else it is left running, and `go` may be
        called again to wait on.
        """
        if not self.running:
            self._send("gdb", wire.packet(b"c"))
            self.running = True
        limit = time.monotonic() + seconds
        while not self._packets:
            if turn is not None and turn():
                break
            left = limit - time.monotonic()
            if left <= 0:
                break
            self._read(min(left, TURN))
        if self._packets:
            return self._stood()
        if interrupt:
            self.stop()
        return None

    def stop(self) -> Stopped:
        """Stop the CPU where it is."""
        self._send("gdb", b"\x03")
        self._until("a stop", lambda: bool(self._packets), ANSWER_SECONDS)
        return self._stood()

    def _stood(self) -> Stopped:
        self.running = False
        return Stopped(wire.stop_signal(self._packets.popleft()) == wire.SIGNAL_QUIT)

    def listen_on(self, seconds: float = 0.05) -> None:
        """Take in what the console still has to say."""
        limit = time.monotonic() + seconds
        while (left := limit - time.monotonic()) > 0:
            self._read(left)


def arguments(board: Board, ram: int, files: Sequence[int]) -> list[str]:
    """QEMU's command line for a board; `{NAME}` is the descriptor of a socket or of the log."""
    said = [
        *("-accel", board.accelerator, "-nodefaults", "-no-user-config", "-display", "none"),
        *("-nic", "none", "-vga", "none", "-rtc", "base=utc", "-S"),
        *("-m", f"{board.size // MIB}", "-cpu", board.cpu, "-smp", "1"),
        "-object",
        f"memory-backend-file,id=ram,size={board.size},mem-path=/proc/self/fd/{ram},share=on",
        *("-machine", "pc,memory-backend=ram,smm=off" + (f",{SPLIT}" if board.split else "")),
        # A reset ends in a machine that stands still and keeps everything for a post-mortem.
        *("-action", "reboot=shutdown,shutdown=pause", "-D", "/proc/self/fd/{log}"),
        *("-chardev", "socket,id=qmp,fd={qmp}", "-mon", "chardev=qmp,mode=control"),
        *("-chardev", "socket,id=gdb,fd={gdb}", "-gdb", "chardev:gdb"),
        *("-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial"),
        *("-kernel", f"/proc/self/fd/{files[0]}"),
    ]
    if board.counted:
        said += ["-icount", "shift=0,sleep=off"]
    if board.modules:
        # QEMU hw/i386/multiboot.c: FILE WORDS,FILE WORDS; a comma in the words is doubled.
        names = [
            f"/proc/self/fd/{number} {words.replace(',', ',,')}".strip()
            for number, (_, words) in zip(
                files[1 : 1 + len(board.modules)], board.modules, strict=True
            )
        ]
        said += ["-initrd", ",".join(names)]
    elif board.initrd is not None:
        said += ["-initrd", f"/proc/self/fd/{files[1]}"]
    if board.firmware is not None:
        for unit, number in enumerate(files[-2:]):
            only_read = "on" if unit == 0 else "off"
            said += [
                "-drive",
                f"if=pflash,unit={unit},format=raw,readonly={only_read},file.locking=off,"
                f"file=/proc/self/fd/{number}",
            ]
    if board.command_line:
        said += ["-append", board.command_line]
    if board.second_port is not None:
        said += ["-chardev", f"file,id=second,path=/proc/self/fd/{board.second_port}"]
        said += ["-serial", "chardev:second"]
    if board.drive is not None:
        where = f"file=/proc/self/fd/{board.drive},format=raw,if=none,id=disk,file.locking=off"
        where += "" if board.drive_kept else ",snapshot=on"
        said += ["-drive", where, "-device", "nvme,drive=disk,serial=tightrope"]
    return said
