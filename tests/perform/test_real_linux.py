"""Debian's Linux in QEMU: what it answers to a load is what was told beforehand, row by row.

here   ->  the guest's console: a kernel, and questions (asked_linux.py)
guest  ->  here: (what was asked, the kernel's errno, the errnos that were told)
"""

from __future__ import annotations

import base64
import gzip
import json
import shlex
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path

import pytest

from tests.cli.test_arguments import Shell, tightrope
from tests.conftest import REPOSITORY, debian_kernel
from tests.crash.hosts import small_kernel
from tests.perform import asked_linux
from tests.perform.core_rows import in_region, typed
from tests.perform.dom0 import BareLinux, Guest, initramfs
from tests.perform.followed import commands
from tests.qemu.pcs import QUIET, token
from tests.qemu.pcs import initramfs as small_initramfs
from tightrope import host, image
from tightrope.deeds import file_load, old_kernel, performable, segments
from tightrope.deeds.old_kernel import OldKernel
from tightrope.deeds.rehearse import rehearse
from tightrope.memory import Extent
from tightrope.model import Host, Image, Outcome, Verdict
from tightrope.plan import Request

__all__ = ["tightrope"]
"""The fixture, which pytest finds here."""

MIB = 1 << 20
MEBIBYTES = 768
OLD, NEW = "cloud-amd64", "cloud-amd64-7.3"
SMALL = Path(str(resources.files("tightrope.shipped") / "kernel.bzimage"))
LOW, CMA = "the low part of the crash region", "CMA memory of the crash kernel"
ASKED = ((asked_linux.KERNEL, SMALL), ("asked_linux.py", Path(asked_linux.__file__)))
"""The kernel sums and copies what it takes: a small one is asked about, a real one is entered below."""


def answers(guest: BareLinux, words: str = "") -> list[list[asked_linux.Row]]:
    """What the kernel answered, each time that it was asked; all of it was told beforehand."""
    status, lines = guest.do(f"python asked_linux.py {words}")
    assert status == 0, "\n".join(lines)
    every: list[list[asked_linux.Row]] = [json.loads(each) for each in lines if each[:2] == "[["]
    wrong = [
        (name, got, told)
        for rows in every
        for name, got, told in rows
        if (got not in told if got else [each for each in told if each is not None])
    ]
    assert not wrong
    return every


COLLECTOR = ("capture.py", REPOSITORY / "contrib" / "capture.py")


def collected(guest: BareLinux) -> Host:
    """The guest as contrib/capture.py tells it."""
    status, lines = guest.do("python capture.py > collected && gzip -c collected | base64")
    assert status == 0, lines
    return host.read(gzip.decompress(base64.b64decode("".join(lines))).decode(), "a guest")


def of_the_guest(guest: BareLinux, command: str) -> str:
    """The one line that a command says."""
    status, (line,) = guest.do(command)
    assert status == 0, line
    return line


def what_was_collected_is_true(guest: BareLinux) -> Host:
    """It is what the guest's own files say, each read without the collector."""
    old = collected(guest)
    symbol = of_the_guest(guest, "grep -m1 ' _text$' /proc/kallsyms")
    code = of_the_guest(guest, "grep 'Kernel code' /proc/iomem")
    assert (old.text.virt, old.text.phys) == (
        int(symbol.split()[0], 16),
        int(code.split("-")[0], 16),
    )
    assert old.crash_region is not None
    size = of_the_guest(guest, "cat /sys/kernel/kexec_crash_size")
    assert old.crash_region.size == 192 * MIB
    # Linux 6.12 counts the low part as well, and 7.3 no CMA.
    low = [each.extent.size for each in old.crash_memory if each.what == LOW]
    assert old.crash_region.size + sum(low) == int(size)
    rows = of_the_guest(guest, "grep -c 'System RAM' /proc/iomem")
    assert len(old.memory.ram) == int(rows)
    return old


def named(rows: list[asked_linux.Row]) -> set[str]:
    return {name for name, _, _ in rows}


def errnos(rows: list[asked_linux.Row]) -> set[int]:
    return {got for _, got, _ in rows}


