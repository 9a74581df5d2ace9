"""What makedumpfile asks of a dead kernel: a described one answers, and so is filtered.

    | VMCOREINFO and its end | ... | pointer to mem_map | utsname |     its note's place, to its end
                                        |
                                        v
    memory that nobody has: struct pages of zeros, one for each frame

A page whose struct page is zeros is nobody's in particular: what is left out of such a dump is
pages of zeros alone.  A real kernel's mem_map is in sections; this one is flat.

Source: makedumpfile 1.7.2, seen with its builds of 64 and 32 bits, each of which reads kernels of
its own: get_mem_map, setup_page_is_buddy, vtop4_x86_64, vaddr_to_paddr_x86; struct page and enum
pageflags of Linux 6.1; PAGE_BUDDY_MAPCOUNT_VALUE is ~PG_buddy, include/linux/page-flags.h.

Rules: nothing is said where there is no memory for it that the direct map reaches, nor of a 64-bit
kernel's pgd that is not in its image.
"""

from __future__ import annotations

from collections.abc import Mapping

from tightrope.memory import PAGE_SIZE, Extent, Phys, Virt, subtract
from tightrope.model import Host

RELEASE = "6.1.0"
SIZE = 512
"""Bytes: a pointer, and six strings of 65."""
_NUMBERS = {"NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)": "-129", "NUMBER(PG_slab)": "9"}
_FIELDS = ("flags", "lru", "mapping", "private", "_mapcount", "_refcount")
_OFFSETS = {8: (0, 8, 24, 40, 48, 52), 4: (0, 4, 12, 20, 24, 28)}
_STRUCT = {8: 64, 4: 32}
"""struct page by the bytes of a long: these fields lie there, and it has so many bytes."""
_NAME = 4
"""Where utsname lies in struct uts_namespace."""
_FIRST_MIB = Extent(0, 1 << 20)


def lines(host: Host, image: Virt | None, place: Extent) -> Mapping[str, str]:
    """What VMCOREINFO says besides, with its note at `place`; nothing where it cannot be told.

    `image` is the pgd's address in the kernel's image.
    """
    wide = host.paging.long_mode
    if wide and image is None:
        return {}
    if mem_map(host) is None or place.end > host.direct_map.size:
        return {}
    at = host.direct_map.virt + place.end - SIZE
    pgd = {} if image is None else {"SYMBOL(init_top_pgt)": f"{image:x}"}
    offsets = zip(_FIELDS, _OFFSETS[_long(host)], strict=True)
    return {
        **pgd,
        "SYMBOL(mem_map)": f"{at:x}",
        "SYMBOL(init_uts_ns)": f"{at + 8 - _NAME:x}",
        "OFFSET(uts_namespace.name)": str(_NAME),
        "SIZE(page)": str(_STRUCT[_long(host)]),
        **{f"OFFSET(page.{name})": str(offset) for name, offset in offsets},
        **_NUMBERS,
    }


def _long(host: Host) -> int:
    """Bytes of a long, and of a pointer."""
    return 8 if host.paging.long_mode else 4


def data(host: Host) -> bytes:
    """What they lead to."""
    found = mem_map(host)
    assert found is not None
    names = ("Linux", "described", RELEASE, "#1", "x86_64" if host.paging.long_mode else "i686", "")
    uts = b"".join(each.encode().ljust(65, b"\0") for each in names)
    pointer = (host.direct_map.virt + found).to_bytes(8, "little")
    return (pointer + uts).ljust(SIZE, b"\0")


def mem_map(host: Host) -> Phys | None:
    """Memory that is zeros before the crash and after it, as much as struct pages take."""
    top = max((each.end for each in host.memory.ram), default=0)
    size = -(-top // PAGE_SIZE) * _STRUCT[_long(host)]
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
