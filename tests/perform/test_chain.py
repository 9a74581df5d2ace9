"""A chain of three real kernels through one plan, and what the rehearsal said of each jump.

    kernel 1 --load, replaced, unloaded, interrupted, exec--> kernel 2 --load, exec--> kernel 3
    kernel 3 --a plan of which one bit is another since it was made, exec--> its purgatory says so

At the entry of kernel 2 the machine is stopped: registers, memory map, command line and every segment are
what the rehearsal predicted.  Kernels 2 and 3 are told the same: nothing grows and nothing drifts.
"""

from __future__ import annotations

import gzip
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import debian_kernel
from tests.perform.dom0 import BOOT_SECONDS, BareLinux, initramfs
from tests.qemu.pcs import QUIET
from tightrope import host, image
from tightrope.deeds import old_kernel, performable
from tightrope.deeds.rehearse import rehearse
from tightrope.machine.qemu import cpu
from tightrope.model import OnDamage, Outcome, SegmentRole, Verdict
from tightrope.perform import load_file
from tightrope.plan import Request

FLAVOUR = "cloud-amd64"
MEBIBYTES = 640
LINE = f"{QUIET} tightrope.chain=of-three"
E820_COUNT, E820_TABLE, E820_ROW = 0x1E8, 0x2D0, 20
"""Of boot_params (Documentation/arch/x86/zero-page.rst)."""
TOLD = (
    "for n in $(ls /sys/firmware/memmap | sort -n); do"
    " cat /sys/firmware/memmap/$n/start /sys/firmware/memmap/$n/end /sys/firmware/memmap/$n/type; done;"
    " cat /proc/cmdline; ls /sys/kernel/boot_params/setup_data 2>/dev/null; grep MemTotal /proc/meminfo"
)
INTERRUPTED = """
import os, signal, sys
from tightrope.cli import main
from tightrope.perform.linux.calls import Linux
real = Linux.kexec_load
def at_once(self, entry, segments, flags):
    os.kill(os.getpid(), signal.SIGINT)
    real(self, entry, segments, flags)
if sys.argv[1] == "call":
    Linux.kexec_load = at_once
else:
    Linux.kexec_load = None
    import tightrope.perform.load_file as load_file
    reading = load_file.identified
    def identified(data, source):
        os.kill(os.getpid(), signal.SIGINT)
        return reading(data, source)
    load_file.identified = identified
status = main(["load", "plan", "--really"])
print("status", status, "loaded", open("/sys/kernel/kexec_loaded").read().strip())
"""


@cache
def rehearsed() -> Verdict:
    """Debian's kernel from itself, through its own relocation code, with a purgatory."""
    path = debian_kernel(FLAVOUR)
    code = old_kernel.read(path.read_bytes(), path.name)
    old = host.read(host.example(pc=MEBIBYTES), "a PC")
    request = Request(
        initrd=gzip.compress(initramfs(), 1),
        command_line=LINE,
        verify=OnDamage.HALT,
    )
    return rehearse(
        image.read(path.read_bytes(), path.name),
        code.host(old),
        code.request(request),
        design=code.participant,
    )


def damaged(load: load_file.Load, verdict: Verdict) -> load_file.Load:
    """One bit of the initrd is another, and the purgatory does not know."""
    (initrd,) = [e for e in verdict.handover.plan.segments if e.role is SegmentRole.INITRD]
    changed = bytearray(initrd.data)
    changed[len(changed) // 3] ^= 0x10
    segments = tuple(
        replace(each, data=memoryview(bytes(changed)))
        if each.destination == initrd.destination
        else each
        for each in load.segments
    )
    return replace(load, segments=segments)


def said(guest: BareLinux, command: str) -> list[str]:
    status, lines = guest.do(command)
    assert status == 0, lines
    return lines


def look_at_the_entry(guest: BareLinux, verdict: Verdict) -> None:
    """The CPU and the memory of the machine that stands at the new kernel's first instruction."""
    run, plan = verdict.run, verdict.handover.plan
    here = cpu.registers(guest.pc)
    assert here.rip == plan.kernel_entry == run.registers.rip
    assert here.general == run.registers.general
    assert (here.cr0, here.cr4, here.efer) == (
        run.registers.cr0,
        run.registers.cr4,
        run.registers.efer,
    )
    assert here.segments == run.registers.segments
    assert here.gdt == run.registers.gdt
    for segment in plan.segments:
        where = segment.destination.start
        got = guest.pc.ram.view(where, len(segment.data))
        assert got is not None
        assert bytes(got) == bytes(segment.data), segment.name


def told_by(verdict: Verdict) -> list[str]:
    """The memory map that boot_params has, as /sys/firmware/memmap shows a kernel's."""
    (params,) = [e for e in verdict.handover.plan.segments if e.role is SegmentRole.BOOT_PARAMS]
    data, names = bytes(params.data), {1: "System RAM", 2: "Reserved"}
    rows = []
    for n in range(data[E820_COUNT]):
        row = data[E820_TABLE + n * E820_ROW :][:E820_ROW]
        start, size = (int.from_bytes(row[at : at + 8], "little") for at in (0, 8))
        kind = names[int.from_bytes(row[16:], "little")]
        rows += [f"{start:#x}", f"{start + size - 1:#x}", kind]
    return rows


@pytest.mark.timeout(900)
def test_three_kernels_one_plan_and_a_damaged_one(tmp_path: Path) -> None:
    verdict = rehearsed()
    assert verdict.outcome is Outcome.HOLDS, verdict.findings
    load = performable.of(verdict.handover.plan, "holds")
    good, bad = load_file.write(load), load_file.write(damaged(load, verdict))
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    with BareLinux(FLAVOUR, mebibytes=MEBIBYTES, files=(("interrupted.py", script),)).up() as guest:
        place = guest.used
        guest.put("plan", good)
        second = guest.used
        os.pwrite(guest.disk.descriptor, bad, second)
        (line,) = [e for e in said(guest, "python interrupted.py read") if e.startswith("status")]
        assert line == "status 130 loaded 0"
        lines = said(guest, "python interrupted.py call 2>&1")
        assert lines[-1] == "status 130 loaded 1"
        assert "a kexec image is loaded" in lines[-2]
        assert said(guest, "tightrope load plan --really")[-1] == "loaded: a kexec image"
        assert said(guest, "tightrope unload --really") == ["unloaded"]
        assert said(guest, "cat /sys/kernel/kexec_loaded") == ["0"]
        assert said(guest, "tightrope load plan --really")[-1] == "loaded: a kexec image"

        guest.pc.stop()
        guest.pc.break_at(verdict.handover.plan.kernel_entry)
        guest.pc.go(seconds=0.01, interrupt=False)
        guest.pc.say("tightrope exec --really\n")
        assert guest.pc.go(seconds=BOOT_SECONDS) is not None, guest.pc.lines[-10:]
        look_at_the_entry(guest, verdict)
        guest.pc.unbreak_all()
        guest.wait(guest.greeting)
        told = said(guest, TOLD)
        assert told[: len(told_by(verdict))] == told_by(verdict)
        assert LINE in told

        guest.fetch("plan", place, len(good))
        assert said(guest, "tightrope load plan --really")[-1] == "loaded: a kexec image"
        guest.pc.say("tightrope exec --really\n")
        guest.wait(guest.greeting)
        assert said(guest, TOLD) == told

        guest.fetch("plan", second, len(bad))
        assert said(guest, "tightrope load plan --really")[-1] == "loaded: a kexec image"
        guest.pc.say("tightrope exec --really\n")
        guest.wait("tightrope: initrd is damaged")
