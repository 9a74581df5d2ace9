"""image.unpack: what was packed comes back, and a payload that is wrong is refused within its bounds.

Packers are the libraries' own, the Linux build's way of ending a stream is in the maker, and LZ4's
legacy frame is put together here from its description.
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.bzimage import PAYLOAD_AT, bzimage, packed_gzip, vmlinux, with_size
from tests.makers.lzo import BLOCK, block, lzop
from tightrope import image
from tightrope.errors import ImageError, MissingPart
from tightrope.lzo import lzo1x

# lz4 carries no annotations: here it is plainly untyped.
lz4_block: Any = importlib.import_module("lz4.block")

KERNEL = vmlinux()


def lz4_legacy(kernel: bytes, block: int = 8 << 20) -> bytes:
    """LZ4 Frame Format, "Legacy frame": a magic, then blocks with their packed sizes."""
    frame = struct.pack("<I", 0x184C2102)
    for at in range(0, len(kernel), block):
        packed: bytes = lz4_block.compress(kernel[at : at + block], store_size=False)
        frame += struct.pack("<I", len(packed)) + packed
    return frame


def xz(kernel: bytes) -> bytes:
    """As scripts/xz_wrap.sh does for x86: a filter for branches, then LZMA2, checked by CRC32."""
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 1}]
    return lzma.compress(kernel, check=lzma.CHECK_CRC32, filters=filters)


STREAMS: dict[str, Callable[[bytes], bytes]] = {
    "bzip2": bz2.compress,
    "lzma": lambda kernel: lzma.compress(kernel, format=lzma.FORMAT_ALONE, preset=1),
    "xz": xz,
    "lz4": lz4_legacy,
    "lzo": lzop,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": packed_gzip,
    **{
        name: lambda kernel, pack=pack: with_size(pack(kernel), kernel)  # type: ignore[misc]
        for name, pack in STREAMS.items()
    },
}
every_compression = pytest.mark.parametrize("compression", PACKERS)


def unpacked(payload: bytes, init_size: int = 0x200000) -> bytes:
    return image.unpack(image.read(bzimage(payload=payload, init_size=init_size), "made"))


@every_compression
def test_what_was_packed_comes_back(compression: str) -> None:
    read = image.read(bzimage(payload=PACKERS[compression](KERNEL)), "made")
    assert read.payload is not None
    assert (read.payload.compression, read.payload.offset) == (compression, PAYLOAD_AT)
    assert image.unpack(read) == KERNEL


def test_an_elf_file_that_is_not_packed_is_the_payload() -> None:
    assert unpacked(KERNEL) == KERNEL


@given(st.sampled_from(sorted(PACKERS)), st.integers(1, 40), st.binary(max_size=300))
def test_any_kernel_comes_back(compression: str, times: int, rest: bytes) -> None:
    kernel = b"\x7fELF\x02" + rest * times
    assert unpacked(PACKERS[compression](kernel)) == kernel


def test_a_kernel_may_unpack_to_just_init_size() -> None:
    kernel = KERNEL * 40
    assert unpacked(PACKERS["xz"](kernel), init_size=len(kernel)) == kernel


def test_a_zstd_checksum_may_come_in_a_piece_of_its_own() -> None:
    """Streams are fed in pieces of 1024 bytes: here the last one is two bytes of checksum."""
    pack = PACKERS["zstd"]
    kernel = next(
        kernel
        for kernel in map(vmlinux, range(1800, 4000, 4))
        if (len(pack(kernel)) - 4) % 1024 == 2
    )
    assert unpacked(pack(kernel)) == kernel


@pytest.mark.parametrize("block", [1, 7, 4096, 5000])
def test_an_lz4_kernel_may_come_in_many_blocks(block: int) -> None:
    assert unpacked(with_size(lz4_legacy(KERNEL, block), KERNEL)) == KERNEL


def test_an_lz4_kernel_larger_than_a_block_comes_back() -> None:
    large = KERNEL * 2000
    assert len(large) > 8 << 20
    packed = with_size(lz4_legacy(large), large)
    assert unpacked(packed, init_size=64 << 20) == large


@pytest.mark.parametrize("kernel", ["debian_amd64", "debian_cloud"])
def test_debians_kernels_unpack_to_elf_files(request: pytest.FixtureRequest, kernel: str) -> None:
    path: Path = request.getfixturevalue(kernel)
    read = image.read(path.read_bytes(), path.name)
    elf = image.unpack(read)
    # ELF64, little-endian, an executable for x86-64 (e_type 2, e_machine 62).
    assert elf[:6] == b"\x7fELF\x02\x01"
    assert struct.unpack_from("<HH", elf, 16) == (2, 62)
    # Its program headers lead to bytes that are all there, and the version is among them.
    start, size, count = struct.unpack_from("<Q14xHH", elf, 32)
    segments = [struct.unpack_from("<QQQQQ", elf, start + i * size + 8) for i in range(count)]
    assert segments
    assert all(offset + filed <= len(elf) for offset, _, _, filed, _ in segments)
    assert read.version is not None
    assert b"Linux version " + read.version.split()[0].encode() in elf


# ------------------------------------------------------------------------------------ wrong payloads


@every_compression
def test_a_stream_that_breaks_off_is_refused(compression: str) -> None:
    packed = PACKERS[compression](KERNEL)
    with pytest.raises(ImageError, match=f"payload at offset 0x810: {compression}: "):
        unpacked(packed[: len(packed) // 2] + packed[-4:])


@pytest.mark.parametrize("compression", sorted(STREAMS.keys() - {"lz4"}))
def test_a_stream_that_lacks_only_its_last_byte_is_refused(compression: str) -> None:
    """All of the kernel has come out by then, but its checksum or end mark has not."""
    stream = STREAMS[compression](KERNEL)
    with pytest.raises(ImageError, match=f"{compression}: breaks off after 0x1388 unpacked bytes"):
        unpacked(with_size(stream[:-1], KERNEL))


@pytest.mark.parametrize("compression", sorted(STREAMS.keys() - {"lz4"}))
def test_a_stream_that_holds_more_than_promised_is_refused(compression: str) -> None:
    with pytest.raises(ImageError, match=f"{compression}: unpacks to more than the 0x1387 bytes"):
        unpacked(STREAMS[compression](KERNEL) + struct.pack("<I", len(KERNEL) - 1))


@pytest.mark.parametrize("compression", sorted(PACKERS.keys() - {"lz4"}))
def test_a_stream_that_is_corrupt_is_refused(compression: str) -> None:
    """A legacy LZ4 frame has no checksum: changed literals come back as they are."""
    packed = bytearray(PACKERS[compression](KERNEL))
    middle = len(packed) // 2
    packed[middle : middle + 16] = b"\xff" * 16
    with pytest.raises(ImageError, match=f"{compression}: "):
        unpacked(bytes(packed))


@pytest.mark.parametrize("size", [0, 1 << 24, 0xFFFFFFFF])
def test_an_lz4_block_of_an_impossible_size_is_refused(size: int) -> None:
    frame = struct.pack("<II", 0x184C2102, size) + b"\0" * 64
    with pytest.raises(ImageError, match=f"lz4: is corrupt: a block of {size:#x} bytes at 0x4"):
        unpacked(with_size(frame, KERNEL))


@pytest.mark.parametrize("container", ["xz", "lzma"])
def test_a_dictionary_that_would_take_all_memory_is_refused(container: str) -> None:
    """Both containers name the size of the dictionary before the first byte of data."""
    packed = bytearray(PACKERS[container](KERNEL))
    if container == "lzma":
        packed[1:5] = struct.pack("<I", 0xFFFFFFFF)
        packed[1:3] = b"\0\0"
    else:
        # The block header: its size, flags, then the filters; the dictionary is 4 GiB - 1 as code 40.
        header = bytearray(packed[12 : 12 + 4 * (packed[12] + 1)])
        header[header.index(b"\x21\x01") + 2] = 40
        header[-4:] = struct.pack("<I", zlib.crc32(header[:-4]))
        packed[12 : 12 + len(header)] = header
    with pytest.raises(ImageError, match=f"{container}: is corrupt: Memory usage limit exceeded"):
        unpacked(bytes(packed))


@pytest.mark.parametrize("compression", STREAMS)
@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_size_that_is_not_that_of_the_stream_is_refused(compression: str, wrong: int) -> None:
    size = len(KERNEL) + wrong
    with pytest.raises(ImageError, match=f"{compression}: .*promises"):
        unpacked(STREAMS[compression](KERNEL) + struct.pack("<I", size))


@pytest.mark.parametrize("compression", STREAMS)
def test_bytes_behind_the_stream_are_refused(compression: str) -> None:
    with pytest.raises(ImageError, match=f"{compression}: "):
        unpacked(with_size(STREAMS[compression](KERNEL) + b"junk" * 600, KERNEL))


def test_bytes_behind_a_gzip_stream_are_refused() -> None:
    junk = packed_gzip(KERNEL) + b"junk" + struct.pack("<I", len(KERNEL))
    with pytest.raises(ImageError, match="gzip: has 8 unexplained bytes behind the stream"):
        unpacked(junk)


def test_an_lz4_block_behind_the_promised_size_is_refused() -> None:
    packed = with_size(lz4_legacy(KERNEL) + lz4_legacy(KERNEL)[4:], KERNEL)
    with pytest.raises(ImageError, match=r"lz4: has .* unexplained bytes"):
        unpacked(packed)


@pytest.mark.parametrize("size", [0, 0x200001, 0xFFFFFFFF])
def test_a_size_that_does_not_fit_init_size_is_refused(size: int) -> None:
    with pytest.raises(ImageError, match=r"promises .* \(limit 0x200000\)"):
        unpacked(xz(KERNEL) + struct.pack("<I", size))


@every_compression
def test_a_payload_that_is_no_elf_file_is_refused(compression: str) -> None:
    with pytest.raises(ImageError, match="unpacks to no ELF file"):
        unpacked(PACKERS[compression](b"not a kernel" * 10))


@pytest.mark.parametrize("version", [0x0900, 0x0940, 0x1040])
@pytest.mark.parametrize("check", ["adler32", "crc32", "none"])
@pytest.mark.parametrize("filtered", [False, True])
def test_an_lzo_kernel_comes_back_whatever_its_header_has(
    version: int, check: str, filtered: bool
) -> None:
    kernel = KERNEL + b"\x90" * BLOCK + KERNEL  # two blocks, and a long run
    packed = lzop(kernel, version=version, check=check, filtered=filtered)
    assert unpacked(with_size(packed, kernel)) == kernel


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.integers(1, 700)), max_size=12))
def test_any_lzo_block_comes_back(parts: list[tuple[bytes, int]]) -> None:
    data = b"".join(part * times for part, times in parts) + b"the end."
    assert lzo1x(block(data), len(data)) == data


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(lambda data: data[:4] + b"x" + data[5:], "nine bytes", id="the magic's end"),
        pytest.param(lambda data: data[:20], "inside its header", id="cut in the header"),
        pytest.param(lambda data: data[:-3], "breaks off", id="cut before the end's mark"),
        pytest.param(lambda data: data[:300], "breaks off", id="cut in a block"),
        pytest.param(
            lambda data: data[:-4] + struct.pack(">III", 1 << 20, 5, 0), "a block of", id="a large block"
        ),
        pytest.param(
            lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:], "not what was packed",
            id="a changed byte",
        ),
    ],
)  # fmt: skip
def test_an_lzo_stream_that_is_wrong_is_refused(
    change: Callable[[bytes], bytes], says: str
) -> None:
    with pytest.raises(ImageError, match=f"lzo: .*{says}"):
        unpacked(with_size(change(lzop(KERNEL)), KERNEL))


def test_a_payload_of_a_magic_alone_is_refused() -> None:
    with pytest.raises(ImageError, match="gzip: 4 bytes are too few"):
        unpacked(b"\x1f\x8b\x08\0")


def test_an_image_without_a_payload_cannot_be_unpacked() -> None:
    with pytest.raises(ImageError, match="made: names no payload"):
        unpacked(b"")


@pytest.mark.parametrize(("compression", "package"), [("lz4", "lz4"), ("zstd", "zstandard")])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, compression: str, package: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPart, match=rf"{package} is needed .*tightrope\[inspect\]"):
        unpacked(PACKERS[compression](KERNEL))


def test_reading_an_image_imports_no_package() -> None:
    """In a fresh interpreter: this one has imported them itself."""
    import subprocess

    packages = ("lz4", "zstandard", "elftools")
    code = f"import sys, tightrope.image; print([m for m in {packages} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@every_compression
def test_a_bomb_does_not_inflate_beyond_what_it_promises(compression: str) -> None:
    bomb = b"\x7fELF" + b"\0" * (128 << 20)
    packed = (
        packed_gzip(bomb)[:-4]
        if compression == "gzip"
        else with_size(STREAMS[compression](bomb), bomb)[:-4]
    )
    del bomb
    payload = packed + struct.pack("<I", 1 << 20)
    data = bzimage(payload=payload, init_size=16 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError):
            image.unpack(image.read(data, "bomb"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 48 << 20


@given(st.sampled_from(sorted(PACKERS)), st.data())
def test_any_mutation_unpacks_to_bytes_or_is_refused(compression: str, data: st.DataObject) -> None:
    packed = bytearray(PACKERS[compression](KERNEL[:600]))
    at = data.draw(st.integers(0, len(packed) - 1))
    if data.draw(st.booleans()):
        packed[at] = data.draw(st.integers(0, 255))
    else:
        del packed[at:]
    try:
        answer: bytes | ImageError = unpacked(bytes(packed))
    except ImageError as refusal:
        answer = refusal
    if isinstance(answer, bytes):
        assert answer.startswith(b"\x7fELF")
        assert len(answer) == int.from_bytes(packed[-4:], "little")
    else:
        assert answer.source == "made"