@pytest.mark.parametrize(
    ("flavour", "crash", "words", "mebibytes", "also"),
    [
        ("amd64", "192M", "", MEBIBYTES, []),
        ("amd64-6.12", "192M,high", "crashkernel=72M,low", 5120, [LOW]),
        ("amd64-7.2", "192M", "", MEBIBYTES, []),
        ("amd64-7.3", "192M", "crashkernel=64M,cma", MEBIBYTES, [CMA]),
    ],
    ids=lambda value: value if str(value).startswith("amd64") else "",
)
def test_every_refusal_is_told_beforehand(
    flavour: str, crash: str, words: str, mebibytes: int, also: list[str]
) -> None:
    """With a crash region, once it was given back, and with one right after the other taken away.

    Before that the machine is collected as docs/fleet.md has it, and its core header compared with a plan's.
    """
    files = (*ASKED, (asked_linux.SIGNED, debian_kernel("amd64")), COLLECTOR)
    with BareLinux(
        flavour, crash=crash, words=words, mebibytes=mebibytes, files=files
    ).up() as guest:
        old = what_was_collected_is_true(guest)
        assert [each.what for each in old.crash_memory] == also
        core_rows_are_linuxs_own(guest, old)
        guest.do("mount -t securityfs security /sys/kernel/security")
        region, small, none, without_rights = answers(guest, "for-good")
    assert {0, 22, 99} <= errnos(region)
    assert {"kept: 1", "dropped: 0"} <= named(region)
    assert (errnos(small), named(small)) == ({99}, {"files, crash, too large"})
    assert {0, 22, 26, 99} <= errnos(none)
    assert "crash, inside the region" in named(region) - named(none)
    assert 1 in errnos(without_rights)
    assert {"locked down", "files, signed, locked down"} <= named(without_rights)
    names = {"signed, as it was, locked down", "signed, another byte, locked down"}
    assert names | {"appraised", "files, appraised"} <= named(without_rights)
    assert 13 in errnos(without_rights)


def said_after(guest: Guest, command: str) -> str:
    """What the next kernel's init says first, after a command that does not come back."""
    guest.pc.say(f"{command}\n")
    return guest.wait(guest.greeting)[-1]


def core_rows_are_linuxs_own(guest: BareLinux, old: Host) -> None:
    """A plan's core header beside the one that kexec_file_load makes in the same guest, row by row.

    A plan's row of the text ends with the kernel's bss, which is as far as /proc/iomem tells; Linux's goes on
    to _end, by the boot-time heap that lies between (less than 2 MiB; the row of the RAM there has it too).
    """
    region = old.crash_region
    assert region is not None
    load = f"tightrope load {asked_linux.KERNEL} --crash --via kexec_file_load --append quiet"
    assert guest.do(f"{load} --no-rehearsal --really")[0] == 0
    at, theirs = in_region(guest, region)
    assert guest.do("tightrope unload --crash --really")[0] == 0
    verdict = rehearse(small_kernel(), old, Request(command_line="quiet", crash=True))
    plan = performable.load(verdict)
    assert plan is not None, verdict.findings
    typed(guest, "plan", plan)
    status, lines = guest.do("tightrope load plan --really")
    assert (status, lines[-1]) == (0, "loaded: a crash image"), lines
    _, ours = in_region(guest, region, but=at)
    assert guest.do("tightrope unload --crash --really")[0] == 0

    text, their_text = (each.of("PT_LOAD")[0] for each in (ours, theirs))
    assert 0 <= their_text.memory_size - text.memory_size < 2 << 20
    size = their_text.memory_size
    assert their_text == replace(text, file_size=size, memory_size=size)
    rest = [each for each in ours.rows if each is not text]
    assert rest == [each for each in theirs.rows if each is not their_text]
    assert len(ours.of("PT_NOTE")) == 2
    assert (ours.bits, ours.kind, ours.machine) == (theirs.bits, theirs.kind, theirs.machine)
    own = (region, *(each.extent for each in old.crash_memory))
    assert not any(row.extent.overlaps(each) for row in theirs.of("PT_LOAD") for each in own)


def userspace_after(guest: Guest, command: str, word: str) -> str:
    """The line of the new kernel's init, after a command that does not come back."""
    guest.pc.say(f"{command}\n")
    return guest.wait(f"tightrope: userspace {word} ")[-1]


def release(flavour: str) -> str:
    """What uname -r says in that kernel."""
    return debian_kernel(flavour).name.removeprefix("vmlinuz-")


def pc(crash: Extent | None = None) -> Host:
    """The machine that the guests have, as a host file describes it."""
    return host.read(host.example(pc=MEBIBYTES, crash=crash), "a PC")


