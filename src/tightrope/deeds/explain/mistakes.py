"""Handovers with one thing wrong, each rehearsed: the ones that fall just so are the candidates.

    an entry      on the way to the address: not present, NX, read-only, a reserved bit; level by level
    the list      a word of it that leads to the address
    a sabotage    any of the house's own that this handover can have

Rules: a mistake is made in a finished handover, and everything else stays as it was.  "Just so"
is the same exception with the same error code and address at the same instruction, and the same
CR3 where the log has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from tightrope.deeds.explain import alone
from tightrope.deeds.explain.beside import Located, Rehearsed, in_use
from tightrope.errors import TightropeError
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE
from tightrope.model import Handover, Paging, Run, SegmentRole, Step, Tables
from tightrope.model.corpse import Candidate, Raised
from tightrope.sabotage import SABOTAGES, Sabotage
from tightrope.sabotage.edits import edit_list, with_tables
from tightrope.x86.walk import Access, TableVisit, entries_in, walk

P, RW, NX = 1, 2, 1 << 63
DESTINATION, SOURCE = 1, 8
LATE = frozenset({"initrd-byte"})
"""Sabotages that no walk falls by."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong, in words, and how to make it."""

    cause: str
    entry: str | None
    make: Callable[[Handover], Handover]


def entries(raised: Raised, there: Located, rehearsed: Rehearsed) -> Iterator[Mistake]:
    """What may be wrong on the way to a page fault's address, by its error code."""
    found = in_use(raised, there, rehearsed)
    if raised.vector != alone.PAGE_FAULT or raised.address is None or found is None:
        return
    name, tables = found
    built, code = rehearsed.handover, raised.error_code
    virt = _moved(raised.address, there, rehearsed)
    mmu = built.registers.mmu(built.host.cpu, root=tables.root)
    visits = walk(entries_in(tables.pages), mmu, virt, Access.READ).visits
    size = 4 if built.intent.paging is Paging.I386 else 8
    for level, visit in enumerate(reversed(visits)):
        if not visit.entry & P:
            continue
        # Bits by which a table's entry refuses; the lowest level is the one that is wrong most
        # often.
        for words, change in _changes(code, size, built, leaf=level == 0):
            where = f"{name}'s {visit.level} entry {_index(visit, size)} at {visit.at:#x}"
            yield Mistake(
                cause=f"{where}, on the way to {virt:#x}, {words}",
                entry=f"{where}: sound {visit.entry:#x}",
                make=_edit(tables, visit, size, change),
            )


def _changes(
    code: int | None, size: int, built: Handover, *, leaf: bool
) -> Iterator[tuple[str, Callable[[int], int]]]:
    reserved = 1 << built.host.cpu.physical_bits if size == 8 else 0
    if code is not None and code & alone.RESERVED:
        if reserved:
            yield "has a physical address bit that the CPU does not have", lambda e: e | reserved
    elif code is None or not code & alone.PRESENT:
        yield "is not present", lambda entry: entry & ~P
    elif code & alone.FETCH and size == 8:
        yield "has NX set", lambda entry: entry | NX
    elif code & alone.WRITE:
        yield "is read-only", lambda entry: entry & ~RW


def _edit(
    tables: Tables, visit: TableVisit, size: int, change: Callable[[int], int]
) -> Callable[[Handover], Handover]:
    def make(handover: Handover) -> Handover:
        frame = visit.at & -PAGE_SIZE
        page = bytearray(tables.pages[frame])
        at = visit.at - frame
        page[at : at + size] = change(visit.entry).to_bytes(size, "little")
        if frame in handover.world.tables:
            changed = {**handover.world.tables, frame: memoryview(bytes(page))}
            return replace(handover, world=replace(handover.world, tables=changed))
        return with_tables(handover, frame, bytes(page))

    return make


def _index(visit: TableVisit, size: int) -> int:
    return (visit.at % PAGE_SIZE) // size


def words_of_the_list(raised: Raised, there: Located, rehearsed: Rehearsed) -> Iterator[Mistake]:
    """A word that leads to a page fault's address, where the copy was at work."""
    address = raised.address
    if address is None or there.step is not Step.COPY or not rehearsed.handover.page_list:
        return
    intent = rehearsed.handover.intent
    frame, kind = address >> PAGE_SHIFT, SOURCE
    what = "a source"
    if (raised.error_code or 0) & alone.WRITE:
        kind, what = DESTINATION, "a destination"
    if frame in intent.sources or frame in intent.destinations:
        return

    def change(rows: list[list[int]]) -> None:
        for row in rows:
            for at, word in enumerate(row):
                if word & 15 == kind:
                    row[at] = frame << PAGE_SHIFT | kind
                    return

    yield Mistake(
        cause=f"a word of the page list names frame {frame:#x} as {what}, which no segment has",
        entry=None,
        make=lambda handover: edit_list(handover, change),
    )


