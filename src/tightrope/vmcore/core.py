"""An ELF core of physical memory: which bytes it holds where, and its notes.

    file      +-----------------+
              | ELF header      |  ELFCLASS32 or 64, little-endian, ET_CORE, EM_386 or EM_X86_64
              | program headers |  PT_NOTE: registers, VMCOREINFO
              | notes           |  PT_LOAD: p_paddr .. + p_filesz lies at p_offset
              | memory          |
              +-----------------+

Sources: System V ABI (gABI) chapters 4 and 5; Linux fs/proc/vmcore.c and kernel/crash_core.c for what
a kdump core looks like.  Bytes that p_memsz has beyond p_filesz are not in the file: a filtered dump
left them out, so they count as missing, not as zeros.

Rules: the headers are read as arrays, because a core may have as many PT_LOADs as its notes' author
likes.  Any bytes give a `Core` or a `CoreError`.  This file knows no page table.
"""

from __future__ import annotations

import mmap
import os
import stat
from typing import TYPE_CHECKING, Any

from tightrope.errors import CoreError
from tightrope.model.dump import EM_386, EM_X86_64, Core, Notes
from tightrope.vmcore.notes import read_notes

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ET_CORE = 4
_PT_LOAD, _PT_NOTE = 1, 4
_PN_XNUM = 0xFFFF
"""e_phnum when the true number is in sh_info of section header 0 (gABI chapter 4)."""
_NOTES_LIMIT = 64 << 20
"""Bytes of notes that are read: a few hundred per CPU and one VMCOREINFO are far below it."""

_IDENT = [("ident", "S16"), ("type", "<u2"), ("machine", "<u2"), ("version", "<u4")]
_COUNTS = [
    (name, "<u2") for name in ("ehsize", "phentsize", "phnum", "shentsize", "shnum", "shstrndx")
]
_HEADER = {
    bits: [
        *_IDENT,
        *((name, f"<u{bits // 8}") for name in ("entry", "phoff", "shoff")),
        ("flags", "<u4"),
        *_COUNTS,
    ]
    for bits in (32, 64)
}
_WORDS = ("offset", "vaddr", "paddr", "filesz", "memsz")
_PROGRAM_HEADER: dict[int, list[tuple[str, str]]] = {
    32: [("type", "<u4"), *((name, "<u4") for name in (*_WORDS, "flags", "align"))],
    64: [("type", "<u4"), ("flags", "<u4"), *((name, "<u8") for name in (*_WORDS, "align"))],
}
_SECTION_INFO = {32: 28, 64: 44}
"""Offset of sh_info in a section header."""


def read(path: str) -> Core:
    """The core in a file, which is mapped, not read.  Raises CoreError, also for what is no file."""
    try:
        # A pipe without a writer must not make us wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CoreError("not a regular file", source=path)
            mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
    except OSError as err:
        raise CoreError(err.strerror or str(err), source=path) from err
    except ValueError as err:
        # An empty file cannot be mapped; a path with a zero byte cannot be opened.
        raise CoreError(str(err), source=path) from err
    return parse(mapped, path)


def parse(data: bytes | bytearray | memoryview | mmap.mmap, source: str) -> Core:
    """The core in these bytes; `source` names it in errors.  Raises CoreError."""
    import numpy as np

    view = memoryview(data)
    if bytes(view[:4]) != b"\x7fELF":
        raise CoreError("not an ELF file", source=source, offset=0)
    bits = {1: 32, 2: 64}.get(view[4] if len(view) > 4 else 0, 0)
    if not bits:
        raise CoreError("neither ELFCLASS32 nor ELFCLASS64", source=source, offset=4)
    layout = np.dtype(_HEADER[bits])
    if len(view) < layout.itemsize:
        raise CoreError("ends inside the ELF header", source=source, offset=len(view))
    header = np.frombuffer(view, layout, count=1)[0]
    if view[5] != 1:
        raise CoreError("not little-endian, so not of an x86", source=source, offset=5)
    if int(header["type"]) != _ET_CORE:
        raise CoreError(
            f"ELF type {header['type']}, and a core has {_ET_CORE}", source=source, offset=16
        )
    machine = int(header["machine"])
    if machine not in (EM_386, EM_X86_64):
        raise CoreError(f"a core of ELF machine {machine}, not of an x86", source=source, offset=18)
    table = _program_headers(view, header, bits, source)
    return Core(
        source=source,
        machine=machine,
        bits=bits,
        data=view,
        **_pieces(view, table, source),
        notes=_notes(view, table, machine, source),
    )


