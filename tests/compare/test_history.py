"""History comes out: hosts x designs, where each falls, and that nothing else does.

    in-place         destroys the current pgd, always; on i386 and PAE it does not even arrive where the
                     control page's slot of the pgd is the one that the kernel itself runs in
    damm-v4          falls where V and P share that slot and no more
    one-table        cannot exist where V is one of the addresses that the copy needs
    two-tables, split-function    hold

Rules: what is expected is written down here, or worked out from V and P by the manual's shifts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.compare.test_compare import GIB, KERNEL, old_kernel
from tests.makers.designs import (
    DAMM_V4,
    DESIGNS,
    IN_PLACE,
    ONE_TABLE,
    SPLIT_FUNCTION,
    TWO_TABLES,
)
from tests.makers.hosts import FOUR_FOUR, MIB, Home, mode_host
from tests.modes.runs import LEGACY, PLACES, kernel, request, shared
from tightrope import host
from tightrope.check import check
from tightrope.deeds.compare import compare
from tightrope.deeds.rehearse import build, prepare, rehearse
from tightrope.errors import BadInput, PlanError
from tightrope.memory import Extent, Virt
from tightrope.model import Host, Outcome, Paging, Plan, Step, Stop, Verdict
from tightrope.plan import Request
from tightrope.sabotage import SABOTAGES
from tightrope.sabotage.edits import edit_entry, with_tables

HOLDS, NEVER = "holds", "cannot exist"
PGD = "current-pgd-kept, step 1, entered"
LOST = "current-pgd-kept, step 1, not entered"
V4 = "table-a-maps-v, step 2, not entered"
TOP_SLOT = {Paging.I386: 22, Paging.PAE: 30, Paging.X86_64: 39, Paging.LA57: 48}
"""Linear address bits below the index of the top-level table (SDM 4.3, 4.4, 4.5)."""
V_OFFSET = 0x140_1000
"""V of an example host: this far above PAGE_OFFSET."""


def told(old: Host, design: str, *, crash: bool) -> str:
    """The outcome in a few words: what the compare table says of it."""
    try:
        done = rehearse(KERNEL, old, Request(crash=crash), design=design, machine=shared())
    except PlanError as err:
        return NEVER if err.field == "relocation" else str(err)
    entered = done.run.stop is Stop.ENTRY
    if done.outcome is Outcome.HOLDS:
        assert entered
        return HOLDS
    first = done.findings[0]
    return f"{first.rule}, step {int(first.step)}, {'' if entered else 'not '}entered"


def window(paging: Paging, split: int, place: str) -> Extent | None:
    """Where alone the old kernel has room: in V's 4 MiB, in V's GiB but not there, or anywhere."""
    v = split + V_OFFSET
    if place == "V's 4 MiB":
        return Extent.sized(v & -(4 * MIB), 4 * MIB)
    if place == "V's GiB":
        return Extent.sized((v & -GIB) + 0x1800_0000, 0x1000_0000)
    if place == "another GiB":
        return Extent.sized(0x800_0000, 0x800_0000)
    raise AssertionError(place)


@cache
def forced(paging: Paging, split: int, place: str, crash: bool) -> Host:
    """An example host that has room for a control page in one place only."""
    free = window(paging, split, place)
    assert free is not None
    if crash:
        return host.read(host.example(paging, split, free), place)
    return old_kernel(paging, split, free)


Row = dict[str, str]
SAME_SLOT: Row = {
    IN_PLACE: LOST,
    TWO_TABLES: HOLDS,
    ONE_TABLE: HOLDS,
    DAMM_V4: V4,
    SPLIT_FUNCTION: HOLDS,
}
V_NEEDED: Row = SAME_SLOT | {ONE_TABLE: NEVER}
APART: Row = SAME_SLOT | {IN_PLACE: PGD, DAMM_V4: HOLDS}
TABLE: dict[tuple[Paging, int, str], Row] = {
    (Paging.I386, 0xC000_0000, "another GiB"): APART,
    (Paging.I386, 0xB000_0000, "V's 4 MiB"): V_NEEDED,
    (Paging.I386, 0x8000_0000, "V's 4 MiB"): V_NEEDED,
    (Paging.I386, 0x8000_0000, "V's GiB"): APART,
    (Paging.I386, 0x7800_0000, "V's 4 MiB"): V_NEEDED,
    (Paging.I386, 0x4000_0000, "V's 4 MiB"): V_NEEDED,
    (Paging.I386, 0x4000_0000, "V's GiB"): APART,
    (Paging.I386, 0x4000_0000, "another GiB"): APART,
    (Paging.PAE, 0xC000_0000, "another GiB"): APART,
    (Paging.PAE, 0xB000_0000, "another GiB"): APART,
    (Paging.PAE, 0x8000_0000, "V's 4 MiB"): V_NEEDED,
    (Paging.PAE, 0x8000_0000, "V's GiB"): SAME_SLOT,
    (Paging.PAE, 0x8000_0000, "another GiB"): APART,
    (Paging.PAE, 0x7800_0000, "V's GiB"): SAME_SLOT,
    (Paging.PAE, 0x7800_0000, "another GiB"): APART,
    (Paging.PAE, 0x4000_0000, "V's 4 MiB"): V_NEEDED,
    (Paging.PAE, 0x4000_0000, "V's GiB"): SAME_SLOT,
    (Paging.PAE, 0x4000_0000, "another GiB"): APART,
}


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("crash", [False, True], ids=["kexec", "crash"])
@pytest.mark.parametrize(("paging", "split", "place"), TABLE)
def test_the_outcome_on_32_bits_is_history_s(
    paging: Paging, split: int, place: str, crash: bool, design: str
) -> None:
    old = forced(paging, split, place, crash)
    assert told(old, design, crash=crash) == TABLE[paging, split, place][design]


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("crash", [False, True], ids=["kexec", "crash"])
@pytest.mark.parametrize("paging", [Paging.X86_64, Paging.LA57])
def test_the_outcome_on_64_bits_is_history_s(paging: Paging, crash: bool, design: str) -> None:
    region = Extent.sized(0x3300_0000, 0x1000_0000) if crash else None
    old = host.read(host.example(paging, crash=region), paging.value)
    assert told(old, design, crash=crash) == (PGD if design == IN_PLACE else HOLDS)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("home", list(Home))
@pytest.mark.parametrize(("paging", "split"), PLACES)
def test_wherever_v_is_a_design_does_what_v_and_p_say(
    paging: Paging, split: int | None, home: Home, design: str
) -> None:
    does_as_v_and_p_say(mode_host(paging, split, home=home), design)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    place=st.sampled_from(PLACES),
    home=st.sampled_from(list(Home)),
    design=st.sampled_from(DESIGNS),
    seed=st.integers(0, 1 << 30),
    megabytes=st.integers(64, 700),
)
def test_wherever_p_is_a_design_does_what_v_and_p_say(
    place: tuple[Paging, int | None], home: Home, design: str, seed: int, megabytes: int
) -> None:
    old = mode_host(*place, home=home, megabytes=megabytes)
    does_as_v_and_p_say(old, design, scatter=seed)


def does_as_v_and_p_say(old: Host, design: str, scatter: int | None = None) -> None:
    """The oracle: three conditions on V, P and what the copy needs."""
    try:
        got = rehearse(kernel(), old, request(scatter=scatter), design=design, machine=shared())
    except PlanError:
        plan = prepare(kernel(), old, request(scatter=scatter))
        assert design == ONE_TABLE
        assert needed(plan)
        return
    plan = got.handover.plan
    shift = TOP_SLOT[old.paging]
    same = plan.relocation >> shift == plan.control_page >> shift
    rules = {finding.rule for finding in got.findings}
    if design == IN_PLACE:
        assert rules & {"current-pgd-kept", "stores-owned", "copies-owned"} == rules - LATE
        assert (got.findings[0].rule, got.findings[0].step) == ("current-pgd-kept", Step.CALL)
        if got.run.stop is Stop.ENTRY:
            assert rules & LATE <= {"tlb-agreement"}
        else:
            assert in_the_way(got)
    elif design == DAMM_V4 and same and int(plan.relocation) != int(plan.control_page):
        assert got.findings[0].rule == "table-a-maps-v"
    else:
        assert design != ONE_TABLE or not needed(plan)
        assert (got.outcome, got.findings) == (Outcome.HOLDS, ())


LATE = {"table-a-maps-v", "tlb-agreement", "fetch-mapped", "access-mapped"}
"""What becomes of `in-place` where the linear address P is one of the old kernel's."""


