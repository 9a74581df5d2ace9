"""Rules about numbers: under Xen a pseudo-physical one is wrong wherever a CPU looks.

    the page list, page_list, an entry, CR3

Rules: what a number should have been is known from the plan and from dom0's p2m; a finding names
both.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tightrope.check.case import Case, owner
from tightrope.check.rule import Found, finding, rule
from tightrope.check.xen.page_list import slots
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE, Machine
from tightrope.model import PageList, Paging, Sight, Step, Tables, UnderXen
from tightrope.model.p2m import HOLE, P2m
from tightrope.x86.walk import Access, Refused

MEND = "put the machine address there: pfn_to_mfn() of what Linux calls physical"
THREAD = "the thread, its second half: 'Xen use the term machine addresses'"
ROOTS = ("PGD", "TABLE_PAGE")

ENTRY_SIZE = {Paging.I386: 4, Paging.PAE: 8, Paging.X86_64: 8}
LARGE = {
    Paging.I386: (True,),
    Paging.PAE: (False, True),
    Paging.X86_64: (False, True, True),
}
"""Per level above the last: whether bit 7 means a large page (SDM tables 4-5, 4-9, 4-16, 4-18)."""
PRESENT, PAGE_SIZE_FLAG = 1, 1 << 7
ADDRESS_BITS = 0x000F_FFFF_FFFF_F000


def _p2m(case: Case) -> P2m | None:
    """dom0's table; None where the jump is not asked of a hypervisor."""
    load = case.intent.through
    return load.xen.dom0.p2m if isinstance(load, UnderXen) else None


def _raw(
    p2m: P2m, got: NDArray[np.int64], wanted: NDArray[np.int64]
) -> tuple[int, int, int] | None:
    """The first place where dom0's own number stands instead of the machine frame: (n, it,
    wanted)."""
    length = min(len(got), len(wanted))
    differ = (got[:length] != wanted[:length]).nonzero()[0]
    mixed = differ[(p2m.to_pseudo(wanted[differ]) == got[differ]) & (got[differ] != HOLE)]
    if not len(mixed):
        return None
    at = int(mixed[0])
    return at, int(got[at]) << PAGE_SHIFT, int(wanted[at]) << PAGE_SHIFT


def _named(where: str, pseudo: int, machine: int, case: Case, *, step: Step | None = None) -> Found:
    return finding(
        f"{where} holds {pseudo:#x}, which is pseudo-physical: the machine address is {machine:#x}",
        evidence={
            "pseudo-physical": f"{pseudo:#x}",
            "machine": f"{machine:#x} ({owner(case, machine)})",
            "at machine": f"{pseudo:#x}: {owner(case, pseudo)}",
        },
        step=step,
    )


@rule(
    "xen-list-machine",
    Step.PREPARE,
    says="Under Xen the page list and page_list hold machine addresses.",
    source=THREAD,
    mend=MEND,
)
def list_machine(case: Case) -> Iterator[Found]:
    """Words of the page list and slots of page_list are machine addresses."""
    p2m = _p2m(case)
    if p2m is None:
        return
    pages = list(case.handover.page_list.values())
    last = [int.from_bytes(each[PAGE_SIZE - case.word :], "little") for each in pages[:-1]]
    words_of_links = np.array([case.head, *last][: len(pages)], np.uint64)
    links = (words_of_links >> np.uint64(PAGE_SHIFT)).astype(np.int64)
    copies = case.copies
    count = 0 if case.intent.crash else len(case.intent.sources)
    for what, got, wanted in (
        ("a link of the page list", links, np.array(case.list_frames, np.int64)),
        ("a source of the page list", copies.sources, case.intent.sources[:count]),
        ("a destination of the page list", copies.destinations, case.intent.destinations[:count]),
    ):
        bad = _raw(p2m, got, wanted)
        if bad:
            yield _named(what, bad[1], bad[2], case)
            return
    words, load = slots(case), case.intent.through
    for each in load.pages if isinstance(load, PageList) else ():
        if each.name in ROOTS:
            continue  # those reach CR3, and xen-root-machine tells it
        if words[each.slot] != each.machine and words[each.slot] == each.pseudo:
            where = f"slot {each.slot} of page_list (PA_{each.name})"
            yield _named(where, words[each.slot], each.machine, case)
            return


