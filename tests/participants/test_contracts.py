"""What the programs of a jump say of themselves, against what is built for them and what rules make of it.

    contract --handover--> registers, tables, pieces          read back by hand
    contract --check-----> which rules bind, whose memory it may touch

Rules: a breach changes one thing of a contract or of a run, and the same thing allowed is its twin.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.designs import DESIGNS, IN_PLACE, ONE_TABLE, TWO_TABLES
from tests.modes.runs import kernel, request
from tests.modes.runs import shared as machine
from tests.rehearse.runs import sound
from tests.xen.runs import WAYS, Way, hypervisor, identifier
from tests.xen.runs import request as asked
from tightrope import host as host_room
from tightrope import participants
from tightrope.check import check
from tightrope.deeds.rehearse import build, prepare
from tightrope.errors import BadInput, PlanError
from tightrope.memory import PAGE_SIZE, Phys
from tightrope.model import (
    Contract,
    Given,
    Handover,
    Intent,
    Kind,
    Old,
    Paging,
    Place,
    Promise,
    Run,
    Step,
    Stop,
    Tables,
    XenCompat,
    XenV2,
)
from tightrope.sabotage import named

EVERY = [(paging, design) for paging in Paging for design in DESIGNS]


def built(paging: Paging, design: str = TWO_TABLES) -> Handover:
    old = host_room.read(host_room.example(paging), "example")
    return build(prepare(kernel(), old, request()), design=design)


def with_contract(handover: Handover, **changes: object) -> Handover:
    """The same with another contract of the relocation code."""
    code = handover.relocation_code
    other = replace(code, contract=replace(code.contract, **changes))  # type: ignore[arg-type]
    chain = tuple(other if each is code else each for each in handover.chain)
    return replace(handover, chain=chain)


def rules_of(handover: Handover, run: Run) -> set[str]:
    """What makes it fall; what is only advice does not."""
    return {finding.rule for finding in check(handover, run) if not finding.advice}


# --------------------------------------------------------------------------------- the chain


@pytest.mark.parametrize(("paging", "design"), EVERY)
def test_a_chain_is_the_design_s_code_and_a_stub(paging: Paging, design: str) -> None:
    chain = built(paging, design).chain
    assert [each.kind for each in chain] == [Kind.RELOCATION, Kind.STUB]
    assert chain[0].name == design
    wide = paging.long_mode
    assert chain[1].name == ("enter_64" if wide else "enter_32")


@pytest.mark.parametrize("way", WAYS, ids=identifier)
def test_through_xen_the_chain_is_who_really_walks(way: Way) -> None:
    plan = prepare(kernel(), hypervisor(way), asked(way))
    chain = participants.chain(plan, TWO_TABLES)
    first = [Kind.WAY_OUT] if isinstance(plan.through, XenCompat) else []
    assert [each.kind for each in chain] == [*first, Kind.RELOCATION, Kind.STUB]
    code = chain[-2]
    assert code.name == ("xen-v2" if isinstance(plan.through, XenV2) else TWO_TABLES)
    assert code.contract.clears is isinstance(plan.through, XenV2)
    with pytest.raises(PlanError, match=r"there is no one-table|no slots for one-table"):
        participants.chain(plan, ONE_TABLE)


def test_a_name_that_is_none_is_bad_input_with_those_that_are() -> None:
    with pytest.raises(BadInput, match="no design 'three'; there are in-place, two-tables"):
        participants.named("three")


# ------------------------------------------------------------------------------ what is handed over


@pytest.mark.parametrize(("paging", "design"), EVERY)
def test_the_call_has_what_the_contract_says_where_it_says(paging: Paging, design: str) -> None:
    handover = built(paging, design)
    plan, world = handover.plan, handover.world
    meant = {
        Given.LIST: plan.head,
        Given.CONTROL_PAGE: plan.control_page,
        Given.ENTRY: plan.entry,
        Given.TABLE_A: handover.page_table_a.root,
        Given.TABLE_B: handover.page_table_b.root if handover.page_table_b else 0,
        Given.V: handover.intent.relocation,
        Given.FUNCTION: world.code_phys,
        Given.DIRECT_MAP: world.host.direct_map.virt,
        Given.LEVELS: handover.levels[0] if handover.levels else 0,
    }
    handed = handover.relocation_code.contract.arguments
    assert Given.LIST in handed.values()
    for register, what in handed.items():
        assert handover.registers.general[register] == meant[what], what


@pytest.mark.parametrize(("paging", "design"), EVERY)
def test_landmarks_are_in_the_code_that_is_there_and_in_the_walk_s_order(
    paging: Paging, design: str
) -> None:
    code = built(paging, design).relocation_code
    for here in (range(Step.IDENTITY), range(Step.IDENTITY, Step.COPY + 1)):
        begins = [at for step in here if (at := code.begins(Step(step))) is not None]
        assert begins == sorted(set(begins))
        assert begins
    assert set(code.landmarks) & set(code.called.symbols) or code.at_v is None


# ---------------------------------------------------------------------------- nothing is stored twice


@given(st.data())
def test_a_byte_that_is_changed_where_it_is_kept_is_changed_in_memory(data: st.DataObject) -> None:
    handover = built(Paging.X86_64, data.draw(st.sampled_from(DESIGNS)))
    laid = {int(piece.phys): bytes(piece.data) for piece in (*handover.pieces, *handover.static)}
    at = data.draw(st.integers(0, PAGE_SIZE - 1))

    def flipped(page: bytes | memoryview) -> bytes:
        out = bytearray(page)
        out[at] ^= 0xFF
        return bytes(out)

    tables = [handover.page_table_a, handover.page_table_b]
    place = data.draw(
        st.sampled_from(
            [frame for tree in tables if tree for frame in tree.pages if frame in laid]
            + list(handover.page_list)
        )
    )
    if place in handover.page_list:
        page = flipped(bytes(handover.page_list[place]))
        changed = replace(handover, page_list={**handover.page_list, place: page})
    else:

        def edited(tables: Tables) -> Tables:
            if place not in tables.pages:
                return tables
            pages = {**tables.pages, place: memoryview(flipped(tables.pages[place]))}
            return replace(tables, pages=pages)

        table_b = handover.page_table_b
        changed = replace(
            handover,
            page_table_a=edited(handover.page_table_a),
            page_table_b=table_b and edited(table_b),
        )
    now = {int(piece.phys): bytes(piece.data) for piece in (*changed.pieces, *changed.static)}
    assert {where for where in laid if laid[where] != now[where]} == {place}


# ------------------------------------------------------------------------------ an intent without a plan


def observed(handover: Handover) -> Handover:
    """The same handover, of which nobody knows how it was planned."""
    names = [each.name for each in fields(Intent)]
    intent = Intent(**{name: getattr(handover.intent, name) for name in names})
    return replace(handover, intent=intent)


@pytest.mark.parametrize(("paging", "design"), EVERY)
def test_whoever_watches_needs_no_plan(paging: Paging, design: str) -> None:
    planned = built(paging, design)
    seen = observed(planned)
    with pytest.raises(LookupError, match="was observed"):
        seen.plan  # noqa: B018
    run = machine().run(seen)
    assert check(seen, run) == check(planned, run)
    assert (run.stop is Stop.ENTRY) or design == IN_PLACE


@pytest.mark.parametrize("name", ["no-v", "stack-outside", "source-order", "table-b-small"])
def test_what_is_wrong_is_found_without_a_plan_too(name: str) -> None:
    each = named(name)
    old = host_room.read(host_room.example(Paging.X86_64), "example")
    plan = prepare(kernel(), old, replace(request(), command_line="quiet"))
    broken = observed(build(plan, design=TWO_TABLES, sabotage=each))
    first = check(broken, machine().run(broken))[0]
    assert (first.rule, first.step) == (each.rule, each.step)


# --------------------------------------------------------------------------------- what rules ask


def also_mapped(handover: Handover, run: Run) -> tuple[Handover, Run]:
    """A third page in page_table_a: the one behind the control page's, in the same last table."""
    tables = handover.page_table_a
    at = int(tables.root)
    for low in (39, 30, 21):
        slot = (handover.intent.control_page >> low & 511) * 8
        at = int.from_bytes(tables.pages[at][slot : slot + 8], "little") & 0x000F_FFFF_FFFF_F000
    page = bytearray(tables.pages[at])
    slot = ((handover.intent.control_page >> 12) + 1 & 511) * 8
    page[slot : slot + 8] = (handover.intent.control_page | 0x63).to_bytes(8, "little")
    pages = {**tables.pages, at: memoryview(bytes(page))}
    return replace(handover, page_table_a=replace(tables, pages=pages)), run


