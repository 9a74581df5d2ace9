"""image.read on bzImages: good ones come back as made, broken ones are refused where they are broken.

Images come from the maker, which has its own offsets; real kernels come from Debian.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.bzimage import (
    HALT_LOOP,
    OFFSETS,
    PAYLOAD_AT,
    bzimage,
    put,
    with_certificate_table,
)
from tightrope import image
from tightrope.errors import ImageError
from tightrope.model import EntryPoint, Image, Payload, Protocol

SETUP = 1024
GOOD = bzimage()
STARTUP_64 = EntryPoint(name="startup_64", offset=0x200, bits=64, protocol=Protocol.LINUX_64)
STARTUP_32 = EntryPoint(name="startup_32", offset=0, bits=32, protocol=Protocol.LINUX_32)


# ------------------------------------------------------------------------------------- good images


def test_a_good_image_comes_back_as_it_was_made() -> None:
    read = image.read(GOOD, "good")
    assert (read.source, read.format, read.protocol) == ("good", "bzImage", 0x020F)
    assert read.version == "6.1.0-test (maker@tests) #1"
    assert read.entries == (STARTUP_64, STARTUP_32)
    assert read.relocatable
    assert (read.pref_address, read.init_size) == (0x1000000, 0x200000)
    assert (read.alignment, read.min_alignment) == (0x200000, 0x200000)
    assert (read.cmdline_limit, read.initrd_limit) == (2047, 0x7FFFFFFF)
    assert (read.above_4g, read.loadflags, read.xloadflags) == (True, 1, 0x7F)
    assert read.file_size == len(GOOD)
    assert read.setup_header == GOOD[0x1F1:0x26C]
    assert read.payload is not None
    assert (read.payload.offset, read.payload.compression) == (PAYLOAD_AT, "gzip")


def test_the_kernel_is_a_read_only_view_of_the_very_bytes() -> None:
    data = bytearray(GOOD)
    kernel = image.read(data, "good").parts[0].data
    assert kernel.readonly
    assert bytes(kernel[0x200 : 0x200 + len(HALT_LOOP)]) == HALT_LOOP
    data[SETUP + 0x200] = 0x90
    assert kernel[0x200] == 0x90


@given(
    protocol=st.sampled_from([0x020A, 0x020B, 0x020C, 0x020D, 0x020F]),
    setup_sects=st.integers(1, 64),
    relocatable=st.booleans(),
    shift=st.integers(12, 24),
    less=st.integers(0, 11),
    place=st.integers(1, 100),
    init_size=st.integers(0x10000, 0x10000000),
    kernel_size=st.integers(0, 0x4000),
    cmdline_size=st.integers(1, 4096),
    signature=st.binary(max_size=40),
)
def test_every_good_image_is_read(
    protocol: int,
    setup_sects: int,
    relocatable: bool,
    shift: int,
    less: int,
    place: int,
    init_size: int,
    kernel_size: int,
    cmdline_size: int,
    signature: bytes,
) -> None:
    data = bzimage(
        protocol=protocol,
        setup_sects=setup_sects,
        relocatable=relocatable,
        alignment=1 << shift,
        min_alignment=shift - less,
        pref_address=place << shift,
        init_size=init_size,
        kernel_size=kernel_size,
        cmdline_size=cmdline_size,
        signature=signature,
    )
    read = image.read(data, "made")
    assert bytes(read.parts[0].data) == data[(setup_sects + 1) * 512 :]
    assert bytes(read.parts[0].data).endswith(signature)
    assert (read.relocatable, read.pref_address) == (relocatable, place << shift)
    assert (read.alignment, read.min_alignment) == (1 << shift, 1 << shift - less)
    assert (read.init_size, read.cmdline_limit) == (init_size, cmdline_size)
    assert read.entries == ((STARTUP_64, STARTUP_32) if protocol >= 0x020C else (STARTUP_32,))
    assert read.above_4g == (protocol >= 0x020C)


def test_no_setup_sects_means_four() -> None:
    read = image.read(bzimage(setup_sects=0), "old")
    assert read.file_size - len(read.parts[0].data) == 5 * 512


def test_no_min_alignment_means_the_preferred_one() -> None:
    assert image.read(bzimage(min_alignment=0), "image").min_alignment == 0x200000


def test_a_32_bit_kernel_has_one_entry_and_stays_below_4_gib() -> None:
    read = image.read(bzimage(xloadflags=0b100), "i386")
    assert read.entries == (STARTUP_32,)
    assert not read.above_4g


def test_an_image_may_name_no_version_and_no_payload() -> None:
    read = image.read(bzimage(version=None, payload=b""), "bare")
    assert read.version is None
    assert read.payload is None


def test_a_relocatable_image_may_have_no_preferred_address() -> None:
    assert image.read(bzimage(pref_address=0), "anywhere").pref_address == 0


def test_a_version_cannot_send_escapes_to_a_terminal() -> None:
    assert image.read(bzimage(version="6.1\x1b[31m"), "image").version == "6.1\\x1b[31m"


def test_an_image_with_fields_of_a_later_protocol_is_read() -> None:
    assert image.read(put(GOOD, "version", 0x0210), "later").protocol == 0x0210


def test_fields_behind_an_old_header_are_not_read() -> None:
    """In a 2.10 image the bytes of kernel_info_offset are code."""
    data = put(bzimage(protocol=0x020A), "kernel_info_offset", 0xFFFFFFFF)
    assert image.read(data, "2.10").protocol == 0x020A


def test_a_header_may_reach_as_far_as_a_short_jump() -> None:
    assert len(image.read(put(GOOD, "jump", 0x7FEB), "long").setup_header) == 0x281 - 0x1F1


def test_init_size_may_be_just_what_is_loaded() -> None:
    assert image.read(put(GOOD, "init_size", len(GOOD) - SETUP), "tight").init_size == KERNEL


def test_kernel_info_may_end_where_the_kernel_ends() -> None:
    at = len(GOOD) - 16
    data = put(bzimage(payload=b"", kernel_size=KERNEL), "kernel_info_offset", at - SETUP)
    moved = data[:at] + data[SETUP + 0x400 : SETUP + 0x410]
    assert image.read(moved, "image").file_size == len(GOOD)


def test_the_signature_is_loaded_and_accounted_for() -> None:
    data = bzimage(signature=b"S" * 1472)
    read = image.read(data, "signed")
    assert len(read.parts[0].data) == len(bzimage()) - SETUP + 1472
    assert bytes(read.parts[0].data[-1472:]) == b"S" * 1472


@pytest.mark.parametrize(
    ("kernel", "compression"), [("debian_amd64", "xz"), ("debian_cloud", "lz4")]
)
def test_debians_kernels_are_read(
    request: pytest.FixtureRequest, kernel: str, compression: str
) -> None:
    path: Path = request.getfixturevalue(kernel)
    data = path.read_bytes()
    read = image.read(data, path.name)
    assert read.protocol >= 0x020F
    assert read.version is not None
    assert path.name.endswith(read.version.split()[0])
    assert read.entries == (STARTUP_64, STARTUP_32)
    assert read.relocatable
    assert (read.pref_address, read.alignment) == (0x1000000, 0x200000)
    assert len(read.parts[0].data) == path.stat().st_size - (data[0x1F1] + 1) * 512
    assert isinstance(read.payload, Payload)
    assert read.payload.compression == compression


# ------------------------------------------------------------------------------------ broken images

KERNEL = len(GOOD) - SETUP

BROKEN_FIELDS = [
    ("boot_flag", 0, "boot_flag", "0xaa55"),
    ("version", 0x0209, "version", "boot protocol 2.09 does not say how much memory"),
    ("version", 0x0300, "version", "boot protocol 3.00 is not known"),
    ("jump", 0x6A90, "jump", "0x90 is not a short jump"),
    ("jump", 0x80EB, "jump", "goes back by 128"),
    ("jump", 0x66EB, "jump", "ends the header at 0x268, inside the fields of protocol 2.15"),
    ("loadflags", 0, "loadflags", "a zImage"),
    ("xloadflags", 0b10, "xloadflags", "XLF_KERNEL_64 is not"),
    ("setup_sects", 255, "setup_sects", "the file ends"),
    ("syssize", 0, "syssize", "0 bytes of kernel"),
    ("syssize", KERNEL // 16 + 1, "syssize", "cut off: 16 of"),
    ("kernel_alignment", 0, "kernel_alignment", "not a power of two"),
    ("kernel_alignment", 0x300000, "kernel_alignment", "not a power of two"),
    ("min_alignment", 22, "min_alignment", "more than kernel_alignment"),
    ("min_alignment", 255, "min_alignment", "more than kernel_alignment"),
    ("init_size", KERNEL - 1, "init_size", "less than are loaded"),
    ("pref_address", 0x1001000, "pref_address", "not a multiple"),
    ("pref_address", 1 << 52, "pref_address", "more than the kernel"),
    ("cmdline_size", 0, "cmdline_size", "never filled in"),
    ("initrd_addr_max", 0, "initrd_addr_max", "never filled in"),
    ("setup_data", 0x9000, "setup_data", "only a loader"),
    ("hardware_subarch", 2, "hardware_subarch", "only a loader"),
    ("kernel_version", SETUP - 0x200, "kernel_version", "no zero-terminated string"),
    ("payload_length", KERNEL, "payload_length", "not inside the kernel"),
    ("payload_length", 0, "payload_length", "not inside the kernel"),
    ("payload_offset", 0x200, "payload_offset", "no compression is known that begins with f4 eb"),
    ("handover_offset", KERNEL, "handover_offset", "not inside the kernel"),
    ("kernel_info_offset", KERNEL - 15, "kernel_info_offset", "not inside the kernel"),
    ("kernel_info_offset", 0x200, "kernel_info_offset", "are not b'LToP'"),
]


@pytest.mark.parametrize(("changed", "value", "field", "words"), BROKEN_FIELDS)
def test_a_wrong_field_is_refused_where_it_is(
    changed: str, value: int, field: str, words: str
) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        image.read(put(GOOD, changed, value), "broken")
    assert caught.value.source == "broken"
    assert caught.value.field == field
    assert caught.value.offset == OFFSETS[field][0]


def test_a_version_that_fills_the_setup_code_has_no_end() -> None:
    # The maker's string begins at 0x300, and the setup code ends at 0x400.
    full = GOOD[:0x300] + b"6" * 0x100 + GOOD[0x400:]
    with pytest.raises(ImageError, match="kernel_version at offset 0x20e"):
        image.read(full, "broken")


def test_sizes_of_kernel_info_have_to_fit() -> None:
    at = SETUP + 0x400 + 8
    broken = GOOD[:at] + (KERNEL).to_bytes(4, "little") + GOOD[at + 4 :]
    with pytest.raises(ImageError, match=r"kernel_info_offset .* sizes 0x10 and"):
        image.read(broken, "broken")


def test_a_64_bit_kernel_has_to_reach_its_entry() -> None:
    small = put(put(GOOD, "syssize", 0x200 // 16), "payload_offset", 0)[: SETUP + 0x200]
    with pytest.raises(ImageError, match=r"xloadflags .* no startup_64"):
        image.read(small, "broken")


def test_an_image_that_cannot_be_moved_has_to_say_where_it_runs() -> None:
    with pytest.raises(
        ImageError, match=r"pref_address .* is 0, but the kernel is not relocatable"
    ):
        image.read(bzimage(relocatable=False, pref_address=0), "broken")


def test_an_image_for_below_4_gib_cannot_prefer_a_place_above() -> None:
    assert image.read(bzimage(pref_address=1 << 32), "above").pref_address == 1 << 32
    with pytest.raises(ImageError, match=r"pref_address .* \(limit 0x100000000\)"):
        image.read(bzimage(pref_address=1 << 32, xloadflags=0b01), "broken")


def test_the_last_byte_below_the_physical_limit_can_be_used() -> None:
    data = bzimage(pref_address=(1 << 52) - 0x200000)
    assert image.read(data, "top").pref_address == (1 << 52) - 0x200000


@pytest.mark.parametrize("extra", [1, 15, 1472])
@pytest.mark.parametrize(("byte", "kind"), [(b"x", "bytes, not all"), (b"\0", "bytes of zeros")])
def test_bytes_behind_the_kernel_are_loaded_with_it_and_told(
    extra: int, byte: bytes, kind: str
) -> None:
    read = image.read(GOOD + byte * extra, "padded")
    assert len(read.parts[0].data) == KERNEL + extra
    (remark,) = read.remarks
    one = "1 byte of zeros" if byte == b"\0" else "1 byte, not a zero,"
    assert remark.startswith(one if extra == 1 else f"{extra} {kind}")
    assert "behind the kernel, which its header does not count" in remark
    assert remark.endswith("no signature of the kernel alone covers")


END = len(GOOD)


@pytest.mark.parametrize(
    ("tail", "start", "size", "words"),
    [
        pytest.param(b"x" * 8, END, 16, "cut off: 8 of 16 bytes", id="cut off"),
        pytest.param(b"", END, 16, "cut off: 16 of 16 bytes", id="missing"),
        pytest.param(b"x" * 16, END, 8, "8 bytes, not all of them zeros, behind its", id="behind"),
        pytest.param(b"x" * 8 + b"\0" * 8, END, 8, "8 bytes of zeros behind its", id="padded"),
        pytest.param(b"\0" * 16, END + 8, 8, "8 bytes of zeros between", id="gap"),
        pytest.param(b"x" * 16, END + 4, 12, "4 bytes, not all of them", id="dirty gap"),
        pytest.param(b"x" * 16, END, 0, "16 bytes, not all of them zeros, behind", id="not signed"),
    ],
)
def test_a_signature_that_does_not_account_for_the_tail_is_remarked_on(
    tail: bytes, start: int, size: int, words: str
) -> None:
    """kexec-tools and Linux take the file's size: nothing of this keeps the kernel from running."""
    read = image.read(with_certificate_table(GOOD, start, size) + tail, "signed")
    (remark,) = read.remarks
    assert words in remark
    assert len(read.parts[0].data) == KERNEL + len(tail)


