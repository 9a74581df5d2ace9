"""Rules about page_table_a and page_table_b as they were built.

Rules: tables are read through the walker, never through the builder.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

import numpy as np

from tightrope.check.case import Case
from tightrope.check.rule import Found, finding, rule
from tightrope.memory import PAGE_SIZE, Extent, Phys, subtract, union
from tightrope.model import (
    CpuVendor,
    Host,
    Paging,
    Promise,
    Protocol,
    Step,
    Stop,
    Tables,
    once_a_host,
)
from tightrope.model.modes import MODES
from tightrope.x86.cpu import CR0_PG
from tightrope.x86.walk import Access, Refused, Translated

GENERAL_PROTECTION = 13
RESERVED = 8
"""The RSVD bit of a page-fault error code (SDM 4.7)."""
ADDRESS_BITS = 0x000F_FFFF_FFFF_F000
"""Where an entry holds a physical address, as far as any CPU goes (SDM table 4-15 and on)."""

FIRST_THAT_MASKS = 7
"""Linux 7: the change is eb22663125, of November 2025, later than 6.18 was cut; 7.3.4 says its
first line with no5lvl behind a marked entry.
"""

THREAD_2 = "the thread, step 2: page_table_a has mapped the control page at two virtual addresses"


def _reserved(got: Translated | Refused) -> bool:
    """A reserved bit stopped the walk: a page fault, or #GP where CR3 loads a PDPTE (SDM 4.4.1)."""
    if not isinstance(got, Refused):
        return False
    # An address that is not canonical is #GP too, and no entry was visited.
    return bool(got.error_code & RESERVED or (got.vector == GENERAL_PROTECTION and got.visits))


def _leads(case: Case, virt: int) -> Translated | Refused:
    return case.walk(case.handover.page_table_a, virt, Access.READ)


def _where(got: Translated | Refused) -> dict[str, str]:
    """A walk as evidence: each entry, then where it ended."""
    shown = {visit.level: f"{visit.entry:#x} at {visit.at:#x}" for visit in got.visits}
    shown["walk"] = got.reason if isinstance(got, Refused) else f"leads to {got.phys:#x}"
    return shown


def _maps(case: Case, virt: int, name: str, frame: int) -> Iterator[Found]:
    got = _leads(case, virt)
    there = "the control page" if frame == case.control_page.start else "the code at V"
    if isinstance(got, Refused):
        if _reserved(got):
            return  # reserved-bits tells it
        problem = f"page_table_a does not map {name} = {virt:#x}: {got.reason}"
    elif got.phys != frame:
        problem = f"page_table_a maps {name} = {virt:#x} to {got.phys:#x}, not to {there}"
    else:
        return
    yield finding(
        problem,
        evidence=_where(got),
        mend=f"map {virt:#x} to {there} {frame:#x} in page_table_a",
    )


@rule(
    "table-a-maps-v",
    Step.TABLE_A,
    says="page_table_a maps V to the control page, so that the CPU goes on where it is.",
    source=THREAD_2,
    mend="map V to the control page in page_table_a",
)
def table_a_maps_v(case: Case) -> Iterator[Found]:
    """V leads to the control page, or to where it always led if the code at V stays where it is."""
    yield from _maps(case, case.intent.relocation, "V", case.behind_v)


@rule(
    "table-a-maps-p",
    Step.STATE,
    says="page_table_a maps P to itself, so that stack, gdt and the jump find the control page.",
    source=THREAD_2,
    mend="map P to itself in page_table_a",
)
def table_a_maps_p(case: Case) -> Iterator[Found]:
    """P leads to itself, or the page that the switching function jumps to."""
    yield from _maps(case, case.landing, "P", case.landing)


