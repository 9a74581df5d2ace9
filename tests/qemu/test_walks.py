"""The same handover on a whole PC and in the emulator: registers, memory and falls are the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import debian_kernel
from tests.makers.designs import IN_PLACE, SPLIT_FUNCTION
from tests.modes.runs import kernel, request
from tests.qemu.pcs import emulator, old_kernel, qemu, walk
from tightrope import check, host, image
from tightrope.deeds import old_kernel as old_kernels
from tightrope.deeds.rehearse import CONSOLE_WORDS, rehearse
from tightrope.deeds.until import Spoken
from tightrope.errors import CannotBe, MachineError
from tightrope.machine.qemu import Qemu
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent, MemoryMap, Region, RegionKind
from tightrope.model import Host, Outcome, Paging, Sight, Speaker, Step, Stop, Verdict
from tightrope.observe.physical import Ram
from tightrope.plan import Request
from tightrope.sabotage import SABOTAGES


@pytest.fixture(scope="module")
def machine() -> Iterator[Qemu]:
    made = qemu(walk_seconds=120)
    yield made
    made.close()


@pytest.mark.parametrize("scatter", [None, 3])
@pytest.mark.parametrize("paging", list(Paging))
def test_a_walk_ends_as_it_does_in_the_emulator(
    machine: Qemu, paging: Paging, scatter: int | None
) -> None:
    here = walk(machine, paging, scatter=scatter)
    there = walk(Emulator(), paging, scatter=scatter)
    assert (here.outcome, here.findings) == (Outcome.HOLDS, ())
    assert here.run.registers == there.run.registers
    assert here.run.descriptors == there.run.descriptors
    for extent in old_kernel(paging).memory.ram[1:]:
        mine = np.frombuffer(here.run.memory.read(extent), np.uint8)
        assert np.array_equal(mine, np.frombuffer(there.run.memory.read(extent), np.uint8))


@pytest.mark.parametrize("design", [IN_PLACE, SPLIT_FUNCTION])
@pytest.mark.parametrize("paging", list(Paging))
def test_code_that_stays_at_v_does_on_a_pc_what_it_does_in_the_emulator(
    machine: Qemu, paging: Paging, design: str
) -> None:
    here = walk(machine, paging, design=design)
    there = walk(Emulator(), paging, design=design)
    assert here.run.stop is Stop.ENTRY
    assert here.outcome is there.outcome
    assert here.run.registers == there.run.registers
    for extent in old_kernel(paging).memory.ram[1:]:
        mine = np.frombuffer(here.run.memory.read(extent), np.uint8)
        assert np.array_equal(mine, np.frombuffer(there.run.memory.read(extent), np.uint8))


@pytest.mark.parametrize(("paging", "flavour"), [(Paging.X86_64, "amd64"), (Paging.PAE, "686-pae")])
def test_a_kernel_that_has_given_its_gdt_up_walks_as_it_does_in_the_emulator(
    machine: Qemu, paging: Paging, flavour: str
) -> None:
    own = old_kernels.read(debian_kernel(flavour).read_bytes(), flavour)
    old, asked = own.host(old_kernel(paging)), own.request(request())
    here, there = (
        rehearse(kernel(), old, asked, design=own.participant, machine=each)
        for each in (machine, emulator())
    )
    assert here.handover.registers.gdt[1] == 0
    assert (here.outcome, here.findings) == (Outcome.HOLDS, ())
    assert here.run.registers == there.run.registers


def test_it_is_seen_where_it_is_stopped(machine: Qemu) -> None:
    got = walk(machine, Paging.X86_64)
    plan, symbols = got.handover.intent, got.handover.code.symbols
    assert got.run.trace.tolist() == [
        plan.relocation,
        plan.relocation + symbols["after_table_a"],
        plan.relocation + symbols["set_stack"],
        plan.control_page + symbols["identity"],
        plan.control_page + symbols["after_table_b"],
        plan.entry,
        plan.kernel_entry,
    ]
    assert [step for _, step in got.run.step_starts] == [
        *(Step.CALL, Step.TABLE_A, Step.STATE, Step.IDENTITY, Step.TABLE_B, Step.COPY)
    ]
    assert got.run.sees == {Sight.FAULTS}
    assert set(got.unasked) >= {"tlb-agreement", "stores-owned"}


ALIKE = [
    (paging, name)
    for paging in Paging
    for name in ("no-v", "no-p", "nx", "overwrite-pgd", "stack-outside", "table-b-small")
    if paging in SABOTAGES[name].modes
]


def fall(got: Verdict) -> dict[str, object]:
    """What both machines can say of a fall; `instruction` counts differently."""
    fault = got.run.fault
    assert fault is not None
    names = ("step", "vector", "error_code", "address", "access", "rip", "reason", "visits")
    return {name: getattr(fault, name) for name in (*names, "triple", "escalation")}


@pytest.mark.parametrize(("paging", "name"), ALIKE)
def test_a_fall_reads_as_the_emulator_tells_it(machine: Qemu, paging: Paging, name: str) -> None:
    here = walk(machine, paging, sabotage=name)
    there = walk(emulator(), paging, sabotage=name)
    assert here.run.stop is there.run.stop
    assert (here.findings[0].rule, here.findings[0].step) == (
        (SABOTAGES[name].rule, SABOTAGES[name].step)
        if name != "stack-outside"
        else ("access-mapped", Step.STATE)
    )
    if there.run.stop is Stop.FAULT:
        assert fall(here) == fall(there)


def test_a_refused_write_of_cr4_has_the_manuals_reason(machine: Qemu) -> None:
    here = walk(machine, Paging.LA57, sabotage="la57-toggled")
    assert fall(here) == fall(walk(emulator(), Paging.LA57, sabotage="la57-toggled"))
    assert here.run.fault is not None
    assert here.run.fault.text == "mov %rax,%cr4"


def test_an_address_that_is_none_is_told(machine: Qemu) -> None:
    got = walk(machine, Paging.X86_64, sabotage="list-page-destination")
    assert got.run.fault is not None
    assert "is not canonical" in got.run.fault.reason


def test_a_walk_in_circles_ends_at_the_limit() -> None:
    machine = qemu(walk_seconds=0.5)
    try:
        got = walk(machine, Paging.I386, sabotage="list-page-destination")
    finally:
        machine.close()
    assert got.run.stop is Stop.LIMIT
    assert "arrived" in [finding.rule for finding in got.findings]


# ------------------------------------------------------------------------------- hosts that fit


def with_ram(extent: Extent) -> Host:
    """The PC's host with one more extent of RAM."""
    old = old_kernel(Paging.X86_64)
    regions = [each for each in old.memory if not each.extent.overlaps(extent)]
    more = MemoryMap(tuple(sorted([*regions, Region(extent, RegionKind.RAM)])))
    return replace(old, memory=more)


