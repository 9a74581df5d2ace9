"""image.initrd_contents: what Linux unpacks is whole, and what it does not is a flaw with its words.

Archives come from the maker, streams from the libraries' own packers; what Linux itself says of some
of them is asked of a real kernel in tests/qemu.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import debian_kernel
from tests.image.test_payload import lz4_legacy, xz
from tests.makers.bzimage import bzimage, vmlinux
from tests.makers.cpio import DIRECTORY, SYMLINK, TRAILER, archive, entry, initrd, pad
from tests.makers.lzo import lzop
from tightrope import image
from tightrope.model import Contents

MICROCODE = archive({"kernel/x86/microcode/GenuineIntel.bin": bytes(range(200))})
MAIN = archive({"init": b"#!/bin/sh\n", "bin/busybox": random.Random(7).randbytes(3001)})
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": bz2.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE, preset=1),
    "xz": xz,
    "lz4": lz4_legacy,
    "lzo": lzop,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}
every_compression = pytest.mark.parametrize("compression", PACKERS)


def whole(data: bytes) -> str:
    """What was found, of an initrd that has to be whole."""
    contents = image.initrd_contents(data)
    assert (contents.flaw, contents.untold, contents.where, contents.says) == (None, None, "", "")
    found, _, what = contents.what.partition(", ")
    assert found == "the initrd"
    return what


def flaw(data: bytes) -> Contents:
    """The answer about an initrd that must not be taken for whole."""
    contents = image.initrd_contents(data)
    assert contents.flaw is not None
    assert contents.untold is None
    return contents


# -------------------------------------------------------------------------------- what Linux unpacks


def test_a_bare_archive_is_whole() -> None:
    assert whole(MAIN) == "a cpio archive of 5 entries"
    assert whole(archive(magic=b"070702")) == "a cpio archive of 4 entries"


@every_compression
def test_a_compressed_archive_is_whole(compression: str) -> None:
    assert whole(PACKERS[compression](MAIN)) == f"a cpio archive of 5 entries ({compression})"


@every_compression
@pytest.mark.parametrize("padding", [0, 1, 512])
def test_microcode_may_come_first_and_zeros_may_follow(compression: str, padding: int) -> None:
    early = MICROCODE + bytes(padding)
    assert whole(early + PACKERS[compression](MAIN) + bytes(padding)).endswith(f"({compression})")
    assert whole(pad(bytes(padding)) + pad(early) + MAIN).startswith("a cpio archive of ")


def test_archives_of_several_compressions_may_follow_one_another() -> None:
    made = b"".join(PACKERS[name](MAIN) for name in ("gzip", "xz", "zstd", "bzip2", "lz4"))
    assert whole(made).count("5 entries") == 5
    assert (
        whole(PACKERS["lz4"](MAIN) + PACKERS["lz4"](MAIN)) == "a cpio archive of 10 entries (lz4)"
    )


def test_a_word_of_zeros_ends_an_lz4_stream() -> None:
    """It has no end of its own, and what follows directly is taken for its next block."""
    packed = PACKERS["lz4"](MAIN)
    assert whole(pad(packed + bytes(4)) + MAIN).count("5 entries") == 2
    assert "is corrupt: a block of 0x37303730 bytes" in str(flaw(pad(packed, 1) + MAIN).flaw)


@pytest.mark.parametrize("size", [1, 512, 5000, 1 << 20])
def test_zeros_alone_are_no_initrd(size: int) -> None:
    found = flaw(bytes(size))
    assert found.flaw == f"holds no archive: {size:#x} bytes of zeros and nothing else"


def test_an_archive_may_lack_its_trailer_and_be_padded() -> None:
    assert whole(entry("init", b"x") + bytes(512)) == "a cpio archive of 1 entry"
    packed = gzip.compress(entry("init", b"x") + bytes(512))
    assert whole(packed) == "a cpio archive of 1 entry (gzip)"


def test_an_entry_that_linux_passes_over_is_no_flaw() -> None:
    """A name longer than any path, a directory with data, a symbolic link to far too much."""
    odd = [
        entry("n" * 5000, b"data"),
        entry("dir", b"data", mode=DIRECTORY),
        entry("link", b"x" * 5000, mode=SYMLINK),
    ]
    assert whole(b"".join(odd) + MAIN) == "a cpio archive of 8 entries"


@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii", min_codepoint=33), min_size=1, max_size=40),
        st.binary(max_size=300),
        max_size=6,
    ),
    st.sampled_from(["", *PACKERS]),
    st.sampled_from([b"070701", b"070702"]),
)
def test_any_archive_is_whole(files: dict[str, bytes], compression: str, magic: bytes) -> None:
    made = archive(files, magic=magic)
    packed = PACKERS[compression](made) if compression else made
    found = whole(packed)
    assert found.startswith(f"a cpio archive of {3 + len(files)} entries")


def test_what_busyboxs_cpio_writes_is_whole(tmp_path: Path) -> None:
    (tmp_path / "init").write_bytes(random.Random(3).randbytes(5001))
    os.link(tmp_path / "init", tmp_path / "same")
    (tmp_path / "link").symlink_to("init")
    names = b"init\nsame\nlink\n"
    busybox = debian_kernel("busybox-amd64")
    command = [str(busybox), "cpio", "-o", "-H", "newc"]
    made = subprocess.run(command, input=names, cwd=tmp_path, capture_output=True, check=True)
    assert whole(made.stdout) == "a cpio archive of 4 entries"


def test_the_shipped_initrd_is_whole() -> None:
    from tightrope import shipped

    assert "cpio" in whole(shipped.example_initrd())


# --------------------------------------------------------------------------- what it does not unpack


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"console=ttyS0 quiet\n", "a text file", id="text"),
        pytest.param(bzimage(), "a Linux kernel", id="kernel"),
        pytest.param(vmlinux(), "an ELF file", id="elf"),
        pytest.param(b"\x04\x22\x4d\x18" + bytes(90), "lz4 -l", id="lz4 frame"),
        pytest.param(b"\xc7\x71" + bytes(90), "newc", id="binary cpio"),
        pytest.param(random.Random(1).randbytes(4000), "begin no archive (", id="noise"),
        pytest.param(MAIN + b"junk", "a text file, where an archive has to begin", id="behind"),
        pytest.param(b"init".ljust(257, b"\0") + b"ustar\x0000", "a tar", id="tar"),
        pytest.param(b"MZ" + bytes(2000), "a program for EFI", id="PE"),
        pytest.param(b"!<arch>\ndebian-binary", "a Debian package", id="deb"),
        pytest.param(b"\x27\x05\x19\x56" + MAIN, "uImage", id="U-Boot"),
        pytest.param(b"LUKS\xba\xbe" + bytes(90), "(LUKS)", id="encrypted"),
        pytest.param(b"\x50\x2a\x4d\x18\x04" + bytes(90), "skippable", id="zstd frame"),
        pytest.param(pad(MAIN) + b"\0" + MAIN, "multiple of 4", id="unaligned"),
        pytest.param(gzip.compress(MAIN) + b"\xff" * 9, "begin no archive", id="behind gzip"),
    ],
)
def test_bytes_that_begin_no_archive_are_named(data: bytes, words: str) -> None:
    assert words in str(flaw(data).flaw)


@pytest.mark.parametrize(
    ("data", "words", "says"),
    [
        (archive(magic=b"070707"), "old format", "incorrect cpio method used: use -H newc option"),
        (MAIN[:20] + b"g" + MAIN[21:], "hexadecimal", "damaged header"),
        (entry("init", b"abc", magic=b"070702", checksum=5), "sum to 0x126", "bad data checksum"),
        (entry("init", b"abc", name_size=4), "does not end with a zero", "malformed archive"),
        (entry("init") + b"0" * 200, "no cpio header at 0x74", "no cpio magic"),
    ],
)
def test_a_damaged_archive_is_told_with_linuxs_own_words(
    data: bytes, words: str, says: str
) -> None:
    got = flaw(data)
    assert words in str(got.flaw)
    assert got.says == says
    packed = flaw(gzip.compress(data))
    assert words in str(packed.flaw)
    assert packed.says == says


@pytest.mark.parametrize("length", [3, 60, 111, 300, len(MAIN) - 140])
def test_an_archive_that_breaks_off_is_a_flaw_though_linux_says_nothing(length: int) -> None:
    assert "breaks off" in str(flaw(MAIN[:length]).flaw)
    assert flaw(MAIN[:length]).says == ""
    assert "breaks off" in str(flaw(gzip.compress(MAIN[:length])).flaw)


@every_compression
def test_a_stream_that_breaks_off_is_a_flaw(compression: str) -> None:
    packed = PACKERS[compression](MAIN)
    assert flaw(packed[: len(packed) // 2]).where == f"the {compression} stream at 0x0"
    assert flaw(MICROCODE + packed[: len(packed) // 2]).where.endswith(f"at {len(MICROCODE):#x}")


@pytest.mark.parametrize("compression", sorted(PACKERS.keys() - {"lz4", "lzma"}))
def test_a_flipped_bit_is_a_flaw_where_there_is_a_checksum(compression: str) -> None:
    packed = bytearray(PACKERS[compression](MAIN))
    packed[len(packed) * 2 // 3] ^= 4
    flaw(bytes(packed))


def test_an_xz_stream_with_a_check_that_linux_does_not_know() -> None:
    """The default of `xz`: Linux says "... settings that are not supported by this XZ decoder"."""
    assert "--check=crc32" in str(flaw(lzma.compress(MAIN, check=lzma.CHECK_CRC64)).flaw)
    assert whole(lzma.compress(MAIN, check=lzma.CHECK_CRC32))
    assert whole(lzma.compress(MAIN, check=lzma.CHECK_NONE))


LZMA2 = {"id": lzma.FILTER_LZMA2, "preset": 1}
X86 = {"id": lzma.FILTER_X86}


def filtered(*filters: dict[str, int]) -> bytes:
    return lzma.compress(MAIN, check=lzma.CHECK_CRC32, filters=[*filters])


@pytest.mark.parametrize(
    "filters",
    [
        [{"id": lzma.FILTER_DELTA, "dist": 4}, LZMA2],
        [X86, X86, LZMA2],
        [{"id": lzma.FILTER_DELTA, "dist": 1}, X86, LZMA2],
        [X86 | {"start_offset": 4096}, LZMA2],
    ],
    ids=["delta", "two", "delta and x86", "x86 from 4096 on"],
)
def test_an_xz_stream_with_filters_that_linux_does_not_know(filters: list[dict[str, int]]) -> None:
    """`xz --delta --lzma2`: liblzma unpacks it, and Linux says XZ_OPTIONS_ERROR's words."""
    got = flaw(filtered(*filters))
    assert "has filters that Linux does not know" in str(got.flaw)
    assert got.says.endswith("settings that are not supported by this XZ decoder")
    with pytest.raises(AssertionError):
        whole(MICROCODE + filtered(*filters))


