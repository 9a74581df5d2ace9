"""What the same large kernel or initrd unpacks to is worked out once in a run of the tests, and told again.

A rehearsal of Debian's kernel spends a second of CPU on unpacking it beside the walk, and hundreds of
tests rehearse the same few files.

Rules: an answer is told again only for the same bytes and the same header, and only where they are
`LARGE`: all that the tests of unpacking itself make is unpacked each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from unittest import mock

from tightrope.image import initrd_contents, kernel_unchanged, payload_contents
from tightrope.model import Buffer, Contents, Image

Told = TypeVar("Told")
ROOM = "tightrope.deeds.unpacking"
LARGE = 1 << 20
"""Bytes; below that unpacking is cheaper than asking whether it was done."""


def _digest(data: Buffer | None) -> bytes:
    return b"" if data is None else hashlib.sha256(data).digest()


def remembered_of_image(real: Callable[[Image], Told]) -> Callable[[Image], Told]:
    """The same function of an image, which remembers what it said of a large one."""
    known: dict[object, Told] = {}

    def told(image: Image) -> Told:
        if image.file_size < LARGE:
            return real(image)
        parts = tuple((each.offset, _digest(each.data)) for each in image.parts)
        said = (image.format, image.version, image.setup_header, image.payload, image.init_size)
        key = (image.source, *said, parts, _digest(image.file))
        if key not in known:
            known[key] = real(image)
        return known[key]

    return told


def remembered_of_initrd(real: Callable[[Buffer], Contents]) -> Callable[[Buffer], Contents]:
    """The same function of an initrd, which remembers what it said of a large one."""
    known: dict[bytes, Contents] = {}

    def told(initrd: Buffer) -> Contents:
        if memoryview(initrd).nbytes < LARGE:
            return real(initrd)
        key = _digest(initrd)
        if key not in known:
            known[key] = real(initrd)
        return known[key]

    return told


@contextmanager
def unpacked_once() -> Iterator[None]:
    """Rehearsals remember what large files unpacked to."""
    of_image, of_initrd = remembered_of_image, remembered_of_initrd
    with (
        mock.patch(f"{ROOM}.payload_contents", of_image(payload_contents)),
        mock.patch(f"{ROOM}.kernel_unchanged", of_image(kernel_unchanged)),
        mock.patch(f"{ROOM}.initrd_contents", of_initrd(initrd_contents)),
    ):
        yield
