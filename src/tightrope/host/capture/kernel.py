"""Where the running kernel is mapped, and which it is: /proc/kallsyms, /proc/kcore, its version.

Rules: as `iomem`; kallsyms hides addresses as zeros (kptr_restrict).  Sources: kernel/kallsyms.c,
fs/proc/kcore.c.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from tightrope.host.capture.iomem import HIDDEN, Hidden
from tightrope.memory import TOP

START_KERNEL_MAP = 0xFFFF_FFFF_8000_0000


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelPlace:
    """What /proc/kcore's program headers say; None where they do not."""

    text: tuple[int, int, int] | None
    """(linear, physical, bytes)."""
    direct_map: int | None


def symbols(text: str, names: Iterable[str]) -> dict[str, int] | Hidden:
    """The kernel's own symbols of these names (not a module's), by name.  32-bit addresses
    included."""
    found = {name: address for name, (address, _) in _symbols(text, names).items()}
    return HIDDEN if found and not any(found.values()) else found


def letters(text: str, names: Iterable[str]) -> dict[str, str]:
    """The letter that /proc/kallsyms gives each of them."""
    return {name: letter for name, (_, letter) in _symbols(text, names).items()}


def _symbols(text: str, names: Iterable[str]) -> dict[str, tuple[int, str]]:
    wanted = "|".join(map(re.escape, names))
    pattern = rf"^([0-9a-f]{{8}}|[0-9a-f]{{16}}) ([A-Za-z]) ({wanted})$"
    return {
        match[3]: (int(match[1], 16), match[2])
        for match in re.finditer(pattern, text, re.MULTILINE)
    }


def kcore(text: str) -> KernelPlace | None:
    """The program headers at the start of /proc/kcore (ELF64; kcore fills in p_paddr since
    4.19)."""
    data = text.encode("latin-1", "replace")
    if len(data) < 64 or data[:5] != b"\x7fELF\x02":
        return None
    (first,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    place: tuple[int, int, int] | None = None
    direct: int | None = None
    for number in range(count if size == 56 else 0):
        at = first + number * size
        if at + size > len(data):
            break
        kind, _, _, virt, phys, _, memory = struct.unpack_from("<IIQQQQQ", data, at)
        if kind != 1 or not 0 < phys < TOP:
            continue  # 0 (before 4.19) and -1: not told, or not a linear piece of memory
        if virt >= START_KERNEL_MAP and place is None:
            place = (virt, phys, memory)
        elif virt < START_KERNEL_MAP and direct is None and virt - phys >= 1 << 63:
            direct = virt - phys
    return KernelPlace(text=place, direct_map=direct)


def version(text: str) -> tuple[int, int] | None:
    """MAJOR and MINOR of a release such as 6.14.0-arch1."""
    found = re.match(r"(\d{1,3})\.(\d{1,4})(?=\D|$)", text)
    return (int(found[1]), int(found[2])) if found else None
