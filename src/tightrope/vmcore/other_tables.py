"""Whether VMCOREINFO speaks of another boot: the tables that a core really has, found without it.

A pgd that was overwritten and a note that names the wrong frame look alike from the note: nothing
is mapped where it says.  The rest of memory tells them apart.

    every frame of the core          walked as if it were a pgd, all at once
      -> candidates                  lead to tables that are held, where a kernel has its text
      -> tables of a kernel          whole, and they map themselves: a kernel reaches its own pgd
      -> the symbols, under those    all where the note puts them: the named pgd was overwritten
                                     elsewhere, or the named frame is a table of these: another boot
      -> their root, in the image    a kernel has one pgd there, and the note names another: of
                                     another build; text is mapped in one piece, so any symbol fits

Rules: asked only when no symbol of the note is where it should be, because it reads the whole core.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tightrope.errors import CoreError
from tightrope.memory import PAGE_SIZE, Extent, Phys
from tightrope.model.dump import U64, Core, Standing
from tightrope.model.pgd import Sweep
from tightrope.model.root import Anchor, Root
from tightrope.vmcore.sweep import ladder_of, sweep, tables_below
from tightrope.x86.ladder import PS, Ladder, P

MOST_TRIED = 32
"""Candidates that are swept: a kernel has a pgd for each process, and one of them is enough."""
FRAMES_AT_ONCE = 4096
IMAGE = Extent.sized(0xFFFF_FFFF_8000_0000, 1 << 30)
"""The linear addresses of a 64-bit kernel's image (Linux Documentation/arch/x86/x86_64/mm.rst)."""


def foreign_to(core: Core, root: Root, *, physical_bits: int) -> Phys | None:
    """The pgd of the kernel whose memory this is, where VMCOREINFO is of another; else None."""
    for phys, found in _kernels(core, root, physical_bits):
        elsewhere = any(translate(found, each) != each.phys for each in root.anchors)
        if elsewhere or _in_image(found, phys):
            return phys
        if root.phys & -PAGE_SIZE in tables_below(core, replace(root, phys=phys)):
            return phys
    return None


def _in_image(found: Sweep, frame: int) -> bool:
    """Whether a frame is mapped where x86_64's kernels have their image; a process's pgd is not."""
    image = (found.virt >= np.uint64(IMAGE.start)) & (found.virt < np.uint64(IMAGE.end))
    covers = (found.phys <= np.uint64(frame)) & (np.uint64(frame) - found.phys < found.size)
    return bool((image & covers).any())


def translate(found: Sweep, anchor: Anchor) -> int | None:
    """Where swept tables map an address."""
    at = int(np.searchsorted(found.virt, np.uint64(anchor.virt), side="right")) - 1
    if at < 0:
        return None
    into = anchor.virt - int(found.virt[at])
    return int(found.phys[at]) + into if into < int(found.size[at]) else None


def _kernels(core: Core, root: Root, physical_bits: int) -> Iterator[tuple[Phys, Sweep]]:
    """Frames that are the root of whole tables which map the frame itself."""
    tried = 0
    for frame in _candidates(core, root):
        if frame == root.phys & -PAGE_SIZE:
            continue
        if (tried := tried + 1) > MOST_TRIED:
            return
        phys = Phys(frame)
        try:
            found = sweep(core, replace(root, phys=phys), physical_bits=physical_bits)
        except CoreError:
            continue  # it leads to itself: no tables
        if found.missing.count or found.reserved.count or not len(found.virt):
            continue
        if bool(((found.phys <= frame) & (frame - found.phys < found.size)).any()):
            yield phys, found


def _candidates(core: Core, root: Root) -> Iterator[int]:
    """Frames whose entry for the first symbol leads to a held table, and so on but for two levels.

    The last two levels hold what KASLR moves; where text begins above them it does not change.
    """
    virt, ladder = int(root.anchors[0].virt), ladder_of(core, root)
    rungs = ladder.rungs[:-2] or ladder.rungs[:1]
    for extent in core.extents:
        first, last = -(-extent.start // PAGE_SIZE), extent.end // PAGE_SIZE
        for begin in range(first, last, FRAMES_AT_ONCE):
            frames = np.arange(begin, min(begin + FRAMES_AT_ONCE, last), dtype=np.uint64)
            frames = frames * np.uint64(PAGE_SIZE)
            table = frames
            for rung in rungs:
                at = (virt >> rung.low & rung.slots) * ladder.entry_size
                frames, table = _step(core, ladder, frames, table, at)
            yield from frames.tolist()


def _step(core: Core, ladder: Ladder, frames: U64, table: U64, at: int) -> tuple[U64, U64]:
    """One level down: the frames whose way goes on, and the tables that it comes to."""
    held = core.standing(table) == Standing.HELD
    frames, table = frames[held], table[held]
    word = (page[at : at + ladder.entry_size] for page in core.pages(table))
    entries = np.array([int.from_bytes(each, "little") for each in word], np.uint64)
    present = entries & np.uint64(P | PS) == P
    return frames[present], entries[present] & np.uint64(ladder.frame_mask)