def test_what_is_padded_behind_its_signature_is_no_longer_covered() -> None:
    data = bzimage(signature=b"S" * 16)
    assert image.read(data, "signed").remarks == ()
    (remark,) = image.read(data + bytes(512), "padded").remarks
    assert remark.endswith("it no longer covers the file")


def test_a_certificate_table_inside_the_kernel_is_refused() -> None:
    with pytest.raises(ImageError, match="lies inside the kernel"):
        image.read(with_certificate_table(GOOD, END - 8, 16) + b"x" * 8, "signed")


def test_a_signers_padding_is_accepted() -> None:
    data = with_certificate_table(GOOD, END + 4, 12) + b"\0" * 4 + b"S" * 12
    read = image.read(data, "signed")
    assert (len(read.parts[0].data), read.remarks, read.signature) == (KERNEL + 16, (), 12)


@pytest.mark.parametrize(
    "break_pe",
    [
        pytest.param((0x3C, b"\xff\xff\xff\xff"), id="offset beyond the file"),
        pytest.param((0x40, b"XX"), id="no signature"),
        pytest.param((0x58, b"\0\0"), id="no optional header"),
        pytest.param((0x58 + 108, b"\x04"), id="too few directories"),
    ],
)
def test_without_its_pe_header_a_signature_is_unexplained(break_pe: tuple[int, bytes]) -> None:
    at, wrong = break_pe
    data = bzimage(signature=b"S" * 16)
    read = image.read(data[:at] + wrong + data[at + len(wrong) :], "broken")
    assert read.signature == 0
    (remark,) = read.remarks
    assert remark.startswith("16 bytes, not all of them zeros, behind the kernel")


