"""In every mode, with every split and V anywhere a kernel has it, the walk holds on both machines."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.makers.hosts import GIB, MIB, PAGE, SPLITS, Home, mode_host
from tests.modes.runs import LEGACY, PLACES, kernel, request, shared, walk
from tests.stand_ins.played import Fake
from tightrope.check import check
from tightrope.deeds.rehearse import build, prepare
from tightrope.memory import Extent, Phys
from tightrope.model import Handover, Host, Outcome, Paging, Protocol, Run, Step, Stop, Verdict

ARITHMETIC_FLAGS = 0x8D5
"""CF PF AF ZF SF OF: what `xor` leaves in them is nobody's contract."""
RAM = 128 * MIB


def busy_at_load() -> list[Extent]:
    """The old kernel is busy where the new one goes, so that there is something to copy."""
    return [Extent.sized(16 * MIB, 5 * PAGE)]


def both(built: Handover) -> tuple[Run, Run]:
    return shared().run(built), Fake().run(built)


def agree(built: Handover) -> None:
    one, other = both(built)
    assert one.stop is other.stop is Stop.ENTRY, (one.fault, other.fault)
    assert one.copies[:, 1:].tolist() == other.copies[:, 1:].tolist()
    for segment in built.segments:
        extent = segment.destination.page_aligned()
        # The stub's page is also the stack.
        size = extent.size - (64 if segment.destination.start == built.intent.entry else 0)
        wanted = bytes(segment.data).ljust(size, b"\0")[:size]
        assert one.memory.read(extent)[:size] == wanted, segment.name
        assert other.memory.read(extent)[:size] == wanted, segment.name
    assert one.registers.general == other.registers.general
    assert one.registers.rip == other.registers.rip == built.intent.kernel_entry
    assert one.registers.rflags & ~ARITHMETIC_FLAGS == other.registers.rflags
    for register in ("cr0", "cr3", "cr4", "efer", "segments", "idt"):
        assert getattr(one.registers, register) == getattr(other.registers, register), register
    assert [step for _, step in one.step_starts] == [step for _, step in other.step_starts]


def holds(got: Verdict) -> None:
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())
    assert [step for _, step in got.run.step_starts] == list(Step)[1:]


@pytest.mark.parametrize("home", list(Home))
@pytest.mark.parametrize(("paging", "split"), PLACES)
def test_the_walk_holds_and_the_machines_agree(
    paging: Paging, split: int | None, home: Home
) -> None:
    old = mode_host(paging, split, home=home, busy=busy_at_load())
    holds(walk(old))
    holds(walk(old, machine=Fake()))
    agree(build(prepare(kernel(), old, request()), design="two-tables"))


@pytest.mark.parametrize("paging", LEGACY)
def test_there_are_copies_in_what_holds(paging: Paging) -> None:
    got = walk(mode_host(paging, busy=busy_at_load()))
    assert len(got.run.copies) == 5
    assert got.handover.page_table_b is None
    assert got.run.registers.cr0 == 0x33
    assert got.run.registers.cr4 == got.run.registers.cr3 == 0
    assert got.run.registers.general["rsi"] == got.handover.intent.boot_params


@st.composite
def legacy_hosts(draw: st.DrawFn) -> Host:
    """32-bit kernels with any split of 4 MiB, V anywhere, with and without NX and large pages."""
    split = draw(
        st.sampled_from(SPLITS) | st.integers(8, (0xF000_0000 >> 22)).map(lambda n: n << 22)
    )
    pieces = draw(st.lists(st.tuples(st.integers(4096, 32000), st.integers(1, 999)), max_size=4))
    return mode_host(
        draw(st.sampled_from(LEGACY)),
        split,
        home=draw(st.sampled_from(Home)),
        high=draw(st.sampled_from([0, 64 * MIB, 3 * GIB])),
        nx=draw(st.booleans()),
        direct_page=draw(st.sampled_from([PAGE, 2 * MIB])),
        busy=[
            *(busy_at_load() if draw(st.booleans()) else ()),
            *(Extent(first * PAGE, min((first + pages) * PAGE, RAM)) for first, pages in pieces),
        ],
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(old=legacy_hosts(), scatter=st.none() | st.integers(0, 1 << 40))
def test_any_32_bit_kernel_holds_wherever_its_frames_are(old: Host, scatter: int | None) -> None:
    holds(walk(old, scatter=scatter))


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(old=legacy_hosts(), scatter=st.none() | st.integers(0, 1 << 40))
def test_the_machines_agree_about_any_32_bit_kernel(old: Host, scatter: int | None) -> None:
    agree(build(prepare(kernel(), old, request(scatter=scatter)), design="two-tables"))


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(
    paging=st.sampled_from([Paging.X86_64, Paging.LA57]),
    home=st.sampled_from(Home),
    scatter=st.none() | st.integers(0, 1 << 40),
    protocol=st.sampled_from([None, Protocol.LINUX_64, Protocol.LINUX_32]),
    high=st.sampled_from([0, 64 * MIB]),
)
def test_any_64_bit_kernel_holds_through_either_entry(
    paging: Paging, home: Home, scatter: int | None, protocol: Protocol | None, high: int
) -> None:
    old = mode_host(paging, home=home, high=high, busy=busy_at_load())
    holds(walk(old, scatter=scatter, protocol=protocol))
    the_plan = prepare(kernel(), old, request(scatter=scatter, protocol=protocol))
    agree(build(the_plan, design="two-tables"))


# ------------------------------------------------------------------ V and P near each other

NEAR = 0x4000_0000 + 4 * MIB + 5 * PAGE
"""V in the text of a 1G/3G kernel: with enough RAM this is a physical address, too."""


@pytest.mark.parametrize("paging", LEGACY)
@pytest.mark.parametrize(
    ("offset", "where"), [(0, "at V itself"), (PAGE, "beside V"), (MIB, "in the table of V")]
)
def test_the_control_page_may_lie_where_v_is_linear(
    paging: Paging, offset: int, where: str
) -> None:
    """V and P then share a page directory entry: one mapping must not wipe out the other."""
    old = mode_host(paging, 0x4000_0000, megabytes=2048, busy=busy_at_load())
    the_plan = replace(prepare(kernel(), old, request()), control_page=Phys(NEAR + offset))
    assert the_plan.relocation == NEAR
    assert the_plan.relocation >> 22 == the_plan.control_page >> 22, where
    built = build(the_plan, design="two-tables")
    assert check(built, shared().run(built)) == ()
    agree(built)


@pytest.mark.parametrize("paging", LEGACY)
@pytest.mark.parametrize("design", ["two-tables", "one-table", "damm-v4"])
def test_where_v_is_p_there_is_nothing_that_a_design_could_confuse(
    paging: Paging, design: str
) -> None:
    old = mode_host(paging, 0x4000_0000, megabytes=2048, busy=busy_at_load())
    the_plan = prepare(kernel(), old, request())
    identity = tuple(
        replace(each, extent=Extent.sized(NEAR, PAGE))
        if each.extent.start == the_plan.control_page
        else each
        for each in the_plan.identity
    )
    built = build(replace(the_plan, control_page=Phys(NEAR), identity=identity), design=design)
    assert int(built.intent.relocation) == int(built.intent.control_page)
    assert check(built, shared().run(built)) == ()
