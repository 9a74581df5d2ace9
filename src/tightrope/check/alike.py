"""Comparing bytes at memory speed: memoryview's own == looks at one element after the other.

Rules: eight bytes at a time, and no copy of either side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tightrope.model import Buffer

Bytes = NDArray[np.uint8]


def alike(one: Buffer, other: Buffer) -> bool:
    """Whether two buffers hold the same bytes; buffers of different lengths do not."""
    a, b = np.frombuffer(one, np.uint8), np.frombuffer(other, np.uint8)
    whole = len(a) & ~7
    return len(a) == len(b) and bool(
        np.array_equal(a[:whole].view(np.uint64), b[:whole].view(np.uint64))
        and np.array_equal(a[whole:], b[whole:])
    )


def any_set(data: Buffer) -> bool:
    """Whether any byte is not zero."""
    all_of = np.frombuffer(data, np.uint8)
    whole = len(all_of) & ~7
    return bool(all_of[:whole].view(np.uint64).any() or all_of[whole:].any())


def wrong(got: Buffer, wanted: Buffer) -> NDArray[np.int64]:
    """The offsets in `got` of all that is not as wanted: `wanted` first, zeros up to the end."""
    size = len(wanted)
    head, tail = memoryview(got)[:size], memoryview(got)[size:]
    out = np.zeros(0, np.int64)
    if not alike(head, wanted):
        out = np.nonzero(np.frombuffer(head, np.uint8) != np.frombuffer(wanted, np.uint8))[0]
    elif any_set(tail):
        out = np.nonzero(np.frombuffer(tail, np.uint8))[0] + size
    return out.astype(np.int64)
