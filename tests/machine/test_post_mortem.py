"""A CPU that is found dead: its registers by every name, its step, and why it fell."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.machine import walks
from tightrope.deeds.rehearse import build
from tightrope.machine.expected import expectations
from tightrope.machine.layout import lay
from tightrope.machine.unicorn import Emulator
from tightrope.model import Handover, Registers, Step, Stop
from tightrope.observe.physical import Ram, backed
from tightrope.observe.post_mortem import explain, register, step_of
from tightrope.sabotage import SABOTAGES
from tightrope.x86 import cpu as x86

CALL = walks.made(walks.HLT).registers


def filled(value: int) -> Registers:
    return replace(CALL, general=dict.fromkeys(x86.GENERAL, value))


@given(st.integers(0, (1 << 64) - 1))
def test_a_register_is_as_wide_as_its_name_says(value: int) -> None:
    registers = filled(value)
    for names, mask in (
        ("rax rsp r9 r15", (1 << 64) - 1),
        ("eax esp r9d r15d", (1 << 32) - 1),
        ("ax sp bp r9w r15w", 0xFFFF),
        ("al bl sil dil spl r9b", 0xFF),
    ):
        assert {register(registers, name) for name in names.split()} == {value & mask}
    assert register(registers, "ch") == value >> 8 & 0xFF


def test_control_registers_and_segments_have_names_too() -> None:
    for name in ("rip", "rflags", "cr0", "cr2", "cr3", "cr4"):
        assert register(CALL, name) == getattr(CALL, name)
    assert register(CALL, "cs") == CALL.segments["cs"]
    assert register(CALL, "dr7") == 0


def broken(name: str | None) -> Handover:
    return build(
        walks.plan(scatter=3), design="two-tables", sabotage=SABOTAGES[name] if name else None
    )


@pytest.mark.parametrize("name", ["no-v", "no-p", "nx", "reserved-bit", "table-b-small"])
def test_the_same_reason_is_found_afterwards_as_ahead(name: str) -> None:
    handover = broken(name)
    run = Emulator().run(handover)
    assert run.fault is not None
    assert isinstance(run.memory, Ram)
    stood = replace(run.registers, cr2=run.fault.address or 0)
    told = explain(expectations(handover), run.memory, stood, reset=True)
    for field in ("vector", "error_code", "address", "access", "rip", "reason", "triple"):
        assert getattr(told, field) == getattr(run.fault, field), field


def test_what_has_no_reason_is_not_given_one() -> None:
    handover = walks.made(walks.NOP + walks.HLT)
    host = handover.host
    ram = Ram(backed(host.memory, host.firmware))
    lay(handover, ram)
    told = explain(expectations(handover), ram, handover.registers, reset=True)
    assert (told.vector, told.address) == (8, None)
    assert told.reason == "raised by the CPU; this machine does not say why"
    told = explain(expectations(handover), ram, replace(handover.registers, cr2=0x1234), reset=True)
    assert (told.vector, told.address) == (14, 0x1234)


def test_the_step_is_told_from_where_the_cpu_stands() -> None:
    handover = broken(None)
    plan, table_b = handover.intent, handover.page_table_b
    assert table_b is not None
    at_call = handover.registers
    expected = expectations(handover)
    switched = replace(at_call, cr3=handover.page_table_a.root)
    on_page = {**at_call.general, "rsp": plan.control_page + 4096}
    stands = {
        Step.CALL: at_call,
        Step.TABLE_A: switched,
        Step.STATE: replace(switched, general=on_page),
        Step.IDENTITY: replace(switched, rip=plan.control_page + 0x70),
        Step.COPY: replace(at_call, cr3=table_b.root),
    }
    assert {step: step_of(expected, registers) for step, registers in stands.items()} == {
        step: step for step in stands
    }
    off = replace(at_call, cr0=at_call.cr0 & ~x86.CR0_PG)
    assert step_of(expected, off) is Step.COPY
    assert Emulator().run(handover).stop is Stop.ENTRY
