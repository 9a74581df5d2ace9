"""The rule about what a Multiboot or PVH kernel is told: its information, read back from memory.

Rules: read as the new kernel will read it, from memory as the walk left it, and compared with the
plan's segments and the memory that there is; the code that made it is not asked.  Layouts:
Multiboot 0.6.96, section 3.3; Multiboot2 2.0, section 3.6; Xen
xen/include/public/arch-x86/hvm/start_info.h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tightrope.abi import multiboot, pvh
from tightrope.check.case import Case
from tightrope.check.rule import Found, finding, rule
from tightrope.check.told.memory import MOST, Garbled, Row, Told, string
from tightrope.check.told.memory_map import map_problems
from tightrope.errors import MachineError, raw
from tightrope.memory import Extent
from tightrope.model import Memory, Protocol, SegmentRole, Step, Stop


def _row(kind: int, start: int, size: int) -> Row:
    return Row(extent=Extent.sized(start, size), type=kind)


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
    listed_rows: list[Row] = []
    end = rows + length
    while rows + multiboot.MEMORY_1.size <= end:
        row = memory.read(Extent.sized(rows, multiboot.MEMORY_1.size))
        size, start, of, kind = multiboot.MEMORY_1.unpack(row)
        listed_rows.append(_row(kind, start, of))
        rows += size + 4
    return Told(line=string(memory, line), modules=tuple(listed), rows=tuple(listed_rows))


def _multiboot2(memory: Memory, at: int) -> Told:
    kinds, head = multiboot.Information, multiboot.INFORMATION_TAG
    total, _ = multiboot.INFORMATION_2.unpack(
        memory.read(Extent.sized(at, multiboot.INFORMATION_2.size))
    )
    if total > MOST:
        raise Garbled(f"its list says that it has {total:#x} bytes, and {MOST:#x} is the most")
    data = memory.read(Extent.sized(at, total))
    line: bytes | None = None
    modules: list[Extent] = []
    listed_rows: list[Row] = []
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
                listed_rows.append(_row(what, start, of))
        where += size + -size % multiboot.ALIGNMENT_2
    else:
        raise Garbled("the list has no end tag")
    if line is None or not listed_rows:
        raise Garbled("the list has no command line, or no memory map")
    return Told(line=line, modules=tuple(modules), rows=tuple(listed_rows))


def _pvh(memory: Memory, at: int) -> Told:
    layout = pvh.START_INFO
    magic, version, _, count, modules, line, _, rows, rows_count, _ = layout.unpack(
        memory.read(Extent.sized(at, layout.size))
    )
    if magic != pvh.MAGIC or version < pvh.VERSION or max(count, rows_count) > MOST:
        raise Garbled(f"magic {magic:#x}, version {version}: no start info with a memory map")
    table = memory.read(Extent.sized(modules, count * pvh.MODULE.size)) if count else b""
    listed_rows: list[Row] = []
    for start, of, kind, _ in pvh.MEMORY.iter_unpack(
        memory.read(Extent.sized(rows, rows_count * pvh.MEMORY.size))
    ):
        listed_rows.append(_row(kind, start, of))
    return Told(
        line=string(memory, line),
        modules=tuple(Extent.sized(at, size) for at, size, *_ in pvh.MODULE.iter_unpack(table)),
        rows=tuple(listed_rows),
    )


READERS: Mapping[Protocol, Callable[[Memory, int], Told]] = {
    Protocol.MULTIBOOT: _multiboot,
    Protocol.MULTIBOOT2: _multiboot2,
    Protocol.PVH: _pvh,
}


@rule(
    "entry-information",
    Step.COPY,
    says="What Multiboot or PVH hands over can be read: command line, modules and memory map.",
    source="Multiboot 0.6.96, 3.3; Multiboot2 2.0, 3.6; Xen hvm/start_info.h",
    mend="write it as the protocol has it, and keep its addresses inside it",
)
def information(case: Case) -> Iterator[Found]:
    """Command line, modules and memory map are what the plan and the host have."""
    reader = READERS.get(case.intent.protocol)
    if case.run.stop is not Stop.ENTRY or reader is None:
        return
    at = case.intent.arguments["rbx"]
    try:
        told = reader(case.run.memory, at)
        problems = tuple(_differences(case, told))
    except (Garbled, MachineError, ValueError) as err:
        problems = (str(err),)
    for problem in problems[:1]:
        yield finding(f"what is handed over at {at:#x} is not what was planned: {problem}")


def _differences(case: Case, told: Told) -> Iterator[str]:
    plan = case.intent
    if not told.line.endswith(raw(plan.command_line)):
        yield f"the command line is {told.line.decode('utf-8', 'backslashreplace')!r}"
    wanted = [
        Extent.sized(each.destination.start, len(each.data))
        for each in plan.segments
        if each.role is SegmentRole.MODULE
    ]
    if list(told.modules) != wanted:
        listed = ", ".join(str(each) for each in told.modules) or "none"
        yield f"the modules are {listed}"
    for problem in map_problems(case, told, case.run.memory):
        yield f"in its memory map {problem}"
