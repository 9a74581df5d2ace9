"""Kernel images: bytes in, `Image` out, or an `ImageError` that says what the bytes look like.

Nothing here opens a file, and nothing here knows a host: what an image asks for is read, where it
goes is decided in `plan`.  A format is recognised by its content, never by its file name.

    recognise.py   what do these bytes look like
    bzimage.py     the Linux bzImage, header checked against file
    certificates.py   where a PE file keeps its signatures
    payload.py     the compressed kernel inside

May import: abi, errors, memory, model
"""

from __future__ import annotations

from tightrope.errors import ImageError
from tightrope.image import bzimage
from tightrope.image.payload import unpack
from tightrope.image.recognise import has_linux_header, looks_like
from tightrope.model import Buffer, Image

__all__ = ["read", "unpack"]


def read(data: Buffer, source: str) -> Image:
    """The image in `data`; `source` is its name in errors and reports.

    `Image.kernel` is a read-only view into `data`: no byte is copied.  Raises ImageError when the
    bytes are no bzImage, or one whose header does not fit the file.
    """
    view = memoryview(data).cast("B").toreadonly()
    if has_linux_header(view):
        return bzimage.read(view, source)
    raise ImageError(looks_like(view), source=source)