def needed(plan: Plan) -> bool:
    """V is one of the addresses that the copy needs for themselves."""
    return any(plan.relocation in named.extent for named in plan.identity)


def in_the_way(got: Verdict) -> bool:
    """The planted entry took the place of one that the old kernel had, for its text, gdt or stack."""
    plan, built = got.handover.plan, got.handover
    shift = TOP_SLOT[plan.host.paging]
    own = (plan.relocation, built.registers.gdt[0], built.registers.general["rsp"])
    return any(each >> shift == plan.control_page >> shift for each in own)


# ------------------------------------------------------------------------------------- the current pgd


@pytest.mark.parametrize("crash", [False, True], ids=["kexec", "crash"])
@pytest.mark.parametrize("paging", list(Paging))
def test_in_place_leaves_the_pgd_that_its_description_says_and_a_crash_dump_finds_it_so(
    paging: Paging, crash: bool
) -> None:
    region = Extent.sized(0x3300_0000, 0x1000_0000)
    old = host.read(host.example(paging, crash=region), paging.value)
    got = rehearse(KERNEL, old, Request(crash=crash), design=IN_PLACE, machine=shared())
    built, memory = got.handover, got.run.memory
    assert got.run.stop is Stop.ENTRY
    assert built.page_table_a.root == built.world.pgd == built.registers.cr3
    live = memory.read(Extent.sized(built.world.pgd, 4096))
    assert live == built.page_table_a.pages[built.world.pgd]
    assert live != built.world.tables[built.world.pgd]
    for piece in built.static:
        assert memory.read(piece.extent) == built.page_table_a.pages[piece.phys]
    assert {each.rule for each in got.findings} <= {
        "current-pgd-kept",
        "stores-owned",
        "copies-owned",
        *(["crash-region-only"] if crash else []),
    }
    assert ("crash-region-only" in {each.rule for each in got.findings}) == crash
    # The finding names the very instruction.
    assert got.findings[0].evidence["by"].strip("`").split()[0] in ("mov", "movl", "rep")


