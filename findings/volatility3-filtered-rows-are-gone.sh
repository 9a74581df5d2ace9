#!/usr/bin/env bash
# volatility3 leaves out every row of an ELF core that has fewer bytes in the file than in memory, with the bytes it has.
#
# Guess before it was tried: a PT_LOAD with p_filesz below p_memsz, which is how a filtered dump says that the rest of
# the row was left out, is read as far as it goes; behind that there are zeros or an InvalidAddressException.
# Seen with volatility3 2.28.2: Elf64Layer takes rows with p_filesz = p_memsz alone.  Of a row with one page of three
# in the file the page that is there is "Invalid address" as well; nothing is logged at the usual levels.  Where no row
# is left, the file is no ELF core to it: the stacker returns None, and what is read is the file itself, headers first,
# as if it were RAM.  drgn 0.3.0 reads the page.
#
# What it costs: `makedumpfile -E` ends a row with the pages it leaves out, so that the memory that was worth saving
# is what volatility3 does not see; "not found in this dump" is then no answer.
#
# Needs: python3 with venv and pip; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check volatility3==2.28.2 drgn==0.3.0
env/bin/python - <<'PY'
import struct
from importlib.metadata import version
from pathlib import Path

from drgn import Program
from volatility3.framework import contexts, exceptions
from volatility3.framework.layers import elf, physical

KEYS = b"OSRELEASE=6.12.0\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffffffff81000000\nKERNELOFFSET=0\n"
DIRECT = 0xFFFF888000000000


def core(name, *rows):
    """An ELF core of rows (physical address, bytes, p_memsz)."""
    note = struct.pack("<III", 11, len(KEYS), 0) + b"VMCOREINFO\0\0" + KEYS + bytes(-len(KEYS) % 4)
    at = 64 + 56 * (1 + len(rows))
    table = struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, len(note), len(note), 4)
    body = b""
    for phys, data, size in rows:
        table += struct.pack("<IIQQQQQQ", 1, 7, 4096 + len(body), DIRECT + phys, phys, len(data), size, 0)
        body += data
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1" + bytes(9), 4, 62, 1, 0, 64, 0, 0, 64, 56, 1 + len(rows), 0, 0, 0
    )
    Path(name).write_bytes((head + table + note).ljust(4096, b"\0") + body)


def layer(name):
    """The ELF layer that volatility3 lays over the file, or None."""
    context = contexts.Context()
    context.config["file.location"] = Path(name).resolve().as_uri()
    context.add_layer(physical.FileLayer(context, "file", "base"))
    return elf.Elf64Stacker.stack(context, "base")


def read(where, address):
    try:
        return bytes(where.read(address, 4))
    except exceptions.InvalidAddressException as error:
        return str(error)


def drgn(name, address):
    program = Program()
    program.set_core_dump(name)
    return program.read(address, 4, True)


A, B = b"A" * 4096, b"B" * 4096
core("two", (0x1000, A, 0x3000), (0x8000, B, 0x1000))
core("one", (0x1000, A, 0x3000))
two = layer("two")
print("volatility3", version("volatility3"), "drgn", version("drgn"))
print("the page that was saved of a row:", read(two, 0x1000), "- drgn:", drgn("two", 0x1000))
print("a row that is whole:             ", read(two, 0x8000), "- drgn:", drgn("two", 0x8000))
print("a core of the first row alone:   ", layer("one"))
assert read(two, 0x1000) == "Invalid address at 1000"
assert read(two, 0x8000) == drgn("two", 0x8000) == b"BBBB"
assert drgn("two", 0x1000) == b"AAAA"
assert layer("one") is None
print("as seen")
PY
