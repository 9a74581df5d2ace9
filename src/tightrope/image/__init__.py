"""Kernel images: bytes in, `Image` out, or an `ImageError` that says what the bytes look like.

Nothing here opens a file, and nothing here knows a host: what an image asks for is read, where it
goes is decided in `plan`.  A format is recognised by its content, never by its file name; only a
flat binary has none, and is read as one when the caller says so.

    recognise.py      what do these bytes look like
    foreign.py        kernels of other architectures, and what only EFI starts
    bzimage.py        the Linux bzImage, header checked against file
    payload.py        the compressed kernel inside
    streams.py        compressed streams, unpacked piece by piece
    initramfs.py      whether an initrd is what Linux unpacks
    cpio.py           the archives in it
    unpacked.py       that kernel as an image of its own
    vmlinux.py        that kernel as it is linked: an old kernel, asked for its code
    kallsyms.py       its symbols, recovered from the image alone
    unified.py        the unified kernel image: a bzImage, its initrd and command line in PE sections
    certificates.py   where a PE file keeps its signatures
    unchanged.py      whether a bzImage is as it was built, by its checksum or signature
    executable.py     ELF and Multiboot kernels, and the ways into them
    elf.py            ELF headers, segments, notes
    multiboot.py      Multiboot headers
    parts.py          pieces of memory, as parts that share no page
    flat.py           bytes and an address
    compressed.py     a file that is gzip as a whole

May import: abi, errors, lzo, memory, model
"""

from __future__ import annotations

from tightrope.errors import ImageError
from tightrope.image import bzimage, compressed, flat, unified
from tightrope.image.certificates import pe_header
from tightrope.image.foreign import foreign
from tightrope.image.initramfs import initrd_contents
from tightrope.image.payload import payload_contents, unpack
from tightrope.image.recognise import has_linux_header, looks_like
from tightrope.image.unchanged import kernel_unchanged
from tightrope.image.unpacked import unpacked, within_reach
from tightrope.model import Buffer, Image

__all__ = [
    "initrd_contents",
    "kernel_unchanged",
    "payload_contents",
    "read",
    "read_flat",
    "unpack",
    "unpacked",
]


def read(data: Buffer, source: str) -> Image:
    """The image in `data`; `source` is its name in errors and reports.

    What is loaded is a read-only view into `data`: but for a gzip file, and for pages that two ELF
    segments share, no byte is copied.  Raises ImageError when the bytes are no kernel image, or one
    that does not fit its own headers.
    """
    view = memoryview(data).cast("B").toreadonly()
    if compressed.is_compressed(view):
        # Offsets in errors count from the first unpacked byte: the name says so.
        return _read(compressed.inflate(view, source), f"{source} (unpacked)")
    return _read(view, source)


def read_flat(data: Buffer, source: str, address: int, bits: int) -> Image:
    """The image of a flat binary at a physical `address`, entered at its first byte in `bits` mode.

    Raises ImageError when `bits` is neither 32 nor 64, or the bytes do not fit there.
    """
    return flat.read(memoryview(data).cast("B").toreadonly(), source, address, bits)


def _read(view: memoryview, source: str) -> Image:
    if has_linux_header(view):
        return within_reach(bzimage.read(view, source))
    sections = unified.sections(view, source)
    if unified.KERNEL in sections:
        return within_reach(unified.read(view, sections, source))
    # Here: most kernels are bzImages, and their payloads begin to be unpacked the sooner.
    from tightrope.image import executable

    if pe_header(view) is None and executable.is_executable(view, source):
        return executable.read(view, source)
    named = foreign(view, unified.names(view, source))
    raise ImageError(named or looks_like(view), source=source)