@rule(
    "table-a-rights",
    Step.TABLE_A,
    says="The control page is mapped supervisor, writable and executable at V and at P.",
    source="the thread, step 1: 'still work with NX bits'; SDM 4.6",
    mend="map it supervisor, writable and executable on every level",
)
def table_a_rights(case: Case) -> Iterator[Found]:
    """Supervisor and executable; the control page writable too: it holds the code and its stack."""
    for name, virt in (("V", case.intent.relocation), ("P", case.landing)):
        got = _leads(case, virt)
        if isinstance(got, Refused):
            continue
        control = got.phys == case.control_page.start
        wrong = [
            text
            for bad, text in (
                (not got.executable, "not executable (NX is set)"),
                (not got.writable and control, "not writable"),
                (got.user, "open to user mode"),
            )
            if bad
        ]
        if wrong:
            yield finding(
                f"{'the control page' if control else 'the code'} at {name} = {virt:#x} is"
                f" {' and '.join(wrong)}",
                evidence=_where(got),
            )


@rule(
    "table-a-nothing-else",
    Step.TABLE_A,
    says="page_table_a maps nothing but the control page, twice.",
    source=THREAD_2,
    mend="leave it out: anything else that can be reached can be hit by mistake",
    promise=Promise.NOTHING_ELSE_MAPPED,
)
def table_a_nothing_else(case: Case) -> Iterator[Found]:
    """Two mappings and no third."""
    allowed = {case.intent.relocation, case.landing}
    mapped = case.mapped_a
    for virt, phys, size in zip(
        mapped.virt.tolist(), mapped.phys.tolist(), mapped.size.tolist(), strict=True
    ):
        if virt not in allowed or size != PAGE_SIZE:
            yield finding(f"page_table_a also maps {virt:#x} to {phys:#x} ({size:#x} bytes)")
            return


@rule(
    "reserved-bits",
    Step.TABLE_A,
    says="No entry that is used has a reserved bit set.",
    source="SDM 4.4.2, 4.5.5",
    mend="clear the bits that this level, or the CPU's address width, reserves",
)
def reserved_bits(case: Case) -> Iterator[Found]:
    """No reserved bit on the way to V, to P, or anywhere in page_table_b."""
    tables_a, tables_b = case.handover.page_table_a, case.handover.page_table_b
    targets = []
    if case.mapped_a.reserved:
        targets += [
            ("page_table_a", tables_a, case.intent.relocation, Step.TABLE_A),
            ("page_table_a", tables_a, case.landing, Step.STATE),
        ]
    if tables_b and case.mapped_b.reserved:
        targets += [
            ("page_table_b", tables_b, each.extent.start, Step.TABLE_B)
            for each in case.intent.identity
        ]
    for name, tables, virt, step in targets:
        got = case.walk(tables, virt, Access.READ)
        if isinstance(got, Refused) and _reserved(got):
            yield finding(
                f"{name}, walked for {virt:#x}: {got.reason}",
                evidence=_where(got),
                step=step,
                mend="a PDPTE holds P, PWT, PCD and the address, nothing else"
                if got.vector == GENERAL_PROTECTION
                else _clear(case),
            )
            return
    if case.intent.paging is Paging.I386:
        return  # an entry of 32 bits has no address bits that a CPU lacks
    trees = [("page_table_a", tables_a, Step.TABLE_A)]
    trees += [("page_table_b", tables_b, Step.TABLE_B)] if tables_b else []
    for name, tables, step in trees:
        for at, entry, bits in _beyond(case, tables):
            yield finding(
                f"an entry of {name} has reserved bits {bits:#x}",
                evidence={"entry": f"{entry:#x} at {at:#x}"},
                step=step,
                mend=_clear(case),
            )
            return
        for at, entry in _bit_8(case, tables):
            yield finding(
                f"the entry at {at:#x}, of {name}'s highest level, has bit 8: AMD's CPUs reserve it",
                evidence={"entry": f"{entry:#x} at {at:#x}"},
                step=step,
                mend="an entry that leads to a table has no G bit: clear bit 8",
            )
            return


