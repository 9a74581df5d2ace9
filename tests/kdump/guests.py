"""A small initramfs like a distribution's: a shell and its tools in /bin, an init that waits for a disk.

Rules: nothing is asserted here; the archive is made by scripts/build-initramfs' own `entry`.
"""

from __future__ import annotations

import functools
import importlib.util
from importlib.machinery import SourceFileLoader

from tests.conftest import REPOSITORY, debian_kernel

INIT = """#!/bin/sh
echo "Begin: Mounting root file system ... Begin: Running /scripts/local-block ... done."
while :; do sleep 1; done
"""
SAVES = """#!/bin/sh
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
dd if=/proc/vmcore of=/dev/nvme0n1 bs=4096 count=4 && echo "kdump-tools: saved vmcore in /dev/nvme0n1."
while :; do sleep 1; done
"""
"""An init that saves the beginning of a dump."""
PRODS = INIT.replace(
    "#!/bin/sh\n",
    """#!/bin/sh
mount -t devtmpfs devtmpfs /dev
echo x | dd of=/dev/mem bs=4096 seek=16384 conv=notrunc count=1
""",
)
"""An init that writes to physical address 0x400_0000."""
TOOLS = ("sh", "mount", "dd", "sleep")
FOLDER, PROGRAM, LINK, DEVICE = 0o040755, 0o100755, 0o120777, 0o020600


@functools.cache
def initramfs(ballast: int = 0, architecture: str = "amd64", init: str = INIT) -> bytes:
    """The archive; `ballast` bytes of it are a file that nobody needs."""
    loader = SourceFileLoader("build_initramfs", str(REPOSITORY / "scripts" / "build-initramfs"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    made = importlib.util.module_from_spec(spec)
    loader.exec_module(made)
    busybox = debian_kernel(f"busybox-{architecture}").read_bytes()
    rows = [
        *((name, FOLDER, b"") for name in ("bin", "dev", "proc", "sys")),
        ("bin/busybox", PROGRAM, busybox),
        *((f"bin/{name}", LINK, b"busybox") for name in TOOLS),
        ("init", PROGRAM, init.encode()),
        ("ballast", 0o100644, bytes(range(256)) * (ballast // 256)),
    ]
    body = b"".join(made.entry(n, *row) for n, row in enumerate(rows, 1))
    console = made.entry(90, "dev/console", DEVICE, b"", (5, 1))
    return bytes(body + console + made.entry(99, "TRAILER!!!", 0))
