"""`tightrope inspect KERNEL`: what an image is, what it asks of memory, and what a kexec makes of
it.

A Linux bzImage has a setup header to explain, in a unified kernel image too; an ELF or Multiboot
kernel and a flat binary have none, and their report has fewer rows.

Rules: the image is already read and checked, nothing here doubts it.  Whether the payload unpacked
comes with it: the bytes, the error that says why not, or None when nobody tried.  The sheet is for
people who debug a kexec; the facts are the same as numbers, addresses and sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntFlag

from tightrope.abi import boot
from tightrope.errors import TightropeError
from tightrope.memory import PAGE_SIZE, Extent, align_up
from tightrope.model import EntryPoint, Image, Protocol
from tightrope.model.sheet import Pairs, Section, Sheet
from tightrope.views import words
from tightrope.views.inspection_facts import InspectionFacts
from tightrope.views.view import View

Unpacked = bytes | TightropeError | None
"""What became of the payload: the unpacked bytes, why it did not unpack, or None: not tried."""

_ELF_CLASSES = {1: 32, 2: 64}
"""e_ident[EI_CLASS] (System V ABI, "ELF Identification"): bits of an address."""
_EI_CLASS = 4
_ABOVE_4G_SINCE = 0x020C
_NAME_COLUMNS = 15
_COLUMNS = 100
"""Width of a line; a single word that is longer is not broken."""
_FOUR_GIB = 1 << 32
_UNIFIED = "unified kernel image"

_MODES = {
    32: "in 32-bit protected mode, paging off",
    64: "in 64-bit long mode, paging on",
}
_ARGUMENTS: Mapping[Protocol, str] = {
    Protocol.LINUX_64: "rsi points to boot_params",
    Protocol.LINUX_32: "esi points to boot_params",
    Protocol.PVH: "ebx points to Xen's start info",
    Protocol.MULTIBOOT: "eax is 0x2badb002, ebx points to the information structure",
    Protocol.MULTIBOOT2: "eax is 0x36d76289, ebx points to the information structure",
    Protocol.FLAT: "nothing is handed over",
}
"""boot.rst; Xen docs/misc/pvh.pandoc; Multiboot 0.6.96, section 3.2; Multiboot2 2.0, section 3.3.
"""


@dataclass(frozen=True, slots=True)
class Inspected:
    """An image, and what became of its payload."""

    image: Image
    unpacked: Unpacked = None


def sheet(inspected: Inspected) -> Sheet:
    """The title with what it is, then memory, handover and payload, those that it has."""
    image, unpacked = inspected.image, inspected.unpacked
    sections = [
        Section(
            f"{image.source}: {_title(image)}",
            (_pairs((*_identity(image), *(("note", each) for each in image.remarks))),),
        )
    ]
    for title, rows in (
        ("memory", _memory(image)),
        ("handover", _handover(image)),
        ("payload", _payload(image, unpacked) if image.setup_header else iter(())),
    ):
        if found := tuple(rows):
            sections.append(Section(title, (_pairs(found),)))
    return Sheet(tuple(sections))


def _pairs(rows: tuple[tuple[str, str], ...]) -> Pairs:
    return Pairs(rows=rows, names=_NAME_COLUMNS, indent=2, columns=_COLUMNS)


def facts(inspected: Inspected) -> InspectionFacts:
    """The same as plain data; keys do not change between images.

    What only a setup header says is None in an image that has none.
    """
    image, unpacked = inspected.image, inspected.unpacked
    payload = image.payload
    linux = bool(image.setup_header)
    return {
        "source": image.source,
        "format": image.format,
        "protocol": _protocol(image) if linux else None,
        "version": image.version,
        "file_size": image.file_size,
        "setup_size": boot.setup_size(image.setup_header) if linux else None,
        "kernel_size": _kernel_size(image) if linux else None,
        "signature_size": image.signature if linux else None,
        "loaded_size": _loaded(image),
        "load": {
            "relocatable": image.relocatable,
            "pref_address": image.pref_address,
            "init_size": image.init_size,
            "alignment": image.alignment,
            "min_alignment": image.min_alignment,
            "above_4g": image.above_4g,
        },
        "parts": [
            {"offset": part.offset, "size": part.size, "data_size": len(part.data)}
            for part in image.parts
        ],
        "movable": None
        if image.movable is None
        else {
            "start": image.movable.start,
            "end": image.movable.end,
            "alignment": image.movable.alignment,
        },
        "remarks": list(image.remarks),
        "initrd_limit": image.initrd_limit,
        "cmdline_limit": image.cmdline_limit,
        "entries": [
            {"name": e.name, "offset": e.offset, "bits": e.bits, "protocol": e.protocol.value}
            for e in image.entries
        ],
        "initrd_size": None if image.initrd is None else len(image.initrd),
        "command_line": image.command_line,
        "loadflags": _names(boot.LoadFlags(image.loadflags)),
        "xloadflags": _names(boot.XLoadFlags(image.xloadflags)),
        "kexec_file_load_refusal": _file_load_refusal(image),
        "setup_header": {
            field.name: field.read(image.setup_header, boot.SETUP_HEADER)
            for field in boot.SETUP_HEADER_FIELDS
            if field.since <= image.protocol
        }
        if linux
        else None,
        "payload": None
        if payload is None
        else {
            "offset": payload.offset,
            "size": payload.size,
            "compression": payload.compression,
            "unpacked_size": len(unpacked) if isinstance(unpacked, bytes) else None,
            "elf_bits": _elf_bits(unpacked) if isinstance(unpacked, bytes) else None,
            "error": str(unpacked) if isinstance(unpacked, TightropeError) else None,
        },
    }


# ------------------------------------------------------------------------------- the four sections


def _title(image: Image) -> str:
    if not image.setup_header:
        return f"{image.format}, entered by {', '.join(each.protocol for each in image.entries)}"
    kernel = f"Linux bzImage, boot protocol {_protocol(image)}"
    return f"{_UNIFIED} with a {kernel}" if image.format == _UNIFIED else kernel


def _identity(image: Image) -> Iterator[tuple[str, str]]:
    if not image.setup_header:
        if image.version is not None:
            yield "version", image.version
        yield "file", f"{image.file_size} bytes, {_loaded(image)} of them are loaded"
        return
    yield "version", image.version or "not named in the header"
    setup, signature = boot.setup_size(image.setup_header), image.signature
    more = _loaded(image) - _kernel_size(image) - signature
    parts = [f"{setup} setup", f"{_kernel_size(image)} kernel"]
    parts += [f"{signature} signature, which is loaded with the kernel"] if signature else []
    parts += [f"{more} more, which are loaded as well"] if more else []
    if image.format != _UNIFIED:
        yield "file", f"{image.file_size} bytes: {' + '.join(parts)}"
        return
    yield "file", f"{image.file_size} bytes"
    yield ".linux", f"{setup + _loaded(image)} bytes: {' + '.join(parts)}"
    yield ".initrd", "none" if image.initrd is None else f"{len(image.initrd)} bytes"
    yield ".cmdline", "none" if image.command_line is None else words.shown(image.command_line)


def _memory(image: Image) -> Iterator[tuple[str, str]]:
    home = Extent.sized(image.pref_address, image.init_size)
    size = f"{image.init_size:#x} bytes"
    if image.movable is not None:
        may = Extent(image.movable.start, image.movable.end)
        yield "needs", f"{home} free: a plan leaves it where it is linked"
        yield (
            "relocatable",
            f"says its Multiboot2 header: inside {may}, at multiples of {image.movable.alignment:#x}",
        )
    elif not image.relocatable:
        where = f"{home} free" if image.solid or len(image.parts) == 1 else "its parts free"
        yield "needs", f"{where}, and nowhere else: the kernel is not relocatable"
    elif image.pref_address:
        yield "needs", f"{home} free, or {size} at any {_unit(image.alignment)} aligned place"
    else:
        yield "needs", f"{size} free at any {_unit(image.alignment)} aligned place"
    if image.relocatable:
        limit = "may be above 4 GiB" if image.above_4g else "has to be below 4 GiB"
        yield "", f"that place {limit}"
        if image.min_alignment < image.alignment:
            least = f"down to {_unit(image.min_alignment)} if kernel_alignment is lowered with it"
            yield "", f"the alignment can be less, {least}"
    yield from _loading(image)
    if {each.protocol for each in image.entries} == {Protocol.FLAT}:
        return
    limit = f"no byte above {image.initrd_limit:#x}"
    if image.above_4g:
        limit = f"anywhere in RAM through startup_64; through startup_32 {limit}"
    yield "initrd" if _is_linux(image) else "modules", limit
    if image.cmdline_limit >= _FOUR_GIB - 1:
        yield "command line", "the image does not say how much it reads; below 4 GiB"
        return
    if not _is_linux(image):
        yield "command line", f"{image.cmdline_limit} bytes: what is longer is cut off"
        return
    room = image.cmdline_limit - boot.MAX_ELFCOREHDR_STR_LEN
    yield (
        "command line",
        f"{image.cmdline_limit} bytes; {max(room, 0)} if a loader keeps elfcorehdr's",
    )


def _loading(image: Image) -> Iterator[tuple[str, str]]:
    """What of the image is copied where, and what is zeros."""
    if image.setup_header:
        zeros = align_up(image.init_size, PAGE_SIZE) - _loaded(image)
        scratch = f"the {zeros:#x} behind them are scratch memory"
        yield "is loaded", f"{_loaded(image):#x} bytes; {scratch}"
        return
    for number, part in enumerate(image.parts):
        place = Extent.sized(image.pref_address + part.offset, part.size)
        zeros = part.size - len(part.data)
        text = f"{place}: {len(part.data):#x} bytes of the file"
        yield "" if number else "is loaded", text + (f", then {zeros:#x} zeros" if zeros else "")


def _handover(image: Image) -> Iterator[tuple[str, str]]:
    for laid in (image, *image.alternatives):
        for entry in laid.entries:
            mode, arguments = _MODES[entry.bits], _ARGUMENTS[entry.protocol]
            yield entry.name, f"{_place(laid, entry)}, {mode}; {arguments}"
        if laid is not image:
            home = Extent.sized(laid.pref_address, laid.init_size)
            yield (
                "",
                f"and the file laid otherwise, at {home}: with --entry {laid.entries[0].protocol}",
            )
    if image.doubt is not None:
        yield "", f"only with --entry flat: {image.doubt}"
    if image.setup_header:
        yield "loadflags", _listed(boot.LoadFlags(image.loadflags))
        yield "xloadflags", _listed(boot.XLoadFlags(image.xloadflags))
        if any(entry.bits == 64 for entry in image.entries):
            if image.xloadflags & boot.XLoadFlags.XLF_5LEVEL:
                yield "paging", "startup_64 can be entered with 4-level or 5-level tables"
            else:
                yield "paging", "startup_64 must not be entered with 5-level tables (no XLF_5LEVEL)"
    refusal = _file_load_refusal(image)
    yield "kexec_file_load", "takes it" if refusal is None else f"refuses it: {refusal}"


def _payload(image: Image, unpacked: Unpacked) -> Iterator[tuple[str, str]]:
    payload = image.payload
    if payload is None:
        yield "compression", "not known: the header names no payload"
        return
    place = f"{payload.size} bytes at load address + {payload.offset:#x}"
    yield "compression", f"{payload.compression}, {place}"
    if isinstance(unpacked, bytes):
        bits = _elf_bits(unpacked)
        kind = f"ELF{bits}" if bits else "ELF file of an unknown class"
        yield "unpacks to", f"{len(unpacked)} bytes, an {kind}; within init_size"
        if bits:
            yield "with --unpack", f"entered at the vmlinux's own startup_{bits}, without KASLR"
    elif unpacked is not None:
        yield "does not unpack", str(unpacked)


# ------------------------------------------------------------------------ facts and their words


def _protocol(image: Image) -> str:
    return f"{image.protocol >> 8}.{image.protocol & 0xFF:02}"


def _is_linux(image: Image) -> bool:
    linux = (Protocol.LINUX_32, Protocol.LINUX_64)
    return any(entry.protocol in linux for entry in image.entries)


def _place(image: Image, entry: EntryPoint) -> str:
    if image.setup_header:
        return f"load address + {entry.offset:#x}"
    return f"at {image.pref_address + entry.offset:#x}"


def _loaded(image: Image) -> int:
    """Bytes of the file that are loaded, and joints of its segments counted as such."""
    return sum(len(part.data) for part in image.parts)


def _kernel_size(image: Image) -> int:
    return boot.field("syssize").read(image.setup_header, boot.SETUP_HEADER) * boot.PARAGRAPH


def _file_load_refusal(image: Image) -> str | None:
    """Why kexec_file_load would refuse the image (kexec-bzimage64.c), None if it would not."""
    if image.format != "bzImage":
        return "it takes nothing but a bzImage"
    if image.protocol < _ABOVE_4G_SINCE:
        return "it asks for boot protocol 2.12"
    if not image.xloadflags & boot.XLoadFlags.XLF_KERNEL_64:
        return "it asks for a 64-bit entry (XLF_KERNEL_64)"
    if not image.above_4g:
        return "it asks for XLF_CAN_BE_LOADED_ABOVE_4G"
    return None


def _elf_bits(unpacked: bytes) -> int | None:
    return _ELF_CLASSES.get(unpacked[_EI_CLASS]) if len(unpacked) > _EI_CLASS else None


def _names(flags: IntFlag) -> list[str]:
    """Each set bit's name, bit 0 first; "bit N" where the protocol has no name for it."""
    bits = [bit for bit in range(int(flags).bit_length()) if int(flags) >> bit & 1]
    return [type(flags)(1 << bit).name or f"bit {bit}" for bit in bits]


def _listed(flags: IntFlag) -> str:
    return ", ".join(_names(flags)) or "none"


def _unit(size: int) -> str:
    """A power of two in the largest unit that divides it."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 1 << shift:
            return f"{size >> shift} {unit}"
    return f"{size} byte"


VIEW = View(name="inspect", version=1, shape=InspectionFacts, sheet=sheet, facts=facts)
