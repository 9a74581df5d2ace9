"""image.read on unified kernel images: the sections' bytes come back, errors name the section."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.image.laid_out import answer_to
from tests.makers.bzimage import bzimage, put
from tests.makers.pe import FIRST_BYTE, TABLE, pe, put_section, unified
from tightrope import image
from tightrope.errors import ImageError
from tightrope.model import Image

KERNEL = bzimage()
GOOD = unified()
LINUX = 4
"""Number of the maker's .linux section; .initrd is one before it."""


def test_a_good_image_is_its_kernel_and_what_the_kernel_is_given() -> None:
    read = image.read(GOOD, "linux.efi")
    inner = image.read(KERNEL, "linux.efi")
    assert read.initrd is not None
    assert bytes(read.initrd) == b"070701 an archive"
    assert read.initrd.obj is GOOD
    assert read.command_line == "console=ttyS0 quiet"
    assert (read.format, read.file_size) == ("unified kernel image", len(GOOD))
    assert read == replace(
        inner,
        format=read.format,
        file_size=read.file_size,
        initrd=read.initrd,
        command_line=read.command_line,
    )


def test_what_is_not_there_is_none() -> None:
    read = image.read(unified(initrd=None, cmdline=None), "linux.efi")
    assert (read.initrd, read.command_line) == (None, None)
    read = image.read(unified(initrd=b"", cmdline=b" \n\0"), "linux.efi")
    assert (read.initrd, read.command_line) == (None, None)


def test_the_version_is_the_kernels_own_or_unames() -> None:
    assert image.read(GOOD, "linux.efi").version == "6.1.0-test (maker@tests) #1"
    silent = unified(linux=bzimage(version=None), uname=b"6.1.0-uname\n")
    assert image.read(silent, "linux.efi").version == "6.1.0-uname"


def test_control_characters_in_uname_are_made_visible() -> None:
    silent = unified(linux=bzimage(version=None), uname=b"6.1\x1b[31m")
    assert image.read(silent, "linux.efi").version == "6.1\\x1b[31m"


@pytest.mark.parametrize("used", [None, 0x6000])
def test_a_padded_section_is_read_and_a_signature_inside_told_to_be_worthless(
    used: int | None,
) -> None:
    """ukify 257.0 made .linux's VirtualSize larger than what is in the file (systemd issue 35851)."""
    signed = bzimage(signature=b"S" * 16)
    data = unified(linux=signed)
    assert image.read(data, "linux.efi").remarks == ()
    padded = put_section(data, LINUX, "size", used or len(signed) + 40)
    read = image.read(padded, "linux.efi")
    (remark,) = read.remarks
    assert "behind its signature" in remark
    assert "no longer covers" in remark


def test_microcode_goes_before_the_initrd_and_is_padded() -> None:
    read = image.read(unified(initrd=b"initrd", more=[(".ucode", b"micro")]), "linux.efi")
    assert read.initrd is not None
    assert bytes(read.initrd) == b"micro\0\0\0initrd"
    read = image.read(unified(initrd=None, more=[(".ucode", b"micro")]), "linux.efi")
    assert read.initrd is not None
    assert bytes(read.initrd) == b"micro"


def test_sections_of_other_profiles_are_left_alone() -> None:
    more = [(".profile", b"ID=second"), (".cmdline", b"rescue")]
    assert image.read(unified(more=more), "linux.efi").command_line == "console=ttyS0 quiet"


def test_a_section_without_a_virtual_size_is_all_its_raw_data() -> None:
    data = put_section(unified(cmdline=b"a" * 0x200), 2, "size", 0)
    assert image.read(data, "linux.efi").command_line == "a" * 0x200


def test_the_payload_inside_unpacks_and_says_where_it_is_when_it_does_not() -> None:
    assert image.unpack(image.read(GOOD, "linux.efi")) == image.unpack(image.read(KERNEL, "x"))
    broken = unified(linux=bzimage(payload=b"\x89LZO" + bytes(40)))
    with pytest.raises(ImageError, match=r"\.linux payload at offset 0x810"):
        image.unpack(image.read(broken, "linux.efi"))


@pytest.mark.parametrize(
    ("data", "source", "field", "words"),
    [
        pytest.param(
            put_section(GOOD, LINUX, "raw_offset", 1 << 31),
            "linux.efi",
            ".linux",
            "not inside the file",
            id="beyond the file",
        ),
        pytest.param(
            unified(more=[(".initrd", b"two")]), "linux.efi", ".initrd", "there twice", id="twice"
        ),
        pytest.param(
            unified(linux=b"MZ arm64"), "linux.efi", ".linux", "no bzImage", id="no kernel"
        ),
        pytest.param(
            unified(linux=b"MZ" + bytes(0x36) + b"ARM\x64" + bytes(600)),
            "linux.efi",
            ".linux",
            "no bzImage, but an arm64 kernel",
            id="arm64",
        ),
        pytest.param(
            unified(linux=KERNEL[:-100]), "linux.efi: .linux", "syssize", "cut off", id="cut off"
        ),
        pytest.param(
            unified(linux=put(KERNEL, "init_size", 0)),
            "linux.efi: .linux",
            "init_size",
            "less than are loaded",
            id="broken kernel",
        ),
        pytest.param(
            unified(cmdline=b"quiet\xff"), "linux.efi", ".cmdline", "UTF-8", id="not UTF-8"
        ),
        pytest.param(
            unified(cmdline=b"quiet\0splash"), "linux.efi", ".cmdline", "zero byte", id="zero byte"
        ),
        pytest.param(
            pe([(".text", b"code")])[: TABLE + 30],
            "linux.efi",
            "PE section table",
            "1 sections are not inside the file",
            id="table cut off",
        ),
        pytest.param(
            pe([(".text", b"code")]), "linux.efi", None, "PE file without .* .linux", id="no .linux"
        ),
    ],
)
def test_a_broken_image_is_refused_with_the_section_named(
    data: bytes, source: str, field: str | None, words: str
) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        image.read(data, "linux.efi")
    assert (caught.value.source, caught.value.field) == (source, field)


@settings(max_examples=300)
@given(
    st.one_of(st.integers(0, FIRST_BYTE + 0x600), st.integers(0, len(GOOD) - 1)),
    st.integers(0, 255),
)
def test_one_wrong_byte_is_an_image_or_an_image_error(at: int, value: int) -> None:
    wrong = bytearray(GOOD)
    wrong[at] = value
    answer_to(bytes(wrong))


@given(
    st.integers(0, 4),
    st.sampled_from(["size", "raw_size", "raw_offset"]),
    st.integers(0, 0xFFFFFFFF),
)
def test_one_wrong_size_is_an_image_or_an_image_error(number: int, name: str, value: int) -> None:
    answer_to(put_section(GOOD, number, name, value))


@given(st.integers(0, len(GOOD) - 1))
def test_a_file_that_is_cut_off_is_refused_or_lacks_only_padding(length: int) -> None:
    answer = answer_to(GOOD[:length])
    assert isinstance(answer, ImageError) == (length < len(GOOD) - -len(KERNEL) % 0x200)


@given(initrd=st.binary(min_size=1), line=st.text(st.characters(codec="ascii", min_codepoint=33)))
def test_any_initrd_and_command_line_come_back(initrd: bytes, line: str) -> None:
    read = image.read(unified(initrd=initrd, cmdline=line.encode()), "linux.efi")
    assert read.initrd is not None
    assert bytes(read.initrd) == initrd
    assert (read.command_line or "") == line
    assert isinstance(read, Image)
