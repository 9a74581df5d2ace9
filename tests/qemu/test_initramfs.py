"""What Linux itself says of an initrd, against what is said of it here: a real kernel on QEMU is asked.

Each boot is over when the initrd is: none of these has an init, and Linux would panic next.
"""

from __future__ import annotations

import gzip
import lzma
import re
import subprocess
from pathlib import Path

import pytest

from tests.image.test_payload import lz4_legacy
from tests.makers.cpio import archive, entry, pad
from tests.perform.dom0 import unpacked
from tightrope import image

MAIN = archive({"hello": bytes(range(256)) * 20})
FAILED = re.compile(rb"Initramfs unpacking failed: ([^\r\n]*)")
CASES = {
    "whole, microcode first": archive({"early": b"x" * 100}) + bytes(512) + gzip.compress(MAIN),
    "lz4, then zeros": lz4_legacy(MAIN) + bytes(512),
    "xz with a CRC64": lzma.compress(MAIN, check=lzma.CHECK_CRC64),
    "zeros first in a stream": gzip.compress(bytes(512) + MAIN),
    "a text file": b"a text file\n" * 100,
    "a wrong sum": entry("file", b"abc", magic=b"070702", checksum=5) + MAIN,
    "cut short": MAIN[:-2000],
    "a wrong gzip checksum": gzip.compress(MAIN)[:-8] + bytes(8),
    "lz4, then a bare archive": pad(lz4_legacy(MAIN) + bytes(8)) + MAIN,
    "lz4, then an unaligned archive": pad(lz4_legacy(MAIN) + bytes(8)) + b"\0" + MAIN,
    "an archive, then an unaligned one": MAIN + b"\0" + MAIN,
}
SILENT = {"cut short", "a wrong gzip checksum"}
"""What Linux takes without a word: it keeps the last file cut short, and skips gzip's checksum."""


BEGUN, OVER = b"Trying to unpack rootfs image as initramfs", b"Freeing initrd memory"


def asked(kernel: Path, initrd: bytes, folder: Path) -> str:
    """What a kernel says of an initrd; "" where it says nothing.  Fails where it never came so far."""
    (folder / "initrd").write_bytes(initrd)
    command = ["qemu-system-x86_64", "-accel", "tcg", "-m", "256", "-display", "none"]
    command += ["-nodefaults", "-serial", "stdio", "-no-reboot", "-kernel", str(kernel)]
    command += ["-initrd", str(folder / "initrd"), "-append", "console=ttyS0 panic=-1"]
    said = b""
    # What it does with its memory afterwards is no answer: it is not waited for.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0
    ) as guest:
        assert guest.stdout is not None
        try:
            while OVER not in said and (more := guest.stdout.read(1 << 16)):
                said += more
        finally:
            guest.kill()
    assert BEGUN in said, said[-500:]
    assert OVER in said, said[-500:]
    found = FAILED.search(said)
    return found[1].decode() if found else ""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's cloud kernel without its decompressor, entered by its PVH note."""
    path = tmp_path_factory.mktemp("kernel") / "vmlinux"
    path.write_bytes(unpacked("cloud-amd64"))
    return path


@pytest.mark.parametrize("name", CASES)
def test_linux_says_what_is_said_here(name: str, kernel: Path, tmp_path: Path) -> None:
    ours = image.initrd_contents(CASES[name])
    theirs = asked(kernel, CASES[name], tmp_path)
    if name in SILENT:
        assert (ours.flaw is not None, ours.says, theirs) == (True, "", "")
    else:
        assert (ours.flaw is not None, ours.says) == (theirs != "", theirs)
