"""A handover walked on a whole PC, into the new kernel and on to its userspace.

Rules: one PC for each run, because a walk uses it up; starting one takes a fifth of a second.  The
PC of the last run stays until the next one, `close`, or the end of this process, so that its memory
can be read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from tightrope.errors import CannotBe, MachineError
from tightrope.machine.heard import heard_line
from tightrope.machine.port import Ends, Progress, first_line, no_progress
from tightrope.machine.qemu import cpu, stage
from tightrope.machine.qemu.acceleration import TCG, Acceleration
from tightrope.machine.qemu.pc import Board, Pc
from tightrope.machine.qemu.walk import walk
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Console, Ending, Handover, Host, Run, Step, Stop
from tightrope.x86 import cpu as x86
from tightrope.x86.bits import named_bits

WALK_SECONDS = 60.0
"""Far above any copy that fits a PC: a walk that takes longer goes in circles."""
ARGUMENT = "tightrope.token="
"""How a command line tells an init what it has to say."""
QUIET = 0.1
"""Seconds without a new line after which we check whether the CPU has halted for good."""

PANICKED = "---[ end Kernel panic - not syncing"
"""The last line of a Linux that panicked and neither reboots nor enters a crash kernel
(kernel/panic.c): behind it the CPU spins, with interrupts on."""


def is_said(token: str, lines: Iterable[str]) -> bool:
    """Somebody said the token; a kernel that prints its command line has not."""
    return any(token in line.replace(f"{ARGUMENT}{token}", "") for line in lines)


Lacks = Callable[[Handover], str | None]
"""Why the CPU that executes cannot be an old kernel's, or None."""