@rule(
    "xen-entries-machine",
    Step.PREPARE,
    says="Under Xen every entry of the tables holds a machine address.",
    source=THREAD,
    mend=MEND,
)
def entries_machine(case: Case) -> Iterator[Found]:
    """Every entry of the tables holds a machine address."""
    p2m = _p2m(case)
    if p2m is None:
        return
    table_a, table_b = case.handover.page_table_a, case.handover.page_table_b
    trees = [("page_table_a", table_a)]
    trees += [("page_table_b", table_b)] if table_b and table_b is not table_a else []
    for name, tables in trees:
        known = np.array(sorted(tables.pages), np.int64) >> PAGE_SHIFT
        for at, frame in _children(case, tables):
            real = p2m.to_machine(np.array([frame], np.int64))
            if frame not in known and real[0] in known:
                where = f"the entry at {at:#x} of {name}"
                yield _named(where, frame << PAGE_SHIFT, int(real[0]) << PAGE_SHIFT, case)
                return
    control = case.intent.control_page >> PAGE_SHIFT
    for virt in (case.intent.relocation, case.control_page.start):
        got = case.walk(table_a, virt, Access.READ)
        if not isinstance(got, Refused):
            frame = got.phys >> PAGE_SHIFT
            if _raw(p2m, np.array([frame], np.int64), np.array([control], np.int64)):
                where = f"the entry of page_table_a for {virt:#x}"
                yield _named(where, frame << PAGE_SHIFT, control << PAGE_SHIFT, case)
                return
    if table_b:
        mapped = case.mapped_b
        own = mapped.virt != np.uint64(case.intent.relocation)
        virt_frames = (mapped.virt[own] >> np.uint64(PAGE_SHIFT)).astype(np.int64)
        frames = (mapped.phys[own] >> np.uint64(PAGE_SHIFT)).astype(np.int64)
        bad = _raw(p2m, frames, virt_frames)
        if bad:
            where = f"the entry of page_table_b for {bad[2]:#x}"
            yield _named(where, bad[1], bad[2], case)


def _children(case: Case, tables: Tables) -> Iterator[tuple[int, int]]:
    """(where, frame) of each entry that leads to a table, level by level from the root."""
    paging = case.intent.paging
    size = ENTRY_SIZE[paging]
    level = [int(tables.root)]
    for depth, large in enumerate(LARGE[paging]):
        below = []
        for table in level:
            page = tables.pages.get(table)
            if page is None:
                continue
            rows = np.frombuffer(page, f"<u{size}").astype(np.uint64)
            if paging is Paging.PAE and depth == 0:
                rows = rows[:4]
            leads = rows & np.uint64(PRESENT) != 0
            if large:
                leads &= rows & np.uint64(PAGE_SIZE_FLAG) == 0
            for slot in leads.nonzero()[0].tolist():
                address = int(rows[slot]) & ADDRESS_BITS
                yield table + slot * size, address >> PAGE_SHIFT
                below.append(address)
        level = below


@rule(
    "xen-root-machine",
    Step.TABLE_A,
    says="Under Xen CR3 is loaded with machine addresses.",
    source=THREAD,
    mend=MEND,
    needs={Sight.REGISTER_WRITES},
)
def cr3_machine(case: Case) -> Iterator[Found]:
    """What is loaded into CR3 is the machine address of a root."""
    p2m = _p2m(case)
    if p2m is None:
        return
    tables = (case.handover.page_table_a, case.handover.page_table_b)
    roots = {p2m.pseudo(Machine(each.root)): each.root for each in tables if each}
    real = {each.root for each in tables if each}
    for write in case.run.register_writes:
        value = write.after & ~0xFFF
        if write.register == "cr3" and value not in real and value in roots:
            where = f"CR3, loaded by `{case.run.texts.get(write.rip, '?')}` at {write.rip:#x},"
            machine = int(next(root for pseudo, root in roots.items() if pseudo == value))
            yield _named(where, value, machine, case, step=write.step)
            return
