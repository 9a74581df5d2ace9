"""What a guest has loaded: its struct kimage, the page list, and the segments' bytes.

    struct kimage   head, entry, last_entry, start, control_code_page, swap_page, ...,
                    nr_segments, segment[16]: buf, bufsz, mem, memsz

In 32 bits the control page is not told from its struct page: the call itself has it.

Source: Linux include/linux/kexec.h of 6.1 to 7.3; what lies between swap_page and nr_segments has
changed, so that is looked for: a count, and so many rows of whole pages.

Rules: what it reads is what is there.  A list that does not end or leads out of memory is told
as such, in `Image.broken`, and what was read up to there is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tightrope.deeds.watch.kernel import SOURCE, GuestKernel
from tightrope.deeds.watch.memory import GuestMemory
from tightrope.deeds.watch.width import Width
from tightrope.errors import BadInput, MachineError
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE, Extent
from tightrope.model import ZERO_FRAME

DESTINATION, INDIRECTION, DONE, LIST_SOURCE = 1, 2, 4, 8
CLEARS = 0x10
"""IND_ZERO: Xen's alone."""
HEADER = 512
ROWS = 16
STRUCT_PAGE = 64
"""sizeof(struct page) on x86_64."""
BEFORE_TYPE, CRASH = 7, 1
"""Words between the segments and the flags of 6.1: three lists of pages and the next control page;
KEXEC_TYPE_CRASH is their lowest bit."""
MOST_PAGES = 1 << 20
"""Pages that are copied at most: 4 GiB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KImage:
    """A struct kimage and what hangs on it."""

    at: int
    crash: bool
    head: int
    start: int
    control_page: int
    segments: tuple[tuple[Extent, int], ...]
    """(mem and memsz, bufsz) of each."""
    list_pages: Mapping[int, bytes]
    """Frame address -> the bytes of each page of the list."""
    destinations: NDArray[np.int64]
    sources: NDArray[np.int64]
    """Frame numbers, as the list has them."""
    broken: str | None
    """What is wrong with the list, None when it ends as it should."""
    mapped: tuple[Extent, ...] = ()
    """Xen's segments without a buffer: nothing is copied there, and the image can reach it."""


def read_kimage(memory: GuestMemory, kernel: GuestKernel, at: int) -> KImage:
    """What is about to be entered.  Raises BadInput where that is no kimage."""
    width = kernel.width
    data = memory.virt(kernel.mmu, at, HEADER + width.row.size * (ROWS + 2))
    head, _entry, _last, start, control = (
        width.word.unpack_from(data, number * width.size)[0] for number in range(5)
    )
    rows, behind = _segments(data, width)
    frame = 0
    if width.bits == 64:
        vmemmap = memory.word(kernel.mmu, kernel.address("vmemmap_base"))
        frame, rest = divmod(control - vmemmap, STRUCT_PAGE)
        if rest or not 0 < frame < 1 << 40:
            raise BadInput(
                "its kimage has no control page", source=SOURCE, field="control_code_page"
            )
        crash = memory.word(kernel.mmu, kernel.address("kexec_crash_image")) == at
    else:
        crash = bool(width.word.unpack_from(data, behind + BEFORE_TYPE * width.size)[0] & CRASH)
    pages, destinations, sources, broken = read_list(memory, head, width)
    return KImage(
        at=at,
        crash=crash,
        head=head,
        start=start,
        control_page=frame << PAGE_SHIFT,
        segments=rows,
        list_pages=pages,
        destinations=destinations,
        sources=sources,
        broken=broken,
    )


