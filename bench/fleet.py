"""A fleet: hosts a second by `sweep`, on one worker and on two, and what it takes of memory.

    sweep    N hosts, each a class of its own, Debian's amd64 kernel and a 30 MiB initrd
    loop     `tightrope rehearse` of one host after another, as processes: a few, scaled
    memory   20,000 hosts of few classes: the resident set of this process and of the workers

Rules: processes of this computer; the hosts are made in memory, and nothing is kept but rows.
`python -m bench.fleet [HOSTS [MANY]]` runs this alone.
"""

from __future__ import annotations

import hashlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.clock import show
from tests.conftest import debian_kernel
from tests.makers import cpio
from tests.makers.bzimage import bzimage
from tests.makers.fleet import booted
from tightrope import host
from tightrope.deeds.sweep.cargo import Cargo, parcel
from tightrope.deeds.sweep.pools import opened
from tightrope.deeds.sweep.sweep import sweep
from tightrope.deeds.sweep.work import HostText
from tightrope.memory import Extent
from tightrope.model import Host, Named

INITRD = 30 << 20
LOOPED = 6
"""Processes of the loop: their median is what one host takes."""


def text(number: int, old: Host) -> HostText:
    """A host file in memory."""
    data = host.write(old, "a host of a fleet").encode()
    return HostText(name=f"{number}.toml", digest=hashlib.sha256(data).hexdigest(), text=data)


def distinct(count: int) -> list[HostText]:
    """Hosts no two of which are alike: each has another page in use."""
    plain = host.read(host.example(), "the default host")
    chance = random.Random(1)
    return [
        text(
            number,
            replace(
                booted(plain, chance),
                busy=(Named(extent=Extent.sized((8 << 20) + 4096 * number, 4096), what="in use"),),
            ),
        )
        for number in range(count)
    ]


def alike(count: int) -> Iterator[HostText]:
    """Boots of a few machines."""
    plain = host.read(host.example(), "the default host")
    chance = random.Random(2)
    boots = [booted(plain, chance) for _ in range(200)]
    for number in range(count):
        # The title makes each file another one, of the same host.
        data = host.write(boots[number % len(boots)], f"host {number}").encode()
        yield HostText(name=f"{number}.toml", digest=hashlib.sha256(data).hexdigest(), text=data)


class Resident:
    """The largest resident sets, in MiB, of this process and of its worker processes, as time goes by."""

    def __init__(self) -> None:
        self.own = self.worker = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Resident:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            self.own = max(self.own, resident(os.getpid()))
            self.worker = max([self.worker, *map(resident, workers())])


def workers() -> list[int]:
    """The pids of this process's workers."""
    out = []
    for task in Path("/proc/self/task").iterdir():
        try:
            out += [int(each) for each in (task / "children").read_text().split()]
        except OSError:
            continue
    return out


def resident(pid: int) -> float:
    """MiB, 0 for a process that is gone."""
    try:
        words = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0.0
    return int(words[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def swept(hosts: list[HostText], cargo: Cargo, size: int) -> tuple[float, Resident]:
    """Seconds of a sweep once its workers are warm, and its memory."""
    with opened("processes", cargo, size) as pool, Resident() as memory:
        sweep(hosts[: 8 * size], cargo, pool, row=lambda _row: None)
        started = time.perf_counter()
        found = sweep(hosts[8 * size :], cargo, pool, row=lambda _row: None)
        taken = time.perf_counter() - started
    if any(row.answer.outcome is None for row in found.rows):
        raise SystemExit("a host of the benchmark cannot be told")
    return taken, memory


def speed(count: int) -> None:
    """Hosts a second against a loop, on one worker and on two."""
    kernel = str(debian_kernel("amd64"))
    with tempfile.TemporaryDirectory() as folder:
        initrd = Path(folder) / "initrd"
        initrd.write_bytes(cpio.initrd(INITRD, os.urandom(1 << 20)))
        hosts = distinct(count)
        cargo = Cargo(news=(parcel(kernel),), initrd=parcel(str(initrd)))
        looped = []
        command = (sys.executable, "-m", "tightrope", "rehearse", kernel)
        for number in range(LOOPED):
            one = Path(folder) / "host.toml"
            one.write_bytes(hosts[number].text)
            started = time.perf_counter()
            subprocess.run(
                [*command, "--initrd", str(initrd), "--host", str(one), "-q"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            looped.append(time.perf_counter() - started)
        loop = statistics.median(looped)
        few = hosts[: count // 4]
        alone, _ = swept(few, cargo, 1)
        both, memory = swept(hosts, cargo, 2)
    each = both / (count - 16)
    show(f"sweep of {count} hosts, each a class, 30 MiB initrd, 2 workers", f"{1 / each:.1f} /s")
    show("  against a loop of `tightrope rehearse` (aim 8)", f"{loop / each:.1f} times as fast")
    efficiency = alone / (len(few) - 8) / (2 * each)
    show("  two workers against twice one (aim 0.9)", f"{efficiency:.2f}")
    show("  memory of a worker (aim under 500 MiB)", f"{memory.worker:.0f} MiB")


def curve(many: int) -> None:
    """Memory and time as hosts go by, of few classes."""
    with tempfile.TemporaryDirectory() as folder:
        kernel = Path(folder) / "vmlinuz"
        kernel.write_bytes(bzimage(init_size=0x10000))
        cargo = Cargo(news=(parcel(str(kernel)),))
        marks: list[tuple[int, float, float]] = []
        started = time.perf_counter()
        done = 0

        def row(_row: object) -> None:
            nonlocal done
            done += 1
            if done in (100, many // 10, many // 2, many):
                largest = max(map(resident, workers()), default=0.0)
                marks.append((done, resident(os.getpid()), largest))

        with opened("processes", cargo, 2) as pool:
            sweep(alike(many), cargo, pool, row=row)
        taken = time.perf_counter() - started
    show(f"sweep of {many} hosts of few classes, a small kernel", f"{many / taken:.0f} /s")
    for count, own, worker in marks:
        show(f"  resident after {count} hosts", f"{own:.0f} MiB", f"a worker: {worker:.0f} MiB")


def fleet() -> None:
    """All of it."""
    speed(int(sys.argv[1]) if __name__ == "__main__" and len(sys.argv) > 1 else 400)
    curve(int(sys.argv[2]) if __name__ == "__main__" and len(sys.argv) > 2 else 20_000)


if __name__ == "__main__":
    fleet()
