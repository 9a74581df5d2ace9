"""The shipped kernel: a small bzImage that checks what it was handed and says so on the serial
port.

Rules: the bytes in `kernel.bzimage` are those of `kernel.S`, which is where its checks and lines
are written down; a test assembles it again, nobody does at run time.  This file only hands the
bytes out and knows the one word of the command line that the kernel reads.

May import: abi
"""

from __future__ import annotations

import struct
import zlib
from importlib import resources

from tightrope.abi import newc

INITRD_SUM = "tightrope.initrd="
"""The word's beginning; eight hex digits follow: the Adler-32 (RFC 1950) that the initrd must
have."""


EXAMPLE_INITRD = 1 << 18
"""Bytes of the example initrd."""
READABLE = 0o100444


def read() -> bytes:
    """The bytes of the bzImage, boot sector first."""
    return resources.files(__name__).joinpath("kernel.bzimage").read_bytes()


def initrd_argument(initrd: bytes | bytearray | memoryview) -> str:
    """The command-line word that makes the shipped kernel compare the initrd it is handed."""
    return f"{INITRD_SUM}{zlib.adler32(initrd):08x}"


def example_initrd() -> bytes:
    """A cpio archive of a quarter of a MiB that differs from page to page.

    For a rehearsal without an initrd: the shipped kernel only sums it, and Linux would unpack it.
    """
    end = newc.member(newc.TRAILER, mode=READABLE)
    size = EXAMPLE_INITRD - len(newc.member("numbers", mode=READABLE) + end)
    count = size // 8 + 1
    numbers = struct.pack(f"<{count}Q", *range(count))
    return newc.member("numbers", numbers[:size], mode=READABLE) + end
