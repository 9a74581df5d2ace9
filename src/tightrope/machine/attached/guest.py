"""A guest of the user's over its QMP and gdb sockets.

    gdb   registers, physical memory (Qqemu.PhyMemMode), breakpoints, stop and go
    qmp   descriptor tables, RAM, CPU model; large memory by pmemsave; events

Rules: what is changed of the guest is where it stops, and that is undone by `leave`, which never
raises.  Signals are held during an exchange, a run and the leaving: what we know of the guest is
true whenever one comes.  A guest with several CPUs is stopped as a whole; registers are those of
the one that stopped.
Source: QEMU docs/system/gdb.rst, gdbstub.c; QMP's reference manual.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from tightrope.errors import BadInput, MachineError, WireError
from tightrope.machine import stub, wire
from tightrope.machine.attached.sockets import Connection, left, names
from tightrope.machine.held import held
from tightrope.machine.qemu import cpu
from tightrope.model import Registers

ANSWER_SECONDS = 20.0
GREET_SECONDS = 10.0
LEAVE_SECONDS = 3 * ANSWER_SECONDS
"""The longest that leaving takes: to stop it, to take breakpoints out, to let it go."""
PIECE = 2048
"""Bytes that one `m` packet asks for: QEMU's stub refuses more."""
SAVED = 64 << 10
"""Bytes from which on memory is asked of pmemsave."""
TURN = 0.1
GONE = "it has ended"
FREE = "disconnected:"
RESETS = ("RESET", "SHUTDOWN", "GUEST_PANICKED", GONE)


def nothing() -> None:
    """What is held is short, and ends by itself."""


