"""`tightrope load KERNEL --really` on a real Linux: it surveys itself, rehearses through its own code, and goes.

Nothing is told from here: the machine's memory, where its text lies and its relocation code are read there.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import debian_kernel
from tests.perform.dom0 import BareLinux
from tests.perform.test_real_linux import release, userspace_after
from tests.qemu.pcs import QUIET, initramfs, token

FLAVOUR = "cloud-amd64"
MEBIBYTES = 1536
"""The packages of a rehearsal lie in memory twice: in the initramfs and loaded."""
SECONDS = 900.0


@pytest.mark.timeout(1800)
def test_a_machine_rehearses_itself_loads_and_leaves(tmp_path: Path) -> None:
    word = token()
    small = tmp_path / "initrd"
    small.write_bytes(initramfs("amd64"))
    files = (("vmlinuz", debian_kernel(FLAVOUR)), ("initrd", small))
    with BareLinux(FLAVOUR, mebibytes=MEBIBYTES, rehearse=True, files=files).up() as guest:
        guest.do("mkdir /boot; ln -s /home/vmlinuz /boot/vmlinuz-$(uname -r)")
        words = f"--initrd initrd --append '{QUIET} tightrope.token={word}' --json --really"
        status, lines = guest.do(f"tightrope load vmlinuz {words} 2>/dev/null", SECONDS)
        assert status == 0, lines
        said = json.loads("\n".join(lines))
        assert (said["rehearsed"], said["done"], said["call"]) == ("holds", True, "kexec_load")
        line = userspace_after(guest, "tightrope exec --really", word)
    assert line == f"tightrope: userspace {word} {release(FLAVOUR)} x86_64"
