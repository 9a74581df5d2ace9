"""The rule about what a Multiboot or PVH kernel is told: its information, read back from memory.

Rules: read as the new kernel will read it, from memory as the walk left it, and compared with the plan's
segments and the host's memory map; the code that made it is not asked.  Layouts: Multiboot 0.6.96,
section 3.3; Multiboot2 2.0, section 3.6; Xen xen/include/public/arch-x86/hvm/start_info.h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tightrope.abi import multiboot, pvh
from tightrope.check.case import Case
from tightrope.check.rule import Found, finding, rule
from tightrope.errors import MachineError
from tightrope.memory import Extent, subtract, union
from tightrope.model import Memory, Protocol, Step, Stop

FIRST_MIB = Extent(0, 1 << 20)
MOST = 1 << 16
"""Bytes of a string, and elements of a list, that are read before it is taken for endless."""


class Garbled(Exception):
    """What lies there is no such information; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the new kernel makes of it."""

    line: bytes
    modules: tuple[Extent, ...]
    ram: tuple[Extent, ...]


def _string(memory: Memory, at: int) -> bytes:
    out = b""
    while len(out) < MOST:
        page_end = (at + len(out) | 0xFFF) + 1
        data = bytes(memory.read(Extent(at + len(out), page_end)))
        text, zero, _ = data.partition(b"\0")
        out += text
        if zero:
            return out
    raise Garbled(f"the string at {at:#x} does not end")


def _ram(kind: int, start: int, size: int) -> list[Extent]:
    return [Extent.sized(start, size)] if kind == multiboot.Memory.AVAILABLE else []


def _multiboot(memory: Memory, at: int) -> Told:
    layout = multiboot.INFORMATION_1
    flags, _, _, _, line, count, modules, length, rows, *_ = layout.unpack(
        memory.read(Extent.sized(at, layout.size))
    )
    needed = multiboot.Given.COMMAND_LINE | multiboot.Given.MEMORY_MAP
    if flags & needed != needed or count > MOST or length > MOST:
        raise Garbled(f"flags {flags:#x} promise no memory map and command line, or endless ones")
    listed = []
    if flags & multiboot.Given.MODULES:
        table = memory.read(Extent.sized(modules, count * multiboot.MODULE_1.size))
        listed = [Extent(start, end) for start, end, *_ in multiboot.MODULE_1.iter_unpack(table)]
    ram: list[Extent] = []
    end = rows + length
    while rows + multiboot.MEMORY_1.size <= end:
        row = memory.read(Extent.sized(rows, multiboot.MEMORY_1.size))
        size, start, of, kind = multiboot.MEMORY_1.unpack(row)
        ram += _ram(kind, start, of)
        rows += size + 4
    return Told(line=_string(memory, line), modules=tuple(listed), ram=union(ram))


def _multiboot2(memory: Memory, at: int) -> Told:
    kinds, head = multiboot.Information, multiboot.INFORMATION_TAG
    total, _ = multiboot.INFORMATION_2.unpack(
        memory.read(Extent.sized(at, multiboot.INFORMATION_2.size))
    )
    if total > MOST:
        raise Garbled(f"a list of {total:#x} bytes")
    data = memory.read(Extent.sized(at, total))
    line: bytes | None = None
    modules, ram = [], []
    where = multiboot.INFORMATION_2.size
    while where + head.size <= total:
        kind, size = head.unpack_from(data, where)
        body = bytes(data[where + head.size : where + size])
        if kind == kinds.END:
            break
        if size < head.size:
            raise Garbled(f"a tag of {size} bytes at {at + where:#x}")
        if kind == kinds.COMMAND_LINE:
            line = body.partition(b"\0")[0]
        elif kind == kinds.MODULE:
            modules.append(Extent(*multiboot.MODULE_2.unpack_from(body)))
        elif kind == kinds.MEMORY_MAP:
            rows = body[multiboot.MEMORY_MAP_2.size :]
            for start, of, what, _ in multiboot.MEMORY_2.iter_unpack(rows):
                ram += _ram(what, start, of)
        where += size + -size % multiboot.ALIGNMENT_2
    else:
        raise Garbled("the list has no end tag")
    if line is None or not ram:
        raise Garbled("the list has no command line, or no memory map")
    return Told(line=line, modules=tuple(modules), ram=union(ram))


def _pvh(memory: Memory, at: int) -> Told:
    layout = pvh.START_INFO
    magic, version, _, count, modules, line, _, rows, rows_count, _ = layout.unpack(
        memory.read(Extent.sized(at, layout.size))
    )
    if magic != pvh.MAGIC or version < pvh.VERSION or max(count, rows_count) > MOST:
        raise Garbled(f"magic {magic:#x}, version {version}: no start info with a memory map")
    table = memory.read(Extent.sized(modules, count * pvh.MODULE.size)) if count else b""
    ram: list[Extent] = []
    for start, of, kind, _ in pvh.MEMORY.iter_unpack(
        memory.read(Extent.sized(rows, rows_count * pvh.MEMORY.size))
    ):
        ram += _ram(kind, start, of)
    return Told(
        line=_string(memory, line),
        modules=tuple(Extent.sized(at, size) for at, size, *_ in pvh.MODULE.iter_unpack(table)),
        ram=union(ram),
    )


READERS: Mapping[Protocol, Callable[[Memory, int], Told]] = {
    Protocol.MULTIBOOT: _multiboot,
    Protocol.MULTIBOOT2: _multiboot2,
    Protocol.PVH: _pvh,
}


class _AsLoaded:
    """Memory as the segments fill it, before anything ran."""

    def __init__(self, case: Case) -> None:
        self._segments = case.handover.segments

    def read(self, extent: Extent) -> memoryview:
        """Raises MachineError outside of one segment."""
        for each in self._segments:
            if each.destination.covers(extent):
                start = extent.start - each.destination.start
                part = bytes(each.data[start : start + extent.size])
                return memoryview(part.ljust(extent.size, b"\0"))
        raise MachineError(f"no segment has {extent}")

    def written(self) -> None:
        """Nobody has written to it."""


def ram_told(case: Case) -> tuple[Extent, ...]:
    """The RAM that a Multiboot or PVH kernel will be told of; nothing where it cannot be read."""
    reader = READERS.get(case.plan.protocol)
    if reader is None:
        return ()
    try:
        return reader(_AsLoaded(case), case.plan.arguments["rbx"]).ram
    except (Garbled, MachineError, ValueError):
        return ()


@rule(
    "entry-information",
    Step.COPY,
    says="What Multiboot or PVH hands over can be read: command line, modules and memory map.",
    source="Multiboot 0.6.96, 3.3; Multiboot2 2.0, 3.6; Xen hvm/start_info.h",
)
def information(case: Case) -> Iterator[Found]:
    """Command line, modules and memory map are what the plan and the host have."""
    reader = READERS.get(case.plan.protocol)
    if case.run.stop is not Stop.ENTRY or reader is None:
        return
    at = case.plan.arguments["rbx"]
    try:
        told = reader(case.run.memory, at)
        problems = tuple(_differences(case, told))
    except (Garbled, MachineError, ValueError) as err:
        problems = (str(err),)
    for problem in problems[:1]:
        yield finding(
            f"what is handed over at {at:#x} is not what was planned: {problem}",
            mend="write it as the protocol has it, and keep its addresses inside it",
        )


def _differences(case: Case, told: Told) -> Iterator[str]:
    plan, host = case.plan, case.host
    if not told.line.endswith(plan.command_line.encode()):
        yield f"the command line is {told.line.decode('utf-8', 'backslashreplace')!r}"
    wanted = [
        Extent.sized(each.destination.start, len(each.data))
        for each in plan.segments
        if each.name.startswith("module ")
    ]
    if list(told.modules) != wanted:
        listed = ", ".join(str(each) for each in told.modules) or "none"
        yield f"the modules are {listed}"
    if plan.crash and host.crash_region is not None:
        stray = subtract(told.ram, [FIRST_MIB, host.crash_region])
    else:
        stray = (*subtract(told.ram, host.memory.ram), *subtract(host.memory.ram, told.ram))
    if stray:
        yield f"its memory map and the host's differ in {stray[0]}"
