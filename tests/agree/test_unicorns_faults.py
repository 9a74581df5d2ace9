"""What Unicorn gets wrong, one by one: it alone would have passed it, and a rule of ours does not.

Illegal writes of control registers and EFER are a table of their own, in
tests/machine/test_refusals.py; here is what takes a walk, a table or a stack to see.

Rules: `alone` is Unicorn with its own MMU; each test shows both sides, and KVM's where there is one.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from tests.machine import walks
from tests.makers.hosts import mode_host
from tightrope import check
from tightrope.deeds.agree.deed import explain_all
from tightrope.deeds.agree.difference import Told
from tightrope.deeds.rehearse import build
from tightrope.machine.kvm import Kvm
from tightrope.machine.unicorn import Emulator
from tightrope.machine.unicorn.alone import Alone
from tightrope.memory import PAGE_SIZE, Phys, Virt
from tightrope.model import Handover, LowMapping, Paging, Run, Stop
from tightrope.sabotage import SABOTAGES, Sabotage
from tightrope.sabotage.edits import entry_of, virt, with_tables
from tightrope.x86 import cpu as x86
from tightrope.x86.walk import Access


@cache
def emulator() -> Emulator:
    return Emulator(instruction_limit=100_000)


def alone(handover: Handover) -> Run:
    return Alone(instruction_limit=100_000).run(handover)


def broken(name: str, paging: Paging = Paging.X86_64) -> Handover:
    return other(SABOTAGES[name], paging)


def other(sabotage: Sabotage, paging: Paging = Paging.X86_64, bits: int | None = None) -> Handover:
    old = mode_host(paging, megabytes=32)
    if bits is not None:
        old = replace(old, cpu=replace(old.cpu, physical_bits=bits))
    return build(walks.plan(old, scatter=3), design="two-tables", sabotage=sabotage)


def rules(handover: Handover, run: Run) -> set[str]:
    return {each.rule for each in check.check(handover, run)}


def explanations(handover: Handover) -> set[str | None]:
    """Why `agree` lets the difference between the emulator and Unicorn pass; None: it does not."""
    one, two = emulator().run(handover), alone(handover)
    told = [Told(run=each, findings=check.check(handover, each)) for each in (one, two)]
    return {each.explained for each in explain_all(handover, *told, machine="unicorn")}


# --------------------------------------------------------------------------------- the translation


@pytest.mark.parametrize("name", ["stale-global", "pge-on"])
def test_a_global_entry_that_survives_is_nothing_to_unicorn(name: str) -> None:
    handover = broken(name)
    assert alone(handover).stop is Stop.ENTRY
    assert rules(handover, alone(handover)) <= {"known-state"}
    found = rules(handover, emulator().run(handover))
    assert found & {"tlb-agreement", "pge-before-identity"}


def test_a_reserved_bit_in_a_pdpte_is_no_general_protection_to_unicorn() -> None:
    handover = broken("nx-in-pdpte", Paging.PAE)
    fault, theirs = (walks.fault_of(each.run(handover)) for each in (emulator(), Alone()))
    assert (fault.vector, fault.text) == (13, "mov %ecx,%cr3")
    assert theirs.vector == 14
    assert theirs.rip != fault.rip
    assert explanations(handover) == {
        "Unicorn checks no write of a control register, EFER, PDPTE or segment"
    }


def test_leaving_5_level_paging_in_long_mode_is_no_general_protection_to_unicorn() -> None:
    handover = broken("la57-toggled", Paging.LA57)
    assert rules(handover, emulator().run(handover)) == {"legal-writes"}
    assert walks.fault_of(alone(handover)).vector == 14


@pytest.mark.parametrize("bit", [36, 39])
def test_unicorns_cpu_has_40_address_bits_whatever_the_old_kernels_has(bit: int) -> None:
    reserved = Sabotage(
        name="made",
        says="made",
        rule="",
        step=SABOTAGES["no-v"].step,
        handover=entry_of(virt, lambda entry: entry | 1 << bit),
    )
    handover = other(reserved, bits=36)
    assert walks.fault_of(emulator().run(handover)).error_code == 0x19
    assert walks.fault_of(alone(handover)).error_code != 0x19
    assert "reserved-bits" in rules(handover, alone(handover))
    assert explanations(handover) == {
        "Unicorn's CPU has 40 address bits, whatever the old kernel's has"
    }


def test_a_table_in_a_hole_is_read_as_zeros_by_unicorn() -> None:
    old = walks.old_kernel()
    hole = old.memory.ram[-1].end + 16 * PAGE_SIZE
    handover = walks.made(walks.put("rax", hole) + walks.TO_CR3)
    ours, theirs = (walks.fault_of(each.run(handover)) for each in (emulator(), Alone()))
    assert ours.reason != "raised by Unicorn"
    assert f"{hole:#x}" in ours.reason or ours.visits == ()
    assert theirs.vector == 14


# --------------------------------------------------------------------------------- the instruction


def test_an_address_on_the_stack_that_is_not_canonical_is_ss_and_not_gp() -> None:
    handover = walks.made(walks.put("rsp", 1 << 62) + walks.PUSH_RAX)
    assert walks.fault_of(emulator().run(handover)).vector == 12
    assert walks.fault_of(alone(handover)).vector == 13
    assert explanations(handover) == {"Unicorn raises #GP for the stack, not #SS"}
    assert "access-mapped" in rules(handover, emulator().run(handover))


def test_elsewhere_it_is_gp() -> None:
    handover = walks.made(walks.put("rax", 1 << 62) + b"\x48\x8b\x00")
    assert walks.fault_of(emulator().run(handover)).vector == 13
    assert explanations(handover) == set()


ADD_TO_MEMORY = b"\x00\x00"
"""add %al, (%rax)"""


def test_an_instruction_that_reads_and_writes_faults_as_a_write(kvm_free: Kvm) -> None:
    handover = walks.made(walks.put("rax", 0x1234_5000) + ADD_TO_MEMORY)
    assert walks.fault_of(emulator().run(handover)).error_code == 2
    assert walks.fault_of(kvm_free.run(handover)).error_code == 2
    assert walks.fault_of(alone(handover)).error_code == 0
    assert explanations(handover) == {"Unicorn reads before it writes, and faults on the read"}


@pytest.mark.parametrize("bit", [6, 10, 14, 17, 28])
def test_reserved_bits_of_cr0_stay_clear(bit: int, kvm_free: Kvm) -> None:
    value = walks.old_kernel().cr0 | 1 << bit
    handover = walks.made(walks.put("rax", value) + walks.TO_CR0 + walks.HLT)
    assert emulator().run(handover).registers.cr0 == walks.old_kernel().cr0
    assert kvm_free.run(handover).registers.cr0 == walks.old_kernel().cr0
    assert alone(handover).registers.cr0 == value


def test_a_cpu_model_that_drops_smap_is_not_used() -> None:
    old = replace(walks.old_kernel(), cr4=walks.old_kernel().cr4 | x86.CR4_SMAP)
    user = LowMapping(virt=Virt(0x7000_0000), phys=Phys(0x1000), size=PAGE_SIZE, is_global=False)
    handover = build(walks.plan(replace(old, low_mappings=(user,))), design="two-tables")
    assert handover.registers.cr4 & x86.CR4_SMAP
    # A model without SMAP would have dropped it in silence; the walk's own write shows what was held.
    writes = emulator().run(handover).register_writes
    assert next(each.before for each in writes if each.register == "cr4") & x86.CR4_SMAP


def test_unicorn_sees_a_pdpte_that_was_written_after_cr3() -> None:
    handover = broken("stale-pdpte", Paging.PAE)
    assert walks.fault_of(emulator().run(handover)).visits[0].level == "PDPT"
    assert alone(handover).stop is Stop.ENTRY
    assert explanations(handover) == {
        "Unicorn reads PDPTEs at each walk, a CPU when CR3 is written"
    }


def test_what_amd_reserves_and_intel_ignores_is_the_only_thing_that_bit_8_does(
    kvm_free: Kvm,
) -> None:
    def set_bit_8(handover: Handover) -> Handover:
        tables = handover.page_table_a
        page = bytearray(tables.pages[tables.root])
        slot = next(at for at in range(0, PAGE_SIZE, 8) if page[at] & 1)
        page[slot + 1] |= 1
        return with_tables(handover, tables.root, bytes(page))

    step = SABOTAGES["no-v"].step
    made = Sabotage(name="made", says="made", rule="", step=step, handover=set_bit_8)
    handover = other(made)
    runs = emulator().run(handover), kvm_free.run(handover)
    assert runs[0].stop is Stop.ENTRY
    told = [Told(run=each, findings=check.check(handover, each)) for each in runs]
    why = {each.explained for each in explain_all(handover, *told, machine="kvm-free")}
    if runs[1].stop is Stop.FAULT:
        assert why == {"AMD's CPUs reserve bit 8 of an entry of the highest level"}
    else:
        assert why == set()


# ------------------------------------------------------------------------------------- reading ahead

END = walks.TABLE_A_TO_CR3 + walks.NOP * (PAGE_SIZE - 1 - len(walks.TABLE_A_TO_CR3))
"""All of V's page but its last byte; what comes behind it is not mapped."""
BEYOND = int(walks.plan().relocation) + PAGE_SIZE