@pytest.mark.parametrize(
    ("extent", "says"),
    [
        (Extent.sized(0xFD00_0000, 0x1000), "none so high below 4 GiB"),
        (Extent.sized(1 << 41, 1 << 20), "40 address bits"),
        (Extent.sized(0xA_0000, 0x1000), "has none there"),
    ],
)
def test_ram_that_a_pc_cannot_have_is_refused(machine: Qemu, extent: Extent, says: str) -> None:
    with pytest.raises(CannotBe, match=says):
        rehearse(kernel(), with_ram(extent), request(), machine=machine)


def test_the_default_host_fits_a_pc_of_four_gib(machine: Qemu) -> None:
    old = host.read(host.example(), "the default host")
    assert rehearse(kernel(), old, request(), machine=machine).outcome is Outcome.HOLDS


def test_what_a_crash_walk_leaves_outside_its_region_is_found_on_a_pc(machine: Qemu) -> None:
    old = old_kernel(Paging.X86_64, crash=Extent.sized(128 << 20, 64 << 20))
    verdict = rehearse(kernel(), old, replace(request(), crash=True), machine=machine)
    assert (verdict.outcome, verdict.findings) == (Outcome.HOLDS, ())
    assert "crash-region-only" in verdict.rules
    assert isinstance(verdict.run.memory, Ram)
    verdict.run.memory.write(100 << 20, b"!")
    [told] = check.check(verdict.handover, verdict.run)
    assert (told.rule, f"{100 << 20:#x}" in told.message) == ("crash-region-only", True)


def test_there_is_no_console_without_a_walk_that_arrived(machine: Qemu) -> None:
    walk(machine, Paging.X86_64, sabotage="no-v")
    with pytest.raises(MachineError, match="the walk did not get there"):
        machine.console(seconds=1)


def test_what_the_host_describes_of_its_firmware_is_not_mixed_with_the_pc_s(
    machine: Qemu, debian_cloud: Path
) -> None:
    old = host.read(host.example(), "the default host")
    assert old.rsdp is not None
    new = image.read(debian_cloud.read_bytes(), debian_cloud.name)
    asked = Request(command_line=CONSOLE_WORDS)
    verdict = rehearse(new, old, asked, until=Spoken(seconds=300), machine=machine)
    assert (verdict.outcome, verdict.findings) == (Outcome.HOLDS, ())
    assert verdict.console is not None
    assert verdict.console.speaker is Speaker.KERNEL
    assert any("Linux version" in line for line in verdict.console.lines)
    assert verdict.handover.host.rsdp is None