class Attached:
    """A guest that stands since it was attached to.  Leave it, or use it in a `with`."""

    def __init__(self, qmp: str, gdb: str) -> None:
        """Raises BadInput for addresses that are no QMP and no gdb stub, or are in use."""
        self._packets: deque[bytes] = deque()
        self._answers: deque[wire.QmpEvent] = deque()
        self.events: list[str] = []
        """Names of what happened to the guest, QMP's words."""
        self._number = 0
        self._breaks: set[int] = set()
        self._running = False
        self._cpu = 0
        """The one that stopped last, whose registers the stub gives."""
        self._left = False
        self._physical = False
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._saves = True
        self._answers_gdb = False
        self._gdb_reader, self._qmp_reader = wire.GdbReader(), wire.QmpReader()
        self._qmp = Connection(qmp, "QMP")
        try:
            self._greet_qmp()
            self._check_free(gdb)
            self._gdb = Connection(gdb, "gdb")
        except BaseException:
            self._qmp.close()
            raise
        try:
            self._greet_gdb()
        except BaseException:
            self.leave()
            raise

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    # ---------------------------------------------------------------------------- the protocols

    def _greet_qmp(self) -> None:
        limit = time.monotonic() + GREET_SECONDS
        address = self._qmp.address
        try:
            while not self._answers:
                if not left(limit):
                    raise BadInput(
                        "says nothing: it is not a QMP socket, or another client is on it",
                        source=address,
                        field="--qmp",
                    )
                self._read_qmp(left(limit))
            if not isinstance(self._answers.popleft(), wire.Greeting):
                raise WireError("it does not begin with a greeting")
        except WireError as err:
            raise BadInput(f"is not a QMP socket: {err}", source=address, field="--qmp") from err
        self.qmp("qmp_capabilities")

    def _check_free(self, gdb: str) -> None:
        """Raise BadInput where another debugger is on the stub.

        A second connection would wait behind it unheard, and stop the guest when the first is
        closed, whether or not we are still there.  QEMU says "disconnected:" of a socket that
        nobody is on (chardev/char-socket.c, qemu_chr_compute_filename()).
        """
        try:
            rows = self.qmp("query-chardev")
        except MachineError:
            return  # no QEMU's: its stub will not be one either
        for row in rows if isinstance(rows, list) else ():
            name = row.get("filename") if isinstance(row, dict) else None
            if isinstance(name, str) and names(name, gdb) and not name.startswith(FREE):
                raise BadInput("another debugger is on it", source=gdb, field="--gdb")

    def _greet_gdb(self) -> None:
        try:
            self.gdb(b"qSupported:qXfer:features:read+", seconds=GREET_SECONDS)
            self._registers = stub.described(lambda asked: self.gdb(asked, seconds=GREET_SECONDS))
            if not {"rip", "cr3", "efer"} <= {name for name, _ in self._registers}:
                raise WireError("it is not that of an x86_64 machine")
            # Whether it ran before is QMP's to say: attaching stops it.
            self.gdb(b"?")
            self._answers_gdb = True
        except WireError as err:
            raise BadInput(
                f"is not a gdb stub of QEMU's: {err}", source=self._gdb.address, field="--gdb"
            ) from err
        except MachineError as err:
            raise BadInput(
                "gives no answer: it is not a gdb stub, or another debugger is on it",
                source=self._gdb.address,
                field="--gdb",
            ) from err
        self._physical = False

    def _read_qmp(self, seconds: float) -> None:
        for event in self._qmp_reader.feed(self._qmp.receive(seconds)):
            if isinstance(event, wire.Happened):
                self.events.append(event.name)
            else:
                self._answers.append(event)

    def _read_gdb(self, seconds: float) -> None:
        for event in self._gdb_reader.feed(self._gdb.receive(seconds)):
            if isinstance(event, wire.Packet):
                self._gdb.send(b"+")
                self._packets.append(event.payload)

    def qmp(self, name: str, arguments: Mapping[str, object] | None = None) -> object:
        """One QMP command and what it returned.  Raises MachineError when it is refused."""
        with held(nothing):
            return self._exchanged(name, arguments)

    def _exchanged(self, name: str, arguments: Mapping[str, object] | None) -> object:
        self._number += 1
        self._qmp.send(wire.command(name, arguments or {}, self._number))
        limit = time.monotonic() + ANSWER_SECONDS
        while True:
            while self._answers:
                answer = self._answers.popleft()
                if isinstance(answer, wire.Failed) and answer.number == self._number:
                    raise MachineError(f"QEMU refused {name}: {answer.text}")
                if isinstance(answer, wire.Returned) and answer.number == self._number:
                    return answer.value
            if not left(limit):
                raise MachineError(f"QEMU gave no answer to {name} in {ANSWER_SECONDS:.0f} s")
            self._read_qmp(left(limit))

    def gdb(self, payload: bytes, seconds: float | None = None) -> bytes:
        """One gdb command and its answer, while the guest stands."""
        with held(nothing):
            return self._answered(payload, ANSWER_SECONDS if seconds is None else seconds)

    def _answered(self, payload: bytes, seconds: float) -> bytes:
        self._gdb.send(wire.packet(payload))
        limit = time.monotonic() + seconds
        while True:
            while not self._packets:
                if not left(limit):
                    raise MachineError(f"no answer to {payload[:20]!r} in {seconds:.0f} s")
                self._read_gdb(left(limit))
            answer = self._packets.popleft()
            # Attaching stops a guest that ran, and its stub says so before it is asked anything.
            if payload == b"?" or answer[:1] not in (b"T", b"S"):
                return answer

    # ---------------------------------------------------------------------------------- the CPU

    def raw(self) -> dict[str, int]:
        """Every register of the stub by its gdb name."""
        return stub.values(self._registers, self.gdb(b"g"))

    def registers(self) -> Registers:
        """The CPU as it stands."""
        return cpu.as_registers(self.raw(), self._dump())

    def halted(self) -> bool:
        """It has executed HLT with interrupts off."""
        return cpu.halted(self._dump())

    def _dump(self) -> str:
        asked = {"command-line": "info registers", "cpu-index": self._cpu}
        return str(self.qmp("human-monitor-command", asked))

    def cpu_fact(self, name: str) -> object:
        """A property of the first CPU's model, such as phys-bits; None where it has none."""
        try:
            rows = self.qmp("query-cpus-fast")
            path = rows[0]["qom-path"]  # type: ignore[index]  # what QMP's schema says
            return self.qmp("qom-get", {"path": path, "property": name})
        except (MachineError, LookupError, TypeError):
            return None

    # ------------------------------------------------------------------------------ its memory

    def read(self, phys: int, size: int) -> bytes | None:
        """Physical memory; None where there is none."""
        if size >= SAVED and self._saves:
            saved = self._saved(phys, size)
            if saved is not None:
                return saved
        self._mode(physical=True)
        parts = []
        for at in range(phys, phys + size, PIECE):
            got = self.gdb(b"m%x,%x" % (at, min(PIECE, phys + size - at)))
            if got[:1] == b"E" and len(got) == 3:
                return None
            parts.append(wire.register_bytes(got))
        data = b"".join(parts)
        return data if len(data) == size else None

    def _saved(self, phys: int, size: int) -> bytes | None:
        """By a file that QEMU writes; None, and never again, where it cannot write one for us."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="tightrope-")
            os.chmod(self._folder.name, 0o733)  # QEMU may be another user's
        path = Path(self._folder.name) / "memory"
        try:
            self.qmp("pmemsave", {"val": phys, "size": size, "filename": str(path)})
            data = path.read_bytes()
            path.unlink()
        except (MachineError, OSError):
            self._saves = False
            return None
        return data if len(data) == size else None

    def _mode(self, *, physical: bool) -> None:
        if self._physical is physical:
            return
        if self.gdb(b"Qqemu.PhyMemMode:%d" % physical) != b"OK":
            raise MachineError("its gdb stub shows no physical memory: QEMU 4.2 is needed")
        self._physical = physical

    # -------------------------------------------------------------------------- stop and go

    def break_at(self, virt: int) -> None:
        """Stop before the instruction at a linear address, whatever tables are in use."""
        if virt in self._breaks:
            return
        self._breaks.add(virt)  # before it is: whoever leaves in between takes it out
        answer = self.gdb(b"Z1,%x,1" % virt)
        if answer != b"OK":
            self._breaks.discard(virt)
            raise MachineError(f"no breakpoint at {virt:#x}: {answer.decode('latin-1')!r}")

    def unbreak(self, virt: int) -> None:
        """No longer stop there."""
        if virt in self._breaks:
            self.gdb(b"z1,%x,1" % virt)
            self._breaks.discard(virt)

    def go(self, *, seconds: float, turn: Callable[[], None] = lambda: None) -> bool:
        """Run until it stops at a breakpoint: True.  False when the time is over, or it was reset
        or shut down (`ended`); then it runs on."""
        told = threading.Event()
        with held(told.set):
            if not self._running:
                self._gdb.send(wire.packet(b"c"))
                self._running = True
            limit = time.monotonic() + seconds
            while not self._packets:
                if not left(limit) or self.ended() or told.is_set():
                    return False
                turn()
                try:
                    self._read_qmp(0)
                    self._read_gdb(min(left(limit), TURN))
                except WireError:
                    raise
                except MachineError:
                    self.events.append(GONE)
            reply = self._packets.popleft()
            self._running = False
            gone = wire.is_farewell(reply)
            signal = wire.SIGNAL_QUIT if gone else wire.stop_signal(reply)
            self._cpu = (wire.stop_thread(reply) or 1) - 1
            with contextlib.suppress(MachineError):
                self._read_qmp(0)  # a reset just before it stopped may not have been read yet
            if gone:
                self.events.append(GONE)
        return signal != wire.SIGNAL_QUIT and not self.ended()

    def ended(self) -> str | None:
        """What became of the guest: RESET, SHUTDOWN; None while it runs."""
        told = next((each for each in self.events if each in RESETS), None)
        return GONE if told is None and (self._gdb.lost or self._qmp.lost) else told

    def stop(self) -> None:
        """Stop it where it is."""
        with held(nothing):
            if self._running:
                self._gdb.send(b"\x03")
                limit = time.monotonic() + ANSWER_SECONDS
                while not self._packets:
                    if not left(limit):
                        raise MachineError("the guest does not stop")
                    self._read_gdb(left(limit))
                self._packets.clear()
                self._running = False
                with contextlib.suppress(MachineError):
                    self._read_qmp(0)

    def leave(self, *, standing: bool = False) -> None:
        """Take all breakpoints out and let it run on, or leave it `standing` where it is.

        It never raises: whoever leaves has a reason of his own.
        """
        with held(nothing):
            self._leave(standing)

    def _leave(self, standing: bool) -> None:
        if self._left:
            return
        self._left = True
        if self._answers_gdb:  # nobody waits again for what has never answered
            with contextlib.suppress(MachineError, BadInput):
                self.stop()
                for virt in sorted(self._breaks):
                    self.gdb(b"z1,%x,1" % virt)
                self._mode(physical=False)
                if not standing:
                    self.gdb(b"D")
        if not standing:
            # A stub that was not left in order may have it stand: QMP says go whatever was before.
            with contextlib.suppress(MachineError, WireError):
                self.qmp("cont")
        with contextlib.suppress(AttributeError):
            self._gdb.close()
        self._qmp.close()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
