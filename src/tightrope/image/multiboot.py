"""Finding and reading Multiboot headers: what a kernel asks of its loader, checked.

Both versions are read; a file may have one header of each.  A header gives a way in, and either
addresses to load the file by or the word that the file is ELF.

    file     ... | header | text, data |                load_addr      load_end_addr   bss_end_addr
                 ^        header_addr  ---- memory ---->     | text, data    | zeros       |
                 the byte at load_addr lies (header_addr - load_addr) bytes before the header

What a loader that comes by kexec provides: the command line, its name, modules (page aligned) and
the memory map.  It has no copy of ACPI's root pointer, no BIOS, no EFI boot services, no screen
and no video mode.  Information about those that a header requires is left out, and remarked on:
"if it supports a given tag but the information conveyed by it is not available" a loader goes on
without (Multiboot2, 3.1.4); a type that the specification does not have is refused, as it says
there.  A framebuffer is a preference, required or not (3.1.10: "only a recommended mode"); a
console that is required, or Multiboot 1's video mode, is refused.  Tags for EFI loaders only are
left alone.

Rules: facts from `abi.multiboot`; addresses are physical; nothing about ELF is known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct, unpack_from

from tightrope.abi import multiboot as abi
from tightrope.errors import ImageError
from tightrope.image.parts import Piece
from tightrope.model import Movable, Protocol

_PROVIDED = frozenset(
    {
        abi.Information.COMMAND_LINE,
        abi.Information.LOADER_NAME,
        abi.Information.MODULE,
        abi.Information.BASIC_MEMORY,
        abi.Information.MEMORY_MAP,
        abi.Information.LOAD_BASE,
    }
)
_LEFT_ALONE = frozenset(
    {
        abi.Tag.MODULE_ALIGNMENT,  # a kexec's segments are page aligned anyway
        abi.Tag.EFI_BOOT_SERVICES,
        abi.Tag.ENTRY_ADDRESS_EFI_I386,
        abi.Tag.ENTRY_ADDRESS_EFI_AMD64,
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """One header; `entry` and `piece` are None where the file's own format says it (ELF).

    `movable` is where a loader may put it, None when it says nothing; `offset` is the header's
    place in the file, in bytes; `remarks` are what it asks for and is not given.
    """

    protocol: Protocol
    offset: int
    entry: int | None
    piece: Piece | None
    movable: Movable | None = None
    remarks: tuple[str, ...] = ()


def headers(data: memoryview, source: str) -> tuple[Header, ...]:
    """The headers of a file, Multiboot2 first; none when it has none.

    Raises ImageError when one contradicts itself or the file, or requires what is not provided.
    """
    at_2 = _find(data, abi.MAGIC_2, abi.HEADER_2, abi.ALIGNMENT_2, abi.REACH_2)
    at_1 = _find(data, abi.MAGIC_1, abi.HEADER_1, abi.ALIGNMENT_1, abi.REACH_1)
    found = [] if at_2 is None else [_multiboot2(data, at_2, source)]
    return (*found, *([] if at_1 is None else [_multiboot1(data, at_1, source)]))


def _find(data: memoryview, magic: int, layout: Struct, alignment: int, reach: int) -> int | None:
    """The first aligned place that has the magic and words that sum to 0."""
    head = bytes(data[:reach])
    wanted = magic.to_bytes(4, "little")
    at = head.find(wanted)
    while at >= 0:
        fits = at % alignment == 0 and at + layout.size <= len(head)
        if fits and not sum(layout.unpack_from(head, at)) & 0xFFFF_FFFF:
            return at
        at = head.find(wanted, at + 1)
    return None


# ----------------------------------------------------------------------------------- Multiboot 1


def _multiboot1(data: memoryview, at: int, source: str) -> Header:
    def refusal(field: str, problem: str, offset: int, limit: int | None = None) -> ImageError:
        name = f"Multiboot {field}"
        return ImageError(problem, source=source, field=name, offset=offset, limit=limit)

    _, flags, _ = abi.HEADER_1.unpack_from(data, at)
    required = flags & abi.REQUIREMENTS & ~(abi.Flags.PAGE_ALIGN | abi.Flags.MEMORY_INFO)
    if required:
        names = "a video mode" if required == abi.Flags.VIDEO_MODE else f"{required:#x}"
        raise refusal("flags", f"require {names}, which a kexec does not provide", at + 4)
    if not flags & abi.Flags.ADDRESSES:
        return Header(protocol=Protocol.MULTIBOOT, offset=at, entry=None, piece=None)
    place = at + abi.HEADER_1.size
    if place + abi.ADDRESSES_1.size > min(len(data), abi.REACH_1):
        problem = "the addresses are not inside the file and the header's reach"
        raise refusal("header_addr", problem, place, min(len(data), abi.REACH_1))
    *addresses, entry = abi.ADDRESSES_1.unpack_from(data, place)
    piece = _by_address(data, at, place, addresses, "Multiboot", source)
    _enters(piece, entry, "Multiboot entry_addr", place + 16, source)
    return Header(protocol=Protocol.MULTIBOOT, offset=at, entry=entry, piece=piece)


def _by_address(
    data: memoryview, header: int, place: int, addresses: list[int], version: str, source: str
) -> Piece:
    """What the address fields at `place` load: header_addr, load_addr, load_end_addr,
    bss_end_addr."""
    header_addr, load_addr, load_end, bss_end = addresses

    def refusal(field: str, number: int, problem: str, limit: int) -> ImageError:
        offset, name = place + 4 * number, f"{version} {field}"
        return ImageError(problem, source=source, field=name, offset=offset, limit=limit)

    start = header - (header_addr - load_addr)
    if not 0 <= start <= header:
        problem = f"{load_addr:#x} is not before the header, or before the file's first byte"
        raise refusal("load_addr", 1, problem, header_addr)
    size = load_end - load_addr if load_end else len(data) - start
    if size <= header - start:
        problem = f"{load_end:#x} is not behind the header"
        raise refusal("load_end_addr", 2, problem, header_addr)
    if start + size > len(data):
        problem = f"the file is cut off: {start + size - len(data)} of {size} bytes are missing"
        raise refusal("load_end_addr", 2, problem, len(data) - start + load_addr)
    end = bss_end or load_addr + size
    if end < load_addr + size:
        problem = f"{bss_end:#x} is not behind what is loaded"
        raise refusal("bss_end_addr", 3, problem, load_addr + size)
    return Piece(
        start=load_addr,
        end=end,
        data=data[start : start + size],
        field=f"{version} load_addr",
        offset=place + 4,
    )


def _enters(piece: Piece, entry: int, field: str, offset: int, source: str) -> None:
    if not piece.holds(entry):
        problem = f"{entry:#x} is not in what is loaded"
        raise ImageError(problem, source=source, field=field, offset=offset, limit=piece.end)


# ----------------------------------------------------------------------------------- Multiboot 2


def _multiboot2(data: memoryview, at: int, source: str) -> Header:
    def refusal(field: str, problem: str, offset: int, limit: int | None = None) -> ImageError:
        name = f"Multiboot2 {field}"
        return ImageError(problem, source=source, field=name, offset=offset, limit=limit)

    _, architecture, length, _ = abi.HEADER_2.unpack_from(data, at)
    if architecture != abi.ARCHITECTURE_I386:
        problem = f"{architecture} is not i386 ({abi.ARCHITECTURE_I386})"
        raise refusal("architecture", problem, at + 4)
    end = at + length
    if end > min(len(data), abi.REACH_2):
        limit = min(len(data), abi.REACH_2)
        raise refusal("header_length", f"{length:#x} bytes from {at:#x}", at + 8, limit)
    entry: int | None = None
    addresses: tuple[int, list[int]] | None = None
    movable: Movable | None = None
    remarks: list[str] = []
    for place, kind, optional, body in _tags(data, at + abi.HEADER_2.size, end, source):
        name = _tag_name(kind)
        values: list[int] = []
        if kind in abi.TAG_FIELDS:
            layout = abi.TAG_FIELDS[abi.Tag(kind)]
            if len(body) < layout.size:
                problem = f"{len(body)} bytes, not {layout.size}"
                raise refusal(f"{name} size", problem, place + 4, abi.TAG.size + layout.size)
            values = list(layout.unpack_from(body))
        if kind == abi.Tag.ADDRESS:
            header_addr, load_addr, *ends = values
            if load_addr == abi.FROM_THE_BEGINNING:
                load_addr = header_addr - at
                if load_addr < 0:
                    problem = f"{header_addr:#x} leaves no room for the {at:#x} bytes before it"
                    raise refusal("header_addr", problem, place + abi.TAG.size, at)
            addresses = place + abi.TAG.size, [header_addr, load_addr, *ends]
        elif kind == abi.Tag.ENTRY_ADDRESS:
            (entry,) = values
        elif kind == abi.Tag.RELOCATABLE:
            movable = _movable(
                values, refusal("relocatable tag", "min_addr is above max_addr", place)
            )
        elif kind == abi.Tag.INFORMATION_REQUEST:
            asked = set(unpack_from(f"<{len(body) // 4}I", body)) - _PROVIDED
            unknown = sorted(asked - set(abi.Information))
            if unknown and not optional:
                listed = ", ".join(str(each) for each in unknown[:4])
                raise refusal(name, f"requires types {listed}, which nobody knows", place)
            if asked and not optional:
                names = ", ".join(_words(abi.Information(each)) for each in sorted(asked))
                remarks.append(
                    f"its Multiboot2 header asks for what a kexec does not have: {names}"
                )
        elif kind == abi.Tag.CONSOLE_FLAGS:
            if values[0] & abi.CONSOLE_REQUIRED and not optional:
                raise refusal(name, "requires a console, which a kexec does not provide", place)
        elif kind == abi.Tag.FRAMEBUFFER:
            if not optional:
                remarks.append(
                    "its Multiboot2 header asks for a framebuffer, which a kexec does not have"
                )
        elif kind not in _LEFT_ALONE and not optional:
            raise refusal(name, "is required, and a kexec does not provide it", place)
    piece: Piece | None = None
    if addresses is not None:
        if entry is None:
            raise refusal("address tag", "gives addresses, but no tag gives the entry", at)
        piece = _by_address(data, at, *addresses, "Multiboot2", source)
    if piece is not None and entry is not None:
        _enters(piece, entry, "Multiboot2 entry address tag", at, source)
    return Header(
        protocol=Protocol.MULTIBOOT2,
        offset=at,
        entry=entry,
        piece=piece,
        movable=movable,
        remarks=tuple(remarks),
    )


def _tags(
    data: memoryview, at: int, end: int, source: str
) -> Iterator[tuple[int, int, bool, memoryview]]:
    """Offset, type, whether it is optional, and the bytes behind the head, up to the end tag."""
    while at + abi.TAG.size <= end:
        kind, flags, size = abi.TAG.unpack_from(data, at)
        if kind == abi.Tag.END:
            return
        if size < abi.TAG.size or at + size > end:
            problem = f"{size} bytes"
            field = f"Multiboot2 {_tag_name(kind)} size"
            raise ImageError(problem, source=source, field=field, offset=at + 4, limit=end - at)
        yield at, kind, bool(flags & abi.TAG_OPTIONAL), data[at + abi.TAG.size : at + size]
        at += size + -size % abi.ALIGNMENT_2
    problem = "the header ends without an end tag"
    raise ImageError(problem, source=source, field="Multiboot2 tags", offset=min(at, end))


def _movable(values: list[int], refusal: ImageError) -> Movable:
    """Where a loader may put the kernel, from min_addr up to max_addr's byte."""
    low, high, alignment, _ = values
    if low > high:
        raise refusal
    return Movable(start=low, end=high + 1, alignment=alignment)


def _words(kind: abi.Information) -> str:
    return kind.name.lower().replace("_", " ")


def _tag_name(kind: int) -> str:
    names = {each.value: each.name.lower().replace("_", " ") for each in abi.Tag}
    return f"{names.get(kind, f'type {kind}')} tag"