def test_an_xz_stream_as_linux_takes_it() -> None:
    for filters in ([LZMA2], [X86, LZMA2], [{"id": lzma.FILTER_ARMTHUMB}, LZMA2]):
        assert whole(filtered(*filters)) == "a cpio archive of 5 entries (xz)"
    made = subprocess.run(
        ["xz", "--check=crc32", "--x86", "--lzma2=preset=1", "-T2", "--block-size=4096", "-c"],
        input=MAIN,
        capture_output=True,
        check=True,
    )
    assert made.stdout[13] & 0xC0  # with both sizes in the block's header
    assert whole(made.stdout) == "a cpio archive of 5 entries (xz)"


@every_compression
def test_a_stream_that_holds_no_archive(compression: str) -> None:
    got = flaw(PACKERS[compression](b"text " * 100))
    assert "no cpio archive" in str(got.flaw)
    assert "junk" in str(flaw(PACKERS[compression](MAIN + b"text")).says)


def test_leading_zeros_are_padding_only_behind_an_archive() -> None:
    """Linux's state is Start before the first archive, and reads zeros there as a header."""
    assert "no cpio archive" in str(flaw(gzip.compress(bytes(512) + MAIN)).flaw)
    assert whole(MICROCODE + gzip.compress(bytes(512) + MAIN))


