"""Each sabotage in each mode: found by its own rule at its own step, or refused with a reason."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from tests.makers.hosts import SPLITS, Home, mode_host
from tests.modes.runs import LEGACY, impatient, walk
from tests.rehearse.runs import mode_host as example_of
from tests.rehearse.runs import shared, shipped_kernel, shipped_request
from tightrope.check import check
from tightrope.deeds.rehearse import build, prepare, rehearse
from tightrope.errors import BadInput
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent
from tightrope.model import Outcome, Paging, Step, Stop, Verdict, with_code
from tightrope.sabotage import SABOTAGES

PLAIN = [each for each in SABOTAGES.values() if not each.crash]
CAN = [(paging, each.name) for paging in Paging for each in PLAIN if paging in each.modes]


@cache
def broken(paging: Paging, name: str, machine: Emulator | None = None) -> Verdict:
    return rehearse(
        shipped_kernel(),
        example_of(paging),
        shipped_request(),
        sabotage=SABOTAGES[name],
        machine=machine or impatient(),
    )


def first(got: Verdict) -> tuple[str, Step]:
    assert got.outcome is Outcome.FALLS
    return got.findings[0].rule, got.findings[0].step


@pytest.mark.parametrize(("paging", "name"), CAN)
def test_it_is_found_by_its_rule_at_its_step(paging: Paging, name: str) -> None:
    assert first(broken(paging, name)) == (SABOTAGES[name].rule, SABOTAGES[name].step)


@pytest.mark.parametrize(("paging", "name"), [each for each in CAN if each[0] in LEGACY])
@pytest.mark.parametrize("home", list(Home))
@pytest.mark.parametrize("split", [SPLITS[0], SPLITS[-1]])
def test_it_is_found_whatever_the_split_and_wherever_v_is(
    paging: Paging, name: str, home: Home, split: int
) -> None:
    got = walk(
        mode_host(paging, split, home=home), sabotage=name, scatter=split >> 28, machine=impatient()
    )
    assert first(got) == (SABOTAGES[name].rule, SABOTAGES[name].step)


@pytest.mark.parametrize(
    ("paging", "name"),
    [(paging, each.name) for paging in Paging for each in PLAIN if paging not in each.modes],
)
def test_what_a_mode_does_not_have_is_not_broken_and_the_reason_is_said(
    paging: Paging, name: str
) -> None:
    has = ", ".join(each.value for each in SABOTAGES[name].modes)
    says = f"{name} does not exist with {paging.value} paging, only with {has}"
    with pytest.raises(BadInput, match=says):
        broken(paging, name)


def test_a_host_of_another_mode_is_refused_before_anything_is_changed() -> None:
    for each in PLAIN:
        for paging in set(Paging) - set(each.modes):
            with pytest.raises(BadInput, match="does not exist"):
                each.refuse(example_of(paging).paging)
        for paging in each.modes:
            each.refuse(example_of(paging).paging)


# -------------------------------------------------------------------------------- some by name


def test_pae_cleared_under_paging_is_told_as_such() -> None:
    got = broken(Paging.PAE, "pae-before-pg")
    [finding] = got.findings
    assert "cannot be fetched: the PD entry is not present" in finding.message
    assert finding.evidence["tables"].startswith("CR4.PAE was changed while paging was on")
    assert "CR0.PG first" in finding.mend
    assert got.run.fault is not None
    assert got.run.fault.triple
    # 32-bit paging takes page_table_a's PDPT for a page directory.
    assert got.run.fault.visits[0].at & -4096 == got.handover.page_table_a.root


def test_a_reserved_bit_in_a_pdpte_is_refused_when_cr3_is_loaded() -> None:
    """Still under the old tables: the old kernel's own handler hears of it."""
    got = broken(Paging.PAE, "nx-in-pdpte")
    assert [finding.rule for finding in got.findings] == ["reserved-bits", "legal-writes"]
    assert "a PDPTE holds P, PWT, PCD and the address" in got.findings[0].mend
    fault = got.run.fault
    assert fault is not None
    assert (fault.vector, fault.error_code, fault.step) == (13, 0, Step.TABLE_A)
    assert "reserved bits 0x8000000000000000 are set in PDPTE" in fault.reason
    assert not fault.triple
    assert got.run.registers.cr3 == got.handover.registers.cr3


def test_a_pdpte_that_is_filled_in_late_is_in_memory_and_not_in_the_cpu() -> None:
    # A machine of its own: memory is looked at, and others walk on the shared one.
    got = broken(Paging.PAE, "stale-pdpte", Emulator())
    # In memory page_table_a had no P before the walk; what is wrong with the walk comes before that.
    assert [finding.rule for finding in got.findings] == [
        "pdptes-current",
        "table-a-maps-p",
        "access-mapped",
    ]
    assert "load CR3 again" in got.findings[0].mend
    plan, run = got.handover.intent, got.run
    slot = plan.control_page >> 30
    now = run.memory.read(Extent.sized(got.handover.page_table_a.root + 8 * slot, 8))
    assert now[0] & 1
    assert run.fault is not None
    assert (run.fault.step, run.fault.triple) == (Step.STATE, True)
    assert run.fault.address == plan.control_page + 4092
    assert run.fault.reason == "the PDPT entry is not present"
    assert run.fault.visits[0].entry == 0


@pytest.mark.parametrize("reload", [False, True])
def test_with_cr3_loaded_again_the_same_late_pdpte_is_good_enough(reload: bool) -> None:
    """The jump back from the late stores, by way of `mov %ecx, %cr3` or not."""
    plan = prepare(shipped_kernel(), example_of(Paging.PAE), shipped_request())
    built = build(plan, design="two-tables", sabotage=SABOTAGES["stale-pdpte"])
    page = bytearray(built.code.data)
    lea = bytes(page).index(b"\x8d\xa6\x00\x10\x00\x00", 0x700)
    back = lea + 6
    target = back + 5 + int.from_bytes(page[back + 1 : back + 5], "little", signed=True)
    between = b"\x0f\x22\xd9" if reload else b"\x90\x90\x90"
    jump = b"\xe9" + (target - (back + 3 + 5)).to_bytes(4, "little", signed=True)
    page[lea : back + 8] = between + page[lea:back] + jump
    data = bytes(page)

    pieces = tuple(
        replace(p, data=data) if p.phys == built.world.code_phys else p for p in built.world.laid
    )
    world = replace(built.world, laid=pieces)
    code = replace(built.code, data=data)
    changed = replace(built, chain=with_code(built.chain, code), world=world)
    run = shared().run(changed)
    rules = [finding.rule for finding in check(changed, run)]
    if reload:
        assert run.stop is Stop.ENTRY
        assert rules == ["table-a-maps-p"]
    else:
        assert run.stop is Stop.FAULT
        assert rules[0] == "pdptes-current"


def test_la57_cannot_go_in_long_mode() -> None:
    got = broken(Paging.LA57, "la57-toggled")
    fault = got.run.fault
    assert fault is not None
    assert fault.reason == "CR4.LA57 cannot be changed in long mode"
    assert (fault.vector, fault.step, fault.triple) == (13, Step.TABLE_A, True)


@pytest.mark.parametrize("paging", LEGACY)
def test_a_walk_that_goes_astray_without_paging_is_ended(paging: Paging) -> None:
    """Nothing faults there: zeros are instructions, all through memory."""
    got = broken(paging, "control-page-destination")
    assert got.run.stop in (Stop.LIMIT, Stop.FAULT)
    assert got.run.instructions < 1_000_000