# ------------------------------------------------------------------------------------- any bytes


def accepts_or_refuses(data: bytes) -> None:
    """Anything but an Image or an ImageError escapes and fails the test."""
    try:
        answer: Image | ImageError = image.read(data, "any")
    except ImageError as refusal:
        answer = refusal
    assert answer.source == "any"
    if isinstance(answer, Image):
        assert 0 < len(answer.parts[0].data) <= answer.init_size
        assert answer.alignment >= answer.min_alignment > 0
        assert answer.parts[0].data == data[len(data) - len(answer.parts[0].data) :]
    else:
        assert str(answer).startswith("any: ")


@given(st.binary(max_size=3000))
def test_any_bytes_are_an_image_or_an_image_error(data: bytes) -> None:
    accepts_or_refuses(data)


@given(st.binary(min_size=0x7B, max_size=0x7B), st.integers(0, 0x26C))
def test_any_setup_header_is_an_image_or_an_image_error(header: bytes, keep: int) -> None:
    """The magic stays, so that it is the reader of bzImages that has to cope."""
    wrong = bytearray(GOOD[:0x1F1] + header + GOOD[0x26C:])
    wrong[:keep] = GOOD[:keep]
    wrong[0x1FE:0x208] = GOOD[0x1FE:0x208]
    accepts_or_refuses(bytes(wrong))


@given(st.integers(0, SETUP + 0x450), st.integers(0, 255), st.booleans())
def test_one_wrong_byte_is_an_image_or_an_image_error(at: int, value: int, signed: bool) -> None:
    data = bytearray(bzimage(signature=b"S" * 24) if signed else GOOD)
    data[at] = value
    accepts_or_refuses(bytes(data))


@given(st.integers(0, len(GOOD) - 1))
def test_a_file_that_is_cut_off_is_refused(length: int) -> None:
    with pytest.raises(ImageError):
        image.read(GOOD[:length], "cut")


def test_setup_code_alone_is_no_kernel() -> None:
    with pytest.raises(ImageError, match=r"setup_sects .* the file ends at 0x400"):
        image.read(GOOD[:SETUP], "cut")


def test_a_header_in_too_short_a_file_is_a_kernel_cut_off() -> None:
    with pytest.raises(ImageError, match="cut off after 600 bytes"):
        image.read(GOOD[:600], "cut")
