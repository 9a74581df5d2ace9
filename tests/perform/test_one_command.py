"""`tightrope load KERNEL --really` on a real Linux: it surveys itself, rehearses through its own code, and goes.

    OVMF, with a `db` that trusts Debian's signer -> Debian's kernel -> systemd
      docs/perform.md's lines  survey, plan, rehearsal, kexec_load, plain and for a crash
      contrib's hooks and unit load it again
      lockdown                 a crash kernel that Debian signed is taken and unloaded, with one byte changed it is not
      tightrope exec           through `systemctl kexec`
    -> the second kernel calls EFI's runtime services: it has read `db` as the first one did

Nothing is told from here: the machine's memory, where its text lies, its relocation code and what its firmware
left are read there.
"""

from __future__ import annotations

import json
import re

import pytest

from tests.conftest import debian_kernel
from tests.perform.followed import commands
from tests.perform.services import EfiLinux
from tests.perform.test_real_linux import release, userspace_after
from tests.qemu.pcs import QUIET, initramfs, token

FLAVOUR = "cloud-amd64"
MEBIBYTES = 1536
"""The packages of a rehearsal lie in memory twice: in the initramfs and loaded."""
SECONDS = 900.0
NOTHING = [False, False, False]
UNIT = "tightrope-load"
LINKS = (
    "mkdir -p /boot /var/lib/kdump; ln -s /home/vmlinuz /boot/vmlinuz-$(uname -r);"
    " ln -s /home/initrd /var/lib/kdump/initrd.img-$(uname -r);"
    " ln -s /home/vmlinuz /vmlinuz; ln -s /home/initrd /initrd.img"
)
HOOK = "sh /etc/kernel/postinst.d/zz-tightrope $(uname -r) /boot/vmlinuz-$(uname -r)"
"""Debian's packages call it, and it kernel-install's."""
DEFAULTS = "mkdir -p /etc/default; echo OPTIONS=--no-rehearsal > /etc/default/tightrope"
"""A rehearsal takes half a minute of an emulated CPU: after those of the docs' lines no other is made."""
CRASH = "--initrd initrd --crash --append quiet --no-rehearsal --json --really 2>/dev/null"
EPERM_BY_DIGEST = (
    "kexec_file_load: EPERM: lockdown is integrity and the image is not what was signed"
)


def said(guest: EfiLinux, command: str) -> list[str]:
    status, lines = guest.do(command, SECONDS)
    assert status == 0, lines
    return lines


def loaded(guest: EfiLinux) -> tuple[bool, bool]:
    """Whether a kexec image, and whether a crash image, is loaded."""
    state = json.loads("\n".join(said(guest, "tightrope status --json")))
    return state["loaded"], state["crash_loaded"]


@pytest.mark.timeout(1800)
def test_a_machine_rehearses_itself_loads_and_leaves() -> None:
    word, kernel = token(), debian_kernel(FLAVOUR).read_bytes()
    changed = bytearray(kernel)
    changed[len(changed) // 2] ^= 1
    files = {
        "home/vmlinuz": kernel,
        "home/changed": bytes(changed),
        "home/initrd": initramfs("amd64"),
    }
    words = f"{QUIET} crashkernel=192M tightrope.do=tell tightrope.token={word}"
    with EfiLinux(FLAVOUR, files, mebibytes=MEBIBYTES, words=words) as guest:
        guest.up()
        said(guest, LINKS)
        assert said(guest, "cat /proc/1/comm") == ["systemd"]
        ranges = int(said(guest, "ls /sys/firmware/efi/runtime-map | wc -l")[-1])
        assert ranges > 0

        *lines, leave, for_a_crash = commands("On a Debian machine, step by step")
        told = ["\n".join(said(guest, each)) for each in (*lines, for_a_crash)]
        held = [
            [word in each for word in ("would load", "loaded: a kexec", "loaded: a crash")]
            for each in told
        ]
        assert held == [
            NOTHING,
            [True, False, False],
            [False, True, False],
            NOTHING,
            [False, False, True],
        ]
        assert [
            re.findall("^(?:crash )?loaded +(.*)", each, re.MULTILINE) for each in told[::3]
        ] == [
            ["no", "no"],
            ["yes", "no"],
        ]
        assert loaded(guest) == (True, True)

        said(guest, DEFAULTS)
        for command in (HOOK, f"systemctl start {UNIT}"):
            said(guest, "tightrope unload --really")
            assert loaded(guest) == (False, True)
            said(guest, command)
            assert loaded(guest) == (True, True)

        said(guest, "echo integrity > /sys/kernel/security/lockdown")
        status, lines = guest.do(f"tightrope load changed {CRASH}", SECONDS)
        assert (status, EPERM_BY_DIGEST in "\n".join(lines)) == (2, True), lines
        told = json.loads("\n".join(said(guest, f"tightrope load vmlinuz {CRASH}")))
        assert (told["call"], told["crash"], told["done"]) == ("kexec_file_load", True, True)
        assert loaded(guest) == (True, True)
        assert said(guest, "tightrope unload --crash --really") == ["unloaded"]
        assert loaded(guest) == (True, False)

        status, lines = guest.do("tightrope exec")
        assert "would jump, by systemctl kexec" in "\n".join(lines), lines
        # systemctl comes back at once, and the service that asks is ended.
        line = userspace_after(guest, f"{leave}; sleep 600", word)
        before = guest.pc.lines[: guest.seen]
        assert any("Rebooting with kexec" in each for each in before)  # systemd's last words
        assert line == f"tightrope: userspace {word} {release(FLAVOUR)} x86_64"
        (efi,) = [each for each in guest.wait("tightrope: told") if "tightrope: efi " in each]
        assert efi == f"tightrope: efi {ranges} ranges, platform keyring 1"
