"""An ELF core of physical memory: which bytes it holds where, and its notes.

    file      +-----------------+
              | ELF header      |  ELFCLASS32 or 64, little-endian, ET_CORE, EM_386 or EM_X86_64
              | program headers |  PT_NOTE: registers, VMCOREINFO
              | notes           |  PT_LOAD: p_paddr .. + p_filesz lies at p_offset
              | memory          |
              +-----------------+

Sources: System V ABI (gABI) chapters 4 and 5; Linux fs/proc/vmcore.c and kernel/crash_core.c for
what a kdump core looks like.  Bytes that p_memsz has beyond p_filesz are not in the file: a
filtered dump left them out, and whether they were zeros nobody says; so with bytes behind the end
of a file that was cut short.

Rules: the headers are read as arrays, because a core may have as many PT_LOADs as its notes' author
likes.  Any bytes give a `Core` or a `CoreError`.  A row that makes no sense is left out, and
`unused` says so: it is no reason to refuse the rest.  This file knows no page table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightrope.abi import elf
from tightrope.errors import CoreError
from tightrope.model.dump import U64, Container, Core, Data, Kind, Pieces
from tightrope.model.notes import EM_386, EM_X86_64, Notes
from tightrope.vmcore.notes import read_notes

_NOTES_LIMIT = 64 << 20
"""Bytes of notes that are read: a few hundred per CPU and one VMCOREINFO are far below it."""

_WORDS = ("offset", "vaddr", "paddr", "filesz", "memsz")


def _dtype(layout: elf.Layout) -> list[tuple[str, str]]:
    """A structure of ELF as numpy reads it."""
    return [(name, f"<u{size}") for name, size in layout.fields.items()]


_HEADER = {bits: _dtype(layout) for bits, layout in elf.HEADER.items()}
_PROGRAM_HEADER = {bits: _dtype(layout) for bits, layout in elf.PROGRAM_HEADER.items()}
_SECTION_INFO = {32: 28, 64: 44}
"""Offset of sh_info in a section header."""
_TOP = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


def read(data: Data, source: str, *, flattened: bool) -> Core:
    """The core in an ELF file; `source` names it in errors.  Raises CoreError."""
    head = data.read(0, min(data.size, np.dtype(_HEADER[64]).itemsize))
    bits = {1: 32, 2: 64}.get(head[4] if len(head) > 4 else 0, 0)
    if not bits:
        raise CoreError("neither ELFCLASS32 nor ELFCLASS64", source=source, offset=4)
    layout = np.dtype(_HEADER[bits])
    if len(head) < layout.itemsize:
        raise CoreError("ends inside the ELF header", source=source, offset=len(head))
    header = np.frombuffer(head, layout, count=1)[0]
    if head[5] != 1:
        raise CoreError("not little-endian, so not of an x86", source=source, offset=5)
    if int(header["type"]) != elf.ET_CORE:
        raise CoreError(
            f"ELF type {header['type']}, and a core has {elf.ET_CORE}", source=source, offset=16
        )
    machine = int(header["machine"])
    if machine not in (EM_386, EM_X86_64):
        raise CoreError(f"a core of ELF machine {machine}, not of an x86", source=source, offset=18)
    unused: list[str] = []
    table = _program_headers(data, header, bits, unused)
    loads = _loads(table, unused)
    if not len(loads) and len(table) < int(header["phnum"]):
        raise CoreError(
            f"cut short inside its program headers: of {header['phnum']:,} {len(table):,} are there,"
            " and none is of memory",
            source=source,
            offset=data.size,
        )
    held, offsets = _held(data, loads, source)
    return Core(
        source=source,
        machine=machine,
        bits=bits,
        container=Container(kind=Kind.ELF, flattened=flattened),
        data=data,
        held=held,
        offsets=offsets,
        described=_described(loads, unused),
        linear=tuple(
            zip(
                loads["vaddr"].tolist(),
                loads["paddr"].tolist(),
                loads["memsz"].tolist(),
                strict=True,
            )
        ),
        notes=_notes(data, table, machine, unused),
        unused=tuple(unused),
    )


def _program_headers(data: Data, header: Any, bits: int, unused: list[str]) -> NDArray[Any]:
    """The program header table as 64-bit columns: as many rows as are headers."""
    layout = np.dtype(_PROGRAM_HEADER[bits])
    count, first, step = (int(header[name]) for name in ("phnum", "phoff", "phentsize"))
    if count == elf.PN_XNUM:
        at = int(header["shoff"]) + _SECTION_INFO[bits]
        if at + 4 <= data.size:
            count = int.from_bytes(data.read(at, 4), "little")
        else:
            unused.append("section header 0, which counts the program headers, is not in the file")
    if count and step < layout.itemsize:
        unused.append(f"program headers of {step} bytes are taken as {layout.itemsize}")
        step = layout.itemsize
    fit = max(data.size - first, 0) // step if step else 0
    if count > fit or count == elf.PN_XNUM:
        # What follows the table begins where its first row says: behind that are no more rows.
        rows = _rows(data, first, min(fit, 1), step, layout)
        begins = int(rows["offset"][0]) if len(rows) else 0
        known = (begins - first) // step if first < begins <= data.size else fit
        unused.append(f"of {count:,} program headers {min(known, fit):,} are in the file")
        count = min(known, fit, count)
    return _rows(data, first, count, step, layout)


def _rows(data: Data, first: int, count: int, step: int, layout: np.dtype[Any]) -> NDArray[Any]:
    wide = np.zeros(count, [(name, np.uint64) for name in ("type", *_WORDS)])
    if count:
        raw = np.frombuffer(data.read(first, count * step), np.uint8).reshape(count, step)
        rows = np.ascontiguousarray(raw[:, : layout.itemsize]).view(layout)[:, 0]
        for name in wide.dtype.names or ():
            wide[name] = rows[name]
    return wide


def _loads(table: NDArray[Any], unused: list[str]) -> NDArray[Any]:
    """The rows of memory that are in 64 bits of address."""
    loads: NDArray[Any] = table[table["type"] == elf.PT_LOAD]
    beyond = loads["filesz"] > _TOP - loads["paddr"]
    for row in loads[beyond]:
        unused.append(f"a PT_LOAD at {row['paddr']:#x} goes beyond 64 bits of address")
    kept: NDArray[Any] = loads[~beyond]
    return kept


def _held(data: Data, loads: NDArray[Any], source: str) -> tuple[Pieces, U64]:
    """Sorted pieces that do not overlap; memory that two PT_LOADs hold is taken from the first."""
    size = np.uint64(data.size)
    # A dump that was cut short keeps its headers: what lies behind the end is left out, not wrong.
    cut = np.minimum(loads["filesz"], size - np.minimum(loads["offset"], size))
    if len(loads) and not cut.any():
        raise CoreError(
            f"no byte of its memory is in the file, which has {data.size:,} bytes: it was cut short",
            source=source,
            field="p_offset",
        )
    here = cut > 0
    start, length, offset = loads["paddr"][here], cut[here], loads["offset"][here]
    order = np.argsort(start, kind="stable")
    start, end, offset = start[order], (start + length)[order], offset[order]
    reached = np.maximum.accumulate(end)
    if len(start):
        first = np.maximum(start, np.concatenate([start[:1], reached[:-1]]))
        offset = offset + np.where(first < end, first - start, 0).astype(np.uint64)
        start = first
    kept = start < end
    return Pieces(starts=start[kept], ends=end[kept]), offset[kept]


def _described(loads: NDArray[Any], unused: list[str]) -> Pieces:
    """What the rows speak of, whether the file has it or not, as sorted extents that are apart."""
    start, size = loads["paddr"], np.maximum(loads["memsz"], loads["filesz"])
    beyond = size > _TOP - start
    for row in loads[beyond]:
        unused.append(
            f"a PT_LOAD at {row['paddr']:#x} of {row['memsz']:#x} bytes ends at 64 bits of address"
        )
    end = start + np.minimum(size, _TOP - start)
    order = np.argsort(start, kind="stable")
    start, reached = start[order], np.maximum.accumulate(end[order])
    if not len(start):
        return Pieces(starts=start, ends=reached)
    first = np.concatenate([[True], start[1:] > reached[:-1]])
    last = np.concatenate([first[1:], [True]])
    return Pieces(starts=start[first], ends=reached[last])


def _notes(data: Data, table: NDArray[Any], machine: int, unused: list[str]) -> Notes:
    parts: list[memoryview] = []
    total = 0
    for row in table[table["type"] == elf.PT_NOTE]:
        offset, size = int(row["offset"]), int(row["filesz"])
        if offset + size > data.size or total + size > _NOTES_LIMIT:
            unused.append(f"notes of {size:,} bytes at offset {offset:#x} do not fit")
            continue
        total += size
        parts.append(memoryview(data.read(offset, size)))
    return read_notes(parts, word=8 if machine == EM_X86_64 else 4)
