"""The jump itself: relocation code, its tables, the state it leaves (B01 to B18, B22 to B24).

Rules: as `rebuilt`.  Linux's and Xen's mistakes are made in this project's own routines, which do the same
steps; tables are built by the builder from what the builder of that time knew.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from tests.history.rebuilt import (
    Entry,
    Findings,
    asked_of,
    in_relocation,
    walked,
    with_back_entry,
)
from tests.makers.designs import DAMM_V4, IN_PLACE, TWO_TABLES
from tests.makers.hosts import MIB, mode_host
from tests.modes.runs import kernel
from tests.participants.test_linux_walks import old_code
from tests.rehearse.runs import example_host, shipped_kernel
from tightrope import host
from tightrope.deeds.rehearse import build, prepare
from tightrope.handover import designs
from tightrope.memory import PAGE_SIZE, Extent, MemoryMap, Phys, Region, RegionKind
from tightrope.model import (
    EVERY_PROMISE,
    Confidential,
    Done,
    Given,
    Handover,
    Host,
    Named,
    Paging,
    Participant,
    Piece,
    PieceRole,
    Promise,
    Step,
    Trees,
)
from tightrope.participants.relocation import named
from tightrope.plan import Request

GIB = 1 << 30
CET, MCE, LA57 = 1 << 23, 1 << 6, 1 << 12


def ours(was: str = "", becomes: str = "") -> Participant:
    code = named(TWO_TABLES)(Paging.X86_64)
    return in_relocation(code, was, becomes) if was else code


# ------------------------------------------------------------ B01: nothing above the address that is returned to


def no_word_pushed() -> Findings:
    """6.14 to 6.18: RSP is the page's end when the purgatory is entered, and 0(%rsp) another page's."""
    return walked(example_host(), design=ours("6a005231c0", "52909031c0"), change=with_back_entry)


def word_pushed() -> Findings:
    return walked(example_host(), design=ours(), change=with_back_entry)


def as_linux_maps_it(code: Participant) -> Findings:
    """With all memory mapped nothing faults: what lies in the next page is what is read."""
    contract = replace(
        code.contract,
        trees=Trees.WHOLE_MEMORY,
        arguments={**code.contract.arguments, "r8": Given.TABLE_A},
        promises=EVERY_PROMISE - {Promise.NOTHING_ELSE_MAPPED, Promise.EXACT_TABLES},
    )
    return walked(
        example_host(),
        design=replace(code, contract=contract),
        request=Request(command_line="a word", whole_memory=True),
        change=with_back_entry,
    )


# -------------------------------------------------------------------------- B04: the tables' root is two pages


def shadowed(busy: bool) -> Findings:
    """set_pgd() of a kernel with PTI writes each entry twice, the second one page further on."""

    def change(handover: Handover) -> Handover:
        root = handover.page_table_a.root
        beyond = Piece(
            phys=Phys(root + PAGE_SIZE),
            data=bytes(handover.page_table_a.pages[root]),
            role=PieceRole.OTHER,
            which="the root's shadow",
        )
        return replace(handover, extra=(*handover.extra, beyond)) if busy else handover

    return walked(example_host(), change=change)


# ---------------------------------------------------------- B06: 5 levels, and a kernel that knows of 4 alone


def five_levels(*, told: bool) -> Findings:
    """A loader that does not look at XLF_5LEVEL enters at 64 bits whatever the tables are."""
    old = mode_host(Paging.LA57)
    flags = kernel().xloadflags
    narrow = replace(kernel(), xloadflags=flags & ~(1 << 5))
    plan = prepare(narrow if told else kernel(), old, Request(command_line="a word"))
    return asked_of(build(replace(plan, image=narrow), design=TWO_TABLES))


# ---------------------------------------------------- B08, B09, B13, B14: what the identity map leaves out


@cache
def with_tables_of_firmware(kind: RegionKind, where: int = 0xD000_0000) -> Host:
    """Tables of the firmware's in memory of their own, which shares no large page with RAM."""
    old = example_host()
    place = Extent.sized(where, 0x4000)
    return replace(
        old,
        memory=MemoryMap(tuple(sorted([*old.memory, Region(place, kind)]))),
        firmware=(*old.firmware, Named(extent=place, what="EFI's system table")),
    )