def _program_headers(view: memoryview, header: Any, bits: int, source: str) -> NDArray[Any]:
    """The program header table as 64-bit columns."""
    import numpy as np

    layout = np.dtype(_PROGRAM_HEADER[bits])
    count, first = int(header["phnum"]), int(header["phoff"])
    if count == _PN_XNUM:
        at = int(header["shoff"]) + _SECTION_INFO[bits]
        if at + 4 > len(view):
            raise CoreError(
                "section header 0, which counts the program headers, is not in the file",
                source=source,
                field="e_shoff",
                offset=int(header["shoff"]),
            )
        count = int.from_bytes(view[at : at + 4], "little")
    if count and int(header["phentsize"]) != layout.itemsize:
        raise CoreError(
            f"program headers of {header['phentsize']} bytes",
            source=source,
            field="e_phentsize",
            limit=layout.itemsize,
        )
    if first + count * layout.itemsize > len(view):
        raise CoreError(
            f"{count} program headers do not fit the file",
            source=source,
            field="e_phoff",
            offset=first,
            limit=len(view),
        )
    raw = np.frombuffer(view, layout, count=count, offset=first if count else 0)
    wide = np.zeros(count, [(name, np.uint64) for name in ("type", *_WORDS)])
    for name in wide.dtype.names or ():
        wide[name] = raw[name]
    return wide


def _pieces(view: memoryview, table: NDArray[Any], source: str) -> dict[str, Any]:
    """Sorted pieces that do not overlap; memory that two PT_LOADs hold is taken from the first."""
    import numpy as np

    size = np.uint64(len(view))
    loads = table[table["type"] == _PT_LOAD]
    # A dump that was cut short keeps its headers: what lies behind the end is missing, not wrong.
    cut = np.minimum(loads["filesz"], size - np.minimum(loads["offset"], size))
    if len(loads) and not cut.any():
        raise CoreError("no byte of its memory is in the file", source=source, field="p_offset")
    here = cut > 0
    start, length, offset = loads["paddr"][here], cut[here], loads["offset"][here]
    if (start + length < start).any():
        raise CoreError("memory beyond 64 bits of address", source=source, field="p_paddr")
    order = np.argsort(start, kind="stable")
    start, end, offset = start[order], (start + length)[order], offset[order]
    reached = np.maximum.accumulate(end)
    if len(start):
        first = np.maximum(start, np.concatenate([start[:1], reached[:-1]]))
        offset = offset + np.where(first < end, first - start, 0).astype(np.uint64)
        start = first
    kept = start < end
    linear = tuple(
        zip(loads["vaddr"].tolist(), loads["paddr"].tolist(), loads["memsz"].tolist(), strict=True)
    )
    return {
        "starts": start[kept],
        "ends": end[kept],
        "offsets": offset[kept],
        "linear": linear,
    }


def _notes(view: memoryview, table: NDArray[Any], machine: int, source: str) -> Notes:
    parts: list[memoryview] = []
    total = 0
    for row in table[table["type"] == _PT_NOTE]:
        offset, size = int(row["offset"]), int(row["filesz"])
        total += size
        if offset + size > len(view) or total > _NOTES_LIMIT:
            raise CoreError(
                f"notes of {size} bytes do not fit",
                source=source,
                field="PT_NOTE",
                offset=offset,
                limit=min(len(view), _NOTES_LIMIT),
            )
        parts.append(view[offset : offset + size])
    return read_notes(parts, word=8 if machine == EM_X86_64 else 4)