@cache
def leaving(flavour: str) -> OldKernel:
    """A kernel's own relocation code."""
    path = debian_kernel(flavour)
    code = old_kernel.read(path.read_bytes(), path.name)
    assert isinstance(code, OldKernel)
    return code


def planned(new: Image, request: Request, crash: Extent | None = None) -> Verdict:
    """What is said of our plan, through the own code of the kernel that is left."""
    code = leaving(OLD)
    return rehearse(new, code.host(pc(crash)), code.request(request), design=code.participant)


def written_elsewhere(guest: Guest, tightrope: Shell, initrd: bytes, line: str) -> list[str]:
    """The commands of docs/perform.md: the guest is captured, a plan is made here and carried back.

    It leaves OLD for itself.  What is left of them is the guest's.
    """
    capture, make, *rest = commands("A plan from another machine")
    status, lines = guest.do(f"{capture} && cat host.toml")
    assert status == 0, lines
    tightrope.file("host.toml", "\n".join(each for each in lines if each[:10] != "tightrope:"))
    tightrope.file("vmlinuz", debian_kernel(OLD).read_bytes())
    tightrope.file("initrd.img", initrd)
    words = [line if each == "..." else each for each in shlex.split(make)[1:]]
    done = tightrope(*words, "--unpack", "--from", str(debian_kernel(OLD)))
    assert done.status == 0, done
    guest.put("plan", (tightrope.folder / "plan").read_bytes())
    return rest


def placed_by_linux(old: str, new: Image, initrd: bytes, line: str) -> Verdict:
    """What is said of a jump with the segments that the old kernel's kexec_file_load chooses."""
    path, code, there = debian_kernel(old), leaving(old), pc()
    loaded = file_load.load(path.read_bytes(), path.name, new, initrd, line, there)
    request = segments.request(loaded, Request(initrd=initrd, command_line=line))
    return rehearse(new, code.host(there), code.request(request), design=code.participant)


def load_plan(guest: Guest, verdict: Verdict, kind: str) -> None:
    """A plan that held, carried into the guest and loaded there."""
    load = performable.load(verdict)
    assert load is not None, verdict.findings
    guest.put("plan", load)
    status, lines = guest.do("tightrope load plan --really")
    assert (status, lines[-1]) == (0, f"loaded: a {kind} image"), lines


def files_are_loaded_by_linux(guest: Guest, line: str) -> None:
    """kexec_file_load, with what is asked, refused and undone before it."""
    words = f"tightrope load kernel --initrd initrd --append '{line}'"
    status, lines = guest.do(words)
    assert (status, "say --no-rehearsal" in lines[-1]) == (2, True), lines  # no packages here
    words += " --via kexec_file_load"
    status, lines = guest.do(f"{words} --no-rehearsal")
    assert (status, lines[-1]) == (
        0,
        "tightrope: would load it by kexec_file_load; say --really to do it",
    )
    assert guest.do("tightrope exec --really")[0] == 2
    status, lines = guest.do(f"{words} --no-rehearsal --really")
    assert (status, lines[-1]) == (0, "loaded: a kexec image")
    _, lines = guest.do("tightrope status --json")
    assert json.loads("\n".join(lines))["loaded"] is True
    assert guest.do("tightrope unload --really") == (0, ["unloaded"])
    assert guest.do(f"{words} --no-rehearsal --really")[0] == 0


DROPS = """
import os
from tightrope.errors import PerformError
from tightrope.perform.linux.calls import Linux
from tightrope.perform.linux.kexec import FileLoad, LinuxKexec
from tightrope.perform.linux.state import machine_file
kexec = LinuxKexec(Linux(), machine_file)
kexec.refuse = lambda load, state: None
words = dict(initrd=None, command_line=b"", crash=True, is_bzimage=True, signed=None)
try:
    kexec.load(FileLoad(kernel=os.open("/init", os.O_RDONLY), **words))
except PerformError as err:
    print(err)
"""
"""A crash load that nobody foresees to be refused: what was loaded is dropped by the kernel."""
OVER_OURS = """
import sys
from tightrope.cli import main
from tightrope.perform.linux.kexec import LinuxKexec
LinuxKexec.refuse = lambda self, load, state=None: None
words = "--crash --via kexec_file_load --no-rehearsal --really".split()
sys.exit(main(["load", "/init", *words]))
"""
"""The same by the command, which knows what it loaded."""
KDUMP_CONFIG = "#!/bin/busybox sh\nexec /bin/tightrope load /home/plan --really\n"
"""A stand-in for Debian's, which loads what its package has made."""


