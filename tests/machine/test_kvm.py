"""The same handover on this computer's own CPU: it says what the emulator says, and what it lacks."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import without_hardware
from tests.machine import walks
from tests.makers.designs import DESIGNS, IN_PLACE
from tests.makers.hosts import mode_host
from tightrope import check
from tightrope.abi import kvm as abi
from tightrope.cli import main
from tightrope.deeds.rehearse import build
from tightrope.errors import CannotBe, MachineError, MissingPart
from tightrope.machine.kvm import Kvm, Pace
from tightrope.machine.kvm.capability import Capability, capability, probe
from tightrope.machine.kvm.device import Device
from tightrope.machine.kvm.kvm import lacks
from tightrope.machine.kvm.watchdog import Watchdog
from tightrope.machine.port import Machine, first_line, no_progress
from tightrope.machine.unicorn import Emulator
from tightrope.memory import PAGE_SIZE, Extent, Phys, Virt
from tightrope.model import Handover, LowMapping, Paging, Protocol, Run, Sight, Step, Stop
from tightrope.observe.physical import Ram
from tightrope.sabotage import SABOTAGES
from tightrope.x86 import cpu as x86

NAMES = sorted(
    name for name, each in SABOTAGES.items() if Paging.X86_64 in each.modes and not each.crash
)
SELF_OVERWRITING = {"control-page-destination"}
"""What runs after the running code was copied over depends on when a CPU fetches it again."""


@functools.cache
def shared() -> Emulator:
    return Emulator()


@functools.cache
def handover(name: str | None = None) -> Handover:
    plan = walks.plan(scatter=3, initrd=bytes(n * 7 % 251 for n in range(9000)))
    return build(plan, design="two-tables", sabotage=SABOTAGES[name] if name else None)


def whole_memory(run: Run) -> tuple[frozenset[int], Callable[[int], bytes]]:
    """The frames that hold something, and how one is read."""
    assert isinstance(run.memory, Ram)
    ram = run.memory

    def page(frame: int) -> bytes:
        return bytes(ram.read(Extent.sized(frame * PAGE_SIZE, PAGE_SIZE)))

    return ram.in_use(), page


# -------------------------------------------------------------------------- the same, seen by both


@pytest.mark.parametrize("design", DESIGNS)
def test_every_design_is_told_alike(design: str, kvm: Kvm) -> None:
    built = build(walks.plan(initrd=bytes(9000)), design=design)
    theirs, ours = shared().run(built), kvm.run(built)
    assert theirs.stop is ours.stop is Stop.ENTRY
    found = [(each.rule, each.step) for each in check.check(built, ours)]
    assert found == [(each.rule, each.step) for each in check.check(built, theirs)]
    assert bool(found) == (design == IN_PLACE)


@pytest.mark.parametrize("name", [None, *NAMES])
def test_a_stepped_walk_is_told_as_the_emulator_tells_it(name: str | None, kvm: Kvm) -> None:
    theirs, ours = shared().run(handover(name)), kvm.run(handover(name))
    assert theirs.stop == ours.stop
    found = [each.rule for each in check.check(handover(name), ours)]
    assert found == [each.rule for each in check.check(handover(name), theirs)]
    assert check.unasked(ours) == {}
    if name in SELF_OVERWRITING:
        return
    assert ours.fault == theirs.fault
    assert ours.step_starts == theirs.step_starts
    assert ours.texts == theirs.texts
    assert ours.register_writes == theirs.register_writes
    if name != "accessed-clear":  # where the CPU sets what our walker only notes
        assert ours.translations == theirs.translations
    for one, other in (
        (ours.trace, theirs.trace),
        (ours.loads, theirs.loads),
        (ours.stores, theirs.stores),
        (ours.copies, theirs.copies),
    ):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("name", [None, *NAMES])
def test_a_free_walk_comes_to_the_same_end(name: str | None, kvm_free: Kvm) -> None:
    theirs, ours = shared().run(handover(name)), kvm_free.run(handover(name))
    assert theirs.stop == ours.stop
    unasked = check.unasked(ours)
    assert [each.rule for each in check.check(handover(name), ours)] == [
        each.rule for each in check.check(handover(name), theirs) if each.rule not in unasked
    ]
    if theirs.fault and ours.fault and name not in SELF_OVERWRITING:
        for field in ("vector", "error_code", "address", "access", "rip", "reason", "triple"):
            assert getattr(ours.fault, field) == getattr(theirs.fault, field), field


@pytest.mark.parametrize("pace", [Pace.FREE, Pace.STEPPING], ids=["free", "stepping"])
def test_registers_and_all_of_memory_at_the_entry_are_the_emulators(
    pace: Pace, kvm: Kvm, kvm_free: Kvm
) -> None:
    theirs = Emulator().run(handover())
    with_new_memory = Kvm(pace)
    try:
        ours = with_new_memory.run(handover())
        assert ours.stop is Stop.ENTRY
        assert ours.registers == theirs.registers
        assert ours.descriptors == theirs.descriptors
        their_frames, their_page = whole_memory(theirs)
        our_frames, our_page = whole_memory(ours)
        frames = their_frames | our_frames
        assert len(frames) > len(handover().intent.destinations)
        assert [hex(n * PAGE_SIZE) for n in sorted(frames) if our_page(n) != their_page(n)] == []
    finally:
        with_new_memory.close()


def test_two_walks_on_one_machine_do_not_see_each_other(kvm_free: Kvm) -> None:
    assert kvm_free.run(handover("no-p")).stop is Stop.FAULT
    assert kvm_free.run(handover()).stop is Stop.ENTRY
    assert kvm_free.run(handover("no-v")).stop is Stop.FAULT


@pytest.mark.parametrize("bits", [32, 64])
def test_both_kinds_of_entry_are_reached(bits: int, kvm: Kvm, kvm_free: Kvm) -> None:
    protocol = Protocol.LINUX_32 if bits == 32 else Protocol.LINUX_64
    built = build(walks.plan(protocol=protocol), design="two-tables")
    theirs = shared().run(built)
    for machine in (kvm, kvm_free):
        ours = machine.run(built)
        assert check.check(built, ours) == ()
        assert ours.registers == theirs.registers


# ------------------------------------------------------------------------------------- how it falls


def test_a_triple_fault_is_told_with_rip_and_cr2(kvm_free: Kvm) -> None:
    run = kvm_free.run(handover("no-p"))
    fault = walks.fault_of(run)
    assert fault.triple
    assert (run.registers.rip, run.registers.cr2) == (fault.rip, fault.address)
    assert fault.vector == 14
    assert fault.step is Step.STATE


ROUTINES = {
    "no such instruction": walks.UD2,
    "a breakpoint": walks.INT3,
    "a read of nothing": walks.put("rax", 0x1234_5000) + b"\x48\x8b\x00",
    "not canonical": walks.put("rax", 1 << 62) + b"\x48\x8b\x00",
    "WP without PG": walks.put("rax", 0x31) + walks.TO_CR0,
    "reserved in CR4": walks.put("rax", 1 << 63) + walks.TO_CR4,
}


@pytest.mark.parametrize("name", ROUTINES)
def test_an_exception_that_the_old_kernel_would_handle_is_told_as_one(
    name: str, kvm: Kvm, kvm_free: Kvm
) -> None:
    built = walks.made(ROUTINES[name])
    theirs = walks.fault_of(shared().run(built))
    assert not theirs.triple
    for machine in (kvm, kvm_free):
        ours = walks.fault_of(machine.run(built))
        assert (ours.vector, ours.error_code, ours.address, ours.rip) == (
            theirs.vector,
            theirs.error_code,
            theirs.address,
            theirs.rip,
        )
        assert not ours.triple


def test_an_access_where_no_memory_is_ends_the_walk(kvm: Kvm, kvm_free: Kvm) -> None:
    old = walks.old_kernel()
    hole = Phys(old.memory.ram[-1].end + 8 * PAGE_SIZE)
    mapped = LowMapping(virt=Virt(0x7000_0000), phys=hole, size=PAGE_SIZE, is_global=False)
    plan = walks.plan(replace(old, low_mappings=(mapped,)))
    routine = walks.made(walks.put("rbx", mapped.virt) + b"\x48\x8b\x03", plan)
    theirs = walks.fault_of(shared().run(routine))
    for machine in (kvm, kvm_free):
        ours = walks.fault_of(machine.run(routine))
        assert (ours.vector, ours.reason) == (theirs.vector, theirs.reason)
        assert f"{hole:#x}" in ours.reason


def test_where_the_model_refuses_and_the_cpu_goes_on_the_cpu_is_right(
    kvm: Kvm, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = x86.refused

    def refused(now: x86.ControlState, register: str, value: int) -> tuple[int, str] | None:
        return (13, "made up for a test") if register == "cr4" else real(now, register, value)

    monkeypatch.setattr(x86, "refused", refused)
    run = kvm.run(handover())
    assert run.stop is Stop.ENTRY
    assert run.blind[-1].startswith("1 faults that the manual asks for")
    assert walks.fault_of(shared().run(handover())).reason == "made up for a test"


@pytest.mark.parametrize("pace", [Pace.FREE, Pace.STEPPING], ids=["free", "stepping"])
def test_a_walk_that_goes_in_circles_ends_at_the_time_limit(pace: Pace, kvm: Kvm) -> None:
    machine = Kvm(pace, seconds=2)  # enough for a whole walk on a busy computer
    try:
        started = time.monotonic()
        assert machine.run(walks.made(walks.LOOP_FOREVER)).stop is Stop.LIMIT
        assert time.monotonic() - started < 600
        assert machine.run(handover()).stop is Stop.ENTRY
    finally:
        machine.close()


def test_a_halt_is_a_halt(kvm: Kvm, kvm_free: Kvm) -> None:
    for machine in (kvm, kvm_free):
        assert machine.run(walks.made(walks.HLT)).stop is Stop.HALT


# ------------------------------------------------------------------------------- what is left behind


def open_files() -> set[str]:
    out = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            out.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            continue  # the listing's own
    return out


@pytest.mark.parametrize("pace", [Pace.FREE, Pace.STEPPING], ids=["free", "stepping"])
def test_ctrl_c_ends_a_walk_and_leaves_nothing_open(pace: Pace, kvm: Kvm) -> None:
    files, threads = open_files(), set(threading.enumerate())
    machine = Kvm(pace, seconds=60)
    interrupt = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            machine.run(walks.made(walks.LOOP_FOREVER))
    finally:
        machine.close()
        interrupt.join()
    assert open_files() == files
    assert set(threading.enumerate()) == threads
    assert signal.SIGRTMAX not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_the_old_kernel_is_not_laid_out_for_nothing(kvm: Kvm) -> None:
    with pytest.raises(MachineError, match="stops at the new kernel's first instruction"):
        kvm.console(seconds=1, ends=first_line, progress=no_progress)


# ------------------------------------------------------------------------------ what it can and cannot


def test_what_this_kvm_can_be_is_found_again(kvm: Kvm) -> None:
    assert probe() == capability()
    assert Paging.X86_64 not in capability().missing
    assert capability().cr4 & x86.CR4_PAE


def test_an_old_kernel_that_this_kvm_cannot_be_is_refused_with_the_reason(kvm: Kvm) -> None:
    for paging, why in capability().missing.items():
        built = build(walks.plan(mode_host(paging, megabytes=32)), design="two-tables")
        with pytest.raises(CannotBe, match=f"no {paging.value} paging") as refused:
            kvm.run(built)
        assert why in str(refused.value)


def test_every_mode_that_this_kvm_has_is_walked(kvm: Kvm, kvm_free: Kvm) -> None:
    for paging in set(Paging) - set(capability().missing):
        built = build(walks.plan(mode_host(paging, megabytes=32)), design="two-tables")
        theirs = shared().run(built)
        for machine in (kvm, kvm_free):
            ours = machine.run(built)
            assert ours.registers == theirs.registers
            assert check.check(built, ours) == ()


ALL = Capability(missing={}, gbpages=True, nx=True, cr4=x86.CR4_DEFINED, physical_bits=52)


def huge_paged() -> Handover:
    """A handover whose old kernel maps 1 GiB at once."""
    old = mode_host(Paging.X86_64, megabytes=64, high=2 << 30, direct_page=1 << 30)
    return build(walks.plan(old), design="two-tables")


LACKING: dict[str, tuple[Capability, Callable[[], Handover], str]] = {
    "mode": (
        replace(ALL, missing={Paging.X86_64: "it said so"}),
        handover,
        "no x86_64 paging: it said so",
    ),
    "PGE": (replace(ALL, cr4=x86.CR4_PAE | x86.CR4_PSE), handover, "cannot set CR4 PGE"),
    "NX": (replace(ALL, nx=False), handover, "has no NX"),
    "bits": (replace(ALL, physical_bits=24), handover, "has 24 address bits"),
    "1 GiB": (replace(ALL, gbpages=False), huge_paged, "has no 1 GiB pages"),
}


@pytest.mark.parametrize("what", LACKING)
def test_what_a_kvm_lacks_is_named(what: str) -> None:
    can, made, said = LACKING[what]
    assert said in (lacks(can, made()) or "")
    assert lacks(ALL, made()) is None


def test_one_gib_pages_are_not_asked_for_where_none_are_used() -> None:
    assert handover().host.cpu.gbpages
    assert lacks(replace(ALL, gbpages=False), handover()) is None


def test_bits_of_cr4_that_the_walk_does_not_need_are_off_and_said_to_be(kvm: Kvm) -> None:
    missing = [bit for bit in (x86.CR4_PCIDE, 1 << 22, 1 << 24) if not capability().cr4 & bit]
    if not missing:
        without_hardware("this computer's KVM has every bit of CR4 that could be tried")
    old = replace(walks.old_kernel(), cr4=walks.old_kernel().cr4 | missing[0])
    run = kvm.run(build(walks.plan(old), design="two-tables"))
    assert any("CR4" in each for each in run.blind)
    assert not any("CR4" in each for each in kvm.run(handover()).blind)
    assert run.stop is Stop.ENTRY


# ------------------------------------------------------------------------------- where there is none


def test_without_a_device_it_is_one_line(tmp_path: os.PathLike[str]) -> None:
    with pytest.raises(MissingPart, match=r"no .*nothing here: this computer's kernel has no KVM"):
        Device(os.path.join(tmp_path, "nothing"))


def test_what_is_not_kvm_is_said_to_be_none() -> None:
    with pytest.raises(MissingPart, match="/dev/null is not KVM's"):
        Device("/dev/null")


def test_without_permission_the_group_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(MissingPart, match=r"no permission to use /dev/kvm.*group kvm"):
        Device()


@pytest.mark.parametrize("name", ["kvm", "kvm-free"])
def test_the_command_line_ends_with_one_line_and_status_2(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(abi, "DEVICE", "/nowhere/kvm")
    capability.cache_clear()
    try:
        assert main(["rehearse", "--shipped", "--on", name]) == 2
    finally:
        capability.cache_clear()
    assert capsys.readouterr().err.splitlines() == [
        "tightrope: no /nowhere/kvm here: this computer's kernel has no KVM,"
        " or its CPU's virtualization is off"
    ]


# -------------------------------------------------------------------------------------- the watchdog


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    made = Watchdog()
    yield made
    made.close()


def test_a_watchdog_that_is_not_needed_says_nothing(watchdog: Watchdog) -> None:
    for _ in range(3):
        with watchdog.limit(60):
            assert signal.SIGRTMAX in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert not watchdog.over
    assert signal.SIGRTMAX not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@settings(max_examples=10)
@given(st.floats(0.0001, 0.01))
def test_a_kick_never_outlives_its_limit(seconds: float) -> None:
    watchdog = Watchdog()
    try:
        with watchdog.limit(seconds):
            # The thread that kicks may have to wait for a busy computer.
            ends = time.monotonic() + 240
            while not watchdog.over and time.monotonic() < ends:
                time.sleep(0.001)
        assert watchdog.over
        assert signal.SIGRTMAX not in signal.sigpending()
    finally:
        watchdog.close()


def test_the_free_machine_names_what_it_does_not_show(kvm_free: Kvm) -> None:
    run = kvm_free.run(handover())
    assert run.sees == {Sight.FAULTS}
    machine: Machine = kvm_free
    assert machine.name == run.machine == "kvm-free"
