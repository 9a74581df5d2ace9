"""From V to the new kernel, by breakpoints: at each place the guest is stopped once, and goes on.

    V side        the label behind which page_table_a is loaded
    P side        the identity address, the first instruction after the copy is the entry itself
    purgatory     where somebody else's segments are entered
    new kernel    its first instruction; in the decompressor, where it jumps into what it has unpacked

Rules: nothing is stepped.  Guest time is what passes while it runs: its own clock stands while
it is stopped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from tightrope.machine.attached import Attached
from tightrope.model import Handover, SegmentRole, Step
from tightrope.model.watched import Passed

RELOCATED = re.compile(rb"\x48\x8d\x83.{4}\xff\xe0", re.DOTALL)
"""lea .Lrelocated(%rbx), %rax; jmp *%rax (arch/x86/boot/compressed/head_64.S)."""
LEAVES = re.compile(rb"\x4c\x89\xfe\xff\xe0")
"""mov %r15, %rsi; jmp *%rax: into the unpacked kernel."""
JUMP = 2
HEAD = 0x1000


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


def follow(
    guest: Attached,
    built: Handover,
    *,
    begun: float,
    seconds: float,
    said: Callable[[Passed], None],
) -> tuple[tuple[Passed, ...], str | None]:
    """Let it go and stop at each place.  What was passed, and why it ended early; None at the
    last place.

    `begun` is guest seconds before V.
    """
    ahead: dict[int, Place] = {}
    for each in places(built):
        same = ahead.get(each.virt)  # one instruction may begin two steps
        name = each.name if same is None else f"{same.name}, {each.name}"
        ahead[each.virt] = replace(each, name=name)
    last = max(ahead, default=0, key=lambda virt: list(ahead).index(virt))
    for virt in ahead:
        guest.break_at(virt)
    passed: list[Passed] = []
    spent = begun
    while ahead and spent - begun < seconds:
        started = time.monotonic()
        stopped = guest.go(seconds=seconds - (spent - begun))
        spent += time.monotonic() - started
        if not stopped:
            return tuple(passed), guest.ended() or "time"
        registers = guest.raw()
        place = ahead.pop(registers["rip"], None)
        if place is None:
            return tuple(passed), f"stopped at {registers['rip']:#x}, where nobody asked it to"
        guest.unbreak(place.virt)
        for each in place.then(registers) if place.then else ():
            ahead[each.virt] = each
            guest.break_at(each.virt)
            last = each.virt
        now = Passed(
            name=place.name,
            step=place.step,
            rip=place.virt,
            cr3=registers["cr3"],
            seconds=spent,
        )
        passed.append(now)
        said(now)
        if place.virt == last:
            break
    return tuple(passed), None
