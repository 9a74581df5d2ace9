"""The core that a crash kernel's /proc/vmcore shows: its own headers and notes, the memory behind.

    headers, notes   as the witness read them from /proc/vmcore
    a row's bytes    the PC's memory at p_paddr, or in the backup where that is the old kernel's low one

So what is read back is what a copy of /proc/vmcore would have, without a disk to copy it onto, and
as sparse as the memory is.

Source: Linux fs/proc/vmcore.c (rows are widened to whole pages, and keep p_paddr).

Rules: the file has no name (memfd).  What a crash kernel says is not believed before it is checked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby

from tightrope import vmcore
from tightrope.abi import elf
from tightrope.errors import CoreError, MachineError
from tightrope.kdump.core import headers
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Backup, Memory
from tightrope.model.crash_boot import ShownCore
from tightrope.model.pgd import Wholeness

_PIECE = 1 << 20
_EMPTY = bytes(_PIECE)
MOST = 1 << 46
"""Bytes of a core: more is no machine's."""


def shown(head: bytes, memory: Memory, backup: tuple[Backup, ...]) -> ShownCore:
    """What a /proc/vmcore that begins so shows.  Raises CoreError for headers that are none."""
    with written(head, memory, backup) as path:
        core = vmcore.read(path)
        info = core.notes.vmcoreinfo
        whole: bool | None = None
        try:
            found = vmcore.pgd(core)
            said = found.answer.value
            why = next(iter((*found.faults, *found.doubts)), "")
            if found.answer is not Wholeness.UNTOLD:
                whole = found.answer is Wholeness.WHOLE
            said += f": {why}" if why and not whole else ""
        except CoreError as err:
            said = f"cannot be told: {err.problem}"
        return ShownCore(
            size=os.stat(path).st_size,
            rows=sum(1 for _ in _rows(head)),
            cpus=len(core.notes.prstatus),
            release=info.get("OSRELEASE"),
            pgd=said,
            whole=whole,
        )


@contextmanager
def written(head: bytes, memory: Memory, backup: tuple[Backup, ...]) -> Iterator[str]:
    """The path of a file with the core, as long as the block lasts."""
    out = os.memfd_create("tightrope-vmcore", os.MFD_CLOEXEC)
    try:
        rows = list(_rows(head))
        first = min((offset for offset, _, _ in rows), default=len(head))
        os.pwrite(out, head[:first], 0)
        for offset, phys, size in rows:
            if offset + size > MOST:
                raise CoreError("a row ends beyond any memory", source="/proc/vmcore", limit=MOST)
            os.ftruncate(out, max(os.fstat(out).st_size, offset + size))
            for each in memory_held(memory, Extent.sized(phys, size)):
                _copy(out, offset + each.start - phys, memory, each, backup)
        yield f"/proc/{os.getpid()}/fd/{out}"
    finally:
        os.close(out)


def memory_held(memory: Memory, extent: Extent) -> Iterator[Extent]:
    """The parts of an extent that may hold something."""
    frames = memory.written()
    if frames is None:
        yield extent
        return
    held = sorted(frames.intersection(extent.pages))
    for _, run in groupby(enumerate(held), lambda each: each[1] - each[0]):
        pages = [frame for _, frame in run]
        whole = Extent(pages[0] * PAGE_SIZE, (pages[-1] + 1) * PAGE_SIZE)
        yield Extent(max(whole.start, extent.start), min(whole.end, extent.end))


def _copy(out: int, at: int, memory: Memory, extent: Extent, backup: tuple[Backup, ...]) -> None:
    """An extent's bytes to a place in the file."""
    for start in range(extent.start, extent.end, _PIECE):
        piece = Extent(start, min(start + _PIECE, extent.end))
        saved = next((each for each in backup if each.source.covers(piece)), None)
        moved = 0 if saved is None else saved.copy - saved.source.start
        try:
            data = memory.read(Extent(piece.start + moved, piece.end + moved))
        except MachineError as err:
            raise CoreError(str(err), source="/proc/vmcore", offset=piece.start) from err
        if data != _EMPTY[: len(data)]:
            os.pwrite(out, data, at + start - extent.start)


def _rows(head: bytes) -> Iterator[tuple[int, int, int]]:
    """(offset in the core, physical address, bytes) of each PT_LOAD.  Raises CoreError."""

    def read(offset: int, size: int) -> bytes:
        return head[offset : offset + size]

    _, _, rows = headers(read, len(head), "/proc/vmcore")
    for row in rows:
        if row[0] == elf.PT_LOAD:
            yield row[2], row[4], row[5]