def _segments(data: bytes, width: Width) -> tuple[tuple[tuple[Extent, int], ...], int]:
    """The rows, and the offset behind the last that there could be.  Raises BadInput where none
    are to be found."""
    for offset in range(6 * width.size, HEADER - 8, width.size):
        (count,) = width.word.unpack_from(data, offset)
        if not 1 <= count <= ROWS:
            continue
        begins = offset + width.size
        rows = [width.row.unpack_from(data, begins + width.row.size * n) for n in range(count)]
        if all(
            memsz and bufsz <= memsz and not (mem | memsz) % PAGE_SIZE and mem + memsz < 1 << 52
            for _buf, bufsz, mem, memsz in rows
        ):
            found = tuple((Extent.sized(mem, memsz), bufsz) for _, bufsz, mem, memsz in rows)
            return found, begins + width.row.size * ROWS
    raise BadInput("its kimage has no segments", source=SOURCE, field="kexec_segment")


def read_list(
    memory: GuestMemory, head: int, width: Width, *, clears: bool = False
) -> tuple[dict[int, bytes], NDArray[np.int64], NDArray[np.int64], str | None]:
    """The page list from its first word on: its pages, destinations, sources, and what is broken.

    With `clears` a page may have no source: it is ZERO_FRAME.
    """
    pages: dict[int, bytes] = {}
    destinations: list[int] = []
    sources: list[int] = []
    broken: str | None = None
    destination: int | None = None
    words = iter((head,))
    while broken is None:
        word = next(words, None)
        if word is None:
            broken = "a page of it ends without a word that leads on"
        elif word & DONE:
            break
        elif word & INDIRECTION:
            frame = word & -PAGE_SIZE
            if frame in pages:
                broken = f"it leads back to {frame:#x}"
                break
            try:
                pages[frame] = memory.phys(frame, PAGE_SIZE)
            except MachineError:
                broken = f"it leads to {frame:#x}, where there is no memory"
                break
            words = iter(np.frombuffer(pages[frame], f"<u{width.size}").tolist())
        elif word & DESTINATION:
            destination = word >> PAGE_SHIFT
        elif word & LIST_SOURCE:
            if destination is None:
                broken = "it has a source before any destination"
                break
            destinations.append(destination)
            sources.append(word >> PAGE_SHIFT)
            destination += 1
            if len(sources) > MOST_PAGES:
                broken = f"it has more than {MOST_PAGES} sources"
        elif clears and word & CLEARS and destination is not None:
            destinations.append(destination)
            sources.append(ZERO_FRAME)
            destination += 1
        elif word:
            broken = f"{word:#x} is not a word of a list"
    return pages, np.array(destinations, np.int64), np.array(sources, np.int64), broken


def bytes_of(memory: GuestMemory, image: KImage) -> tuple[bytes, ...]:
    """Each segment as it will be when everything is copied: the sources' bytes, page by page.

    A crash image lies where it is.  Pages that the list leaves out are read where they lie.
    """
    if image.crash:
        return tuple(memory.phys(extent.start, extent.size) for extent, _ in image.segments)
    lies = dict(zip(image.destinations.tolist(), image.sources.tolist(), strict=True))
    found = []
    for extent, _ in image.segments:
        frames = np.array([lies.get(page, page) for page in extent.pages], np.int64)
        found.append(_gathered(memory, frames))
    return tuple(found)


def _gathered(memory: GuestMemory, frames: NDArray[np.int64]) -> bytes:
    """The bytes of frames in their order, run by run of frames that follow or precede each
    other; of ZERO_FRAME they are zeros."""
    out = np.zeros((len(frames), PAGE_SIZE), np.uint8)
    order = np.argsort(frames, kind="stable")
    order = order[frames[order] != ZERO_FRAME]
    rising = frames[order]
    cuts = np.nonzero(np.diff(rising) > 1)[0] + 1
    for run in np.split(np.arange(len(rising)), cuts):
        if not len(run):
            continue
        first, last = int(rising[run[0]]), int(rising[run[-1]])
        data = memory.phys(first << PAGE_SHIFT, (last - first + 1) << PAGE_SHIFT)
        rows = np.frombuffer(data, np.uint8).reshape(-1, PAGE_SIZE)
        out[order[run]] = rows[rising[run] - first]
    return out.tobytes()
