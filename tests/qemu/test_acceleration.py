"""QEMU with KVM: used only where a probe shows that it boots, and then the walk ends as elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import without_hardware
from tests.qemu.pcs import emulator, qemu, walk
from tightrope.abi import kvm as abi
from tightrope.cli import main
from tightrope.deeds import machines
from tightrope.errors import CannotBe, MissingPart
from tightrope.machine.kvm import device
from tightrope.machine.qemu import Qemu, acceleration, process
from tightrope.model import Outcome, Paging, Stop


@pytest.fixture(scope="module")
def machine() -> Iterator[Qemu]:
    qemu().close()
    try:
        made = machines.qemu_kvm()
    except MissingPart as err:
        without_hardware(str(err))
    assert isinstance(made, Qemu)
    yield made
    made.close()


@pytest.fixture
def unprobed() -> Iterator[None]:
    """The probe's answer is forgotten before and after."""
    acceleration.kvm.cache_clear()
    yield
    acceleration.kvm.cache_clear()


def test_a_walk_on_it_ends_as_it_does_in_the_emulator(machine: Qemu) -> None:
    here, there = (walk(each, Paging.X86_64, scatter=3) for each in (machine, emulator()))
    assert (here.outcome, here.findings) == (Outcome.HOLDS, ())
    assert here.run.registers == there.run.registers
    assert here.run.machine == "qemu-kvm"


def test_a_fall_on_it_is_explained_from_where_the_cpu_stands(machine: Qemu) -> None:
    here, there = (walk(each, Paging.X86_64, sabotage="no-v") for each in (machine, emulator()))
    assert here.run.stop is there.run.stop is Stop.FAULT
    assert here.run.fault is not None
    assert there.run.fault is not None
    told = [
        (each.vector, each.error_code, each.address, each.rip, each.step)
        for each in (here.run.fault, there.run.fault)
    ]
    assert told[0] == told[1]
    assert any("it is inferred" in each for each in here.run.blind)


def test_a_mode_that_this_kvm_lacks_is_told_before_a_pc_is_started(machine: Qemu) -> None:
    from tightrope.machine.kvm.capability import capability

    for paging in (Paging.I386, Paging.PAE):
        if paging in capability().missing:
            with pytest.raises(CannotBe, match=f"KVM has no {paging.value} paging"):
                walk(machine, paging)


@pytest.mark.usefixtures("unprobed")
def test_a_kvm_that_does_not_boot_is_one_line_with_the_reason_of_each_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class There:
        def close(self) -> None:
            pass

    fake = tmp_path / process.BINARY
    fake.write_text("#!/bin/sh\necho QEMU emulator version 9.1.0; echo no such MSR >&2; exit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(device, "Device", There)
    assert main(["rehearse", "--shipped", "--on", "qemu-kvm"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "does not boot with this computer's KVM: as max: QEMU ended: no such MSR; as" in said


@pytest.mark.usefixtures("unprobed")
def test_without_a_kvm_no_pc_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(abi, "DEVICE", "/nowhere/kvm")
    monkeypatch.setattr(acceleration, "Pc", None)
    assert main(["rehearse", "--shipped", "--on", "qemu-kvm"]) == 2
    assert "no /nowhere/kvm here" in capsys.readouterr().err
