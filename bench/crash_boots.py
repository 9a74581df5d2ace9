"""`kdump check` of Debian's amd64 crash kernel beside its bare boot in QEMU, in turn.

    bare     qemu-system-x86_64 -kernel -initrd -append, with as much memory as the region has
    checked  `tightrope kdump check --host FILE --kernel --initrd --append`, as a process

Both end where the initrd begins to wait for a disk that is not there.

Rules: the same kernel, initrd (Debian's, from kdump-tools), words, CPU and second port; each runs as a process
of its own.  Of each the median of RUNS by the clock, and the least CPU seconds.
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.clock import show
from tests.kdump import shapes
from tightrope import host
from tightrope.deeds.kdump_check.words import tried
from tightrope.memory import Extent
from tightrope.model import Paging

RUNS = 3
MIB = 1 << 20
REGION = Extent.sized(0x1000_0000, 192 * MIB)
WAITS = re.compile(rb"Running /scripts/local-block")
"""What initramfs-tools says before it looks for its root again and again."""


def beside_bare_boot() -> None:
    """Of a PC with 768 MiB and crashkernel=192M."""
    shape = shapes.NAMED["good"]
    kernel, initrd = str(shape.kernel), str(shapes.made("amd64") / "initrd.img")
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder) / "host.toml"
        old.write_text(host.example(Paging.X86_64, pc=shape.mebibytes, crash=REGION))
        words = ("--kernel", kernel, "--initrd", initrd, "--append", shape.words)
        check = [sys.executable, "-m", "tightrope", "kdump", "check", "--host", str(old), *words]
        line = tried(shape.words, witnessed=False).line
        bare = [
            *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-M", "pc,accel=tcg", "-cpu", shape.cpu, "-m", str(REGION.size // MIB)),
            *("-serial", "stdio", "-kernel", kernel, "-initrd", initrd, "-append", line),
        ]
        sides: dict[str, Callable[[], None]] = {
            "bare": lambda: _booted(bare),
            "checked": lambda: _checked(check),
        }
        took = {name: [_spent(work) for _ in range(1)] for name, work in sides.items()}
        for _ in range(RUNS - 1):
            for name, work in sides.items():
                took[name].append(_spent(work))
    wall = {name: statistics.median(each for each, _ in rows) for name, rows in took.items()}
    cpu = {name: min(each for _, each in rows) for name, rows in took.items()}
    show(
        "kdump check of Debian's amd64 crash kernel",
        f"{wall['checked']:.1f} s, CPU {cpu['checked']:.1f} s",
        f"{wall['checked'] / wall['bare']:.2f} times its bare boot: {wall['bare']:.1f} s,"
        f" CPU {cpu['bare']:.1f} s ({cpu['checked'] / cpu['bare']:.2f} times)",
    )


def _spent(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock, and of CPU."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    work()
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _booted(command: list[str]) -> None:
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as guest:
        assert guest.stdout is not None
        said = b""
        while (part := os.read(guest.stdout.fileno(), 1 << 16)) and not WAITS.search(said):
            said += part
        guest.kill()
    if not WAITS.search(said):
        raise SystemExit(f"the bare boot ended: {said[-300:]!r}")


def _checked(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"kdump check: {done.stdout[-500:]}{done.stderr[-500:]}")