def mapped_without(old: Host, forgotten: str, *, mended: bool) -> Findings:
    """page_table_b is built of everything but one thing, and judged by everything."""
    plan = prepare(shipped_kernel(), old, Request(command_line="a word"))
    assert any(forgotten in each.what for each in plan.identity), [e.what for e in plan.identity]
    less = tuple(each for each in plan.identity if forgotten not in each.what)
    built = build(plan if mended else replace(plan, identity=less), design=TWO_TABLES)
    return asked_of(replace(built, intent=plan))


def more_than_40_bits() -> Host:
    """RAM above 1 TiB, and all of the rest in use."""
    old = example_host()
    high = Region(Extent.sized(1 << 40, GIB), RegionKind.RAM)
    taken = Named(extent=Extent(MIB * 64, 0xBFFD_9000), what="in use")
    rest = Named(extent=Extent.sized(1 << 32, GIB), what="in use")
    return replace(
        old, memory=MemoryMap(tuple(sorted([*old.memory, high]))), busy=(*old.busy, taken, rest)
    )


def up_to(limit: int, *, mended: bool) -> Findings:
    """An identity map that ends at a limit of the kernel's, wherever the sources and segments lie."""
    plan = prepare(shipped_kernel(), more_than_40_bits(), Request(command_line="a word"))
    assert any(each.extent.end > limit for each in plan.identity)
    less = tuple(each for each in plan.identity if each.extent.end <= limit)
    less = (*less, *(each for each in plan.identity if "control page" in each.what))
    built = build(plan if mended else replace(plan, identity=less), design=TWO_TABLES)
    return asked_of(replace(built, intent=plan))


# ---------------------------------------------------------------- B11, B13: what the identity map has too much


def rounded_out(size: int, *, mended: bool) -> Findings:
    """Each range is mapped in pages of `size` bytes, whatever else lies in them."""
    plan = prepare(shipped_kernel(), example_host(), Request(command_line="a word"))
    wide = tuple(
        replace(each, extent=designs.rounded(each.extent, size))
        if "kernel" in each.what or "ACPI" in each.what
        else each
        for each in plan.identity
    )
    built = build(plan if mended else replace(plan, identity=wide), design=TWO_TABLES)
    return asked_of(replace(built, intent=plan))


# ------------------------------------------------------------------------- B16, B18: the thread's own history


def with_a_split(design: str) -> Findings:
    """2.6.20 on PAE with a split of 1 GiB: V and P share a slot of the pgd and no more."""
    old = host.read(host.example(Paging.PAE, 0x4000_0000), "PAE, 1G/3G")
    taken = Named(extent=Extent(MIB, 0x4800_0000), what="in use")
    return walked(replace(old, busy=(*old.busy, taken)), design=design)


def over_the_live_pgd(paging: Paging, design: str) -> Findings:
    """2.6.16 plants the identity map in the tables that it runs on."""
    return walked(host.read(host.example(paging), paging.value), design=design)


# ------------------------------------------------------------------------ B23: what a TDX guest may not clear


def in_a_tdx_guest(flavour: str) -> Findings:
    """Debian's own code: 6.1 clears CR4.MCE, 6.12 has an instruction that its boot puts in there."""
    code = old_code(flavour)
    old = example_host()
    guest = replace(old, cpu=replace(old.cpu, guest=Confidential.TDX))
    return walked(
        code.host(guest),
        request=code.request(Request(command_line="a word")),
        design=code.participant,
    )


# ------------------------------------------------------------------------------------ B22: CET is left on


def under_cet(*, left_on: bool) -> Findings:
    """CR0.WP cannot be cleared while CR4.CET is set: the code has to clear that first."""
    old = example_host()
    old = replace(old, cr4=old.cr4 | CET)
    code = ours("2520100000", "2520108000") if left_on else ours()
    # Linux's C code has turned tracking off before the call: the bit alone is what is left.
    contract = replace(code.contract, done=frozenset({Done.BRANCHES_UNTRACKED}))
    return walked(old, design=replace(code, contract=contract))