def known(there: Located, rehearsed: Rehearsed) -> Iterator[Mistake]:
    """The house's own sabotages that can be there at or before the step where it fell."""
    built = rehearsed.handover
    if built.relocation_code.image is not None:
        return  # they are made for this project's own code
    for name, each in SABOTAGES.items():
        early = there.step is None or each.step <= there.step
        fits = built.intent.paging in each.modes and early and name not in LATE
        if not fits or (each.crash and not built.intent.crash):
            continue

        yield Mistake(cause=each.says, entry=None, make=partial(_sabotaged, each))


def _sabotaged(sabotage: Sabotage, handover: Handover) -> Handover:
    return sabotage.handover(replace(handover, chain=sabotage.chain(handover.chain)))


def rehearse(mistake: Mistake, raised: Raised, there: Located, rehearsed: Rehearsed) -> Candidate:
    """The mistake rehearsed beside the log."""
    try:
        run = rehearsed.machine.run(mistake.make(rehearsed.handover))
    except TightropeError as err:
        return Candidate(cause=mistake.cause, speaks_against=(f"it cannot be made here: {err}",))
    against = tuple(_unlike(run, raised, there, rehearsed))
    if against:
        return Candidate(cause=mistake.cause, speaks_against=against, rehearsed=False)
    assert run.fault is not None
    evidence = [f"rehearsed with this one mistake, it falls just so: {run.fault.reason}"]
    return Candidate(cause=mistake.cause, speaks_for=tuple(evidence), rehearsed=True)


def _unlike(run: Run, raised: Raised, there: Located, rehearsed: Rehearsed) -> Iterator[str]:
    """What tells a rehearsed fall from the log's."""
    fault = run.fault
    if fault is None:
        yield f"rehearsed with this mistake, it does not fall: it ends by {run.stop.value}"
        return
    if raised.vector >= 0 and fault.vector != raised.vector:
        yield f"rehearsed, it is vector {fault.vector}, not {raised.vector}"
    elif int(fault.rip) != there.rip:
        yield f"rehearsed, it falls at {rehearsed.handover.place(fault.rip) or hex(fault.rip)}"
    elif raised.error_code is not None and _code(fault.error_code or 0) != _code(raised.error_code):
        yield f"rehearsed, the error code is {fault.error_code or 0:#x}"
    elif raised.address is not None and fault.address is not None:
        wanted = _moved(raised.address, there, rehearsed)
        if fault.address != wanted:
            yield f"rehearsed, the address is {fault.address:#x}"
    cr3 = raised.registers.get("cr3")
    if cr3 is not None and not there.shift and run.registers.cr3 != cr3:
        yield f"rehearsed, CR3 is {run.registers.cr3:#x}"


def _code(code: int) -> int:
    """An error code as a CPU has it: QEMU's TCG leaves P out where a reserved bit is set,
    though the entry is present (target/i386/tcg/sysemu/excp_helper.c, do_fault_rsvd; SDM 4.7)."""
    return code | alone.PRESENT if code & alone.RESERVED else code


def _moved(address: int, there: Located, rehearsed: Rehearsed) -> int:
    """The rehearsal's address for one of the log's: those of the page that it ran in move with
    it."""
    same_page = (address + there.shift) & -PAGE_SIZE == there.rip & -PAGE_SIZE
    return address + there.shift if there.shift and same_page else address


def damaged(there: Located, raised: Raised, rehearsed: Rehearsed) -> Candidate | None:
    """Code that is not what it was, where no mistake elsewhere is needed."""
    if raised.vector not in (alone.UNDEFINED, alone.PROTECTION):
        return None
    role = next(
        (e.role for e in rehearsed.handover.intent.segments if there.rip in e.destination), None
    )
    what = "the control page" if role is None else f"the {role.value}"
    if role is SegmentRole.KERNEL:
        return None
    sound = there.instruction
    if there.index is None:
        evidence = f"no instruction of the rehearsed walk begins at {there.place}"
    elif raised.vector == alone.UNDEFINED:
        evidence = f"`{sound}`, which is to be there, raises no #UD"
    else:
        return None
    return Candidate(cause=f"the code in {what} is not what was put there", speaks_for=(evidence,))