# ------------------------------------------------------------------------------ what cannot be told


@pytest.mark.parametrize(
    ("name", "place", "magic"),
    [("squashfs", 0, b"hsqs"), ("ext2", 0x438, b"\x53\xef"), ("EROFS", 0x400, b"\xe2\xe1\xf5\xe0")],
)
@pytest.mark.parametrize("packed", [False, True])
def test_the_image_of_a_file_system_is_not_told(
    name: str, place: int, magic: bytes, packed: bool
) -> None:
    made = bytes(place) + magic + b"\x01" * 3000
    contents = image.initrd_contents(gzip.compress(made) if packed else made)
    assert contents.flaw is None
    assert name in str(contents.untold)


def test_an_lzo_stream_that_is_none_is_a_flaw() -> None:
    broken = flaw(MICROCODE + b"\x89LZO\0\r\n\x1a\n" + b"\x01" * 400)
    assert "lzo stream at" in str(broken.flaw)


@pytest.mark.parametrize("compression", ["gzip", "xz", "zstd"])
def test_a_bomb_stops_at_the_limit_and_is_not_told(
    compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tightrope.image.initramfs.LARGEST", 1 << 20)
    bomb = PACKERS[compression](archive({"big": bytes(64 << 20)}))
    tracemalloc.start()
    try:
        contents = image.initrd_contents(bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (contents.flaw, contents.untold) == (
        None,
        "it unpacks to more than 0x100000 bytes, and no more are looked at",
    )
    assert peak < 40 << 20


@given(st.sampled_from(["", *PACKERS]), st.data())
def test_any_mutation_is_answered(compression: str, data: st.DataObject) -> None:
    made = bytearray(PACKERS[compression](MICROCODE) if compression else MICROCODE)
    at = data.draw(st.integers(0, len(made) - 1))
    if data.draw(st.booleans()):
        made[at] = data.draw(st.integers(0, 255))
    else:
        del made[at:]
    contents = image.initrd_contents(bytes(made))
    assert contents.flaw is None or contents.untold is None


@given(st.binary(max_size=3000))
def test_any_bytes_are_answered(data: bytes) -> None:
    image.initrd_contents(data)


def test_an_initrd_of_a_size_is_that_size() -> None:
    assert len(initrd(1 << 20)) == 1 << 20
    assert whole(initrd(1 << 20)) == "a cpio archive of 4 entries"
    assert TRAILER in initrd(4000)
