"""What a kernel leaves of the firmware's RAM because its command line says so: mem=, memmap=.

Rules: as `iomem`.  For a machine whose /proc/iomem, which would tell, is hidden.  Words are taken
in their order, as the kernel does (parse_memopt and parse_memmap_one, arch/x86/kernel/e820.c);
what is no size is skipped, as there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tightrope.memory import TOP, Extent, subtract, union

SIZE = r"(0[xX][0-9a-fA-F]{1,16}|\d{1,19})([kKmMgGtTpPeE]?)"
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
_PLACE = re.compile(rf"{SIZE}(?:([@#$!%]){SIZE})?")
_CONVERTED_TO_RAM = re.compile(r"\+0*1$|\+0[xX]0*1$")


def memparse(digits: str, unit: str) -> int:
    """memparse() (lib/cmdline.c): hexadecimal, octal or decimal."""
    base = 16 if digits[:2] in ("0x", "0X") else 8 if digits.startswith("0") else 10
    try:
        return int(digits, base) << _UNITS[unit.lower()]
    except ValueError:
        return 0


def ram_left(line: str, ram: Sequence[Extent]) -> tuple[Extent, ...]:
    """What of this RAM a kernel with this command line has, and what it was told is RAM."""
    left = tuple(ram)
    for word in line.split():
        if word == "--":  # the rest is init's
            break
        name, _, value = word.partition("=")
        if name == "mem":
            left = _one(left, value, whole=True)
        elif name == "memmap":
            for each in value.split(","):
                left = _one(left, each, whole=False)
    return left


def _one(left: Sequence[Extent], value: str, *, whole: bool) -> tuple[Extent, ...]:
    if value.startswith("exactmap") and not whole:
        return ()
    found = _PLACE.match(value)
    if not found or not (size := memparse(found[1], found[2])):
        return tuple(left)
    sign = found[3]
    if whole or not sign:
        return subtract(left, [Extent(min(size, TOP), TOP)])
    start = memparse(found[4], found[5])
    place = Extent(min(start, TOP), min(start + size, TOP))
    if sign == "@" or (sign == "%" and _CONVERTED_TO_RAM.search(value)):
        return union([*left, place])
    return subtract(left, [place])
