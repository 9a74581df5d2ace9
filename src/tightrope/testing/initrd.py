"""The initramfs of a guest that leaves: /init, which is routines/leave_guest_64.S as an ELF
program, /new and a console.

Rules: bytes out; a command line that Linux would cut or refuse is refused here.
Source: ELF-64 Object File Format 1.5.
"""

from __future__ import annotations

import struct

from tightrope import routines
from tightrope.abi import newc
from tightrope.errors import BadInput
from tightrope.model import Buffer

BASE = 0x40_0000
"""Where the program is loaded: any address that a process may have."""
HEADERS = 64 + 56
EXECUTABLE, CHARACTER = 0o100755, 0o020600
MOST_WORDS = 2047
"""COMMAND_LINE_SIZE of x86 is 2048, with its NUL (asm/setup.h)."""


def initrd(new: Buffer, command_line: str) -> bytes:
    """The archive, for a new kernel and the command line that it is given.  Raises BadInput for one
    that Linux would refuse."""
    return b"".join(
        (
            newc.member("dev", mode=0o040755),
            newc.member("dev/console", mode=CHARACTER, device=(5, 1)),
            newc.member("init", program(command_line), mode=EXECUTABLE),
            newc.member("new", new, mode=0o100644),
            newc.member(newc.TRAILER, mode=0),
        )
    )


def program(command_line: str) -> bytes:
    """The process: an ELF file whose one segment is all of it, readable, writable, executable."""
    words = command_line.encode() + b"\0"
    if len(words) > MOST_WORDS + 1 or words.count(b"\0") > 1:
        raise BadInput(
            f"has {len(words) - 1} bytes, or a NUL: Linux takes {MOST_WORDS}",
            source="the command line",
        )
    routine = routines.read(routines.LEAVE_GUEST_64)
    code = bytearray(routine.data)
    at = routine.symbols["size"]
    code[at : at + 8] = struct.pack("<Q", len(words))
    size = HEADERS + len(code) + len(words)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    entry = BASE + HEADERS + routine.symbols["init"]
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, BASE, BASE, size, size, 4096)
    return header + segment + bytes(code) + words
