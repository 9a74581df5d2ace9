"""image.read on files that are gzip as a whole: read through, and never more than a bound of memory."""

from __future__ import annotations

import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.image.laid_out import answer_to
from tests.makers.bzimage import bzimage
from tests.makers.elf import elf
from tests.makers.multiboot import flat_kernel
from tests.makers.pe import unified
from tightrope import image
from tightrope.errors import ImageError
from tightrope.image.compressed import inflate

PACKED = gzip.compress(flat_kernel(), mtime=0)


@pytest.mark.parametrize("data", [bzimage(), elf(), flat_kernel(), unified()])
def test_what_is_inside_is_read_as_if_it_were_not_packed(data: bytes) -> None:
    packed = image.read(gzip.compress(data), "kernel.gz")
    plain = image.read(data, "kernel.gz (unpacked)")
    assert packed == plain


def test_a_name_in_the_gzip_header_changes_nothing() -> None:
    file = io.BytesIO()
    with gzip.GzipFile("a name", "wb", fileobj=file) as packer:
        packer.write(elf())
    assert image.read(file.getvalue(), "kernel.gz").format == "ELF64"


def test_errors_inside_say_that_offsets_count_from_the_unpacked_bytes() -> None:
    with pytest.raises(ImageError, match=r"kernel.gz \(unpacked\): e_entry at offset 0x18"):
        image.read(gzip.compress(elf(entry=0)), "kernel.gz")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(PACKED[:-1], "breaks off after", id="cut off"),
        pytest.param(PACKED[:2], "breaks off after 0x0", id="magic alone"),
        pytest.param(PACKED + b"x", "1 unexplained bytes behind it", id="more behind"),
        pytest.param(PACKED[:-8] + b"\1" + PACKED[-7:], "is corrupt", id="checksum"),
        pytest.param(b"\x1f\x8b\x09" + PACKED[3:], "is corrupt", id="method"),
    ],
)
def test_a_broken_file_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=f"^kernel.gz: gzip.*{words}"):
        image.read(data, "kernel.gz")


def test_a_file_that_unpacks_to_too_much_is_refused() -> None:
    bomb = memoryview(gzip.compress(bytes(10_001)))
    assert len(inflate(bomb, "bomb.gz", largest=10_001)) == 10_001
    with pytest.raises(ImageError, match=r"bomb.gz: gzip: unpacks to too much \(limit 0x2710\)"):
        inflate(bomb, "bomb.gz", largest=10_000)


@given(st.integers(0, len(PACKED) - 1), st.integers(0, 255))
def test_one_wrong_byte_is_an_image_or_an_image_error(at: int, value: int) -> None:
    wrong = bytearray(PACKED)
    wrong[at] = value
    answer_to(bytes(wrong))
