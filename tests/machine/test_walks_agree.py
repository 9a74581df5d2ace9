"""Three machines on the same handover: the emulator, the fake, and Unicorn as it comes.

They share the handover and nothing else: the fake runs no code, the bare Unicorn uses its own MMU
and no hook.  On a sound handover all leave the same bytes and the same registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.machine import bare
from tests.machine.walks import MIB, PAGE, kernel, moving, plan, sound
from tests.makers.hosts import small_host, table_b
from tests.stand_ins.played import Fake
from tightrope.errors import PlanError
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent
from tightrope.model import Handover, Run, Step, Stop
from tightrope.x86.walk import Access

ARITHMETIC_FLAGS = 0x8D5
"""CF PF AF ZF SF OF: what `xor` leaves in them is nobody's contract."""


@dataclass(frozen=True)
class Wish:
    """What varies from one sound handover to the next."""

    kernel_size: int
    init_size: int
    load: int
    code64: bytes
    busy: tuple[tuple[int, int], ...]
    busy_at_load: bool
    initrd: int | None
    command_line: str
    scatter: int | None
    nx: bool


wishes = st.builds(
    Wish,
    kernel_size=st.integers(0, 5 * PAGE),
    init_size=st.integers(6 * PAGE, 0x20000),
    load=st.integers(4, 12).map(lambda n: n * 2 * MIB),
    code64=st.binary(min_size=1, max_size=64),
    busy=st.lists(st.tuples(st.integers(2048, 8100), st.integers(1, 64)), max_size=3).map(tuple),
    busy_at_load=st.booleans(),
    initrd=st.none() | st.integers(1, 9 * PAGE),
    command_line=st.text("abc =", max_size=40),
    scatter=st.none() | st.integers(0, 1 << 32),
    nx=st.booleans(),
)


def granted(wish: Wish) -> Handover:
    """The handover; wishes that no plan can fill are no examples."""
    busy = [Extent.sized(first * PAGE, pages * PAGE) for first, pages in wish.busy]
    if wish.busy_at_load:
        busy.append(Extent.sized(wish.load, 3 * PAGE))
    new = kernel(
        kernel_size=wish.kernel_size,
        init_size=wish.init_size,
        pref_address=wish.load,
        code64=wish.code64,
    )
    try:
        return sound(
            plan(
                small_host(32, busy=busy, nx=wish.nx),
                new,
                initrd=None
                if wish.initrd is None
                else bytes(n * 31 % 256 for n in range(wish.initrd)),
                command_line=wish.command_line,
                scatter=wish.scatter,
            )
        )
    except PlanError:
        assume(False)
        raise


def destinations(handover: Handover) -> Iterator[tuple[str, Extent, bytes]]:
    """(name, extent, what has to be there at the end)."""
    for segment in handover.segments:
        size = segment.destination.page_aligned().size
        yield (
            segment.name,
            segment.destination.page_aligned(),
            bytes(segment.data).ljust(size, b"\0"),
        )


def list_loads(handover: Handover, run: Run) -> list[int]:
    frames = np.array(sorted(handover.plan.list_pages), np.int64)
    return [int(at) for at in run.loads[:, 2] if at & -PAGE in frames]


def answers(handover: Handover, run: Run) -> dict[tuple[int, Access, int], int]:
    """(page, access, cr3) -> frame, for V, P and the entry."""
    pages = {handover.plan.relocation, handover.plan.control_page, handover.plan.entry}
    return {
        (each.virt & -PAGE, each.access, each.cr3): each.phys & -PAGE
        for each in run.translations
        if each.virt & -PAGE in pages
    }


EMULATOR = Emulator()


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(wishes)
def test_the_emulator_and_the_fake_agree(wish: Wish) -> None:
    handover = granted(wish)
    one, other = EMULATOR.run(handover), Fake().run(handover)
    assert one.stop is other.stop is Stop.ENTRY
    assert one.copies[:, 1:].tolist() == other.copies[:, 1:].tolist()
    assert list_loads(handover, one) == list_loads(handover, other)
    for name, extent, wanted in destinations(handover):
        # The stub's page is also the stack.
        written = extent.size - (64 if name == "entry stub" else 0)
        assert one.memory.read(extent)[:written] == wanted[:written], name
        assert other.memory.read(extent)[:written] == wanted[:written], name
    assert one.registers.general == other.registers.general
    assert one.registers.rip == other.registers.rip == handover.plan.kernel_entry
    assert one.registers.rflags & ~ARITHMETIC_FLAGS == other.registers.rflags
    for register in ("cr0", "cr2", "cr3", "cr4", "efer", "segments", "idt"):
        assert getattr(one.registers, register) == getattr(other.registers, register), register
    assert [step for _, step in one.step_starts] == [step for _, step in other.step_starts]
    played = answers(handover, other)
    seen = answers(handover, one)
    assert {key: seen.get(key) for key in played} == played
    assert {name: word & ~(1 << 40) for name, word in one.descriptors.items()} == {
        name: word & ~(1 << 40) for name, word in other.descriptors.items()
    }


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(wishes)
def test_unicorn_s_own_mmu_without_any_hook_ends_the_same(wish: Wish) -> None:
    handover = granted(wish)
    ours, alone = EMULATOR.run(handover), bare.run(handover)
    assert alone.error is None
    assert ours.stop is Stop.ENTRY
    assert alone.general == ours.registers.general
    for name in ("rip", "cr0", "cr2", "cr3", "cr4"):
        assert alone.read(name) == getattr(ours.registers, name), name
    assert alone.read("eflags") == ours.registers.rflags
    assert alone.efer == ours.registers.efer
    assert alone.segments == ours.registers.segments
    assert alone.table("gdtr") == ours.registers.gdt
    assert alone.table("idtr") == ours.registers.idt
    for name, extent, _ in destinations(handover):
        assert alone.memory(extent) == bytes(ours.memory.read(extent)), name


