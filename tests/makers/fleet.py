"""Hosts of a fleet: one machine booted many times with KASLR, and machines that differ.

Rules: every host is whole, as `host.read` demands; what is drawn comes from the caller's generator.
"""

from __future__ import annotations

import random
from dataclasses import replace

from tightrope.memory import Extent, Phys, Virt, subtract
from tightrope.model import Host

LARGE, HUGE = 2 << 20, 1 << 30
TEXT_FROM, TEXT_TO = 0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_BC00_0000
"""Where KASLR puts a kernel: from LOAD_PHYSICAL_ADDR to the end of KERNEL_IMAGE_SIZE."""
DIRECT_FROM, DIRECT_TO = 0xFFFF_8880_0000_0000, 0xFFFF_C880_0000_0000


def booted(host: Host, chance: random.Random, name: str = "booted") -> Host:
    """The same 64-bit machine after another boot: text, V, direct map and what belongs to them moved."""
    ram = [each for each in host.memory.ram if each.end > 16 << 20]
    taken = [each.extent for each in (*host.busy, *host.firmware, *host.preserved)]
    taken += [host.crash_region] if host.crash_region else []
    free = subtract(ram, [Extent(0, 16 << 20), *taken])
    text = _drawn(free, host.text.size, LARGE, chance)
    private = _drawn(subtract(free, [text]), host.private.size, LARGE, chance)
    virt = TEXT_FROM + LARGE * chance.randrange((TEXT_TO - TEXT_FROM - text.size) // LARGE)
    direct = DIRECT_FROM + HUGE * chance.randrange((DIRECT_TO - DIRECT_FROM) // HUGE)
    v = host.relocation
    return replace(
        host,
        source=name,
        text=replace(host.text, virt=Virt(virt), phys=Phys(text.start)),
        relocation=None if v is None else Virt(virt + v - host.text.virt),
        direct_map=replace(host.direct_map, virt=Virt(direct)),
        private=private,
    )


def _drawn(free: tuple[Extent, ...], size: int, unit: int, chance: random.Random) -> Extent:
    """An extent of free memory, at a multiple of `unit`."""
    fits = [
        (first, (each.end - size - first) // unit + 1)
        for each in free
        for first in (-(-each.start // unit) * unit,)
        if first + size <= each.end
    ]
    first, places = chance.choices(fits, weights=[places for _, places in fits])[0]
    return Extent.sized(first + unit * chance.randrange(places), size)
