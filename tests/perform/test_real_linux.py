"""Debian's Linux in QEMU: what it answers to a load is what was told beforehand, row by row.

here   ->  the guest's console: a kernel, and questions (asked_linux.py)
guest  ->  here: (what was asked, the kernel's errno, the errnos that were told)
"""

from __future__ import annotations

import base64
import gzip
import json
from importlib import resources
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, debian_kernel
from tests.perform import asked_linux
from tests.perform.dom0 import BareLinux, Guest
from tests.qemu.pcs import QUIET, initramfs, token
from tightrope import host, image
from tightrope.deeds import performable
from tightrope.deeds.rehearse import rehearse
from tightrope.memory import Extent
from tightrope.model import Host
from tightrope.plan import Request

MIB = 1 << 20
MEBIBYTES = 640


SMALL = Path(str(resources.files("tightrope.shipped") / "kernel.bzimage"))
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


def what_was_collected_is_true(guest: BareLinux) -> None:
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
    assert old.crash_region.size == int(size) == 192 * MIB
    rows = of_the_guest(guest, "grep -c 'System RAM' /proc/iomem")
    assert len(old.memory.ram) == int(rows)


def named(rows: list[asked_linux.Row]) -> set[str]:
    return {name for name, _, _ in rows}


def errnos(rows: list[asked_linux.Row]) -> set[int]:
    return {got for _, got, _ in rows}


@pytest.mark.parametrize("flavour", ["amd64", "amd64-6.12", "amd64-7.3"])
def test_every_refusal_is_told_beforehand(flavour: str) -> None:
    """With a crash region, once it was given back, and with one right after the other taken away.

    Before that the machine is collected as docs/fleet.md has it.
    """
    signed = (asked_linux.SIGNED, debian_kernel("amd64"))
    files = (*ASKED, signed, COLLECTOR)
    with BareLinux(flavour, crash="192M", mebibytes=MEBIBYTES, files=files).up() as guest:
        what_was_collected_is_true(guest)
        guest.do("mount -t securityfs security /sys/kernel/security")
        region, none, without_rights = answers(guest, "for-good")
    assert {0, 22, 99} <= errnos(region)
    assert {"kept: 1", "dropped: 0"} <= named(region)
    assert {0, 22, 99} <= errnos(none)
    assert "crash, inside the region" in named(region) - named(none)
    assert 1 in errnos(without_rights)
    assert {"locked down", "files, signed, locked down"} <= named(without_rights)
    names = {"signed, as it was, locked down", "signed, another byte, locked down"}
    assert names <= named(without_rights)


def userspace_after(guest: Guest, command: str, word: str) -> str:
    """The line of the new kernel's init, after a command that does not come back."""
    guest.pc.say(f"{command}\n")
    return guest.wait(f"tightrope: userspace {word} ")[-1]


def release(flavour: str) -> str:
    """What uname -r says in that kernel."""
    return debian_kernel(flavour).name.removeprefix("vmlinuz-")


def test_linux_places_an_image_and_is_left_for_it() -> None:
    word = token()
    with BareLinux(mebibytes=MEBIBYTES, files=ASKED).up() as guest:
        # It never had a crash region.
        (rows,) = answers(guest)
        assert {0, 22, 99} <= errnos(rows)
        assert "crash, inside the region" not in named(rows)
        guest.put("kernel", debian_kernel("cloud-amd64").read_bytes())
        guest.put("initrd", initramfs("amd64"))
        words = f"tightrope load kernel --initrd initrd --append '{QUIET} tightrope.token={word}'"
        status, lines = guest.do(words)
        assert (status, "say --no-rehearsal" in lines[-1]) == (2, True), lines  # no packages here
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
        said = userspace_after(guest, "tightrope exec --really", word)
    assert said == f"tightrope: userspace {word} {release('cloud-amd64')} x86_64"


def test_an_unpacked_kernel_that_was_rehearsed_is_loaded_and_entered() -> None:
    """A packed one is test_chain's."""
    word = token()
    path = debian_kernel("cloud-amd64")
    new = image.read(path.read_bytes(), path.name)
    verdict = rehearse(
        image.unpacked(new),
        host.read(host.example(pc=MEBIBYTES), "a PC"),
        Request(initrd=initramfs("amd64"), command_line=f"{QUIET} tightrope.token={word}"),
    )
    load = performable.load(verdict)
    assert load is not None, verdict.findings
    with BareLinux(mebibytes=MEBIBYTES).up() as guest:
        guest.put("plan", load)
        status, lines = guest.do("tightrope load plan --really")
        assert (status, lines[-1]) == (0, "loaded: a kexec image"), lines
        said = userspace_after(guest, "tightrope exec --really", word)
    assert said == f"tightrope: userspace {word} {release('cloud-amd64')} x86_64"


def test_a_plan_for_a_crash_is_entered_when_the_kernel_panics() -> None:
    word = token()
    path = debian_kernel("cloud-amd64")
    with BareLinux(crash="192M", mebibytes=MEBIBYTES).up() as guest:
        _, lines = guest.do("tightrope status --json")
        (region,) = json.loads("\n".join(lines))["crash_regions"]
        crash = Extent.sized(region["start"], region["size"])
        verdict = rehearse(
            image.read(path.read_bytes(), path.name),
            host.read(host.example(pc=MEBIBYTES, crash=crash), "a PC"),
            Request(
                initrd=initramfs("amd64"),
                command_line=f"{QUIET} tightrope.token={word}",
                crash=True,
            ),
        )
        load = performable.load(verdict)
        assert load is not None, verdict.findings
        guest.put("plan", load)
        status, lines = guest.do("tightrope load plan --really")
        assert (status, lines[-1]) == (0, "loaded: a crash image"), lines
        said = userspace_after(guest, "echo c > /proc/sysrq-trigger", word)
    assert said == f"tightrope: userspace {word} {release('cloud-amd64')} x86_64"
