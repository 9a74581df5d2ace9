"""PCs, old kernels on them, and guests' userspaces, for all tests on QEMU.

Rules: nothing is asserted here.  Boots cost seconds: what several tests look at is booted once and
kept in a session fixture of conftest.py.
"""

from __future__ import annotations

import functools
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY, debian_kernel, lacking
from tests.makers.designs import TWO_TABLES
from tests.modes.runs import kernel, request
from tightrope import host
from tightrope.deeds.rehearse import rehearse
from tightrope.machine.qemu import Qemu
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent
from tightrope.model import Host, Image, Paging, Verdict
from tightrope.sabotage import named

MIB = 1 << 20
QUIET = (
    "console=ttyS0 quiet panic=-1 cryptomgr.notests nowatchdog rcupdate.rcu_cpu_stall_suppress=1"
)
"""The tests that Linux makes of its own ciphers are a fifth of a boot under an emulated CPU.  Its
watchdogs speak, `quiet` or not, in the middle of a line when the computer has no time for the guest."""
BOOT_SECONDS = 600.0
"""Far above any boot, on a computer that does other things as well."""


def qemu(*, walk_seconds: float = 60, drive: int | None = None) -> Qemu:
    """A machine; the test is skipped, or fails in CI, without QEMU."""
    for tool in ("qemu-system-x86_64", "setpriv"):
        if shutil.which(tool) is None:
            lacking(f"no {tool} here: run scripts/system-packages")
    return Qemu(walk_seconds=walk_seconds, drive=drive)


@functools.cache
def old_kernel(paging: Paging, mebibytes: int = 256, crash: Extent | None = None) -> Host:
    """A described old kernel on a PC."""
    return host.read(host.example(paging, pc=mebibytes, crash=crash), "a PC")


@functools.cache
def emulator() -> Emulator:
    return Emulator()


def walk(
    machine: Qemu | Emulator,
    paging: Paging,
    *,
    sabotage: str | None = None,
    scatter: int | None = None,
    new: Image | None = None,
    design: str = TWO_TABLES,
) -> Verdict:
    """A made kernel entered from an old one on a PC."""
    return rehearse(
        new or kernel(),
        old_kernel(paging),
        request(scatter=scatter),
        design=design,
        sabotage=named(sabotage) if sabotage else None,
        machine=machine,
    )


@functools.cache
def initramfs(architecture: str) -> bytes:
    """What scripts/build-initramfs makes around Debian's busybox."""
    busybox = debian_kernel(f"busybox-{architecture}")
    out = Path(f"{busybox}.cpio")
    script = REPOSITORY / "scripts" / "build-initramfs"
    subprocess.run([sys.executable, script, busybox, out], check=True)
    return out.read_bytes()


def token() -> str:
    """A word that no kernel says by itself."""
    return f"tightrope-{secrets.token_hex(8)}"