def test_an_instruction_that_runs_on_into_nothing_faults_where_it_stands(kvm: Kvm) -> None:
    handover = walks.made(END + b"\0")  # add %al, ...: its second byte is not there
    faults = [walks.fault_of(each.run(handover)) for each in (emulator(), kvm, Alone())]
    assert {(each.vector, each.address, each.access) for each in faults} == {
        (14, BEYOND, Access.FETCH)
    }
    ours, real, theirs = (each.rip for each in faults)
    assert ours == real == BEYOND - 1
    assert theirs < ours
    assert explanations(handover) == {
        "Unicorn reads a block of instructions ahead, and faults before the first of it has run"
    }


@pytest.mark.parametrize(
    ("last", "stop", "vector"),
    [(walks.HLT + b"\0", Stop.HALT, None), (walks.NOP + b"\x06", Stop.FAULT, 6)],
    ids=["what comes first ends it", "it is none, whatever follows"],
)
def test_what_is_never_executed_does_not_fault(
    last: bytes, stop: Stop, vector: int | None, kvm: Kvm
) -> None:
    handover = walks.made(END[:-1] + last)
    for machine in (emulator(), kvm):
        run = machine.run(handover)
        assert run.stop is stop
        assert (run.fault and run.fault.vector) == vector
        assert vector is None or walks.fault_of(run).rip == BEYOND - 1


def test_running_over_the_end_of_a_page_is_a_fetch_from_the_next_one(kvm: Kvm) -> None:
    for machine in (emulator(), kvm):
        fault = walks.fault_of(machine.run(walks.made(END + walks.NOP)))
        assert (fault.vector, fault.address, fault.rip) == (14, BEYOND, BEYOND)
