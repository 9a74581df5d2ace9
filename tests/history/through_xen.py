"""Through Xen (B02, B22, B28, B31 to B34): what the hypervisor or dom0 got wrong.

Rules: as `rebuilt`.  The hypervisors are the example hosts; what Xen's own code did wrong is done wrong in this
project's routines for the same interface.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from functools import cache

from tests.conftest import debian_kernel
from tests.history.rebuilt import (
    Change,
    Entry,
    Findings,
    asked_of,
    same,
    walked,
    with_back_entry,
    with_bytes,
)
from tests.makers.designs import TWO_TABLES
from tests.makers.hosts import table_b
from tests.modes.runs import kernel
from tests.rehearse.runs import shipped_kernel
from tests.xen.runs import OUT, Way, hypervisor, request
from tests.xen.runs import WAYS as ALL
from tightrope import host, routines
from tightrope.deeds import old_kernel
from tightrope.deeds.old_kernel import OldKernel
from tightrope.deeds.rehearse import build, prepare
from tightrope.memory import PAGE_SIZE
from tightrope.model import (
    Given,
    Handover,
    Host,
    Paging,
    SegmentRole,
    Step,
    XenCrash,
    with_code,
)
from tightrope.plan import Request
from tightrope.sabotage import XEN_SABOTAGES
from tightrope.sabotage.edits import edit_entry, edit_segment, with_piece

WIDE_V2 = ALL[3]
CET = 1 << 23


def through(
    way: Way, change: Change = same, *, kind: XenCrash | None = None, old: Host | None = None
) -> Findings:
    plan = prepare(shipped_kernel(), old or hypervisor(way), request(way, kind))
    return asked_of(change(build(plan, design=TWO_TABLES)))


def changed(was: str, becomes: str) -> Change:
    """Bytes of the code that walks."""

    def change(handover: Handover) -> Handover:
        code = with_bytes(handover.code, was, becomes)
        chain = with_code(handover.chain, code)
        laid = tuple(
            replace(each, data=code.data.ljust(len(each.data), b"\0"))
            if bytes(each.data).startswith(handover.code.data)
            else each
            for each in handover.world.laid
        )
        world = replace(handover.world, laid=laid)
        return replace(handover, chain=chain, world=world)

    return change


# ------------------------------------------------- B02: the image is called, and an address is left behind


def called(handover: Handover) -> Handover:
    """A call leaves an address behind it where a purgatory looks: here, that of what is entered."""
    return with_back_entry(changed("6a00415231c0", "415241529090")(handover))


def jumped(handover: Handover) -> Handover:
    return with_back_entry(handover)


# ------------------------------------------------------------------------------------ B22: CET is left on


def with_cet(*, left_on: bool) -> Findings:
    """The indirect jump to the identity address while CET is on: CR4 was cleared too late, or never."""
    old = hypervisor(WIDE_V2)
    old = replace(old, cr4=old.cr4 | CET)
    return through(
        WIDE_V2, changed("b8200000000f22e0", "b8200080000f22e0") if left_on else same, old=old
    )


# -------------------------------------------------------------------------------- B28: a page that is not mapped


def source_unmapped(handover: Handover) -> Handover:
    """The frame of a page that has to be copied, left out of the hypervisor's own tables."""
    moved = handover.intent.sources[handover.intent.sources != handover.intent.destinations]
    return edit_entry(handover, table_b(handover), int(moved[-1]) * PAGE_SIZE, lambda _: 0)


# ------------------------------------------------------------------------- B31: an argument that nobody passes


@cache
def old_pae() -> OldKernel:
    return old_kernel.read(debian_kernel("686-pae").read_bytes(), "686-pae")


def with_has_pae(*, passed: bool) -> Findings:
    """The word that tells Linux's 32-bit code to clear CR4 is 0 on a CPU that has CR4: PAE stays on.

    Through Xen it was lost; the code is the same that a bare kernel calls.
    """
    code = old_pae()
    contract = code.participant.contract
    assert contract.arguments["rsp+16"] is Given.HAS_PAE
    lost = replace(contract, arguments={**contract.arguments, "rsp+16": Given.NOTHING})
    old = host.read(host.example(Paging.PAE), "PAE")
    return walked(
        code.host(old),
        new=kernel(),
        request=code.request(Request(command_line="a word")),
        design=code.participant if passed else replace(code.participant, contract=lost),
    )


# -------------------------------------------------------------------------- B32, B33: 32-bit dom0, 64-bit Xen


def gdt_of_the_way_out(handover: Handover) -> Handover:
    """The way out's own code descriptor is no 32-bit code: the gdt is not in the state that it counts on."""
    way = handover.world.way_out
    assert way is not None
    code = routines.read(routines.LEAVE_XEN)
    narrow = bytes.fromhex("ffff0000009bcf00")
    at = code.data.index(narrow)
    assert code.data.count(narrow) == 1

    def change(data: bytearray) -> None:
        data[at + 5] &= 0x7F  # not present

    return with_piece(handover, way.code, change)


# ----------------------------------------------------------------------- B34: an eighth of the hypervisor


ROW = struct.Struct("<IIQQQQQQ")
"""An ELF64 program header (System V ABI): type, flags, offset, vaddr, paddr, filesz, memsz, align."""


def an_eighth(handover: Handover) -> Handover:
    """The hypervisor's own range is reported with one eighth of its size, and the core header believes it."""
    text = handover.host.text

    def change(data: bytearray) -> None:
        for at in range(64, len(data) - ROW.size + 1, ROW.size):
            kind, flags, offset, virt, phys, filed, sized, alignment = ROW.unpack_from(data, at)
            if (kind, virt, phys, filed) == (1, text.virt, text.phys, text.size):
                row = (kind, flags, offset, virt, phys, filed // 8, sized // 8, alignment)
                ROW.pack_into(data, at, *row)
                return
        raise AssertionError("no row has the hypervisor's text")

    return edit_segment(handover, SegmentRole.CORE_HEADER, change, planned=True)


ENTRIES = (
    Entry(
        id="B02",
        rule="destinations-complete",
        step=Step.COPY,
        broken=lambda: through(WIDE_V2, called),
        fixed=lambda: through(WIDE_V2, jumped),
    ),
    Entry(
        id="B22",
        what="Xen: the branch to the identity address",
        rule="branches-untracked",
        step=Step.IDENTITY,
        broken=lambda: with_cet(left_on=True),
        fixed=lambda: with_cet(left_on=False),
    ),
    Entry(
        id="B28",
        rule="table-b-covers",
        step=Step.TABLE_B,
        broken=lambda: through(WIDE_V2, source_unmapped),
        fixed=lambda: through(WIDE_V2),
    ),
    Entry(
        id="B31",
        rule="known-state",
        step=Step.COPY,
        broken=lambda: with_has_pae(passed=False),
        fixed=lambda: with_has_pae(passed=True),
    ),
    Entry(
        id="B32",
        rule="xen-way-out-maps",
        step=Step.CALL,
        broken=lambda: through(OUT, XEN_SABOTAGES["xen-way-out-unmapped"].handover),
        fixed=lambda: through(OUT),
    ),
    Entry(
        id="B33",
        rule="legal-writes",
        step=Step.CALL,
        broken=lambda: through(OUT, gdt_of_the_way_out),
        fixed=lambda: through(OUT),
    ),
    Entry(
        id="B34",
        rule="core-header-told",
        step=Step.COPY,
        broken=lambda: through(WIDE_V2, an_eighth, kind=XenCrash.HYPERVISOR),
        fixed=lambda: through(WIDE_V2, kind=XenCrash.HYPERVISOR),
    ),
)
