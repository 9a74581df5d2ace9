"""The kernel inside an image as an old kernel is asked: bytes by linked address, and symbols.

Rules: whatever `read` takes is taken, and an uncompressed vmlinux.  Symbols come from the image
itself, or from a text that says them; which of the two is the caller's word.
"""

from __future__ import annotations

import re

from tightrope.errors import ImageError
from tightrope.image import bzimage, compressed, elf, kallsyms, unified
from tightrope.image.payload import unpack
from tightrope.image.recognise import has_linux_header, looks_like
from tightrope.memory import Virt
from tightrope.model import Buffer
from tightrope.model.vmlinux import LinkedSegment, Symbols, Vmlinux

XEN = re.compile(rb"Xen version %d\.%d")
"""What a hypervisor says of itself (xen/common/kernel.c, xen/drivers/char/console.c)."""
"""/proc/kallsyms and System.map: address, kind, name; a module's symbols have its name behind a
tab."""


def read(data: Buffer, source: str, symbols: Symbols | None = None) -> Vmlinux:
    """The kernel in a bzImage, a unified kernel image, a vmlinux, or a gzip file of one.

    Its own symbols unless others are given; None where it has none.  Raises ImageError when there
    is no kernel in it; MissingPart when unpacking or reading it needs a package that is not
    installed.
    """
    view = memoryview(data).cast("B").toreadonly()
    if compressed.is_compressed(view):
        view, source = compressed.inflate(view, source), f"{source} (unpacked)"
    if has_linux_header(view):
        return _from_elf(unpack(bzimage.read(view, source)), f"{source} (unpacked)", symbols)
    sections = unified.sections(view, source)
    if unified.KERNEL in sections:
        unpacked = unpack(unified.read(view, sections, source))
        return _from_elf(unpacked, f"{source} (unpacked)", symbols)
    if not elf.is_elf(view):
        raise ImageError(looks_like(view), source=source)
    return _from_elf(view, source, symbols)


def hypervisor(data: Buffer, source: str) -> tuple[LinkedSegment, ...] | None:
    """The segments of a Multiboot ELF file that names itself Xen, or of a gzip file of one; else
    None.

    Raises ImageError for a file that is cut.
    """
    view = memoryview(data).cast("B").toreadonly()
    if compressed.is_compressed(view):
        view = compressed.inflate(view, source)
    if not elf.is_elf(view):
        return None
    file = elf.read(view, source)
    if file.linux or not XEN.search(view):
        return None
    by_place = {piece.start: piece.data for piece in file.pieces}
    return tuple(
        LinkedSegment(virt=Virt(virt), data=by_place[phys])
        for virt, phys, size in file.linked
        if size
    )


def _from_elf(data: Buffer, source: str, symbols: Symbols | None) -> Vmlinux:
    file = elf.read(memoryview(data).toreadonly(), source)
    if not file.linux:
        raise ImageError("is not a Linux kernel: there is no banner in it", source=source)
    by_place = {piece.start: piece.data for piece in file.pieces}
    segments = tuple(
        LinkedSegment(virt=Virt(virt), data=by_place[phys])
        for virt, phys, size in file.linked
        if size
    )
    if symbols is None:
        symbols = kallsyms.recover(segments, file.bits)
    return Vmlinux(
        source=source, bits=file.bits, version=file.version, segments=segments, symbols=symbols
    )
