"""The kernel inside a bzImage, as an image of its own: what `--unpack` enters.

    payload, unpacked ->  +---------------------+
                          | vmlinux, an ELF file|
                          +---------------------+
                          | relocations         |  words of 32 bits; read from the end to a zero
                          +---------------------+

The decompressor does three things besides unpacking (Linux arch/x86/boot/compressed/misc.c): it
loads the ELF file's segments, chooses an address (KASLR), and applies the relocations for it.
Here the plan loads the segments and there is no KASLR, so the kernel keeps its linked virtual
addresses:

* A 64-bit kernel moves in physical memory by itself: startup_64 corrects its tables by the distance
  that it finds (arch/x86/kernel/head64.c, __startup_64), a multiple of 2 MiB.  No relocation is
  needed.
* A 32-bit kernel's virtual addresses move with its physical ones.  Away from its linked address its
  last list of relocations (arch/x86/tools/relocs.c) is applied; without one it is not relocatable.

Rules: the setup header stays the bzImage's: boot_params wants it, and its limits are the kernel's.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING

from tightrope.abi import boot
from tightrope.abi.elf import MAGIC, PT_LOAD
from tightrope.errors import ImageError
from tightrope.image.payload import beginning, unpack
from tightrope.model import Image, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tightrope.image import elf

WORD = 4
"""Bytes of a relocation, and of what it relocates."""
VMALLOC_RESERVE = 128 << 20
"""Bytes of kernel addresses that are not lowmem; the decompressor refuses to go beyond lowmem's end
("Destination address too large", misc.c)."""
REACH_64 = 1 << 46
"""The same for a 64-bit kernel: what 4 levels of tables map directly (misc.c, 0x3fffffffffff)."""
TELLS_WIDTH = 0x020C
"""The boot protocol since which XLF_KERNEL_64 tells a 64-bit kernel from others (boot.rst)."""
LARGE_PAGE = 2 << 20
"""__startup_64 stops where the distance is not a multiple of a PMD's size."""


def unpacked(image: Image) -> Image:
    """The kernel inside, with the bzImage's setup header, initrd and command line.

    Raises ImageError when there is none, or it is not a Linux kernel; MissingPart as `unpack` does.
    """
    from tightrope.image import elf, executable  # as `read` has it

    data = memoryview(unpack(image)).toreadonly()
    source = f"{image.source} (unpacked)"
    inner = executable.read(data, source)
    own = inner.entries[0]
    if own.protocol not in (Protocol.LINUX_64, Protocol.LINUX_32):
        raise ImageError("is not a Linux kernel: it has no entry of its own", source=source)
    alignment, relocations, reach = LARGE_PAGE, None, None
    if own.bits == 32:
        kernel = elf.read(data, source)
        alignment = image.alignment
        relocations = _relocations(kernel, source, len(data))
        linked, physical, _ = kernel.linked[0]
        reach = lowmem_end(linked, physical)
    return replace(
        inner,
        setup_header=image.setup_header,
        protocol=image.protocol,
        relocatable=image.relocatable and (own.bits == 64 or relocations is not None),
        alignment=alignment,
        min_alignment=alignment,
        cmdline_limit=image.cmdline_limit,
        initrd_limit=image.initrd_limit,
        above_4g=image.above_4g,
        loadflags=image.loadflags,
        xloadflags=image.xloadflags,
        initrd=image.initrd,
        command_line=image.command_line,
        relocations=relocations,
        reach=reach,
    )


def lowmem_end(linked: int, physical: int) -> int:
    """Where a 32-bit kernel's memory that it maps itself ends, by where it is linked."""
    return (physical - linked - VMALLOC_RESERVE) & 0x7FFF_FFFF


def within_reach(image: Image) -> Image:
    """A bzImage that knows where its kernel can still run: beyond it the decompressor says
    "Destination address too large" and halts (misc.c, extract_kernel).

    A 32-bit kernel's memory split is in its ELF header, with which the payload begins.
    """
    if image.protocol < TELLS_WIDTH or image.payload is None:
        return image
    if image.xloadflags & boot.XLoadFlags.XLF_KERNEL_64:
        return replace(image, reach=REACH_64)
    head = beginning(image)
    if len(head) < 52 or head[:5] != MAGIC + b"\x01":
        return image
    (first,), (size, count) = (
        struct.unpack_from("<I", head, 28),
        struct.unpack_from("<HH", head, 42),
    )
    for at in range(first, min(first + size * count, len(head) - 16 + 1), max(size, 1)):
        kind, _, linked, physical = struct.unpack_from("<4I", head, at)
        if kind == PT_LOAD:
            return replace(image, reach=lowmem_end(linked, physical))
    return image


def _relocations(kernel: elf.Executable, source: str, file_size: int) -> NDArray[np.int64] | None:
    """Offsets from the image's base of the words that move with it, sorted; None where none are
    appended.

    Raises ImageError for one that is in no segment's bytes, or that overlaps another.
    """
    import numpy as np

    tail = np.frombuffer(kernel.behind[len(kernel.behind) % WORD :], "<u4")
    zeros = np.nonzero(tail == 0)[0]
    if not len(zeros):
        return None
    virtual = np.sort(tail[zeros[-1] + 1 :].astype(np.int64))
    if not len(virtual):
        return None

    def refusal(problem: str) -> ImageError:
        return ImageError(problem, source=source, field="relocations", offset=file_size)

    if (np.diff(virtual) < WORD).any():
        raise refusal("two of them overlap")
    offsets = np.full(len(virtual), -1, np.int64)
    base = min(piece.start for piece in kernel.pieces)
    for linked, physical, size in kernel.linked:
        inside = (virtual >= linked) & (virtual + WORD <= linked + size)
        offsets[inside] = virtual[inside] - linked + physical - base
    if (offsets < 0).any():
        stray = int(virtual[int(np.argmax(offsets < 0))])
        raise refusal(f"{stray:#x} is in no PT_LOAD segment's bytes")
    return offsets
