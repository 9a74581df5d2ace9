"""From V to the new kernel, by breakpoints: at each place the guest is stopped once, and goes on.

    V side        the label behind which page_table_a is loaded
    P side        the identity address, the first instruction after the copy is the entry itself
    purgatory     where somebody else's segments are entered
    new kernel    its first instruction; in the decompressor, where it jumps into what it has unpacked
    console       its first line, where there is a console to read

Rules: nothing is stepped, and no more places are broken at than a CPU has registers for.  Guest
time is what passes while it runs: its own clock stands while it is stopped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from tightrope.deeds.watch.console import Console
from tightrope.deeds.watch.stuck import stuck
from tightrope.errors import MachineError
from tightrope.machine.attached import Attached
from tightrope.model import Handover, SegmentRole, Step
from tightrope.model.watched import Heard, Passed

RELOCATED = re.compile(rb"\x48\x8d\x83.{4}\xff\xe0", re.DOTALL)
"""lea .Lrelocated(%rbx), %rax; jmp *%rax (arch/x86/boot/compressed/head_64.S)."""
LEAVES = re.compile(rb"\x4c\x89\xfe\xff\xe0")
"""mov %r15, %rsi; jmp *%rax: into the unpacked kernel."""
JUMP = 2
HEAD = 0x1000
LOOK_SECONDS = 1.0
"""Guest time without a breakpoint after which it is looked at."""
TURN_SECONDS = 0.02
AT_ONCE = 4
"""Breakpoints that a CPU has, DR0 to DR3 (SDM 17.2): under KVM the stub's are those."""
ENDS = {
    "RESET": "the machine was reset: a triple fault, where nobody asked for it",
    "SHUTDOWN": "the machine was reset or shut down: a triple fault, where nobody asked for it",
    "GUEST_PANICKED": "the new kernel panicked",
}
"""QMP's events, as sentences; with -no-reboot a reset is a SHUTDOWN."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Followed:
    """What became of it."""

    passed: tuple[Passed, ...]
    ended: str | None
    """Why it came no further; None where it came to the last place."""
    heard: Heard | None
    """The new kernel's first line, where there is a console to read."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place to stop at; `then` may name the next ones when it is reached."""

    virt: int
    name: str
    step: Step | None
    then: Callable[[dict[str, int]], list[Place]] | None = None


def places(built: Handover) -> list[Place]:
    """Where the guest is stopped, in the order in which it comes there."""
    intent, code = built.intent, built.relocation_code
    found = []
    for label, step in code.landmarks.items():
        offset = code.code.symbols.get(label)
        if offset is None:
            continue
        base = intent.relocation if step < Step.IDENTITY else intent.control_page
        found.append(Place(int(base) + offset, label, step))
    purgatory = intent.purgatory
    if purgatory is not None:
        found.append(Place(int(intent.entry), "the purgatory", Step.COPY))
    found.append(Place(int(intent.kernel_entry), "the new kernel's entry", Step.COPY))
    return found + _decompressor(built)


def _decompressor(built: Handover) -> list[Place]:
    """Where the decompressor jumps: behind its move, and into the kernel."""
    kernel = next(e for e in built.intent.segments if e.role is SegmentRole.KERNEL)
    data = bytes(kernel.data)
    start = built.intent.kernel_entry - kernel.destination.start
    moved = RELOCATED.search(data, start, start + HEAD)
    leaves = [each.start() for each in LEAVES.finditer(data)]
    if moved is None or not leaves:
        return []
    at = kernel.destination.start + moved.end() - JUMP

    def then(registers: dict[str, int]) -> list[Place]:
        return [
            Place(registers["rbx"] + offset + 3, "it is unpacked", None) for offset in leaves[-1:]
        ]

    return [Place(at, "the decompressor, moved", None, then)]


def _at(built: Handover, rip: int) -> str:
    known = built.place(rip)
    return f"{known} ({rip:#x})" if known else f"{rip:#x}"


