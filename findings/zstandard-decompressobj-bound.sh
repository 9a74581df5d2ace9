#!/usr/bin/env bash
# python-zstandard's decompressobj() has no bound for what one call returns: not `write_size`, and no
# max_length, which zlib, bz2 and lzma have.
#
# Guess before it was tried: decompressobj(write_size=4096) hands out 4096 bytes at a time, as its name and
# its default of 131591 suggest, so that a stream of zeros cannot fill memory.
# Seen with zstandard 0.25.0: 1024 bytes of a frame give 32,899,072 bytes in one call, whatever write_size
# says: it is the size of an inner buffer, whose contents are joined before the call returns.  Who wants a
# bound has to feed little, or read through stream_reader().read(SIZE), which does keep to SIZE.
#
# Needs: python3 with venv and pip; seconds.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check zstandard==0.25.0
env/bin/python - <<'END'
import io, sys, zstandard

packed = zstandard.ZstdCompressor(level=19).compress(bytes(256 << 20))
print("zstandard", zstandard.__version__, "- a frame of", len(packed), "bytes for 256 MiB of zeros")
sizes = [
    len(zstandard.ZstdDecompressor().decompressobj(write_size=size).decompress(packed[:1024]))
    for size in (4096, 131591)
]
read = len(zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)).read(4096))
print("decompressobj(write_size=4096).decompress(1024 bytes) returns", sizes[0], "bytes")
print("decompressobj(write_size=131591).decompress(1024 bytes) returns", sizes[1], "bytes")
print("stream_reader().read(4096) returns", read, "bytes")
sys.exit(not (min(sizes) > 30_000_000 and read == 4096))
END