def a_dropped_image_is_put_back(guest: Guest) -> None:
    """By the crash loader that the machine has, and what tightrope loaded by tightrope."""
    guest.do("mkdir -p /usr/sbin")
    guest.put("/usr/sbin/kdump-config", KDUMP_CONFIG.encode())
    guest.put("drops.py", DROPS.encode())
    status, lines = guest.do("chmod +x /usr/sbin/kdump-config; python drops.py")
    back = "was dropped, and `/usr/sbin/kdump-config load` has loaded its own again"
    assert (status, "ENOEXEC" in lines[-1], back in lines[-1]) == (0, True, True), lines
    guest.put("over_ours.py", OVER_OURS.encode())
    status, lines = guest.do("rm /usr/sbin/kdump-config; python over_ours.py")
    back = "was dropped, and /home/plan, which tightrope had loaded, is loaded again"
    assert (status, "ENOEXEC" in lines[-1], back in lines[-1]) == (2, True, True), lines
    _, lines = guest.do("tightrope status --json")
    told = json.loads("\n".join(lines))
    last = [(each["crash"], each["files"][0]["name"]) for each in told["last"]]
    assert (told["crash_loaded"], last) == (True, [(True, "/home/plan")])


@pytest.mark.timeout(1800)
def test_one_machine_is_left_four_ways_as_it_was_said(tightrope: Shell) -> None:
    """Each jump is rehearsed through the own code of the kernel that is left, and then made.

    cloud-amd64 7.3  files, kexec_file_load        -> cloud-amd64 6.1
    cloud-amd64 6.1  files, kexec_load, unwalked   -> cloud-amd64 6.1
    cloud-amd64 6.1  a plan, unpacked, kexec_load  -> cloud-amd64 6.1 with a crash region
    cloud-amd64 6.1  a plan for a crash, a panic   -> cloud-amd64 6.1

    7.3 is left and not entered, which keeps the test short.
    """
    word, carried = token(), gzip.compress(initramfs(), 1)  # each byte is digested six times
    path = debian_kernel(OLD)
    packed = image.read(path.read_bytes(), path.name)
    with BareLinux(NEW, mebibytes=MEBIBYTES, files=ASKED).up() as guest:
        # It never had a crash region.
        (rows,) = answers(guest)
        assert {0, 22, 99} <= errnos(rows)
        assert "crash, inside the region" not in named(rows)
        places = [("kernel", guest.used, path.stat().st_size)]
        guest.put("kernel", path.read_bytes())
        places.append(("initrd", guest.used, len(carried)))
        guest.put("initrd", carried)
        files_are_loaded_by_linux(guest, QUIET)
        said = placed_by_linux(NEW, packed, carried, QUIET)
        assert said.outcome is Outcome.HOLDS, said.findings
        assert said.handover.plan.loaded is not None
        came = said_after(guest, "tightrope exec --really")
        assert came == f"{guest.greeting}{release(OLD)}"

        for name, at, size in places:
            guest.fetch(name, at, size)
        unwalked = f"tightrope load kernel --initrd initrd --append '{QUIET}' --no-rehearsal"
        status, lines = guest.do(f"{unwalked} --json --really")
        told = json.loads("\n".join(lines))
        assert (status, told["call"], told["rehearsed"]) == (0, "kexec_load", None)
        assert "purgatory" in {each["name"] for each in told["segments"]}
        came = said_after(guest, "tightrope exec --really")
        assert came == f"{guest.greeting}{release(OLD)}"

        line = f"{QUIET} crashkernel=192M"
        load, leave = written_elsewhere(guest, tightrope, carried, line)
        status, lines = guest.do(load)
        assert (status, lines[-1]) == (0, "loaded: a kexec image"), lines
        came = said_after(guest, leave)
        assert came == f"{guest.greeting}{release(OLD)}"

        _, lines = guest.do("tightrope status --json")
        (region,) = json.loads("\n".join(lines))["crash_regions"]
        request = Request(
            initrd=small_initramfs("amd64"),
            command_line=f"{QUIET} tightrope.token={word}",
            crash=True,
        )
        crash = Extent.sized(region["start"], region["size"])
        load_plan(guest, planned(packed, request, crash), "crash")
        a_dropped_image_is_put_back(guest)
        came = userspace_after(guest, "echo c > /proc/sysrq-trigger", word)
    assert came == f"tightrope: userspace {word} {release(OLD)} x86_64"
