"""An ELF file, a Multiboot file, or both at once, as an Image: every way in that it offers.

    ELF          e_entry    Linux's own (a vmlinux), or what the Multiboot header uses
                 PVH note   Xen's direct boot
    Multiboot2   its entry tag, else e_entry
    Multiboot    its entry_addr, else e_entry

The preferred way comes first: Linux's own, Multiboot2, Multiboot, PVH; an ELF file that says nothing
is entered at e_entry with no arguments.  All ways of an image have the same bytes in the same places:
one that would load the file differently from the preferred one is left out.

Rules: protocols and what they imply are decided here; fields are read in elf.py and multiboot.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.abi import elf as abi
from tightrope.errors import ImageError
from tightrope.image import elf, multiboot
from tightrope.image.parts import FOUR_GIB, PHYSICAL_LIMIT, Piece, in_order, parts_of
from tightrope.memory import PAGE_SIZE, Phys
from tightrope.model import EntryPoint, Image, Protocol

NO_LIMIT = FOUR_GIB - 1
"""Multiboot and PVH set no limit to a command line but the 32 bits of its address."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Way:
    """One way in: what it loads, and the physical address at which it is entered."""

    name: str
    protocol: Protocol
    bits: int
    address: int
    pieces: tuple[Piece, ...]


def is_executable(data: memoryview, source: str) -> bool:
    """The bytes are an ELF file or have a Multiboot header.  Raises ImageError as `read` does."""
    return elf.is_elf(data) or bool(multiboot.headers(data, source))


def read(data: memoryview, source: str) -> Image:
    """The image in an ELF file, or in any file with a Multiboot header.  Raises ImageError."""
    found = multiboot.headers(data, source)
    executable = elf.read(data, source) if elf.is_elf(data) else None
    ways = [_multiboot_way(header, executable, source) for header in found]
    if executable is not None:
        ways = _elf_ways(executable, ways)
    preferred = ways[0]
    layout = _layout(preferred.pieces)
    ways = [way for way in ways if _layout(way.pieces) == layout]
    limit = PHYSICAL_LIMIT if all(way.bits == 64 for way in ways) else FOUR_GIB
    pieces = in_order(preferred.pieces, limit=limit, source=source)
    base = pieces[0].start
    linux = preferred.protocol in (Protocol.LINUX_32, Protocol.LINUX_64)
    as_elf = executable is not None and preferred.pieces is executable.pieces
    return Image(
        source=source,
        format=f"ELF{executable.bits}" if executable is not None and as_elf else "Multiboot",
        parts=parts_of(pieces),
        file_size=len(data),
        setup_header=b"",
        protocol=0,
        version=None if executable is None else executable.version,
        entries=tuple(
            EntryPoint(
                name=way.name, offset=way.address - base, bits=way.bits, protocol=way.protocol
            )
            for way in ways
        ),
        relocatable=False,
        pref_address=Phys(base),
        init_size=pieces[-1].end - base,
        alignment=PAGE_SIZE,
        min_alignment=PAGE_SIZE,
        cmdline_limit=abi.COMMAND_LINE_SIZE - 1 if linux else NO_LIMIT,
        initrd_limit=Phys(abi.INITRD_ADDR_MAX[preferred.bits] if linux else FOUR_GIB - 1),
        above_4g=False,
        loadflags=0,
        xloadflags=0,
        payload=None,
        initrd=None,
        command_line=None,
    )


def _multiboot_way(
    header: multiboot.Header, executable: elf.Executable | None, source: str
) -> _Way:
    name = "Multiboot" if header.protocol is Protocol.MULTIBOOT else "Multiboot2"

    def refusal(field: str, problem: str) -> ImageError:
        where = f"{name} {field}"
        return ImageError(problem, source=source, field=where, offset=header.offset)

    if header.piece is not None:
        pieces: tuple[Piece, ...] = (header.piece,)
    elif executable is not None:
        pieces = executable.pieces
    else:
        raise refusal("header", "gives no load addresses, and the file is not ELF")
    entry = header.entry
    if entry is None and executable is not None:
        entry = executable.entry
    if entry is None or not any(piece.holds(entry) for piece in pieces):
        raise refusal("entry", f"{entry or 0:#x} is not in what is loaded")
    if header.bounds is not None and not all(
        header.bounds.start <= piece.start and piece.end <= header.bounds.end for piece in pieces
    ):
        # A loader could move the kernel there; a plan keeps it where it is linked.
        raise refusal("relocatable tag", f"the kernel is linked outside {header.bounds}")
    return _Way(name=name, protocol=header.protocol, bits=32, address=entry, pieces=pieces)


def _elf_ways(executable: elf.Executable, ways: list[_Way]) -> list[_Way]:
    """All ways into an ELF file, given those of its Multiboot headers."""
    bits, pieces = executable.bits, executable.pieces
    if executable.linux:
        own = _Way(
            name=f"startup_{bits}",
            protocol=Protocol.LINUX_64 if bits == 64 else Protocol.LINUX_32,
            bits=bits,
            address=executable.entry,
            pieces=pieces,
        )
        ways = [own, *ways]
    if executable.pvh is not None:
        pvh = _Way(
            name="PVH", protocol=Protocol.PVH, bits=32, address=executable.pvh, pieces=pieces
        )
        ways = [*ways, pvh]
    if not ways:
        flat = Protocol.FLAT
        ways = [
            _Way(name="e_entry", protocol=flat, bits=bits, address=executable.entry, pieces=pieces)
        ]
    return ways


def _layout(pieces: tuple[Piece, ...]) -> list[tuple[int, int, int]]:
    """Which bytes lie where, as far as two headers of one file can differ in it."""
    return sorted((piece.start, piece.end, len(piece.data)) for piece in pieces)
