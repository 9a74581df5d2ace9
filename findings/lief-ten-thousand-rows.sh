#!/usr/bin/env bash
# LIEF reads 10,000 program headers of an ELF core, whatever it has, and says nothing.
#
# Guess before it was tried: `segments` has as many entries as e_phnum says; beyond 65,534 rows, where e_phnum is
# PN_XNUM and the number stands in sh_info of the first section header, LIEF follows it or gives an error.
# Seen with lief 1.0.0: a core of 9,999 rows has 9,999 segments, one of 10,001 and one of 65,540 have 10,000.
# Nothing is logged and `header.numberof_segments` still says 10,001, or 65,535.  pyelftools 0.33 reads all 65,540,
# dissect.executable 1.11 takes PN_XNUM for the number: 65,535.
#
# What it costs: a dump of a machine whose memory is in many pieces (or one that makedumpfile split around excluded
# pages) loses its upper memory without a word; an address there looks as if it had never been saved.
#
# Needs: python3 with venv and pip; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check lief==1.0.0 pyelftools==0.33 dissect.executable==1.11
env/bin/python - 2> said <<'PY'
import io
import struct
from importlib.metadata import version

import lief
from dissect.executable import ELF
from elftools.elf.elffile import ELFFile

PN_XNUM = 0xFFFF


def core(rows):
    """An ELF core whose rows say that a page at each second frame was left out; no bytes are behind them."""
    large = rows >= PN_XNUM
    table = b"".join(struct.pack("<IIQQQQQQ", 1, 7, 0, 0, i << 13, 0, 4096, 0) for i in range(rows))
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1" + bytes(9), 4, 62, 1, 0, 128, 64, 0, 64, 56,
        PN_XNUM if large else rows, 64, 1, 0,
    )
    section = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, rows if large else 0, 0, 0)
    return head + section + table


print("lief", version("lief"), "pyelftools", version("pyelftools"), "dissect.executable", version("dissect.executable"))
print("rows   lief  it says  pyelftools  dissect")
seen = []
for rows in (9_999, 10_001, 65_540):
    data = core(rows)
    read = lief.ELF.parse(io.BytesIO(data))
    seen.append(
        (
            rows,
            len(read.segments),
            read.header.numberof_segments,
            ELFFile(io.BytesIO(data)).num_segments(),
            len(list(ELF(io.BytesIO(data)).segments)),
        )
    )
    print(*seen[-1])
assert seen == [
    (9_999, 9_999, 9_999, 9_999, 9_999),
    (10_001, 10_000, 10_001, 10_001, 10_001),
    (65_540, 10_000, 65_535, 65_540, 65_535),
], seen
PY
cat said
! [ -s said ]
echo "as seen; nothing on standard error"
