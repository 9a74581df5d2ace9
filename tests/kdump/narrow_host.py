"""A host file of a 32-bit PAE guest, from the files that contrib/capture.py collects there.

`tightrope host` describes 64-bit kernels alone: what a 32-bit one's files tell is put into the example of
its paging here, and the rest (tables, registers) stays the example's.

Rules: nothing is asserted here.
"""

from __future__ import annotations

import re
from dataclasses import replace

from tightrope import host
from tightrope.host.collected import collected
from tightrope.memory import Extent, MemoryMap, Phys, Region, RegionKind, Virt, align_down, align_up
from tightrope.model import KernelText, Paging
from tightrope.model.host import Named

LARGE, PAGE = 2 << 20, 4096
ROW = re.compile(r"^ *([0-9a-f]+)-([0-9a-f]+) : (.*)$", re.MULTILINE)


def narrow_host(text: str) -> str:
    """The host file."""
    files = {name: got for name, got in collected(text, "guest").items() if isinstance(got, str)}
    rows = [
        (Extent(int(start, 16), int(end, 16) + 1), what)
        for start, end, what in ROW.findall(files["/proc/iomem"])
    ]
    symbols = {
        line.split()[2]: int(line.split()[0], 16) for line in files["/proc/kallsyms"].splitlines()
    }
    pieces = [each for each, what in rows if what in ("Kernel code", "Kernel data", "Kernel bss")]
    start = align_down(pieces[0].start, LARGE)
    end = align_up(max(each.end for each in pieces), LARGE)
    old = host.read(host.example(Paging.PAE), "example")
    memory = [
        Region(extent=each, kind=RegionKind.RAM if what == "System RAM" else RegionKind.RESERVED)
        for each, what in rows
        if what in ("System RAM", "Reserved") and each.end <= 1 << 36
    ]
    (region,) = [each for each, what in rows if what == "Crash kernel"]
    at, size = files["/sys/kernel/vmcoreinfo"].split()
    cpu = "/sys/devices/system/cpu/cpu0/crash_notes"
    notes = (
        Named(
            extent=Extent.sized(int(files[cpu], 16), int(files[f"{cpu}_size"])),
            what="CPU 0's registers",
        ),
        Named(extent=Extent.sized(int(at, 16), int(size, 16)), what="vmcoreinfo"),
    )
    described = replace(
        old,
        memory=MemoryMap(tuple(memory)),
        text=KernelText(virt=Virt(align_down(symbols["_text"], LARGE)), phys=Phys(start), size=end - start),
        relocation=Virt(align_down(symbols["relocate_kernel"], PAGE)),
        private=Extent.sized(end, 16 << 20),
        crash_region=region,
        crash_notes=notes,
        busy=(),
    )  # fmt: skip
    return host.write(described, ["A 32-bit guest, by the files that contrib/capture.py collects."])
