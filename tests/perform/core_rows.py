"""The core header that lies in a guest's crash region, whoever loaded it: Linux by kexec_file_load, or a plan of ours.

Rules: nothing is asserted here.  The guest's memory is read from outside, through QEMU's file.
"""

from __future__ import annotations

import base64
import gzip
import re
import struct

from tests.crash.reader import CoreHeader, core_header
from tests.perform.dom0 import Guest
from tightrope.memory import Extent

NAMED = re.compile(rb"elfcorehdr=0x([0-9a-f]+)")
"""On the command line that a crash kernel is handed, which lies in the region as well."""


def in_region(guest: Guest, region: Extent, *, but: int | None = None) -> tuple[int, CoreHeader]:
    """Where the header is that a command line in the region names, and what it says.

    `but` is that of a load before, whose bytes nobody took away.
    """

    def read(at: int, size: int) -> bytes:
        return bytes(guest.pc.ram.read(Extent.sized(at, size)))

    named = {int(found[1], 16) for found in NAMED.finditer(read(region.start, region.size))}
    (at,) = [each for each in named if each != but and read(each, 4) == b"\x7fELF"]
    offset, entry, count = struct.unpack("<Q14xHH", read(at + 32, 26))
    return at, core_header(read(at, offset + entry * count))


TYPED = 3000
"""Characters of a line: a terminal takes 4096 (N_TTY_BUF_SIZE)."""


def typed(guest: Guest, name: str, data: bytes) -> None:
    """A small file in a guest that has no driver of its disk, typed on its console.

    Raises AssertionError where it does not get there whole.
    """
    text = base64.b64encode(gzip.compress(data)).decode()
    for at in range(0, len(text), TYPED):
        guest.do(f"echo {text[at : at + TYPED]} >> {name}.typed")
    if guest.do(f"base64 -d {name}.typed | gunzip > {name}")[0]:
        raise AssertionError(f"{name} did not get into the guest")
