"""Comparing bytes at memory speed: memoryview's own == looks at one element after the other.

Rules: a few pages are copied and compared as bytes, which is the quickest way for them; of more
nothing is copied, and eight bytes are looked at at a time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tightrope.model import Buffer

Bytes = NDArray[np.uint8]
SMALL = 1 << 16
"""Bytes that are sooner copied than wrapped into arrays."""
PIECE = 1 << 22
"""Bytes that are compared at a time: a comparison takes an eighth of it besides."""


def alike(one: Buffer, other: Buffer) -> bool:
    """Whether two buffers hold the same bytes; buffers of different lengths do not."""
    if len(one) <= SMALL:
        return len(one) == len(other) and bytes(one) == bytes(other)
    a, b = np.frombuffer(one, np.uint8), np.frombuffer(other, np.uint8)
    if len(a) != len(b) or a.ctypes.data == b.ctypes.data:
        return len(a) == len(b)  # one buffer is like itself
    whole = len(a) & ~7
    words, others = a[:whole].view(np.uint64), b[:whole].view(np.uint64)
    pieces = (slice(at, at + PIECE // 8) for at in range(0, whole // 8, PIECE // 8))
    return all(np.array_equal(words[each], others[each]) for each in pieces) and np.array_equal(
        a[whole:], b[whole:]
    )


def any_set(data: Buffer) -> bool:
    """Whether any byte is not zero."""
    if len(data) <= SMALL:
        return bytes(data) != bytes(len(data))
    all_of = np.frombuffer(data, np.uint8)
    whole = len(all_of) & ~7
    return bool(all_of[:whole].view(np.uint64).any() or all_of[whole:].any())


def among(frames: NDArray[np.int64], ordered: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which frames are in `ordered`, which is sorted."""
    if not len(ordered):
        return np.zeros(len(frames), np.bool_)
    at = np.minimum(ordered.searchsorted(frames), len(ordered) - 1)
    there: NDArray[np.bool_] = ordered[at] == frames
    return there


def wrong(got: Buffer, wanted: Buffer) -> NDArray[np.int64]:
    """The offsets in `got` of all that is not as wanted: `wanted` first, zeros up to the end."""
    size = len(wanted)
    head, tail = memoryview(got)[:size], memoryview(got)[size:]
    out = []
    if not alike(head, wanted):
        out.append((np.frombuffer(head, np.uint8) != np.frombuffer(wanted, np.uint8)).nonzero()[0])
    if any_set(tail):
        out.append(np.frombuffer(tail, np.uint8).nonzero()[0] + size)
    return np.concatenate(out).astype(np.int64) if out else np.zeros(0, np.int64)
