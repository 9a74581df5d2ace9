"""A flattened dump: what somebody wrote into a pipe, put in its places again.

    0      "makedumpfile", type 1, version 1, big-endian; then nothing up to 4096
    4096   offset, size (64 bits each, big-endian), that many bytes        again and again
           -1, -1                                                          the end

The bytes of a file, as (where, what), in the order in which they were written: a later record may
write over an earlier one, and what no record wrote is zeros.  makedumpfile -F writes it, and QEMU's
dump-guest-memory whenever it is asked for a kdump format (but its kdump-raw-*).

Source: makedumpfile.h, struct makedumpfile_header and makedumpfile_data_header, and IMPLEMENTATION
in its tree; QEMU dump/dump.c, write_buffer().

Rules: the records are walked once, and their bytes are read where they lie.  A file that was cut
short gives what it has.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tightrope.errors import CoreError
from tightrope.model.dump import Data

SIGNATURE = b"makedumpfile\0"
_FIRST = 4096
_RECORD = struct.Struct(">qq")
_AHEAD = 4096
"""Bytes that are read to look for the next record: small ones lie close together."""
RECORDS_LIMIT = 1 << 23
"""makedumpfile writes some MiB at once, QEMU some pages: 8 Mi records are a dump of terabytes."""
_REWRITTEN_LIMIT = 1 << 24
"""Pieces that may be written over; writers rewrite their headers and little more."""

I64 = NDArray[np.int64]


class Flattened:
    """The file that the records make; see `model.dump.Data`."""

    def __init__(self, data: Data, source: str) -> None:
        """Raises CoreError for records that are none."""
        self._data, self._source = data, source
        starts, ends, places = _records(data, source)
        self._starts, self._ends, self._places = _apart(starts, ends, places, source)
        self.size = int(ends.max()) if len(ends) else 0
        """Bytes up to the last that was written."""

    def read(self, offset: int, size: int) -> bytes:
        """These bytes, zeros where nobody wrote any; the caller stays inside."""
        number = int(np.searchsorted(self._ends, offset, side="right"))
        if number < len(self._ends):
            start, end = int(self._starts[number]), int(self._ends[number])
            if start <= offset and offset + size <= end:
                return self._data.read(int(self._places[number]) + offset - start, size)
        out = bytearray(size)
        while number < len(self._starts) and self._starts[number] < offset + size:
            start, end = int(self._starts[number]), int(self._ends[number])
            first, last = max(start, offset), min(end, offset + size)
            piece = self._data.read(int(self._places[number]) + first - start, last - first)
            out[first - offset : last - offset] = piece
            number += 1
        return bytes(out)


def _records(data: Data, source: str) -> tuple[I64, I64, I64]:
    """Where each record's bytes belong, where they end, and where they are."""
    columns = array("q"), array("q"), array("q")
    for at, offset, size in _each(data, source):
        for column, value in zip(columns, (offset, offset + size, at), strict=True):
            column.append(value)
        if len(columns[0]) > RECORDS_LIMIT:
            raise CoreError(
                "more records than are read", source=source, offset=at, limit=RECORDS_LIMIT
            )
    starts, ends, places = (np.frombuffer(each, np.int64) for each in columns)
    return starts, ends, places


def _each(data: Data, source: str) -> Iterator[tuple[int, int, int]]:
    """(place of its bytes, offset, size) of each record that has bytes in the file."""
    at, window, begins = _FIRST, b"", 0
    while at + _RECORD.size <= data.size:
        if not begins <= at <= begins + len(window) - _RECORD.size:
            begins, window = at, data.read(at, min(_AHEAD, data.size - at))
        offset, size = _RECORD.unpack_from(window, at - begins)
        if (offset, size) == (-1, -1):
            return
        if offset < 0 or size <= 0 or offset + size > (1 << 63) - 1:
            raise CoreError(
                f"a record of {size:,} bytes at {offset:#x}: the flattened dump is damaged",
                source=source,
                offset=at,
            )
        at += _RECORD.size
        if have := min(size, data.size - at):
            yield at, offset, have
        at += size


def _apart(starts: I64, ends: I64, places: I64, source: str) -> tuple[I64, I64, I64]:
    """The same sorted, without what a later record wrote over."""
    order = np.argsort(starts, kind="stable")
    sorted_starts, reached = starts[order], np.maximum.accumulate(ends[order])
    if not (sorted_starts[1:] < reached[:-1]).any():
        return sorted_starts, ends[order], places[order]
    # Cut at every start and end: a record is a run of such pieces, and its last writer has it.
    cuts = np.unique(np.concatenate([starts, ends]))
    first, last = np.searchsorted(cuts, starts), np.searchsorted(cuts, ends)
    if int((last - first).sum()) > _REWRITTEN_LIMIT:
        raise CoreError(
            "records write over one another more than can be sorted",
            source=source,
            limit=_REWRITTEN_LIMIT,
        )
    writer = np.full(len(cuts), -1, np.int64)
    for number, (begin, end) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        writer[begin:end] = number
    pieces = np.nonzero(writer >= 0)[0]
    whose = writer[pieces]
    return cuts[pieces], cuts[pieces + 1], places[whose] + cuts[pieces] - starts[whose]
