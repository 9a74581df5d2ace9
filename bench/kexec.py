"""Load and jump against kexec-tools: the same guest and images, in turn, the median of a few rounds.

    load    seconds of the command, from its line on the console to its end
    jump    seconds from the old kernel's "Starting new kernel" to the new one's first line

Rules: the guest is emulated, so figures compare with one another and with nothing else.  Seconds in which
the guest could have run and others had the CPU are no part of them.  What is hashed and what is copied is
shown, in bytes, of each way.  `python -m bench.kexec [ROUNDS]` runs this alone;
KEXEC_TOOLS names another kexec than this machine's, with LIBRARIES of its own.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.clock import show
from tests.conftest import debian_kernel
from tests.perform.dom0 import BareLinux, starved
from tests.qemu.pcs import initramfs
from tightrope import host, image, plan
from tightrope.deeds import old_kernel, performable
from tightrope.memory import PAGE_SIZE
from tightrope.model import OnDamage, Plan, SegmentRole
from tightrope.perform import load_file
from tightrope.plan import Request

MEBIBYTES = 640
FLAVOUR = "cloud-amd64"
LINE = "console=ttyS0 earlyprintk=ttyS0,115200 panic=-1 tightrope.token=there"
PROGRAM = "/lib64/ld-linux-x86-64.so.2 --library-path lib ./kexec"
LEFT, FIRST = "Starting new kernel", "Linux version"


@dataclass
class Way:
    """A way to load and to jump, and what it took in each round."""

    name: str
    load: str
    jump: str
    plan: Plan | None = None
    loads: list[float] = field(default_factory=list)
    jumps: list[float] = field(default_factory=list)

    @property
    def work(self) -> str:
        """What is hashed and copied after the jump, where the plan is ours."""
        if self.plan is None:
            return ""
        every = self.plan.segments
        hashed = sum(len(e.data) for e in every if e.role is not SegmentRole.PURGATORY)
        copied = sum(e.destination.size for e in every)
        hashed *= self.plan.purgatory is not None
        return f"hashes {hashed:,} bytes, copies at most {copied:,} (pages of {PAGE_SIZE})"


def planned(*, verify: bool, unpack: bool = False) -> Plan:
    """A plan for the guest."""
    path = debian_kernel(FLAVOUR)
    new = image.read(path.read_bytes(), path.name)
    code = old_kernel.read(path.read_bytes(), path.name)
    request = Request(
        initrd=gzip.compress(initramfs("amd64")),
        command_line=LINE,
        verify=OnDamage.HALT if verify else None,
        from_top=True,
    )
    old = code.host(host.read(host.example(pc=MEBIBYTES), "a PC"))
    return plan.prepare(image.unpacked(new) if unpack else new, old, code.request(request))


def libraries(program: Path) -> Iterator[Path]:
    """What the dynamic linker loads for a program."""
    said = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    for line in said.splitlines():
        yield from (Path(word) for word in line.split() if word.startswith("/"))


def round_of(way: Way, files: tuple[tuple[str, Path], ...]) -> None:
    """One boot, one load, one jump."""
    with BareLinux(FLAVOUR, mebibytes=MEBIBYTES, files=files).up() as guest:
        guest.do("dmesg -n 8; cat k2 initrd.gz verified bare unpacked > /dev/null")
        number = guest.pc.process.number

        def clock() -> float:
            return time.monotonic() - starved(number)

        started = clock()
        status, lines = guest.do(way.load)
        way.loads.append(clock() - started)
        if status:
            raise SystemExit(f"{way.name}: {lines}")
        guest.pc.say(f"{way.jump}\n")
        guest.wait(LEFT)
        left = clock()
        guest.wait(FIRST)
        way.jumps.append(clock() - left)


def figures(rounds: int) -> list[Way]:
    """Every way, measured in turn."""
    kexec = Path(os.environ.get("KEXEC_TOOLS", "/usr/sbin/kexec"))
    tools = f"-l k2 --initrd=initrd.gz --command-line='{LINE}'"
    ours = "tightrope load {} --really --no-rehearsal"
    plans = {
        "verified": planned(verify=True),
        "bare": planned(verify=False),
        "unpacked": planned(verify=True, unpack=True),
    }
    ways = [
        Way("kexec-tools", f"{PROGRAM} -c {tools}", f"{PROGRAM} -e"),
        Way("kexec-tools -i", f"{PROGRAM} -c -i {tools}", f"{PROGRAM} -e"),
        *(
            Way(f"tightrope, {name}", ours.format(name), "tightrope exec --really", made)
            for name, made in plans.items()
        ),
    ]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "initrd.gz").write_bytes(gzip.compress(initramfs("amd64")))
        for name, made in plans.items():
            (place / name).write_bytes(load_file.write(performable.of(made, "holds")))
        files = (
            ("kexec", kexec),
            *((f"lib/{each.name}", each) for each in libraries(kexec)),
            ("k2", debian_kernel(FLAVOUR)),
            *((name, place / name) for name in ("initrd.gz", *plans)),
        )
        for _ in range(rounds):
            for way in ways:
                round_of(way, files)
    return ways


def loads_and_jumps(rounds: int = 5) -> None:
    """The table."""
    ways = figures(rounds)
    tools = ways[0]
    for way in ways:
        load, jump = median(way.loads), median(way.jumps)
        show(
            f"{way.name}: load",
            f"{load:.2f} s",
            f"kexec-tools / this: {median(tools.loads) / load:.2f}",
        )
        show(
            f"{way.name}: jump to the first line",
            f"{jump:.2f} s",
            f"this / kexec-tools: {jump / median(tools.jumps):.2f}; {way.work}".rstrip("; "),
        )


if __name__ == "__main__":
    loads_and_jumps(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
