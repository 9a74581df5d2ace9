"""Dumps: `pgd` of a large sparse core, and a capture beside cp and makedumpfile, in turn in one run.

Rules: the cores are made in code, in a temporary folder; a third of the memory is zeros, a third packs well, a
third does not.  Everything runs as a process of its own, as an operator runs it; the median of RUNS.
"""

from __future__ import annotations

import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.clock import show
from tests.vmcore.cores import BASE, Load, elf_core, prstatus, vmcoreinfo
from tests.vmcore.kdumps import told

GIB, MIB = 1 << 30, 1 << 20
RUNS = 3
ELF_ROW, ROW = 64, 56
"""Bytes of an ELF header and of a program header; the second one is the memory's."""


def core(folder: Path, size: int, filler: Callable[[int], bytes] | None) -> Path:
    """A core of `size` bytes: a kernel's 16 MiB, then what `filler` gives for each MiB, or a hole."""
    dead = told("x86_64")
    text = int(dead.info["SYMBOL(_stext)"], 16)
    data = bytearray(elf_core([Load(BASE, dead.memory, text)], prstatus() + vmcoreinfo(dead.info)))
    struct.pack_into("<QQ", data, ELF_ROW + ROW + 32, size, size)
    path = folder / f"core-{size >> 20}"
    with path.open("wb") as out:
        out.write(data)
        for number in range((size - len(dead.memory)) // MIB if filler else 0):
            out.write(filler(number) if filler else b"")
        out.truncate(len(data) - len(dead.memory) + size)
    return path


OURS = """
import sys
from tightrope.cli import main
status = main(sys.argv[1:])
with open("/proc/self/status") as lines:
    print(next(each for each in lines if each.startswith("VmHWM")).split()[1], file=sys.stderr)
sys.exit(status)
"""
"""The command, and what it took at the most, in KiB: what a child inherits from here is none of it."""


def spent(line: Sequence[str]) -> tuple[float, int]:
    """Seconds of a process, and what its last line says that it took, in bytes."""
    started = time.perf_counter()
    done = subprocess.run(
        line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    taken = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"the benchmark's {line[0]} ended with {done.returncode}")
    last = (done.stderr.split("\n") or [""])[-2:][0]
    return taken, int(last) << 10 if last.isdigit() else 0


def sparse() -> None:
    """16 GiB that hold hardly anything."""
    with tempfile.TemporaryDirectory() as name:
        path = core(Path(name), 16 * GIB, None)
        runs = [spent([sys.executable, "-c", OURS, "pgd", str(path)]) for _ in range(RUNS)]
    show(
        "pgd of a 16 GiB sparse core, as a process (aim 1 s, 200 MB)",
        f"{statistics.median(taken for taken, _ in runs):.2f} s",
        f"{max(used for _, used in runs) / 1e6:.0f} MB",
    )


def capture() -> None:
    """1 GiB saved: ours, cp, makedumpfile; each synced, since ours is."""
    noise = os.urandom(MIB)
    fillers = (
        bytes(MIB),
        b"a line of text that packs well\n" * (MIB // 31) + bytes(MIB % 31),
        noise,
    )
    bare, _ = spent([sys.executable, "-c", ""])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = core(folder, GIB, lambda number: fillers[number % 3])
        ways = {
            "kdump capture": [sys.executable, "-c", OURS, "kdump", "capture", str(path), "-o", str(folder / "out"), "--force"],
            "cp": ["sh", "-c", f"cp {path} {folder}/copy && sync {folder}/copy"],
            "makedumpfile -l -d 0": ["sh", "-c", f"makedumpfile -f -l -d 0 {path} {folder}/dump && sync {folder}/dump"],
        }  # fmt: skip
        taken: dict[str, list[tuple[float, int]]] = {way: [] for way in ways}
        for _ in range(RUNS):
            for way, line in ways.items():
                taken[way].append(spent(line))
    medians = {way: statistics.median(each for each, _ in runs) for way, runs in taken.items()}
    fastest = min(seconds for way, seconds in medians.items() if way != "kdump capture")
    for way, seconds in medians.items():
        beside = f"{seconds / fastest:.2f} times (aim 1.1)" if way == "kdump capture" else ""
        show(f"1 GiB of a dump saved by {way}", f"{seconds:.2f} s", beside)
    used = max(used for _, used in taken["kdump capture"])
    show(
        "  its memory, numpy and the verdict in it",
        f"{used / 1e6:.0f} MB",
        f"Python starts in {bare:.2f} s",
    )