def _bit_8(case: Case, tables: Tables) -> Iterator[tuple[int, int]]:
    """Present entries of PML5 and PML4 tables with bit 8: ignored by Intel's CPUs (SDM 4.5.4), and
    to be zero on AMD's (APM volume 2, 5.3.3: PML4E and PML5E, long mode).
    """
    if not case.host.paging.long_mode or case.host.cpu.vendor is CpuVendor.INTEL:
        return
    frames = [int(tables.root)]
    for level in range(MODES[case.host.paging].levels, 3, -1):
        below: list[int] = []
        for frame in frames:
            page = tables.pages.get(Phys(frame))
            if page is None:
                continue  # the design goes on in the old kernel's own
            entries = np.frombuffer(page, "<u8")
            for slot in (entries & np.uint64(0x101) == 0x101).nonzero()[0].tolist():
                yield frame + 8 * slot, int(entries[slot])
            if level > 4:
                present = entries[entries & np.uint64(1) != 0]
                below += (present & np.uint64(ADDRESS_BITS & -PAGE_SIZE)).tolist()
        frames = below


def _clear(case: Case) -> str:
    return f"keep bits {case.host.cpu.physical_bits} to 51 clear in every entry"


def _beyond(case: Case, tables: Tables) -> Iterator[tuple[int, int, int]]:
    """Present entries, off the beaten track too, with address bits that the CPU does not have."""
    mask = ADDRESS_BITS & ~((1 << case.host.cpu.physical_bits) - 1)
    frames = list(tables.pages)
    entries = np.frombuffer(b"".join(tables.pages.values()), "<u8")
    if not int(np.bitwise_or.reduce(entries)) & mask:
        return
    bad = (entries & np.uint64(1) != 0) & (entries & np.uint64(mask) != 0)
    for at in bad.nonzero()[0].tolist():
        entry = int(entries[at])
        number, slot = divmod(at, PAGE_SIZE // 8)
        yield frames[number] + 8 * slot, entry, entry & mask


@rule(
    "table-b-identity",
    Step.TABLE_B,
    says="page_table_b maps each address to itself.",
    source="the thread, step 5",
    mend="the copy uses physical addresses as linear ones: map each address to itself",
)
def table_b_identity(case: Case) -> Iterator[Found]:
    """Whatever page_table_b maps, it maps to itself."""
    if case.handover.page_table_b is None:
        return
    mapped = case.mapped_b
    wrong = (mapped.virt != mapped.phys).nonzero()[0]
    if case.contract.one_tree:
        wrong = wrong[mapped.virt[wrong] != np.uint64(case.intent.relocation)]
    if len(wrong):
        at = int(wrong[0])
        virt, phys = int(mapped.virt[at]), int(mapped.phys[at])
        yield finding(f"page_table_b maps {virt:#x} to {phys:#x}")


@rule(
    "table-b-covers",
    Step.TABLE_B,
    says="page_table_b maps all that the copy and the new kernel's first instructions touch.",
    source="boot.rst, 64-bit Boot Protocol; Linux commit 6bbeb276b71f",
    mend="extend page_table_b: what it leaves out cannot be touched, and no handler is left",
)
def table_b_covers(case: Case) -> Iterator[Found]:
    """Everything the copy, the stub and the new kernel's first instructions touch."""
    if case.handover.page_table_b is None:
        return
    missing = subtract(case.wanted_b, case.reached_b)
    if not missing:
        return
    ends = [each.end for each in missing]
    for named in case.needed_b:
        at = bisect_right(ends, named.extent.start)
        if at < len(missing) and missing[at].overlaps(named.extent):
            hole = Extent(
                max(missing[at].start, named.extent.start), min(missing[at].end, named.extent.end)
            )
            yield finding(
                f"page_table_b does not map {hole}: {named.what}",
                evidence={
                    "needed": str(named.extent),
                    "for": named.what,
                    "left out": f"{sum(each.size for each in missing):#x} bytes in all",
                },
            )
            return


@rule(
    "table-b-nothing-else",
    Step.TABLE_B,
    says="page_table_b maps nothing that the plan does not need, and no hole or reserved range.",
    source="Linux commit cc31744a2945 (UV machines halt when more is mapped)",
    mend="leave it unmapped, with smaller pages at the edges: a CPU may read ahead into it",
    promise=Promise.EXACT_TABLES,
    weak=True,
)
def table_b_nothing_else(case: Case) -> Iterator[Found]:
    """No memory that nobody needs; never a hole or a reserved range that the host does not name."""
    if case.handover.page_table_b is None:
        return
    extra = subtract(case.reached_b, case.wanted_b)
    if extra:
        kinds = {
            kind.value if kind else "a hole" for kind in [case.host.memory.kind_at(extra[0].start)]
        }
        yield finding(
            f"page_table_b maps {extra[0]}, which nothing needs ({', '.join(kinds)})",
            mend="use smaller pages at its edges: a CPU may read ahead into whatever is mapped",
        )
        return
    beyond = subtract(case.reached_b, _backed(case.host))
    if beyond:
        yield finding(
            f"page_table_b maps {beyond[0]}, which is a hole or reserved",
            mend="leave it unmapped; speculation into it is a machine check on some machines",
        )


@once_a_host
def _backed(host: Host) -> tuple[Extent, ...]:
    """Whole pages of memory that may be read, with what the host names of it."""
    named = (each.extent for each in host.firmware)
    return union(each.page_aligned() for each in (*host.memory.readable, *named))


@rule(
    "table-b-top",
    Step.TABLE_B,
    says="A new kernel that goes from 5 levels to 4 finds a plain address at page_table_b's top.",
    source="LKML, 3 November 2025: Fix page table access in 5-level to 4-level paging transition",
    mend="load CR3 with the address alone, and keep bits 52 to 63 of the first entry clear",
)
def table_b_top(case: Case) -> Iterator[Found]:
    """Linux that goes from 5 levels to 4 takes the word at CR3 for the address of its next table.

    Until 2025 it masked neither CR3's flags nor the entry's bits 52 to 63 (paging_prepare(), then
    configure_5level_paging(), in arch/x86/boot/compressed/pgtable_64.c), so it copied a page from
    elsewhere when the old kernel had marked the entry (bit 58, _PAGE_BIT_NOPTISHADOW).  A stable
    kernel may mask them and be older: its version does not tell, so it is bound like the others.
    """
    tables, registers = case.handover.page_table_b, case.run.registers
    if tables is None or not MODES[case.host.paging].reads_root or _masks_the_top(case):
        return
    entry = int.from_bytes(tables.pages[tables.root][:8], "little")
    entered = case.run.stop is Stop.ENTRY and registers.cr0 & CR0_PG
    for what, at, step, bits in (
        (
            f"the first entry of page_table_b's top is {entry:#x}",
            f"at {tables.root:#x}",
            Step.TABLE_B,
            entry & ~(ADDRESS_BITS | PAGE_SIZE - 1),
        ),
        (
            f"CR3 is {registers.cr3:#x} at the entry",
            "in CR3",
            Step.COPY,
            registers.cr3 & ~ADDRESS_BITS if entered else 0,
        ),
    ):
        if bits:
            yield finding(
                f"{what}, and a new kernel that goes down to 4 levels takes {bits:#x} of it for a"
                " part of an address",
                evidence={"bits": f"{bits:#x} {at}"},
                step=step,
            )


def _masks_the_top(case: Case) -> bool:
    """By its own version the new kernel is Linux of 2026 or later."""
    linux = case.intent.protocol in (Protocol.LINUX_64, Protocol.LINUX_32)
    release = re.match(r"(\d{1,3})\.\d", case.intent.image.version or "", re.ASCII)
    return linux and release is not None and int(release[1]) >= FIRST_THAT_MASKS