def copied_twice(handover: Handover, run: Run) -> tuple[Handover, Run]:
    return handover, replace(run, copies=np.concatenate([run.copies, run.copies[:1]]))


def pge_stays(handover: Handover, run: Run) -> tuple[Handover, Run]:
    writes = tuple(each for each in run.register_writes if each.register != "cr4")
    return handover, replace(run, register_writes=writes)


def stack_elsewhere(handover: Handover, run: Run) -> tuple[Handover, Run]:
    writes = tuple(
        replace(each, after=each.after + PAGE_SIZE) if each.register == "rsp" else each
        for each in run.register_writes
    )
    return handover, replace(run, register_writes=writes)


def touched(run: Run, rows: str, at: int, step: Step = Step.STATE) -> Run:
    """The run with one more store, or load, of eight bytes."""
    row = np.array([[3, step, at, 8]], np.int64)
    if rows == "stores":
        return replace(run, stores=np.concatenate([run.stores, row]))
    return replace(run, loads=np.concatenate([run.loads, row]))


PROMISED = {
    Promise.NOTHING_ELSE_MAPPED: ("table-a-nothing-else", also_mapped),
    Promise.COPIES_ONCE: ("copies-follow-list", copied_twice),
    Promise.GLOBALS_DROPPED: ("pge-before-identity", pge_stays),
    Promise.STACK_IN_CONTROL_PAGE: ("stack-inside", stack_elsewhere),
}


