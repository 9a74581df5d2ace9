"""kexec-tools recorded: what it would have handed to the kernel, byte for byte.

    kexec -c -d -l KERNEL   reads the image, decides where all goes, prints it, calls kexec_load()
    tightrope.record        stops it at that call, reads the segments, and makes the call none at all

Rules: the product's own recorder, whose three locks are looked at here from outside: what the kernel said
of a call that was taken away, and which capabilities the process could have had.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import lacking
from tightrope.record import tracer
from tightrope.record.held import Held, HeldSegments, Holder
from tightrope.record.tracer import Instead, Stop

KEXEC = Path("/usr/sbin/kexec")
CAP_SYS_BOOT = 22
KEXEC_LOAD = 246
"""arch/x86/entry/syscalls/syscall_64.tbl."""


@dataclass(frozen=True)
class Loaded:
    """One segment as the kernel would have got it: `data` first, zeros up to `size`."""

    start: int
    size: int
    data: bytes

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.start + self.size

    def at(self, address: int, size: int) -> bytes:
        """Bytes by physical address."""
        offset = address - self.start
        return self.data[offset : offset + size].ljust(size, b"\0")


@dataclass(frozen=True)
class Call:
    """One call that was held: kexec_load(entry, len(segments), segments, flags)."""

    entry: int
    flags: int
    segments: tuple[Loaded, ...]

    def holding(self, address: int) -> Loaded:
        """The one segment that has this address."""
        (found,) = [each for each in self.segments if address in each]
        return found


@dataclass(frozen=True)
class Watched:
    """A run that is over."""

    output: str
    status: int
    bounding_set: int
    """CapBnd of the process while it ran."""
    calls: tuple[Call, ...]
    answers: tuple[int, ...]
    """What the kernel said of each call that was taken away."""


def run(*arguments: str) -> Watched:
    """kexec with these arguments, held before it can load anything."""
    if not KEXEC.exists():
        lacking(f"no {KEXEC} here: install kexec-tools (scripts/system-packages)")
    if os.geteuid():
        lacking("kexec is told the machine's memory map as root only")
    return watched([str(KEXEC), *arguments])


def watched(command: Sequence[str]) -> Watched:
    """Any command, recorded; it is told what the kernel says."""
    if platform.machine() != "x86_64":
        lacking("the recorder knows the registers of x86_64 only")
    calls: list[Call] = []
    answers: list[int] = []
    sets: set[int] = set()

    def load(held: Held) -> None:
        assert isinstance(held.call, HeldSegments)
        rows = [
            Loaded(where.start, where.size, b"".join(blob.chunks()))
            for where, blob in held.call.rows
        ]
        calls.append(Call(held.call.entry, held.call.flags, tuple(rows)))

    def look(stop: Stop) -> Instead | None:
        if not sets:
            rows = Path(f"/proc/{stop.pid}/status").read_text().splitlines()
            sets.add(int(dict(row.split(":", 1) for row in rows)["CapBnd"], 16))
        return None

    holder = Holder(load=load, told=None, heard=answers.append, before=look)
    with tempfile.TemporaryFile() as output:
        status = tracer.trace(command, holder, output)
        output.seek(0)
        text = output.read().decode(errors="replace")
    return Watched(text, status, sets.pop(), tuple(calls), tuple(answers))