def test_there_is_something_to_agree_about() -> None:
    handover = sound(moving())
    run = EMULATOR.run(handover)
    moved = handover.plan.sources != handover.plan.destinations
    assert len(run.copies) == moved.sum() == 3
    assert len(list_loads(handover, run)) > len(handover.plan.sources)
    assert len(answers(handover, run)) >= 4


# ----------------------------------------------------------------------------- the sound walk itself


@pytest.fixture(scope="module")
def handover() -> Handover:
    return sound(moving())


@pytest.fixture(scope="module")
def run(handover: Handover) -> Run:
    return Emulator().run(handover)


def test_the_six_steps_come_in_order(handover: Handover, run: Run) -> None:
    assert [step for _, step in run.step_starts] == [
        Step.CALL, Step.TABLE_A, Step.STATE, Step.IDENTITY, Step.TABLE_B, Step.COPY,
    ]  # fmt: skip
    indices = [index for index, _ in run.step_starts]
    assert indices == sorted(set(indices))
    virt, control = handover.plan.relocation, handover.plan.control_page
    page = {step: int(run.trace[index]) & -PAGE for index, step in run.step_starts}
    assert page[Step.IDENTITY] == virt
    assert page[Step.TABLE_B] == page[Step.COPY] == control


def test_the_new_kernel_is_entered_as_the_boot_protocol_says(handover: Handover, run: Run) -> None:
    # boot.rst, "64-bit Boot Protocol": rsi = boot_params, 0x10 and 0x18, interrupts off.
    now, the_plan = run.registers, handover.plan
    assert run.stop is Stop.ENTRY
    assert now.rip == the_plan.kernel_entry
    assert now.general["rsi"] == the_plan.boot_params
    assert now.segments == {"cs": 0x10} | dict.fromkeys(("ds", "es", "ss", "fs", "gs"), 0x18)
    assert not now.rflags & 1 << 9
    assert {name: value for name, value in now.general.items() if value} == {
        "rsi": the_plan.boot_params,
        "rsp": now.general["rsp"],
    }
    assert now.cr0 == 0x8000_0033
    assert now.cr3 == table_b(handover).root
    assert now.cr4 == 1 << 5
    assert now.idt == (0, 0)


def test_every_instruction_is_in_the_trace_with_its_text(handover: Handover, run: Run) -> None:
    assert len(run.trace) == run.instructions
    assert {int(rip) for rip in run.trace} == set(run.texts)
    assert run.texts[handover.plan.relocation] == "cli"
    assert int(run.trace[0]) == handover.plan.relocation
    assert run.texts[int(run.trace[-1])] == "lretq"


def test_each_register_write_is_recorded_before_and_after(handover: Handover, run: Run) -> None:
    first = {write.register: write for write in reversed(run.register_writes)}
    old = handover.registers
    assert (first["cr3"].before, first["cr3"].after) == (old.cr3, handover.page_table_a.root)
    assert (first["cr4"].before, first["cr4"].after) == (old.cr4, old.cr4 & (1 << 5 | 1 << 12))
    assert (first["cr0"].before, first["cr0"].after) == (old.cr0, 0x8000_0033)
    assert (first["rflags"].before, first["rflags"].after) == (old.rflags, old.rflags & ~0x200)
    assert first["rsp"].after == handover.plan.control_page + PAGE
    assert first["idt"].after == 0
    assert first["gdt"].after & 0xFFFF == 31
    assert (first["ds"].before, first["ds"].after) == (0, 0x18)
    assert (first["cs"].before, first["cs"].after) == (0x10, 0x10)
    assert first["dr7"].after == 0
    for write in run.register_writes:
        assert int(run.trace[write.instruction]) == write.rip


def test_stores_stay_on_the_control_page_and_the_stub(handover: Handover, run: Run) -> None:
    pages = {int(at) & -PAGE for at in run.stores[:, 2]}
    assert pages == {handover.plan.control_page, handover.plan.entry}
    assert set(run.stores[:, 3].tolist()) <= {2, 8}


def test_a_copy_is_one_event_of_one_page(handover: Handover, run: Run) -> None:
    the_plan = handover.plan
    moved = the_plan.sources != the_plan.destinations
    wanted = [
        [int(to) * PAGE, int(source) * PAGE, PAGE]
        for to, source in zip(the_plan.destinations[moved], the_plan.sources[moved], strict=True)
    ]
    assert run.copies[:, 1:].tolist() == wanted
    assert all(run.texts[int(run.trace[at])].startswith("rep movsq") for at in run.copies[:, 0])


def test_what_the_machine_cannot_see_is_said(run: Run) -> None:
    assert run.blind
    assert run.machine == "emulator"
