"""The page list, word for word as Linux's kimage_add_entry() writes it (kernel/kexec_core.c).

    head --IND_INDIRECTION--> page:  D S S S ... S  I --> page:  S S ... S  D S S ...  DONE
                                     511 words    1

Rules: one IND_DESTINATION per segment, then one IND_SOURCE per page of its memsz, zero tail
included; a page that is in place already is its own source.  The last word of a full page of the
list is IND_INDIRECTION to the next.  All arrays; no Python call per page.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tightrope.memory import PAGE_SHIFT
from tightrope.model import ZERO_FRAME

IND_DESTINATION, IND_INDIRECTION, IND_DONE, IND_SOURCE = 1, 2, 4, 8
"""Linux include/linux/kexec.h."""
IND_ZERO = 0x10
"""Xen's own: a page without a source is cleared (xen/include/xen/kimage.h)."""
WORDS = 512
"""Words of a page of the list on a 64-bit kernel, 1024 on a 32-bit one; the last one is the link.
"""


def list_length(segments: int, pages: int, *, per_page: int = WORDS) -> int:
    """Pages that the list itself needs."""
    words = segments + pages + 1
    return -(-words // (per_page - 1))


def words(runs: Iterable[tuple[int, NDArray[np.int64]]]) -> NDArray[np.uint64]:
    """The list as one array: per run (first destination frame, source frames), then IND_DONE."""
    shift, source = np.uint64(PAGE_SHIFT), np.uint64(IND_SOURCE)
    parts: list[NDArray[np.uint64]] = []
    for first, sources in runs:
        parts.append(np.array([first << PAGE_SHIFT | IND_DESTINATION], np.uint64))
        word = sources.astype(np.uint64) << shift | source
        word[sources == ZERO_FRAME] = IND_ZERO
        parts.append(word)
    parts.append(np.array([IND_DONE], np.uint64))
    return np.concatenate(parts)


def chained(
    flat: NDArray[np.uint64], frames: NDArray[np.int64], *, per_page: int = WORDS
) -> tuple[int, dict[int, NDArray[np.unsignedinteger]]]:
    """The head word, and frame address -> the words of its page, as wide as the kernel's.

    `frames` has exactly the frames that the list needs.
    """
    count = -(-len(flat) // (per_page - 1))
    assert len(frames) == count
    rows = np.zeros((count, per_page), np.uint64)
    padded = np.zeros(count * (per_page - 1), np.uint64)
    padded[: len(flat)] = flat
    rows[:, : per_page - 1] = padded.reshape(count, per_page - 1)
    addresses = frames.astype(np.uint64) << np.uint64(PAGE_SHIFT)
    rows[:-1, per_page - 1] = addresses[1:] | np.uint64(IND_INDIRECTION)
    rows = rows.astype(np.dtype(f"<u{4096 // per_page}"))
    pages = {int(address): row for address, row in zip(addresses, rows, strict=True)}
    return int(addresses[0]) | IND_INDIRECTION, pages