@pytest.mark.parametrize("promise", PROMISED)
def test_a_rule_binds_whoever_promised_and_nobody_else(promise: Promise) -> None:
    rule, breach = PROMISED[promise]
    good = sound()
    handover, run = breach(good.handover, good.run)
    assert rule in rules_of(handover, run)
    others = handover.relocation_code.contract.promises - {promise}
    assert rule not in rules_of(with_contract(handover, promises=others), run)


@pytest.mark.parametrize("rows", ["stores", "loads"])
@pytest.mark.parametrize("place", [Place.CODE_AT_V, Place.IN_IMAGE])
def test_memory_is_whose_the_contract_says_it_is(rows: str, place: Place) -> None:
    good = sound()
    levels = (Phys(good.handover.world.host.private.end - PAGE_SIZE),)
    handover = replace(good.handover, levels=levels)
    at = handover.world.code_phys if place is Place.CODE_AT_V else levels[0]
    run = touched(good.run, rows, at)
    rule = f"{rows}-owned"
    assert rule in rules_of(handover, run)
    contract = handover.relocation_code.contract
    kept = {"stores": "writes", "loads": "reads"}[rows]
    allowed = with_contract(handover, **{kept: getattr(contract, kept) | {place}})
    assert rule not in rules_of(allowed, run)


def test_who_may_write_may_read_but_not_the_other_way_round() -> None:
    good = sound()
    at = good.handover.world.code_phys
    stored, loaded = touched(good.run, "stores", at), touched(good.run, "loads", at)
    contract = good.handover.relocation_code.contract
    writes = with_contract(good.handover, writes=contract.writes | {Place.CODE_AT_V})
    reads = with_contract(good.handover, reads=contract.reads | {Place.CODE_AT_V})
    assert "loads-owned" not in rules_of(writes, loaded)
    assert "stores-owned" in rules_of(reads, stored)


def test_the_old_kernel_s_memory_is_read_only_as_long_as_the_contract_lets_it() -> None:
    good = sound()
    there = good.handover.world.host.private.start
    for last, step, wrong in (
        (None, Step.CALL, True),
        (Step.STATE, Step.STATE, False),
        (Step.STATE, Step.IDENTITY, True),
    ):
        run = touched(good.run, "loads", there, step)
        old = {Old.IDT: Step.STATE} | ({Old.MEMORY: last} if last else {})
        assert ("loads-owned" in rules_of(with_contract(good.handover, old=old), run)) is wrong


def test_the_old_idt_is_gone_when_the_contract_says() -> None:
    good = sound()
    assert "idt-gone" not in rules_of(good.handover, good.run)
    none = with_contract(good.handover, old={})
    assert "idt-gone" in rules_of(none, good.run)
    # Whoever is called without an idt has none to get rid of.
    called = replace(none, registers=replace(none.registers, idt=(0, 0)))
    assert "idt-gone" not in rules_of(called, good.run)


def test_a_contract_says_where_each_thing_is_or_that_it_is_nowhere() -> None:
    contract = Contract(arguments={"rdi": Given.LIST, "rsp+8": Given.ENTRY})
    assert contract.where(Given.LIST) == "rdi"
    assert contract.where(Given.ENTRY) == "rsp+8"
    assert contract.where(Given.TABLE_A) is None
