"""What makedumpfile asks of a dead 64-bit kernel: a described one answers, and so is filtered.

    | VMCOREINFO and its end | ... | pointer to mem_map | utsname |     its note's place, to its end
                                        |
                                        v
    memory that nobody has: struct pages of zeros, one for each frame

A page whose struct page is zeros is nobody's in particular: what is left out of such a dump is
pages of zeros alone.  A real kernel's mem_map is in sections; this one is flat.

Source: makedumpfile 1.7.2, seen with it: get_mem_map, setup_page_is_buddy, vtop4_x86_64; struct
page and enum pageflags of Linux 6.1; PAGE_BUDDY_MAPCOUNT_VALUE is ~PG_buddy, include/linux/page-flags.h.

Rules: nothing is said where there is no memory for it, nor of a pgd that is not in an image.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from tightrope.memory import PAGE_SIZE, Extent, Phys, Virt, subtract
from tightrope.model import Host

RELEASE = "6.1.0"
SIZE = 512
"""Bytes: a pointer, and six strings of 65."""
_PAGE = {
    "SIZE(page)": "64",
    "OFFSET(page.flags)": "0",
    "OFFSET(page.lru)": "8",
    "OFFSET(page.mapping)": "24",
    "OFFSET(page.private)": "40",
    "OFFSET(page._mapcount)": "48",
    "OFFSET(page._refcount)": "52",
    "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)": "-129",
    "NUMBER(PG_slab)": "9",
}
_STRUCT = 64
_NAME = 4
"""Where utsname lies in struct uts_namespace."""
_FIRST_MIB = Extent(0, 1 << 20)


def lines(host: Host, image: Virt | None, place: Extent) -> Mapping[str, str]:
    """What VMCOREINFO says besides, with its note at `place`; nothing where it cannot be told.

    `image` is the pgd's address in the kernel's image.
    """
    if image is None or mem_map(host) is None:
        return {}
    at = host.direct_map.virt + place.end - SIZE
    return {
        "SYMBOL(init_top_pgt)": f"{image:x}",
        "SYMBOL(mem_map)": f"{at:x}",
        "SYMBOL(init_uts_ns)": f"{at + 8 - _NAME:x}",
        "OFFSET(uts_namespace.name)": str(_NAME),
        **_PAGE,
    }


def data(host: Host) -> bytes:
    """What they lead to."""
    found = mem_map(host)
    assert found is not None
    names = ("Linux", "described", RELEASE, "#1", "x86_64", "")
    uts = b"".join(each.encode().ljust(65, b"\0") for each in names)
    return (struct.pack("<Q", host.direct_map.virt + found) + uts).ljust(SIZE, b"\0")


def mem_map(host: Host) -> Phys | None:
    """Memory that is zeros before the crash and after it, as much as struct pages take."""
    top = max((each.end for each in host.memory.ram), default=0)
    size = -(-top // PAGE_SIZE) * _STRUCT
    region = () if host.crash_region is None else (host.crash_region,)
    named = (*host.crash_memory, *host.busy, *host.firmware, *host.crash_notes)
    text = Extent.sized(host.text.phys, host.text.size)
    taken = (_FIRST_MIB, text, host.private, *region, *(each.extent for each in named))
    ranges = subtract(host.memory.ram, taken)
    at = next(
        (
            -(-each.start // PAGE_SIZE) * PAGE_SIZE
            for each in ranges
            if each.size >= size + PAGE_SIZE
        ),
        None,
    )
    return None if at is None or at + size > host.direct_map.size else Phys(at)
