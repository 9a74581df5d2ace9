"""Reading a unified kernel image: an EFI program whose PE sections hold a kernel and what it is
given.

    .linux     a bzImage, the whole file
    .initrd    the initrd; .ucode, microcode that goes before it
    .cmdline   the command line, UTF-8
    .uname     the kernel's version; .osrel, the os-release file: read by boot menus only

Sources: UAPI Group "Unified Kernel Image (UKI)" for the sections, Microsoft "PE Format", sections
"COFF File Header" and "Section Table (Section Headers)", for every number.

A section table is 40 bytes a row and is read here: LIEF, which reads it too, is a native library of
many megabytes for formats that nobody kexecs, and kernels of this format are rare.

Rules: the sections before the first .profile are the image; other sections are left alone; an error
names the section that it is about.  The kernel itself is read by bzimage.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from struct import Struct

from tightrope.errors import ImageError, visible
from tightrope.image import bzimage
from tightrope.image.certificates import pe_header
from tightrope.image.foreign import foreign
from tightrope.image.recognise import has_linux_header
from tightrope.model import Image

_COFF_HEADER = Struct("<HH12xHH")
"""Behind the letters "PE": Machine, NumberOfSections, SizeOfOptionalHeader, Characteristics."""
_COFF_OFFSET = 4
_SECTION = Struct("<8sIIII16x")
"""Name, VirtualSize, VirtualAddress, SizeOfRawData, PointerToRawData."""
_INITRD_ALIGNMENT = 4
"""Each archive of an initrd begins at a multiple of it (Linux
driver-api/early-userspace/buffer-format.rst)."""

KERNEL = ".linux"
_KNOWN = frozenset({KERNEL, ".initrd", ".ucode", ".cmdline", ".uname", ".osrel"})


def sections(data: memoryview, source: str) -> Mapping[str, memoryview]:
    """The known sections of a PE file by name; none when this is no PE file.

    Raises ImageError when one is not inside the file, or there twice.
    """
    found: dict[str, memoryview] = {}
    for name, at, used, size, start in _rows(data, source):
        if name == ".profile":
            break
        if name not in _KNOWN:
            continue
        # The raw data is padded to the file's alignment; the virtual size is what was put in.
        size = min(size, used) if used else size
        if start + size > len(data):
            problem = f"{size:#x} bytes from {start:#x} are not inside the file"
            raise ImageError(problem, source=source, field=name, offset=at, limit=len(data))
        if name in found:
            raise ImageError("is there twice", source=source, field=name, offset=at)
        found[name] = data[start : start + size]
    return found


def names(data: memoryview, source: str) -> frozenset[str]:
    """The names of all sections of a PE file; none when this is none.  Raises ImageError."""
    return frozenset(name for name, *_ in _rows(data, source))


def _rows(data: memoryview, source: str) -> Iterator[tuple[str, int, int, int, int]]:
    """Name, offset of the row, VirtualSize, SizeOfRawData and PointerToRawData of each section."""
    pe = pe_header(data)
    if pe is None or pe + _COFF_OFFSET + _COFF_HEADER.size > len(data):
        return
    _, count, optional, _ = _COFF_HEADER.unpack_from(data, pe + _COFF_OFFSET)
    table = pe + _COFF_OFFSET + _COFF_HEADER.size + optional
    for at in range(table, table + count * _SECTION.size, _SECTION.size):
        if at + _SECTION.size > len(data):
            problem = f"{count} sections are not inside the file"
            field = "PE section table"
            raise ImageError(problem, source=source, field=field, offset=at, limit=len(data))
        raw_name, used, _, size, start = _SECTION.unpack_from(data, at)
        yield raw_name.rstrip(b"\0").decode("latin-1"), at, used, size, start


def read(data: memoryview, found: Mapping[str, memoryview], source: str) -> Image:
    """The image in a PE file that has the section .linux, given its `sections`.  Raises
    ImageError."""
    kernel = found[KERNEL]
    if not has_linux_header(kernel):
        named = foreign(kernel)
        problem = f"holds no bzImage, but {named}" if named else "holds no bzImage"
        raise ImageError(problem, source=source, field=KERNEL)
    image = bzimage.read(kernel, f"{source}: {KERNEL}")
    return replace(
        image,
        source=source,
        format="unified kernel image",
        file_size=len(data),
        version=image.version or _name(found, source),
        initrd=_initrd(found),
        command_line=_text(found, ".cmdline", source),
    )


def _initrd(found: Mapping[str, memoryview]) -> memoryview | None:
    """Microcode and initrd, one after the other."""
    pieces = [found[name] for name in (".ucode", ".initrd") if len(found.get(name, b""))]
    if len(pieces) < 2:
        return pieces[0] if pieces else None
    first, second = pieces
    return memoryview(bytes(first) + bytes(-len(first) % _INITRD_ALIGNMENT) + bytes(second))


def _name(found: Mapping[str, memoryview], source: str) -> str | None:
    """The kernel's version as .uname has it."""
    text = _text(found, ".uname", source)
    return None if text is None else visible(text)


def _text(found: Mapping[str, memoryview], name: str, source: str) -> str | None:
    """A section's text without the line break or zeros at its end; None when there is none."""
    if name not in found:
        return None
    try:
        text = bytes(found[name]).decode("utf-8").rstrip("\0\n\r\t ")
    except UnicodeDecodeError as err:
        raise ImageError("is not UTF-8 text", source=source, field=name, offset=err.start) from err
    if "\0" in text:
        raise ImageError("holds a zero byte", source=source, field=name, offset=text.index("\0"))
    return text or None
