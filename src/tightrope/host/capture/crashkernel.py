"""The regions of crashkernel=, assumed where no file tells their places: what was asked for, and how much there is.

    crashkernel=192M,high crashkernel=72M,low     264 MiB in kexec_crash_size
        -> 192 MiB at the top of RAM, 72 MiB below 4 GiB

Sources: kernel/crash_reserve.c, parse_crashkernel and reserve_crashkernel_generic: SIZE without a
suffix comes before SIZE,high; without a place below 4 GiB it falls back to one above; an image
above 4 GiB has a low region beside it, of 256 MiB where nobody says otherwise.
crash_get_memory_size: 6.12 counts the low region as well, 6.1 the image's alone.

Rules: what is not on the command line in this form is one region, as large as is told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tightrope.host.capture.limits import SIZE, memparse
from tightrope.memory import Extent, align_down, subtract

ALIGNMENT = 16 << 20
"""CRASH_ALIGN of arch/x86."""
LOW = 256 << 20
"""DEFAULT_CRASH_KERNEL_LOW_SIZE of arch/x86, where swiotlb= is not larger."""
_BELOW, _LOWEST = 4 << 30, 1 << 20
_WORD = re.compile(rf"crashkernel={SIZE}(,high|,low|)")


def regions(command_line: str, told: int, free: Sequence[Extent]) -> list[Extent]:
    """In the order of their places, the image's last; nothing where it does not fit into `free`."""
    asked = _asked(command_line)
    size = asked.get("") or asked.get(",high") or told
    low = told - size if 0 < size < told else 0
    high = bool(low) or ("" not in asked and ",high" in asked)
    below = subtract(free, [Extent(_BELOW, 1 << 64)])
    image = _highest(free if high else below, told - low)
    if image is None:
        return []
    if high and not low and image.start >= _BELOW:
        low = asked.get(",low", LOW)
    beside = _highest(subtract(below, [image]), low) if low else None
    return [image] if beside is None else [beside, image]


def _asked(command_line: str) -> dict[str, int]:
    """Bytes by what stands behind them; of several the last counts (get_last_crashkernel)."""
    found = {}
    for word in command_line.split():
        if parts := _WORD.fullmatch(word):
            found[parts[3]] = memparse(parts[1], parts[2])
    return found


def _highest(extents: Sequence[Extent], size: int) -> Extent | None:
    """The last `size` bytes above the first MiB, aligned as Linux does."""
    for extent in reversed(extents):
        start = align_down(max(extent.end - size, 0), ALIGNMENT)
        if start >= _LOWEST and extent.covers(Extent.sized(start, size)):
            return Extent.sized(start, size)
    return None
