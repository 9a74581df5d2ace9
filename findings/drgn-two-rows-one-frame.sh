#!/usr/bin/env bash
# drgn reads what an ELF core leaves out as zeros, and of two rows for one frame it believes the last.
#
# Seen with drgn 0.3.0.  Guesses beforehand: bytes between p_filesz and p_memsz, which is how a filtered dump
# says that pages were left out, are a FaultError ("not saved"), as excluded pages of a compressed dump are;
# and of two PT_LOADs with the same p_paddr the first is read, as a table is searched from its beginning.
#
# What it costs: a page table that was filtered away looks like one of zeros; and a kernel's text row, which
# stands first and again in the row of all RAM, is never the one that is read.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip --quiet --disable-pip-version-check install drgn==0.3.0

venv/bin/python - <<'PYTHON'
import struct
from importlib.metadata import version

from drgn import FaultError, Program

print("drgn", version("drgn"))
KEYS = "OSRELEASE=6.12.0\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffffffff81000000\nKERNELOFFSET=0\n"
DIRECT = 0xFFFF888000000000


def core(*rows):
    """An ELF core of rows (physical address, bytes, p_memsz)."""
    text = KEYS.encode()
    note = struct.pack("<III", 11, len(text), 0) + b"VMCOREINFO\0\0" + text + bytes(-len(text) % 4)
    at = 64 + 56 * (1 + len(rows))
    table = struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, len(note), len(note), 4)
    place = -(-(at + len(note)) // 4096) * 4096
    body = b""
    for phys, data, size in rows:
        where = place + len(body)
        table += struct.pack("<IIQQQQQQ", 1, 7, where, DIRECT + phys, phys, len(data), size, 0)
        body += data
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1" + bytes(9), 4, 62, 1, 0, 64, 0, 0, 64, 56, 1 + len(rows), 0, 0, 0
    )
    return (head + table + note).ljust(place, b"\0") + body


def read(address, *rows):
    with open("core", "wb") as out:
        out.write(core(*rows))
    program = Program()
    program.set_core_dump("core")
    try:
        return program.read(address, 4, True)
    except FaultError as err:
        return str(err)


A, B = b"A" * 4096, b"B" * 4096
left_out = read(0x2000, (0x1000, A, 0x3000), (0x8000, B, 0x1000))
outside = read(0x9000, (0x1000, A, 0x3000), (0x8000, B, 0x1000))
twice = read(0x1000, (0x1000, A, 0x1000), (0x1000, B, 0x1000))
print("left out of the core:", left_out)
print("in no row:           ", outside)
print("in two rows, A and B:", twice)
assert left_out == bytes(4)
assert "could not find" in outside
assert twice == b"BBBB"
print("as seen")
PYTHON
