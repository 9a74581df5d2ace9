"""Whatever happens, no QEMU is left behind; and what goes wrong is one clear line.

Rules: processes are looked for by what only ours have: the name of their RAM's file.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.machine.kernels import say
from tests.makers.elf import Segment, elf
from tests.modes.runs import kernel
from tests.processes import gone, lives
from tests.qemu.pcs import old_kernel, qemu, walk
from tightrope import image
from tightrope.deeds.rehearse import rehearse
from tightrope.errors import CannotBe, MachineError, MissingPart
from tightrope.machine.qemu import memory, pc, process, stage
from tightrope.machine.qemu.pc import Pc
from tightrope.model import Ending, Outcome, Paging, Protocol
from tightrope.plan import Request

MIB = 1 << 20
WAIT = b"\xfb\xf4\xeb\xfd"
"""With interrupts on: sti; hlt; jmp."""
BOARD = pc.Board(size=64 * MIB, kernel=stage.board_for(old_kernel(Paging.X86_64)).kernel)

STARTER = f"""
import sys, time
from tightrope.machine.qemu.pc import Board, Pc
pc = Pc(Board(size={64 * MIB}, kernel=bytes.fromhex({bytes(BOARD.kernel).hex()!r})))
print(pc.process.number, flush=True)
if sys.argv[1] == "crash":
    import os
    os.abort()
time.sleep(1000)
"""


@pytest.mark.parametrize("how", ["crash", "kill", "interrupt", "terminate", "hangup"])
def test_qemu_dies_with_us(how: str) -> None:
    qemu().close()
    signals = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "hangup": signal.SIGHUP}
    signals["terminate"] = signal.SIGTERM
    started = subprocess.Popen(
        [sys.executable, "-c", STARTER, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with started:
        assert started.stdout is not None
        number = int(started.stdout.readline())
        if how in signals:
            assert lives(number)
            started.send_signal(signals[how])
        started.wait(240)
    assert gone(number)


def test_nothing_of_a_pc_has_a_name_in_a_file_system() -> None:
    qemu().close()
    with Pc(BOARD) as one:
        number = one.process.number
        links = [os.readlink(each) for each in Path(f"/proc/{number}/fd").iterdir()]
    ours = [link for link in links if "tightrope" in link]
    assert len(ours) >= 4
    assert all(link.startswith("/memfd:tightrope-") for link in ours)
    assert gone(number)


def test_a_machine_that_is_closed_leaves_no_process_and_no_descriptor() -> None:
    machine = qemu()
    before = set(os.listdir("/proc/self/fd"))
    assert walk(machine, Paging.X86_64).outcome is Outcome.HOLDS
    machine.close()
    machine.close()
    assert set(os.listdir("/proc/self/fd")) <= before | {"0", "1", "2"}


def test_a_run_that_is_interrupted_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = qemu()
    seen: list[int] = []

    def interrupted(one: Pc, *_: object) -> None:
        seen.append(one.process.number)
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "lay_out", interrupted)
    with pytest.raises(KeyboardInterrupt):
        walk(machine, Paging.X86_64)
    machine.close()
    assert len(seen) == 1
    assert gone(seen[0])


def test_a_child_whose_parent_has_died_does_not_become_qemu() -> None:
    def said(parent: int) -> str:
        command = ["sh", "-c", process.ONLY_BELOW, str(parent), "echo", "it runs"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    assert said(os.getpid()) == "it runs\n"
    assert said(os.getppid()) == ""


def rehearsed_with(shell: str) -> subprocess.CompletedProcess[str]:
    """The shipped kernel rehearsed on QEMU by a process of its own; `shell` is said before it."""
    command = f'{shell} "{sys.executable}" -m tightrope rehearse --shipped --on qemu'
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)


def test_closed_standard_descriptors_are_filled_first() -> None:
    qemu().close()
    got = rehearsed_with("exec <&-;")
    assert (got.returncode, got.stderr) == (0, "")


# ------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("descriptors", [8, 11, 14, 17])
def test_few_descriptors_are_one_line(descriptors: int) -> None:
    got = rehearsed_with(f"ulimit -n {descriptors};")
    assert got.returncode == 2
    assert got.stderr.count("\n") == 1
    assert "Traceback" not in got.stderr


def test_no_qemu_is_a_missing_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingPart, match="is not installed"):
        Pc(BOARD)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo QEMU emulator version 4.2.1; echo bad option >&2; exit 1", "QEMU 4.2 is too old"),
        ("echo QEMU emulator version 9.1.0; echo no such board >&2; exit 1", "no such board"),
        ("exit 1", "without a word"),
    ],
)
def test_a_qemu_that_does_not_come_up_is_one_line(
    script: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / process.BINARY
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(MissingPart, match=says) as caught:
        Pc(BOARD)
    assert "\n" not in str(caught.value)


def test_more_ram_than_there_is_is_a_missing_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_available", lambda: 100 * MIB)
    with pytest.raises(CannotBe, match="has left"):
        memory.SharedRam(512 * MIB)
    memory.SharedRam(64 * MIB).close()


def test_a_qemu_that_ends_in_the_middle_is_told() -> None:
    qemu().close()
    with Pc(BOARD) as one:
        os.kill(one.process.number, signal.SIGTERM)
        with pytest.raises(MissingPart, match="QEMU ended"):
            one.registers()


def test_firmware_that_never_comes_up_is_told_with_where_the_cpu_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    qemu().close()
    monkeypatch.setattr(stage, "FIRMWARE_SECONDS", 0.0)
    with Pc(BOARD) as one, pytest.raises(MachineError, match="the CPU is at 0x"):
        stage.after_firmware(one)


def test_a_new_kernel_that_never_speaks_is_told_with_where_the_cpu_stands() -> None:
    machine = qemu()
    try:
        got = rehearse(kernel(), old_kernel(Paging.X86_64), Request(), machine=machine)
        assert got.outcome is Outcome.HOLDS
        heard = machine.userspace("never", seconds=0.5)
    finally:
        machine.close()
    assert heard.lines == ()
    assert (
        "the CPU is at 0x" in heard.stopped
        or "halted at 0x" in heard.stopped
        or "shut" in heard.stopped
    )


@pytest.mark.parametrize(("paging", "bits"), [(Paging.X86_64, 64), (Paging.I386, 32)])
@pytest.mark.parametrize(
    ("code", "ending"),
    [
        (b"\xf4", Ending.HALTED),
        (WAIT, Ending.TIME),
        # A byte of HLT that belongs to another instruction: mov $0xf4, %al; jmp to itself.
        (b"\xb0\xf4\xeb\xfe", Ending.TIME),
        # What Linux says last, and spins; and what it says before it may enter a crash kernel.
        (say("---[ end Kernel panic - not syncing: No init ]---\n") + WAIT, Ending.HALTED),
        (say("Kernel panic - not syncing: No init\n") + WAIT, Ending.TIME),
    ],
)
def test_a_kernel_has_halted_where_it_executed_hlt_with_interrupts_off_or_panicked(
    paging: Paging, bits: int, code: bytes, ending: Ending
) -> None:
    machine = qemu()
    try:
        made = image.read(elf(Segment(0x100_0000, code), bits=bits), "made")
        got = rehearse(made, old_kernel(paging), Request(protocol=Protocol.FLAT), machine=machine)
        assert got.outcome is Outcome.HOLDS
        heard = machine.userspace("never", seconds=1 if ending is Ending.TIME else 600)
    finally:
        machine.close()
    assert heard.ending is ending, heard.stopped
