"""The pages of a compressed dump as if they lay in a row, each unpacked when it is asked for.

    descriptor n   offset (64 bits), size, flags (32 bits each), page_flags (64)        24 bytes
      -> bytes n * 4096 of what `read` knows

Source: makedumpfile diskdump_mod.h, struct page_desc, DUMP_DH_COMPRESSED_*; 0 is a page as it was.

Rules: pages that are asked for again and again (a log, a table) are kept, a few of them.  A page
that does not unpack is a CoreError which names it; nothing is made up in its place.
"""

from __future__ import annotations

import struct
from collections import OrderedDict

from tightrope.errors import CoreError
from tightrope.memory import PAGE_SIZE
from tightrope.model.dump import Compression, Data
from tightrope.vmcore.codecs import unpack

DESCRIPTOR = struct.Struct("<QIIQ")
BY_FLAG = {
    1: Compression.ZLIB,
    2: Compression.LZO,
    4: Compression.SNAPPY,
    0x20: Compression.ZSTD,
}
KEPT = 64
"""Unpacked pages."""


class Packed:
    """See `model.dump.Data`; `descriptors` is where the first one lies, of `count`."""

    def __init__(self, data: Data, source: str, *, descriptors: int, count: int) -> None:
        self._data, self._source, self._descriptors = data, source, descriptors
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self.size = count * PAGE_SIZE
        """Bytes of all pages that have a descriptor."""

    def read(self, offset: int, size: int) -> bytes:
        """These of them; the caller stays inside.  Raises CoreError for a page that does not
        unpack, MissingPart where what unpacks it is not installed."""
        first, into = divmod(offset, PAGE_SIZE)
        if into + size <= PAGE_SIZE:
            return self._page(first)[into : into + size]
        last = (offset + size - 1) // PAGE_SIZE
        pages = b"".join(self._page(number) for number in range(first, last + 1))
        return pages[into : into + size]

    def _page(self, number: int) -> bytes:
        if (kept := self._kept.get(number)) is not None:
            return kept
        page = self._kept[number] = self._unpacked(number)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return page

    def _unpacked(self, number: int) -> bytes:
        at = self._descriptors + number * DESCRIPTOR.size
        offset, size, flags, _ = DESCRIPTOR.unpack(self._data.read(at, DESCRIPTOR.size))
        data = self._data.read(offset, size)
        if not flags and size == PAGE_SIZE:
            return data
        try:
            how = BY_FLAG.get(flags)
            if how is None:
                raise ValueError(f"{size:,} bytes packed in a way that nobody knows, {flags:#x}")
            return unpack(how, data, PAGE_SIZE)
        except ValueError as err:
            raise CoreError(
                f"page {number:,} of the dump does not unpack: {err}",
                source=self._source,
                offset=offset,
            ) from err
