"""An ELF file, a Multiboot file, or both at once, as an Image: every way in that it offers.

    ELF          e_entry    Linux's own (a vmlinux), or what the Multiboot header uses
                 PVH note   Xen's direct boot
    Multiboot2   its entry tag, else e_entry
    Multiboot    its entry_addr, else e_entry

The preferred way comes first: Linux's own, Multiboot2, Multiboot, PVH.  All ways of an image have
the same bytes in the same places: those that would load the file differently from the preferred
one are images of their own, its alternatives.

An ELF file that says nothing is entered at e_entry with no arguments, and not always unasked: a
program is no kernel, a shared library neither, and 64-bit code that is no Linux has no protocol to
be entered by.

Rules: protocols and what they imply are decided here; fields are read in elf.py and multiboot.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tightrope.abi import elf as abi
from tightrope.errors import ImageError
from tightrope.image import elf, multiboot
from tightrope.image.parts import FOUR_GIB, PHYSICAL_LIMIT, Piece, in_order, parts_of
from tightrope.memory import PAGE_SIZE, Extent, Phys
from tightrope.model import EntryPoint, Image, Movable, Protocol

NO_LIMIT = FOUR_GIB - 1
"""Multiboot and PVH set no limit to a command line but the 32 bits of its address."""
XEN_COMMAND_LINE = 1024
"""Bytes that Xen keeps of a command line with its zero (xen/include/xen/kernel.h,
xen_commandline_t)."""
_XEN = re.compile(rb"Xen version %d\.%d")
"""How Xen's own banner begins (xen/common/kernel.c, and drivers/char/console.c where it is
printed)."""
_LINUX = (Protocol.LINUX_32, Protocol.LINUX_64)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Way:
    """One way in: what it loads, and the physical address at which it is entered."""

    name: str
    protocol: Protocol
    bits: int
    address: int
    pieces: tuple[Piece, ...]
    movable: Movable | None = None


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
    laid: list[list[_Way]] = []
    for way in ways:
        same = (each for each in laid if _layout(each[0].pieces) == _layout(way.pieces))
        among = next(same, None)
        if among is None:
            laid.append([way])
        else:
            among.append(way)
    remarks = tuple(remark for header in found for remark in header.remarks)
    images = [_image(data, each, executable, remarks, source) for each in laid]
    return replace(images[0], alternatives=tuple(images[1:]))


def _image(
    data: memoryview,
    ways: Sequence[_Way],
    executable: elf.Executable | None,
    remarks: tuple[str, ...],
    source: str,
) -> Image:
    """The image of ways that all lay the file in the same way, the preferred one first."""
    preferred = ways[0]
    limit = PHYSICAL_LIMIT if all(way.bits == 64 for way in ways) else FOUR_GIB
    pieces = in_order(preferred.pieces, limit=limit, source=source)
    base = pieces[0].start
    linux = preferred.protocol in _LINUX
    as_elf = executable is not None and preferred.pieces is executable.pieces
    cmdline = abi.COMMAND_LINE_SIZE if linux else NO_LIMIT + 1
    if not linux and _XEN.search(data):
        cmdline = XEN_COMMAND_LINE
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
        cmdline_limit=cmdline - 1,
        initrd_limit=Phys(abi.INITRD_ADDR_MAX[preferred.bits] if linux else FOUR_GIB - 1),
        above_4g=False,
        loadflags=0,
        xloadflags=0,
        payload=None,
        initrd=None,
        command_line=None,
        solid=linux,
        movable=next((way.movable for way in ways if way.movable is not None), None),
        doubt=_doubt(executable) if preferred.protocol is Protocol.FLAT else None,
        remarks=(*(executable.remarks if executable is not None and as_elf else ()), *remarks),
    )


def _doubt(executable: elf.Executable | None) -> str | None:
    """Why a file that says nothing of itself is not entered unasked, None where it is.

    kexec-tools enters any 32-bit ET_EXEC file with paging off (kexec/arch/i386/kexec-elf-x86.c);
    what has the marks of a program, or is 64-bit code, is entered by nobody.
    """
    if executable is None:
        return None
    what = f"an ELF{executable.bits} file that does not say that it is a kernel"
    if executable.program:
        return f"{what}, and looks like a program or a library of an operating system"
    if not executable.fixed:
        return f"{what}, nor where it wants to lie (ET_DYN)"
    if executable.bits == 64:
        return f"{what}: no Linux, Multiboot header or PVH note"
    return None


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
    bounds = header.movable
    if bounds is not None and not all(
        bounds.start <= piece.start and piece.end <= bounds.end for piece in pieces
    ):
        # A loader could move the kernel there; a plan keeps it where it is linked.
        where = Extent(bounds.start, bounds.end)
        raise refusal("relocatable tag", f"the kernel is linked outside {where}")
    return _Way(
        name=name,
        protocol=header.protocol,
        bits=32,
        address=entry,
        pieces=pieces,
        movable=header.movable,
    )


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
