"""What the running kernel says of kexec: what is loaded, its crash memory, its notes for a crash
kernel.

    /sys/kernel/kexec/{loaded,crash_loaded,crash_size,crash_cma_ranges}    Linux 7.x
    /sys/kernel/kexec_{loaded,crash_loaded,crash_size}                     before it, and as links since
    /sys/kernel/vmcoreinfo                          "0x0000000001c24000 1024": address and size, both hex
    /sys/devices/system/cpu/cpuN/crash_notes        hex without 0x; crash_notes_size: decimal

Rules: as `iomem`; the notes are root's to read.  Sources: kernel/ksysfs.c, kernel/kexec_core.c,
drivers/base/cpu.c; measured on 6.1 to 7.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tightrope.memory import TOP, Extent, Phys
from tightrope.model import Named

KEXEC = "/sys/kernel/kexec"
VMCOREINFO = "/sys/kernel/vmcoreinfo"
CPUS = "/sys/devices/system/cpu"
STATE = ("loaded", "crash_loaded", "crash_size", "crash_cma_ranges")
_NOTE = re.compile(rf"{CPUS}/cpu(\d{{1,6}})/crash_notes")


def paths() -> tuple[str, ...]:
    """Both names of each file of state."""
    return tuple(f"{KEXEC}{joint}{name}" for name in STATE for joint in ("/", "_"))


def state(name: str) -> tuple[str, str]:
    """Where a file of state is: in Linux 7.x, and before it."""
    return f"{KEXEC}/{name}", f"{KEXEC}_{name}"


def decimal(text: str) -> int:
    """A size as these files print it, 0 where there is none."""
    digits = text.strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 16 else 0


def cma_ranges(text: str) -> tuple[Extent, ...]:
    """The memory that `crashkernel=,cma` gives a crash kernel: a range a line, hex,
    its end inclusive.
    """
    rows = re.finditer(r"^([0-9a-f]{1,13})-([0-9a-f]{1,13})$", text, re.MULTILINE)
    found = [(int(row[1], 16), int(row[2], 16) + 1) for row in rows]
    return tuple(Extent(start, end) for start, end in found if start < end <= TOP)


def crash_notes(files: Mapping[str, str]) -> tuple[Named, ...]:
    """The notes that the kernel fills in when it dies: one for each CPU, then VMCOREINFO."""
    found = []
    for path, text in files.items():
        match, size = _NOTE.fullmatch(path), decimal(files.get(f"{path}_size", ""))
        at = _hex(text)
        if match and at and size:
            found.append((int(match[1]), _note(at, size, f"CPU {match[1]}'s registers")))
    notes = [note for _, note in sorted(found, key=lambda it: it[0])]
    words = files.get(VMCOREINFO, "").split()
    if len(words) == 2:
        at, size = _hex(words[0].removeprefix("0x")), _hex(words[1])
        if at and size:
            notes.append(_note(at, size, "vmcoreinfo"))
    return tuple(each for each in notes if each.extent.end <= TOP)


def _note(at: int, size: int, what: str) -> Named:
    return Named(extent=Extent.sized(Phys(at), size), what=what)


def _hex(text: str) -> int:
    digits = text.strip()
    return int(digits, 16) if re.fullmatch(r"[0-9a-f]{1,16}", digits) else 0