class Qemu:
    """See `machine.port.Machine`."""

    blind: tuple[str, ...] = (
        "what happens between breakpoints: it is seen at V, at P, at the entry and at a fall",
        "a TLB that remembers: QEMU's forgets more than a CPU's may",
        "memory types and caches, SMI, machine checks and encryption",
        "breakpoints that the old kernel left in DR0 to DR7",
        "the host's firmware: this PC has its own",
    )

    def __init__(
        self,
        *,
        walk_seconds: float = WALK_SECONDS,
        drive: int | None = None,
        drive_kept: bool = True,
        second_port: int | None = None,
        acceleration: Acceleration = TCG,
        lacks: Lacks = lambda handover: None,
    ) -> None:
        """`drive` is the descriptor of a file that the new kernel sees as its first NVMe disk, and
        `second_port` of one that gets what it says on its second serial port: see `Board`.

        `lacks` is asked before a PC is started for an accelerated walk."""
        self.name = "qemu" if acceleration is TCG else f"qemu-{acceleration.name}"
        self._acceleration = acceleration
        self._lacks = lacks
        self._drive, self._drive_kept, self._second_port = drive, drive_kept, second_port
        self._walk_seconds = walk_seconds
        self._pc: Pc | None = None
        self._entered = False

    def with_own_firmware(self, host: Host) -> Host:
        """See `machine.port.WholeMachine`: SeaBIOS leaves the RSDP where kernels look for it, and
        there is no screen."""
        return replace(host, rsdp=None, screen=b"", efi=None)

    def run(self, handover: Handover) -> Run:
        """Walk.  Raises MissingPart where QEMU is missing or too old, CannotBe for a host that it
        cannot be."""
        self.close()
        if self._acceleration is not TCG:
            return self._accelerated(handover)
        board = self._with_devices(stage.board_for(handover.host))
        self._pc = pc = Pc(board)
        stage.check_ram(handover.host, stage.after_firmware(pc))
        stage.lay_out(pc, handover)
        return self.walk(pc, handover)

    def _accelerated(self, handover: Handover) -> Run:
        """The same where KVM executes; what this KVM cannot be is told before anything is
        started."""
        lacking = self._lacks(handover)
        if lacking:
            raise CannotBe(lacking)
        speed = self._acceleration
        board = stage.board_for(handover.host, accelerator=speed.name, model=speed.model)
        self._pc = pc = Pc(self._with_devices(board))
        stage.check_ram(handover.host, stage.after_firmware(pc))
        held = stage.lay_out(pc, handover, may_lack=~x86.CR4_TRANSLATES)
        registers = replace(handover.registers, cr4=held)
        run = self.walk(pc, replace(handover, registers=registers))
        off = named_bits(handover.registers.cr4 & ~held, x86.CR4_NAMES)
        if handover.registers.cr4 & ~held:
            lost = f"the old kernel's CR4 {off}: QEMU's {speed.model} CPU has none of it"
            run = replace(run, blind=(*run.blind, lost))
        return run

    def _with_devices(self, board: Board) -> Board:
        return replace(
            board,
            drive=self._drive,
            drive_kept=self._drive_kept,
            second_port=self._second_port,
        )

    def own(self, pc: Pc) -> None:
        """Take over a PC that somebody else has started: it is closed with this machine."""
        self.close()
        self._pc = pc

    def walk(
        self, pc: Pc, handover: Handover, look: Callable[[Step], None] = lambda step: None
    ) -> Run:
        """Walk on a PC whose CPU stands at V already; it is this machine's from then on.

        `look` is called at each step that is seen to begin, while the CPU stands there.
        """
        self._pc = pc
        run = walk(
            pc,
            handover,
            machine=self.name,
            blind=self.blind,
            seconds=self._walk_seconds,
            look=look,
            breakpoints=self._acceleration.breakpoints,
        )
        self._entered = run.stop is Stop.ENTRY
        return run

    def close(self) -> None:
        """See `machine.port.Machine`."""
        self._entered = False
        pc, self._pc = self._pc, None
        if pc is not None:
            pc.close()

    def console(
        self, *, seconds: float, ends: Ends = first_line, progress: Progress = no_progress
    ) -> Console:
        """See `machine.port.Machine`."""

        def heard(lines: list[str]) -> str | None:
            number = next((n for n, line in enumerate(lines, 1) if ends(line)), None)
            return None if number is None else heard_line(number)

        return self._listen(seconds, progress, heard)

    def userspace(self, token: str, *, seconds: float, progress: Progress = no_progress) -> Console:
        """Go on from the entry until a line of the console has `token`, which only an init prints.

        `stopped` is the token then; else why it never came, and where the CPU stood.
        """
        return self._listen(
            seconds,
            progress,
            lambda lines: token if is_said(token, lines) else None,
        )

    def listen(
        self,
        ends: Callable[[list[str]], str | None],
        *,
        seconds: float,
        progress: Progress = no_progress,
    ) -> Console:
        """Go on from the entry until `ends` names a reason; it is asked often, with all lines."""
        return self._listen(seconds, progress, ends)

    def touched(self, extent: Extent) -> int:
        """Bytes of an extent's pages that hold something, of the last run's memory."""
        if self._pc is None:
            raise MachineError("there is no memory: nothing was run")
        held = self._pc.ram.in_use()
        return sum(frame in held for frame in extent.pages) * PAGE_SIZE

    def heard_at(self, words: str) -> float | None:
        """When the first line with these words was whole, by time.monotonic(); None without one."""
        if self._pc is None:
            return None
        lines = zip(self._pc.lines, self._pc.line_times, strict=True)
        return next((when for line, when in lines if words in line), None)

    def _listen(
        self, seconds: float, progress: Progress, ends: Callable[[list[str]], str | None]
    ) -> Console:
        """Run on until `ends` names a reason, the kernel panics for good, the machine halts or
        shuts down, or time is over."""
        if self._pc is None or not self._entered:
            raise MachineError("there is no new kernel to listen to: the walk did not get there")
        self._entered = False
        pc = self._pc
        heard = len(pc.lines)
        started = time.monotonic()
        quiet, known, panicked = started, heard, False

        def turn() -> bool:
            nonlocal quiet, known, panicked
            now = time.monotonic()
            progress("the new kernel runs", int(now - started), int(seconds))
            if len(pc.lines) != known:
                panicked |= any(PANICKED in line for line in pc.lines[known:])
                quiet, known = now, len(pc.lines)
            return panicked or now - quiet > QUIET or ends(pc.lines[heard:]) is not None

        while True:
            left = seconds - (time.monotonic() - started)
            stopped = pc.go(seconds=max(left, 0), turn=turn)
            why, ending = ends(pc.lines[heard:]), Ending.HEARD
            if why is not None:
                break
            if stopped is not None:
                rip = pc.registers()["rip"]
                words = "the machine shut down" if stopped.shut_down else "stopped"
                why, ending = f"{words}; the CPU is at {rip:#x}", Ending.FELL
                break
            rip = pc.registers()["rip"]
            if cpu.halted(pc.monitor("info registers")):
                why, ending = f"halted at {rip:#x}", Ending.HALTED
                break
            if panicked:
                why, ending = f"it panicked; the CPU is at {rip:#x}", Ending.HALTED
                break
            if left <= 0:
                words = f"not there within {seconds:.0f} s; the CPU is at {rip:#x}"
                why, ending = words, Ending.TIME
                break
            quiet = time.monotonic() + 5 * QUIET
        if pc.running:
            pc.stop()
        pc.listen_on()
        lines = (*pc.lines[heard:], *([pc.begun] if pc.begun else []))
        return Console(
            lines=lines,
            seconds=time.monotonic() - started,
            stopped=why,
            ending=ending,
            rip=pc.registers()["rip"],
        )
