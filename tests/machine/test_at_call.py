"""Registers at the call: any bit of them flipped gives a walk or a fall, and never an error."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machine import walks
from tests.makers.hosts import mode_host
from tests.modes.runs import kernel, request
from tightrope import check
from tightrope.deeds.rehearse import build
from tightrope.machine.kvm import Kvm
from tightrope.machine.unicorn import Emulator
from tightrope.model import Handover, Paging, Registers, Stop
from tightrope.plan import prepare
from tightrope.x86 import cpu as x86

PLAIN = ("cr0", "cr3", "cr4", "efer", "rflags", "rip")


@cache
def emulator() -> Emulator:
    return Emulator(instruction_limit=100_000)


@cache
def handover(paging: Paging) -> Handover:
    plan = prepare(kernel(), mode_host(paging, megabytes=32), request())
    return build(plan, design="two-tables")


def flipped(registers: Registers, name: str, bit: int) -> Registers:
    """One bit of one register changed; a table by the name of its base."""
    if name in registers.general:
        return replace(
            registers,
            general={**registers.general, name: registers.general[name] ^ 1 << bit},
        )
    if name in registers.segments:
        changed = registers.segments[name] ^ 1 << bit % 16
        return replace(registers, segments={**registers.segments, name: changed})
    value = getattr(registers, name)
    if isinstance(value, tuple):
        changes: dict[str, Any] = {name: (value[0] ^ 1 << bit, value[1])}
    else:
        changes = {name: value ^ 1 << bit}
    return replace(registers, **changes)


@settings(max_examples=150)
@given(
    st.sampled_from([Paging.I386, Paging.PAE, Paging.X86_64]),
    st.sampled_from([*PLAIN, "gdt", "idt", *x86.GENERAL[:8], *x86.SEGMENTS]),
    st.integers(0, 63),
)
def test_any_flip_is_walked_or_told_as_a_fall(paging: Paging, name: str, bit: int) -> None:
    built = handover(paging)
    bit %= 64 if paging is Paging.X86_64 else 32
    built = replace(built, registers=flipped(built.registers, name, bit))
    run = emulator().run(built)
    assert run.stop is Stop.ENTRY or check.check(built, run)


@pytest.mark.parametrize(
    ("segments", "says"),
    [
        ({"gs": 0x4018}, "gs cannot hold 0x4018: selector 0x4018 is beyond the gdt's limit"),
        ({"gs": 0x1C}, "gs cannot hold 0x1c: the selector is in the LDT"),
        ({"gs": 0x4}, "gs cannot hold 0x4: the selector is in the LDT"),
        ({"ds": 0x1B}, "ds cannot hold 0x1b: selector 0x1b is not of ring 0"),
        ({"ss": 0x10}, "ss cannot hold 0x10: selector 0x10 is not a writable data segment"),
        ({"cs": 0x18}, "cs cannot hold 0x18: selector 0x18 is not a code segment"),
    ],
)
def test_a_selector_that_its_gdt_does_not_bear_out_is_a_finding(
    segments: dict[str, int], says: str
) -> None:
    built = walks.sound(walks.plan())
    wrong = replace(built.registers, segments={**built.registers.segments, **segments})
    built = replace(built, registers=wrong)
    run = emulator().run(built)
    assert walks.fault_of(run).reason == f"no CPU is in this state: {says}"
    assert "legal-writes" in {each.rule for each in check.check(built, run)}


@pytest.mark.parametrize(
    ("register", "bit", "says"),
    [
        pytest.param("cr4", 5, "PAE cannot be cleared in long mode", id="long mode without PAE"),
        pytest.param("cr4", 15, "are reserved", id="a bit of CR4 that no CPU has"),
        pytest.param("cr0", 0, "CR0.PG needs CR0.PE", id="paging without protection"),
        pytest.param("cr0", 29, "CR0.NW needs CR0.CD", id="NW without CD"),
        pytest.param("cr4", 7, None, id="PGE the other way round"),
        pytest.param("cr0", 5, None, id="NE the other way round"),
        pytest.param("cr3", 46, "CR3 bits 63:46 are reserved", id="an address the CPU lacks"),
        pytest.param("cr3", 63, "CR3 bits 63:46 are reserved", id="an order not to flush"),
        pytest.param("cr3", 61, None, id="a process's LAM"),
        pytest.param("efer", 9, "EFER bits 0x200 are reserved", id="a bit of EFER that no CPU has"),
        pytest.param("efer", 21, None, id="a bit of EFER that AMD's CPUs have"),
    ],
)
def test_what_no_write_of_a_control_register_leaves_there_is_a_finding(
    register: str, bit: int, says: str | None
) -> None:
    built = handover(Paging.X86_64)
    changed = replace(built.registers, **{register: getattr(built.registers, register) ^ 1 << bit})
    built = replace(built, registers=changed)
    run = emulator().run(built)
    if says is None:
        assert run.stop is Stop.ENTRY
    else:
        reason = walks.fault_of(run).reason
        assert reason.startswith("no CPU is in this state: ")
        assert says in reason
        assert "legal-writes" in {each.rule for each in check.check(built, run)}


def test_a_long_mode_that_is_none_is_a_finding() -> None:
    built = handover(Paging.PAE)
    wrong = replace(built.registers, efer=built.registers.efer | x86.EFER_LMA)
    fault = walks.fault_of(emulator().run(replace(built, registers=wrong)))
    assert "EFER.LMA is not what EFER.LME and CR0.PG make it" in fault.reason


def test_a_gdt_without_the_descriptors_that_were_loaded_is_a_finding() -> None:
    """Moved by one bit, it has nothing at the selectors: that is no gdt that was given up."""
    built = handover(Paging.X86_64)
    base, limit = built.registers.gdt
    wrong = replace(built.registers, gdt=(base ^ 0x100, limit))
    fault = walks.fault_of(emulator().run(replace(built, registers=wrong)))
    assert "cs cannot hold 0x10" in fault.reason


def test_a_cr3_that_leads_nowhere_is_a_finding_with_a_hypervisors_selectors_too() -> None:
    """The gdt cannot be read for any of them, and they lie above its first pages."""
    built = handover(Paging.I386)
    segments = {"cs": 0xE008, **dict.fromkeys(("ss", "ds", "es", "fs", "gs"), 0xE010)}
    wrong = replace(built.registers, cr3=built.registers.cr3 ^ 1 << 22, segments=segments)
    built = replace(built, registers=wrong)
    assert check.check(built, emulator().run(built))


@pytest.mark.parametrize("bit", [1, 3, 5, 15, 17, 22, 31])
def test_flags_that_no_cpu_has_are_a_finding(bit: int) -> None:
    built = handover(Paging.I386)
    wrong = replace(built.registers, rflags=built.registers.rflags ^ 1 << bit)
    run = emulator().run(replace(built, registers=wrong))
    assert walks.fault_of(run).reason.startswith("no CPU is in this state: RFLAGS")
    assert "legal-writes" in {each.rule for each in check.check(built, run)}


@pytest.mark.parametrize("bit", [0, 2, 4, 6, 7, 11, 21])
def test_status_flags_are_the_callers_own(bit: int) -> None:
    built = handover(Paging.I386)
    changed = replace(built.registers, rflags=built.registers.rflags ^ 1 << bit)
    assert emulator().run(replace(built, registers=changed)).stop is Stop.ENTRY


@pytest.mark.parametrize("paging", list(Paging))
def test_what_linux_has_at_the_call_is_no_such_state(paging: Paging) -> None:
    assert emulator().run(handover(paging)).stop is Stop.ENTRY


def test_kvm_tells_the_same(kvm: Kvm) -> None:
    built = walks.sound(walks.plan())
    wrong = replace(built.registers, segments={**built.registers.segments, "gs": 0x4018})
    built = replace(built, registers=wrong)
    faults = [walks.fault_of(each.run(built)) for each in (kvm, emulator())]
    assert faults[0] == faults[1]
