"""A flat binary: bytes, an address to put them at, and nothing that says what they are.

Rules: address and mode come from the caller; the first byte is the entry, and it is given nothing.
"""

from __future__ import annotations

from tightrope.errors import ImageError
from tightrope.image.parts import FOUR_GIB, PHYSICAL_LIMIT
from tightrope.memory import PAGE_SIZE, Phys
from tightrope.model import EntryPoint, Image, Part, Protocol

_LIMITS = {32: FOUR_GIB, 64: PHYSICAL_LIMIT}
"""By mode: the first physical address that its code cannot have."""


def read(data: memoryview, source: str, address: int, bits: int) -> Image:
    """The image of `data` at the physical `address`, entered in 32-bit or 64-bit mode (`bits`).

    Raises ImageError when there are no bytes, or no such place or mode.
    """
    if bits not in _LIMITS:
        raise ImageError(f"{bits}-bit mode: a flat binary runs in 32 or 64", source=source)
    if not len(data):
        raise ImageError("an empty file", source=source)
    if address < 0 or address + len(data) > _LIMITS[bits]:
        problem = f"{len(data):#x} bytes at {address:#x} are not where {bits}-bit code can be"
        raise ImageError(problem, source=source, field="address", limit=_LIMITS[bits])
    return Image(
        source=source,
        format="flat binary",
        parts=(Part(offset=0, data=data, size=len(data)),),
        file_size=len(data),
        setup_header=b"",
        protocol=0,
        version=None,
        entries=(EntryPoint(name="first byte", offset=0, bits=bits, protocol=Protocol.FLAT),),
        relocatable=False,
        pref_address=Phys(address),
        init_size=len(data),
        alignment=PAGE_SIZE,
        min_alignment=PAGE_SIZE,
        cmdline_limit=0,
        initrd_limit=Phys(_LIMITS[bits] - 1),
        above_4g=bits == 64,
        loadflags=0,
        xloadflags=0,
        payload=None,
        initrd=None,
        command_line=None,
    )
