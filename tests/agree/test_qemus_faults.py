"""What QEMU's own CPU (TCG) gets wrong, one by one, and that a rule of ours does not.

Rules: each row is a broken handover, what `agree` says of the difference, and the rule that finds it.
The machine is a PC; a walk of it costs a fifth of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.agree.test_unicorns_faults import ADD_TO_MEMORY, broken, emulator, other, rules
from tests.machine import walks
from tests.makers.hosts import mode_host
from tests.qemu.pcs import qemu
from tightrope import check
from tightrope.deeds.agree import make
from tightrope.deeds.agree.deed import explain_all
from tightrope.deeds.agree.difference import Told
from tightrope.deeds.agree.known import KNOWN
from tightrope.machine.qemu import Qemu
from tightrope.model import Handover, Paging
from tightrope.sabotage import SABOTAGES, Sabotage
from tightrope.sabotage.edits import entry_of, virt
from tightrope.x86 import cpu as x86

UNCHECKED = "QEMU checks no write of a control register, PDPTE or segment but LA57's"
WIDTH = "QEMU's CPU has 40 address bits, whatever the old kernel's has"
RESERVED_CR0 = "QEMU keeps reserved bits of CR0"
READ_FIRST = "QEMU reads before it writes, and faults on the read"
PDPTES = "QEMU reads PDPTEs at each walk, a CPU when CR3 is written"
NO_P_BIT = "QEMU's page fault for a reserved bit has no P bit"
LOW_MEMORY = "a PC's firmware has left something in low memory"


@pytest.fixture(scope="module")
def machine() -> Iterator[Qemu]:
    made = qemu(walk_seconds=120)
    yield made
    made.close()


def routine(data: bytes) -> Handover:
    return walks.made(data, walks.plan(mode_host(Paging.X86_64, megabytes=32)))


def no_pe() -> Handover:
    value = mode_host(Paging.X86_64, megabytes=32).cr0 & ~x86.CR0_PE
    return routine(walks.put("rax", value) + walks.TO_CR0 + walks.UD2)


def bit_6_of_cr0() -> Handover:
    return next(
        case.handover
        for case in (make(5, number) for number in range(24, 200))
        if case.says.endswith("bit 6 of the constant for CR0")
    )


def bit_of_v(bit: int, bits: int) -> Handover:
    made = Sabotage(
        name="made",
        says="made",
        rule="",
        step=SABOTAGES["no-v"].step,
        handover=entry_of(virt, lambda entry: entry | 1 << bit),
    )
    return other(made, bits=bits)


ROWS: dict[str, tuple[Callable[[], Handover], str, str]] = {
    "PG without PE": (no_pe, UNCHECKED, "legal-writes"),
    "a reserved bit in a PDPTE": (
        partial(broken, "nx-in-pdpte", Paging.PAE),
        UNCHECKED,
        "legal-writes",
    ),
    "a reserved bit of CR0": (bit_6_of_cr0, RESERVED_CR0, ""),
    "an address bit that the old CPU lacks": (partial(bit_of_v, 36, 36), WIDTH, "reserved-bits"),
    "an address bit that no CPU has": (partial(bit_of_v, 45, 40), NO_P_BIT, "fault-reserved"),
    "an instruction that reads and writes": (
        lambda: routine(walks.put("rax", 0x1234_5000) + ADD_TO_MEMORY),
        READ_FIRST,
        "access-mapped",
    ),
    "a PDPTE that was written after CR3": (
        partial(broken, "stale-pdpte", Paging.PAE),
        PDPTES,
        "",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_it_is_explained_and_found_by_a_rule(machine: Qemu, name: str) -> None:
    build, why, rule = ROWS[name]
    handover = build()
    one, two = emulator().run(handover), machine.run(handover)
    told = [Told(run=each, findings=check.check(handover, each)) for each in (one, two)]
    found = {each.explained for each in explain_all(handover, *told, machine="qemu")}
    assert why in found
    assert found <= {why, LOW_MEMORY}
    assert not rule or rule in rules(handover, one)


def test_every_explanation_of_its_processor_has_its_row() -> None:
    bus = {"what a hole answers is the bus's own affair", LOW_MEMORY}
    known = {each.why for each in KNOWN if each.machine == "qemu"} - bus
    assert known == {why for _, why, _ in ROWS.values()}


def test_without_a_difference_in_the_address_width_nothing_is_blamed_on_it(machine: Qemu) -> None:
    handover = broken("reserved-bit")
    one, two = emulator().run(handover), machine.run(handover)
    told = [Told(run=each, findings=check.check(handover, each)) for each in (one, two)]
    assert WIDTH not in {e.explained for e in explain_all(handover, *told, machine="qemu")}
