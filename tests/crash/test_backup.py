"""The backup of low memory: what the old kernel had below 640 KiB is in the dump, and nothing else is.

Low memory is filled with a pattern of the test's own before the walk; what the core header leads to is
read afterwards, as the new kernel's /proc/vmcore would read it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.crash.hosts import crash_hosts, example, small_kernel
from tests.crash.reader import Row, e820, header_of, segment
from tests.makers.hosts import MIB, PAGE, read_image
from tests.rehearse.runs import backed_up, low_memory_host, shared, shipped_kernel, shipped_request
from tests.stand_ins.played import Fake
from tightrope import check
from tightrope.deeds.rehearse import build, rehearse
from tightrope.errors import BadInput, PlanError
from tightrope.machine.port import Machine
from tightrope.memory import Extent, MemoryMap, Phys, Region, RegionKind
from tightrope.model import (
    Handover,
    Host,
    Named,
    Outcome,
    Paging,
    Piece,
    PieceRole,
    Protocol,
    Run,
    Stop,
)
from tightrope.plan import Request, prepare
from tightrope.sabotage import SABOTAGES

MODES = pytest.mark.parametrize("paging", list(Paging))
NAME = "backup of low memory"
SAVED = Request(crash=True, backup=True)
END = 640 << 10
FEW = settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])


def patterned(handover: Handover) -> tuple[Handover, dict[int, bytes]]:
    """The same handover with each whole page of low RAM filled with bytes of its own."""
    pages = {
        at: bytes((at // PAGE * 7 + n * (at // PAGE | 1)) & 0xFF for n in range(PAGE))
        for ram in handover.host.memory.ram
        for at in range(-(-ram.start // PAGE) * PAGE, min(ram.end, END) // PAGE * PAGE, PAGE)
    }
    known = {at for each in handover.world.pieces for at in each.extent.pages}
    pages = {at: data for at, data in pages.items() if at // PAGE not in known}
    more = tuple(
        Piece(phys=Phys(at), data=data, role=PieceRole.OTHER, which="old")
        for at, data in pages.items()
    )
    world = replace(handover.world, laid=(*handover.world.laid, *more))
    return replace(handover, world=world), pages


def low_rows(handover: Handover) -> list[Row]:
    return [row for row in header_of(handover.plan).of("PT_LOAD") if row.phys < MIB]


def dumped(rows: list[Row], run: Run, extent: Extent) -> bytes:
    """Physical bytes of the old kernel out of the dump: p_paddr -> p_offset."""
    (row,) = [row for row in rows if row.extent.covers(extent)]
    at = row.offset + extent.start - row.phys
    return bytes(run.memory.read(Extent.sized(at, extent.size)))


def in_the_dump(handover: Handover, machine: Machine) -> Run:
    """A walk after which each page of low memory is in the dump."""
    handover, pages = patterned(handover)
    run = machine.run(handover)
    assert check.check(handover, run) == ()
    assert run.stop is Stop.ENTRY
    rows = low_rows(handover)
    for at, data in pages.items():
        assert dumped(rows, run, Extent.sized(at, PAGE)) == data, hex(at)
    assert len(pages) > 16
    return run


@MODES
@pytest.mark.parametrize("machine", [shared, Fake])
def test_low_memory_is_in_the_dump_after_the_walk(paging: Paging, machine: type[Machine]) -> None:
    plan = prepare(shipped_kernel(), low_memory_host(paging), shipped_request(crash=True))
    assert plan.list_pages == {}
    in_the_dump(build(plan, design="two-tables"), machine())


@pytest.mark.parametrize("paging", [Paging.X86_64, Paging.LA57])
def test_it_is_there_too_where_long_mode_is_left(paging: Paging) -> None:
    request = replace(SAVED, protocol=Protocol.LINUX_32)
    kernel = small_kernel(xloadflags=0b0111_1111)
    plan = prepare(kernel, example(paging), request)
    run = in_the_dump(build(plan, design="two-tables"), shared())
    assert run.registers.cr0 >> 31 == 0


@FEW
@given(old=crash_hosts(), seed=st.integers(0, 99))
def test_it_is_there_on_any_host(old: Host, seed: int) -> None:
    plan = prepare(small_kernel(), old, replace(SAVED, scatter=seed))
    in_the_dump(build(plan, design="two-tables"), shared())


def test_every_register_is_what_it_is_without_a_backup() -> None:
    for protocol in (Protocol.LINUX_64, Protocol.LINUX_32):
        kernel = read_image(init_size=8 * PAGE, kernel_size=100)
        seen = []
        for backup in (True, False):
            request = Request(crash=True, backup=backup, protocol=protocol)
            plan = prepare(kernel, example(), request)
            run = shared().run(build(plan, design="two-tables"))
            general = dict(run.registers.general)
            assert general.pop("rsi") == plan.boot_params
            assert general.pop("rsp") % PAGE == PAGE - (8 if protocol is Protocol.LINUX_64 else 4)
            seen.append((general, run.registers.rflags & ~0x8D5, run.registers.segments))
        assert seen[0] == seen[1]


# ------------------------------------------------------------------------------------------ the plan


def test_it_is_made_where_the_host_says_that_something_is_there() -> None:
    plain, busy = example(), low_memory_host()
    for old, wanted, made in (
        (plain, None, False),
        (busy, None, True),
        (plain, True, True),
        (busy, False, False),
    ):
        plan = prepare(small_kernel(), old, Request(crash=True, backup=wanted))
        assert bool(plan.backup) is made
        assert any(each.name == NAME for each in plan.segments) is made
        assert any(row.phys < MIB for row in header_of(plan).of("PT_LOAD")) is made


@MODES
def test_the_new_kernel_may_not_use_it(paging: Paging) -> None:
    plan = prepare(small_kernel(), example(paging), SAVED)
    place = segment(plan, NAME).destination
    assert (place, "reserved") in e820(plan)
    assert plan.host.crash_region is not None
    assert plan.host.crash_region.covers(place)
    assert place.size == 0xA_0000


def test_several_pieces_of_low_memory_are_saved_one_by_one() -> None:
    """As UEFI leaves it: what is between them is nobody's to read."""
    old = example()
    low = [Extent(0x1000, 0x5_8000), Extent(0x5_9000, 0x9_E400)]
    high = tuple(each for each in old.memory if each.extent.start >= MIB)
    regions = tuple(Region(each, RegionKind.RAM) for each in low)
    old = replace(old, memory=MemoryMap((*regions, *high)))
    plan = prepare(small_kernel(), old, SAVED)
    assert [each.source for each in plan.backup] == [low[0], Extent(0x5_9000, 0x9_F000)]
    rows = low_rows(build(plan, design="two-tables"))
    assert [row.extent for row in rows] == low
    in_the_dump(build(plan, design="two-tables"), shared())