def test_in_place_on_x86_64_keeps_the_high_half() -> None:
    got = rehearse(KERNEL, old_kernel(Paging.X86_64), Request(), design=IN_PLACE, machine=shared())
    built = got.handover
    live = bytes(got.run.memory.read(Extent.sized(built.world.pgd, 4096)))
    assert built.page_table_b is not None
    assert live[:2048] == bytes(built.page_table_b.pages[built.page_table_b.root])[:2048]
    assert live[2048:] == bytes(built.world.tables[built.world.pgd])[2048:]


@pytest.mark.parametrize("paging", LEGACY)
def test_in_place_trusts_a_stale_global_translation_where_p_is_one_of_the_kernel_s_addresses(
    paging: Paging,
) -> None:
    """ "Global tlb entries are not flushed but that is not an issue": it is, with a low split."""
    old = forced(paging, 0x4000_0000, "V's GiB", False)
    got = rehearse(KERNEL, old, Request(), design=IN_PLACE, machine=shared())
    rules = [finding.rule for finding in got.findings]
    if paging is Paging.I386:
        assert "tlb-agreement" in rules
        assert got.run.stop is Stop.ENTRY
    else:
        # The planted PDPTE takes the GiB away in which machine_kexec itself runs.
        assert got.run.fault is not None
        assert got.run.fault.step is Step.TABLE_A


