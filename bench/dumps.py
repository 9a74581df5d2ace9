"""Dumps: `pgd` of a large sparse core, and a capture beside cp and makedumpfile, in turn in one run.

Rules: the cores are made in code, in a temporary folder; a third of the memory is zeros, a third packs well, a
third does not.  Everything runs as a process of its own, as an operator runs it; the median of
RUNS, and of the busy CPU the least.
"""

from __future__ import annotations

import os
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.clock import show
from tests.vmcore.cores import BASE, Load, elf_core, prstatus, vmcoreinfo
from tests.vmcore.kdumps import told

GIB, MIB = 1 << 30, 1 << 20
RUNS = 3
CAPTURES = 7
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


PEAK = """
import sys
with open("/proc/self/status") as lines:
    print(next(each for each in lines if each.startswith("VmHWM")).split()[1], file=sys.stderr)
"""
OURS = f"""
import sys
from tightrope.cli import main
status = main(sys.argv[1:])
{PEAK}
sys.exit(status)
"""
"""The command, and what it took at the most, in KiB: what a child inherits from here is none of it."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Of a process and its children: seconds that passed and that a CPU was busy, bytes of memory
    that its last line names."""

    wall: float
    cpu: float
    used: int


def installed(folder: Path) -> dict[str, str]:
    """An environment in which modules are compiled once, as an installed package's are."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(folder / "compiled")}


def spent(line: Sequence[str], environment: Mapping[str, str] | None = None) -> Spent:
    """Run it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(
        line,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    wall = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"the benchmark's {line[0]} ended with {done.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    last = (done.stderr.split("\n") or [""])[-2:][0]
    return Spent(wall, cpu, int(last) << 10 if last.isdigit() else 0)


def sparse() -> None:
    """16 GiB that hold hardly anything."""
    with tempfile.TemporaryDirectory() as name:
        path = core(Path(name), 16 * GIB, None)
        line, environment = [sys.executable, "-c", OURS, "pgd", str(path)], installed(Path(name))
        spent(line, environment)
        runs = [spent(line, environment) for _ in range(RUNS)]
    show(
        "pgd of a 16 GiB sparse core, as a process (aim 1 s, 200 MB)",
        f"{statistics.median(each.wall for each in runs):.2f} s",
        f"{max(each.used for each in runs) / 1e6:.0f} MB",
    )


OURS_DIGESTED = "kdump capture, with its SHA-256"
OURS_PLAIN = "kdump capture --digest none"
OUR_WAYS = (OURS_DIGESTED, OURS_PLAIN)


def capture() -> None:
    """1 GiB saved: with the CPUs that are here, and with one, as most crash kernels have it."""
    here = os.sched_getaffinity(0)
    _capture(CAPTURES, f"{len(here)} CPUs")
    os.sched_setaffinity(0, {min(here)})
    try:
        _capture(CAPTURES, "one CPU")
    finally:
        os.sched_setaffinity(0, here)


def _capture(runs: int, cpus: str) -> None:
    """Ours with a digest and without one, cp, makedumpfile; each synced, since ours is.

    Each of ours is held against the faster of the others, which digest nothing.
    """
    noise = os.urandom(MIB)
    fillers = (
        bytes(MIB),
        b"a line of text that packs well\n" * (MIB // 31) + bytes(MIB % 31),
        noise,
    )
    bare = spent([sys.executable, "-c", PEAK])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = installed(folder)
        path = core(folder, 16 * MIB, None)
        spent(
            [sys.executable, "-c", OURS, "kdump", "capture", str(path), "-o", str(folder / "warm")],
            environment,
        )
        path = core(folder, GIB, lambda number: fillers[number % 3])
        digest = (
            "import hashlib, sys; print(hashlib.file_digest(open(sys.argv[1], 'rb'), 'sha256'))"
        )
        ways = {
            **{
                way: [sys.executable, "-c", OURS, "kdump", "capture", str(path), "-o", str(folder / "out"), "--digest", digested]
                for way, digested in zip(OUR_WAYS, ("sha256", "none"), strict=True)
            },
            "cp, synced": ["sh", "-c", f"cp {path} {folder}/copy && sync {folder}/copy"],
            "makedumpfile -l -d 0, synced": ["sh", "-c", f"makedumpfile -f -l -d 0 {path} {folder}/dump && sync {folder}/dump"],
            "cp, synced, and a SHA-256 after it": ["sh", "-c", f"cp {path} {folder}/copy && sync {folder}/copy && {sys.executable} -c \"{digest}\" {path}"],
        }  # fmt: skip
        taken: dict[str, list[Spent]] = {way: [] for way in ways}
        for _ in range(runs):
            for way, line in ways.items():
                for old in (folder / "out" / "vmcore", folder / "copy", folder / "dump"):
                    old.unlink(missing_ok=True)
                os.sync()
                taken[way].append(spent(line, environment))
    wall = {
        way: statistics.median(each.wall for each in each_run) for way, each_run in taken.items()
    }
    fastest = min(seconds for way, seconds in wall.items() if way not in OUR_WAYS)
    for way, each_run in taken.items():
        beside = f"{wall[way] / fastest:.2f} times (aim 1.1)" if way in OUR_WAYS else ""
        least, busy = min(each.wall for each in each_run), min(each.cpu for each in each_run)
        figure = f"{wall[way]:.2f} s ({least:.2f} at best)"
        show(
            f"1 GiB of a dump saved, {cpus}, by {way}", figure, f"{busy:.2f} s CPU {beside}".strip()
        )
    used = max(each.used for each in taken[OURS_DIGESTED])
    show(
        "  its memory beside Python's (aim 64 MiB), verdict included",
        f"{(used - bare.used) / MIB:.0f} MiB",
        f"Python starts in {bare.wall:.2f} s; load {os.getloadavg()[0]:.1f}",
    )