def test_more_pieces_than_the_stub_has_room_for_are_refused() -> None:
    old = example()
    high = tuple(each for each in old.memory if each.extent.start >= MIB)

    def scattered(count: int) -> Host:
        low = tuple(
            Region(Extent.sized(2 * n * PAGE, PAGE), RegionKind.RAM) for n in range(1, count + 1)
        )
        return replace(old, memory=MemoryMap((*low, *high)))

    with pytest.raises(PlanError) as caught:
        prepare(small_kernel(), scattered(79), SAVED)
    limit = caught.value.limit
    assert limit is not None
    assert caught.value.field == "memory"
    plan = prepare(small_kernel(), scattered(limit), SAVED)
    assert len(plan.backup) == limit
    in_the_dump(build(plan, design="two-tables"), shared())
    with pytest.raises(PlanError):
        prepare(small_kernel(), scattered(limit + 1), SAVED)


def test_a_plain_kexec_saves_nothing() -> None:
    with pytest.raises(PlanError) as caught:
        prepare(small_kernel(), example(), Request(backup=True))
    assert (caught.value.source, caught.value.field) == ("command line", "backup")
    assert prepare(small_kernel(), low_memory_host(), Request()).backup == ()


def test_a_region_without_room_for_it_is_refused() -> None:
    old = example(region=Extent.sized(0x3300_0000, 128 * PAGE))
    assert prepare(small_kernel(), old, Request(crash=True)).backup == ()
    with pytest.raises(PlanError) as caught:
        prepare(small_kernel(), old, SAVED)
    assert "no room for the backup of low memory" in str(caught.value)


def test_a_note_in_low_memory_is_read_from_the_backup() -> None:
    note = Named(extent=Extent.sized(0x5_0010, 0x400), what="CPU 0's registers")
    old = replace(example(), crash_notes=(note,))
    plan = prepare(small_kernel(), old, Request(crash=True))
    (row,) = header_of(plan).of("PT_NOTE")
    assert row.phys == note.extent.start
    assert row.offset == segment(plan, NAME).destination.start + note.extent.start


# -------------------------------------------------------------------------------------- what breaks it


@MODES
@pytest.mark.parametrize("name", ["no-backup", "dump-overwritten"])
def test_it_is_found_out_in_every_mode(paging: Paging, name: str) -> None:
    got = rehearse(
        shipped_kernel(),
        low_memory_host(paging),
        shipped_request(crash=True),
        sabotage=SABOTAGES[name],
        machine=shared(),
    )
    assert got.outcome is Outcome.FALLS
    assert [each.rule for each in got.findings] == [SABOTAGES[name].rule]


def test_what_is_not_saved_cannot_be_sabotaged() -> None:
    for name in ("no-backup", "dump-overwritten"):
        with pytest.raises(BadInput, match="saves no low memory"):
            rehearse(
                shipped_kernel(),
                example(),
                shipped_request(crash=True),
                sabotage=SABOTAGES[name],
                machine=shared(),
            )


def test_notes_in_low_memory_that_nobody_saves_are_found() -> None:
    note = Named(extent=Extent.sized(0x5_0010, 0x400), what="CPU 0's registers")
    old = replace(example(), crash_notes=(note,))
    got = rehearse(small_kernel(), old, Request(crash=True, backup=False), machine=shared())
    assert [each.rule for each in got.findings] == ["dump-survives"]


def test_the_sound_walk_copies_each_page_once() -> None:
    got = backed_up()
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())
    copies = got.run.copies
    assert copies[:, 3].sum() == 0xA_0000
    assert (copies[:, 1] - copies[:, 2]).tolist() == [got.handover.plan.backup[0].copy] * len(
        copies
    )