def test_in_place_on_pae_without_its_cr3_write_jumps_through_a_pdpte_that_the_cpu_does_not_have() -> (
    None
):
    built = build(prepare(kernel(), mode_host(Paging.PAE), request()), design=IN_PLACE)
    assert built.at_v is not None
    at = built.at_v.symbols["flushed"]
    page = bytearray(built.at_v.data.ljust(4096, b"\0"))
    assert page[at - 3 : at] == b"\x0f\x22\xd9"
    page[at - 3 : at] = b"\x90\x90\x90"
    pieces = tuple(
        replace(each, data=bytes(page)) if each.phys == built.world.code_phys else each
        for each in built.world.laid
    )
    changed = replace(built, world=replace(built.world, laid=pieces))
    run = shared().run(changed)
    assert run.fault is not None
    assert run.fault.address == built.plan.control_page
    assert run.fault.reason == "the PDPT entry is not present"
    found = {finding.rule for finding in check(changed, run)}
    assert {"current-pgd-kept", "pdptes-current", "fetch-mapped"} <= found


# ---------------------------------------------------------------------------------------------- NX


def with_nx(old: Host, nx: bool) -> Host:
    efer = old.efer | 0x800 if nx else old.efer & ~0x800
    return replace(old, efer=efer, cpu=replace(old.cpu, nx=nx))


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("paging", [Paging.PAE, Paging.X86_64, Paging.LA57])
def test_nx_makes_no_difference_to_any_design(paging: Paging, design: str) -> None:
    """2.6.16's own entries are executable: 0x63 on i386, __PAGE_KERNEL_LARGE_EXEC on x86_64."""
    old = old_kernel(paging)
    on, off = (told(with_nx(old, nx), design, crash=False) for nx in (True, False))
    assert on == off == (PGD if design == IN_PLACE else HOLDS)


@pytest.mark.parametrize("paging", [Paging.PAE, Paging.X86_64, Paging.LA57])
def test_what_nx_forbids_is_to_leave_the_pgd_alone_and_call_the_control_page_where_it_is_mapped(
    paging: Paging,
) -> None:
    """The thread, step 1: "to avoid overwriting the page table and still work with NX bits"."""
    for nx in (True, False):
        old = with_nx(mode_host(paging), nx)
        plan = prepare(kernel(), old, request())
        mapped = Virt(old.direct_map.virt + plan.control_page)
        built = build(replace(plan, relocation=mapped), design=TWO_TABLES)
        run = shared().run(built)
        if nx:
            assert run.fault is not None
            assert (run.fault.step, run.fault.address) == (Step.CALL, mapped)
            assert "NX" in run.fault.reason
        else:
            assert run.stop is Stop.ENTRY


# -------------------------------------------------------------------------------- split-function


@pytest.mark.parametrize("home", list(Home))
@pytest.mark.parametrize(("paging", "split"), PLACES)
def test_the_switching_function_stays_where_it_is_and_its_tables_are_known_before_p_is(
    paging: Paging, split: int | None, home: Home
) -> None:
    old = mode_host(paging, split, home=home)
    one, other = (
        build(prepare(kernel(), old, request(scatter=seed)), design=SPLIT_FUNCTION)
        for seed in (1, 2)
    )
    assert one.plan.control_page != other.plan.control_page
    assert one.page_table_a == other.page_table_a
    assert one.static == other.static
    assert one.jumps_to == one.world.code_phys
    assert all(old.private.covers(piece.extent) for piece in one.static)
    assert {piece.phys for piece in one.static}.isdisjoint(one.world.tables)


@pytest.mark.parametrize("paging", list(Paging))
def test_the_switching_function_has_no_stack_and_reads_only_its_own_page(paging: Paging) -> None:
    built = build(prepare(kernel(), mode_host(paging), request()), design=SPLIT_FUNCTION)
    run = shared().run(built)
    entered = next(at for at, rip in enumerate(run.trace) if int(rip) == built.plan.control_page)
    assert entered > 5
    assert not (run.stores[:, 0] < entered).any()
    loads = run.loads[run.loads[:, 0] < entered]
    assert len(loads) > 0
    assert set(loads[:, 2] >> 12) == {built.world.code_phys >> 12}
    # rsp is the old kernel's until the control page sets its own.
    first = next(write for write in run.register_writes if write.register == "rsp")
    assert int(first.rip) == built.plan.control_page


