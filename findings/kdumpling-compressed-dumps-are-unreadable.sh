#!/usr/bin/env bash
# The compressed dumps that kdumpling writes cannot be read: they count one bitmap of two, and call raw pages snappy.
#
# Guess before it was tried: what "a library for creating kdump crash dumps" writes in either format, ELF or compressed,
# drgn reads, with any of its five kinds of compression.
# Seen with kdumpling 0.4.0 and drgn 0.3.0 (libkdumpfile): ELF is right.  Of a compressed dump each page is "Out-of-bounds
# PFN".  bitmap_blocks, which counts the blocks of both bitmaps (makedumpfile's IMPLEMENTATION and diskdump_mod.h; a
# reader takes half for each), is 1 where there are two of a block each.  With 2 written there zlib's pages are read.  A
# page that is not compressed, as all are with NONE (and with ZSTD where zstandard is not installed), is flagged 4,
# DUMP_DH_COMPRESSED_SNAPPY, instead of 0; one of zstd has 5, zlib or snappy, instead of 0x20: "Decompression failed".
# With the flags put right, too, all are read but those of zeros: they are left out ("Excluded page"), where makedumpfile
# has them share one page.  kdumpid tells format, architecture and release as if all were well.
#
# What it costs: a test's dump, or one made of a guest's memory, opens, tells its release, and has no memory in it; a
# reader that is tried with such files alone is tried for errors alone.  OutputFormat.ELF is the way out.
#
# Needs: python3 with venv and pip; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check kdumpling==0.4.0 zstandard==0.25.0 drgn==0.3.0 2>errors || { cat errors; exit 1; }
env/bin/python - <<'PY'
import random
import struct
from importlib.metadata import version
from pathlib import Path

from drgn import FaultError, Program
from kdumpling import CompressionType, KdumpBuilder, OutputFormat

KEYS = """OSRELEASE=6.12.0
PAGESIZE=4096
SYMBOL(init_uts_ns)=ffffffff81000000
SYMBOL(swapper_pg_dir)=ffffffff82000000
KERNELOFFSET=0
NUMBER(phys_base)=0
NUMBER(pgtable_l5_enabled)=0
"""
# 0x5000 is not compressed by any, since that would make it larger.
PAGES = {0x1000: b"A" * 4096, 0x2000: b"B" * 4096, 0x5000: random.Random(1).randbytes(4096), 0x8000: bytes(4096)}
RAW, ZLIB, SNAPPY, ZSTD = 0, 1, 4, 0x20
BITMAP_BLOCKS, FIRST_DESCRIPTOR = 436, 4 * 4096  # header, sub-header and two bitmaps are a block each


def written(name, **kind):
    made = KdumpBuilder()
    made.set_vmcoreinfo(KEYS)
    for address, data in PAGES.items():
        made.add_memory_segment(address, data)
    made.write(name, **kind)
    return bytearray(Path(name).read_bytes())


def read(data):
    """How many of the pages drgn reads as they were written, and the first error."""
    Path("tried").write_bytes(data)
    program, right, error = Program(), 0, None
    program.set_core_dump("tried")
    for address, page in PAGES.items():
        try:
            right += program.read(address, 4096, True) == page
        except FaultError as each:
            error = error or str(each).removeprefix("could not read memory from kdump: ").split(":")[0]
    return right, error


def flags(data):
    """The place, the size and the flags of each page's descriptor."""
    return [(at := FIRST_DESCRIPTOR + 24 * each, *struct.unpack_from("<II", data, at + 8)) for each in range(3)]


print("kdumpling", version("kdumpling"), "drgn", version("drgn"))
elf = read(written("elf", format=OutputFormat.ELF))
print("ELF: pages read", *elf)
assert elf == (4, None)
for kind, flag, counted in ((CompressionType.NONE, None, 0), (CompressionType.ZLIB, ZLIB, 2), (CompressionType.ZSTD, ZSTD, 0)):
    data = written("dump", format=OutputFormat.KDUMP_COMPRESSED, compression=kind)
    (blocks,) = struct.unpack_from("<I", data, BITMAP_BLOCKS)
    seen = [[each for _, _, each in flags(data)], read(data)]
    struct.pack_into("<I", data, BITMAP_BLOCKS, 2)
    seen.append(read(data))
    for at, size, _ in flags(data):
        struct.pack_into("<I", data, at + 12, RAW if size == 4096 else flag)
    seen.append(read(data))
    print(f"{kind.name}: bitmap_blocks {blocks}, flags {seen[0]}; read: {seen[1]}, with 2: {seen[2]}, with flags: {seen[3]}")
    assert blocks == 1 and seen[1] == (0, "Out-of-bounds PFN")
    assert seen[0] == ([SNAPPY] * 3 if flag is None else [ZLIB | SNAPPY, ZLIB | SNAPPY, SNAPPY])
    assert seen[2][0] == counted and seen[2][1].startswith("Decompres")
    assert seen[3] == (3, "Excluded page")
print("as seen")
PY