ENTRIES = (
    Entry(
        id="B01",
        what="kexec-tools' purgatory, and exact tables",
        rule="access-mapped",
        step=Step.COPY,
        broken=no_word_pushed,
        fixed=word_pushed,
    ),
    Entry(
        id="B01",
        what="kexec-tools' purgatory, and Linux's tables",
        rule="destinations-complete",
        step=Step.COPY,
        broken=lambda: as_linux_maps_it(ours("6a005231c0", "52909031c0")),
        fixed=lambda: as_linux_maps_it(ours()),
    ),
    Entry(
        id="B04",
        rule="laid-free",
        step=Step.PREPARE,
        broken=lambda: shadowed(True),
        fixed=lambda: shadowed(False),
    ),
    Entry(
        id="B06",
        rule="entry-levels",
        step=Step.COPY,
        broken=lambda: five_levels(told=False),
        fixed=lambda: five_levels(told=True),
    ),
    Entry(
        id="B08",
        rule="table-b-covers",
        step=Step.TABLE_B,
        broken=lambda: mapped_without(
            with_tables_of_firmware(RegionKind.RESERVED), "EFI", mended=False
        ),
        fixed=lambda: mapped_without(
            with_tables_of_firmware(RegionKind.RESERVED), "EFI", mended=True
        ),
    ),
    Entry(
        id="B09",
        rule="table-b-covers",
        step=Step.TABLE_B,
        broken=lambda: mapped_without(
            with_tables_of_firmware(RegionKind.NVS), "ACPI", mended=False
        ),
        fixed=lambda: mapped_without(with_tables_of_firmware(RegionKind.NVS), "ACPI", mended=True),
    ),
    Entry(
        id="B11",
        what="pages of 1 GiB",
        rule="table-b-nothing-else",
        step=Step.TABLE_B,
        broken=lambda: rounded_out(GIB, mended=False),
        fixed=lambda: rounded_out(GIB, mended=True),
    ),
    Entry(
        id="B13",
        what="over holes, in pages of 2 MiB",
        rule="table-b-nothing-else",
        step=Step.TABLE_B,
        broken=lambda: rounded_out(2 * MIB, mended=False),
        fixed=lambda: rounded_out(2 * MIB, mended=True),
    ),
    Entry(
        id="B13",
        what="no more than 1 TiB",
        rule="table-b-covers",
        step=Step.TABLE_B,
        broken=lambda: up_to(1 << 40, mended=False),
        fixed=lambda: up_to(1 << 40, mended=True),
    ),
    Entry(
        id="B14",
        rule="table-b-covers",
        step=Step.TABLE_B,
        broken=lambda: mapped_without(example_host(), "entry stub", mended=False),
        fixed=lambda: mapped_without(example_host(), "entry stub", mended=True),
    ),
    Entry(
        id="B16",
        rule="table-a-maps-v",
        step=Step.TABLE_A,
        broken=lambda: with_a_split(DAMM_V4),
        fixed=lambda: with_a_split(TWO_TABLES),
    ),
    *(
        Entry(
            id="B18",
            what=paging.value,
            rule="current-pgd-kept",
            step=Step.CALL,
            broken=lambda paging=paging: over_the_live_pgd(paging, IN_PLACE),  # type: ignore[misc]
            fixed=lambda paging=paging: over_the_live_pgd(paging, TWO_TABLES),  # type: ignore[misc]
        )
        for paging in Paging
    ),
    Entry(
        id="B22",
        what="CR4.CET while CR0.WP is cleared",
        rule="legal-writes",
        step=Step.TABLE_B,
        broken=lambda: under_cet(left_on=True),
        fixed=lambda: under_cet(left_on=False),
    ),
    Entry(
        id="B23",
        rule="legal-writes",
        step=Step.TABLE_B,
        broken=lambda: in_a_tdx_guest("amd64"),
        fixed=lambda: in_a_tdx_guest("amd64-6.12"),
    ),
)