@pytest.mark.parametrize("paging", list(Paging))
def test_before_the_jump_in_place_writes_tables_and_nothing_else(paging: Paging) -> None:
    built = build(prepare(kernel(), mode_host(paging), request()), design=IN_PLACE)
    run = shared().run(built)
    entered = next(at for at, rip in enumerate(run.trace) if int(rip) == built.plan.control_page)
    tables = {built.world.pgd, *(piece.phys for piece in built.static)}
    written = [
        *(row[2] & -4096 for row in run.stores.tolist() if row[0] < entered),
        *(row[1] & -4096 for row in run.copies.tolist() if row[0] < entered),
    ]
    assert set(written) == tables
    halves = [row[3] for row in run.copies.tolist() if row[0] < entered]
    assert halves == ([2048] if paging.long_mode else [])


Edit = Callable[[int], int]
BROKEN: dict[str, tuple[str, Edit, str, Step]] = {
    "V is not mapped": ("V", lambda _: 0, "table-a-maps-v", Step.TABLE_A),
    "V leads to the control page": ("V", lambda _: -1, "table-a-maps-v", Step.TABLE_A),
    "F is not mapped": ("F", lambda _: 0, "table-a-maps-p", Step.STATE),
    "V is not executable": ("V", lambda each: each | 1 << 63, "table-a-rights", Step.TABLE_A),
    "F is user's": ("F", lambda each: each | 4, "table-a-rights", Step.TABLE_A),
    "V is not accessed": ("V", lambda each: each & ~0x60, "accessed-dirty-preset", Step.TABLE_A),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_switching_function_that_is_mapped_wrongly_is_found(name: str) -> None:
    which, change, rule, step = BROKEN[name]
    good = build(prepare(kernel(), mode_host(Paging.X86_64), request()), design=SPLIT_FUNCTION)
    assert good.jumps_to is not None
    virt = good.plan.relocation if which == "V" else good.jumps_to
    other = good.plan.control_page | 0x61
    bad = edit_entry(
        good, good.page_table_a, virt, lambda each: other if change(each) < 0 else change(each)
    )
    if "user" in name:  # the right is an entry's on every level
        for above in bad.page_table_a.pages:
            page = np.frombuffer(bad.page_table_a.pages[above], "<u8").copy()
            page[page & 1 != 0] |= np.uint64(4)
            bad = with_tables(bad, above, page.tobytes())
    findings = check(bad, shared().run(bad))
    assert (findings[0].rule, findings[0].step) == (rule, step)


@pytest.mark.parametrize("name", ["no-v", "accessed-clear"])
def test_the_current_pgd_is_not_the_handover_s_to_sabotage(name: str) -> None:
    plan = prepare(kernel(), mode_host(Paging.X86_64), request())
    with pytest.raises(BadInput, match="not a table of the handover"):
        build(plan, design=IN_PLACE, sabotage=SABOTAGES[name])


@pytest.mark.parametrize("name", ["no-v", "no-p", "nx", "accessed-clear", "overwrite-pgd"])
def test_a_sabotage_of_tables_is_found_in_a_kernel_s_own_tables_too(name: str) -> None:
    got = rehearse(
        kernel(),
        mode_host(Paging.X86_64),
        request(),
        design=SPLIT_FUNCTION,
        sabotage=SABOTAGES[name],
        machine=shared(),
    )
    first = got.findings[0]
    assert (first.rule, first.step) == (SABOTAGES[name].rule, SABOTAGES[name].step)


def test_private_memory_without_room_for_the_static_tables_is_said() -> None:
    old = mode_host(Paging.PAE, FOUR_FOUR)
    plan = prepare(kernel(), old, request())
    world = build(plan, design=TWO_TABLES).world
    end = max(piece.extent.end for piece in world.pieces if piece.phys in world.tables)
    tight = replace(old, private=Extent(old.private.start, end))
    with pytest.raises(PlanError, match="no 5 pages left"):
        build(prepare(kernel(), tight, request()), design=SPLIT_FUNCTION)
    (row,) = compare(kernel(), tight, request(), designs=[SPLIT_FUNCTION], machine=shared())
    assert row.outcome is None
    assert "no 5 pages left" in row.detail