class Follower:
    """A guest that is on its way: how long it has run since the call, and what it has come to."""

    def __init__(
        self, guest: Attached, built: Handover, begun: float, console: Console | None
    ) -> None:
        self.guest, self.built = guest, built
        self.spent = begun
        """Guest seconds since machine_kexec was called."""
        self.ended: str | None = None
        """Why it comes no further."""
        self._console = console

    def go(self, limit: float) -> dict[str, int] | None:
        """Run to the next breakpoint: the registers there.  None where it comes to none: `ended`.

        Now and then it is looked at, because what has lost its way often stands still.
        """
        while self.spent < limit:
            if self._run(min(LOOK_SECONDS, limit - self.spent)):
                return self.guest.raw()
            if self.ended is None and self.spent < limit:
                self.ended = self._looked_at()
            if self.ended is not None:
                return None
        self.guest.stop()
        at = _at(self.built, self.guest.raw()["rip"])
        self.ended = f"it was followed for {limit:.0f} s, and is at {at}"
        return None

    def _looked_at(self) -> str | None:
        """Why it comes no further, by a look at where it stands; None where it may.

        With -no-reboot a QEMU ends by a reset, which may be just before it is stopped.
        """
        try:
            self.guest.stop()
            if (reset := self._reset()) is not None:
                return reset
            registers = self.guest.raw()
            what = stuck(self.guest, registers, self.built.host.cpu.physical_bits)
        except MachineError:
            if self.guest.ended() is None:
                raise
            return self._reset()
        return None if what is None else f"it {what} at {_at(self.built, registers['rip'])}"

    def _reset(self) -> str | None:
        reset = self.guest.ended()
        return None if reset is None else ENDS.get(reset, f"QEMU says {reset}")

    def _run(self, seconds: float) -> bool:
        started = time.monotonic()
        stopped = self.guest.go(seconds=seconds)
        self.spent += time.monotonic() - started
        if not stopped:
            self.ended = self._reset()
        return stopped

    def listen(self, limit: float) -> Heard | None:
        """Run until the new kernel's first line is on the console; None where there is none."""
        if self._console is None:
            return None
        self._console.skip()
        while self.spent < limit and self.ended is None:
            self._run(min(TURN_SECONDS, limit - self.spent))
            line = self._console.line()
            if line is not None:
                return Heard(line=line, seconds=self.spent)
        return None


def follow(
    guest: Attached,
    built: Handover,
    *,
    begun: float,
    seconds: float,
    said: Callable[[Passed], None],
    console: Console | None = None,
) -> Followed:
    """Let it go and stop at each place, and listen for the first line behind the last.

    `begun` is guest seconds before V, `seconds` how long it is followed at most.
    """
    ahead: dict[int, Place] = {}
    for each in places(built):
        same = ahead.get(each.virt)  # one instruction may begin two steps
        name = each.name if same is None else f"{same.name}, {each.name}"
        ahead[each.virt] = replace(each, name=name)
    last = next(reversed(ahead), 0)
    passed: list[Passed] = []
    follower = Follower(guest, built, begun, console)
    limit = begun + seconds
    while ahead:
        for virt in [*ahead][:AT_ONCE]:
            guest.break_at(virt)
        registers = follower.go(limit)
        if registers is None:
            break
        place = ahead.pop(registers["rip"], None)
        if place is None:
            follower.ended = f"it stopped at {registers['rip']:#x}, where nobody asked it to"
            break
        guest.unbreak(place.virt)
        for each in place.then(registers) if place.then else ():
            ahead[each.virt] = each
            last = each.virt
        now = Passed(
            name=place.name,
            step=place.step,
            rip=place.virt,
            cr3=registers["cr3"],
            seconds=follower.spent,
        )
        passed.append(now)
        said(now)
        if now.rip == last:
            break
    heard = follower.listen(limit) if follower.ended is None else None
    if console is not None and heard is None and follower.ended is None:
        follower.ended = f"no line on the console in {seconds:.0f} s"
    return Followed(passed=tuple(passed), ended=follower.ended, heard=heard)
