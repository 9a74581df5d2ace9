#!/usr/bin/env bash
# The four bytes of size behind a kernel's xz or zstd payload: lzma.decompress ignores some of them, compression.zstd none.
#
# Guess before it was tried: what follows the end of a stream is left out, as the source of lzma.decompress says
# ("leftover data is not a valid stream; ignore it"), so that `payload` as the boot header's payload_offset and
# payload_length give it (Linux appends the size, little-endian, to all but gzip's) goes in as it is.
# Seen with CPython 3.11's lzma: of the 256 values of the size's lowest byte, 180 are ignored and 76 are LZMAError
# "Compressed data ended before the end-of-stream marker was reached".  The leftover is tried as another stream, and
# a byte below 225 with lc + lp <= 4 begins a .lzma header (the format before xz), which then is too short; with
# FORMAT_XZ all 256 are errors.  backports.zstd 1.8.0, which is CPython 3.14's compression.zstd, refuses all 256:
# "Unknown frame descriptor".
# (zstandard 0.25.0 ignores them all; decompressor objects put them into unused_data, with each library.)
#
# What it costs: a reader of kernels is written, tried with one kernel, and fails with another build of the same
# one, with words that blame the payload.
#
# Needs: python3 with venv and pip; seconds.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check backports.zstd==1.8.0 zstandard==0.25.0
env/bin/python - <<'PY'
import collections
import lzma
import struct
import sys
from importlib.metadata import version

import zstandard
from backports import zstd

kernel = b"a kernel, more or less " * 1000
filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 6}]
xz = lzma.compress(kernel, check=lzma.CHECK_CRC32, filters=filters)
fast = zstandard.ZstdCompressor(level=19).compress(kernel)


def answers(read, payload):
    counted = collections.Counter()
    for low in range(256):
        try:
            whole = read(payload + struct.pack("<I", 0x02A1B200 | low)) == kernel
            counted["read" if whole else "something else"] += 1
        except (lzma.LZMAError, zstd.ZstdError) as error:
            counted[str(error)] += 1
    return dict(counted)


def by_object(made, payload):
    return made.decompress(payload)


seen = {
    "lzma.decompress": answers(lzma.decompress, xz),
    "lzma.decompress, FORMAT_XZ": answers(lambda data: lzma.decompress(data, lzma.FORMAT_XZ), xz),
    "lzma.LZMADecompressor": answers(lambda data: by_object(lzma.LZMADecompressor(), data), xz),
    "backports.zstd.decompress": answers(zstd.decompress, fast),
    "backports.zstd.ZstdDecompressor": answers(lambda data: by_object(zstd.ZstdDecompressor(), data), fast),
    "zstandard.ZstdDecompressor": answers(lambda data: by_object(zstandard.ZstdDecompressor(), data), fast),
}
print("Python", sys.version.split()[0], "backports.zstd", version("backports.zstd"), "zstandard", version("zstandard"))
for name, each in seen.items():
    print(f"{name:32}", each)
short = "Compressed data ended before the end-of-stream marker was reached"
unknown = "Unable to decompress Zstandard data: Unknown frame descriptor"
assert list(seen.values()) == [
    {"read": 180, short: 76},
    {short: 256},
    {"read": 256},
    {unknown: 256},
    {"read": 256},
    {"read": 256},
], seen
print("as seen")
PY
