"""image.read on Multiboot kernels of both versions: found, loaded by ELF or by address, or refused.

Headers come from the maker, which has its own numbers; the real one is Debian's Xen.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.image.laid_out import answer_to, laid_out
from tests.makers import multiboot as maker
from tests.makers.elf import Segment, elf, pvh_note
from tests.makers.multiboot import BASE, CODE, flat_kernel, header1, header2, tag
from tightrope import image
from tightrope.errors import ImageError
from tightrope.model import EntryPoint, Image, Movable, Protocol

MULTIBOOT = EntryPoint(name="Multiboot", offset=0, bits=32, protocol=Protocol.MULTIBOOT)
MULTIBOOT2 = EntryPoint(name="Multiboot2", offset=0, bits=32, protocol=Protocol.MULTIBOOT2)


def kernel(*headers: bytes, bits: int = 32, notes: bytes = b"") -> bytes:
    """An ELF kernel with headers behind its code, each at a multiple of 8 in the file."""
    data = CODE.ljust(8, b"\0")
    for header in headers:
        data += header.ljust((len(header) + 7) & ~7, b"\0")
    return elf(Segment(BASE, data, size=0x4000), bits=bits, notes=notes)


# ------------------------------------------------------------------------------------ good kernels


@pytest.mark.parametrize(
    ("data", "format", "entries"),
    [
        pytest.param(kernel(header1()), "ELF32", (MULTIBOOT,), id="1"),
        pytest.param(kernel(header1(), bits=64), "ELF64", (MULTIBOOT,), id="1 in ELF64"),
        pytest.param(kernel(header2()), "ELF32", (MULTIBOOT2,), id="2"),
        pytest.param(kernel(header1(), header2()), "ELF32", (MULTIBOOT2, MULTIBOOT), id="both"),
        pytest.param(
            kernel(header1(), header2(tag(maker.ENTRY, BASE))),
            "ELF32",
            (MULTIBOOT2, MULTIBOOT),
            id="2 says its entry",
        ),
        pytest.param(flat_kernel(), "Multiboot", (MULTIBOOT,), id="1 by address"),
        pytest.param(flat_kernel(version=2), "Multiboot", (MULTIBOOT2,), id="2 by address"),
        pytest.param(
            kernel(header1(), notes=pvh_note(BASE, 4)),
            "ELF32",
            (MULTIBOOT, EntryPoint(name="PVH", offset=0, bits=32, protocol=Protocol.PVH)),
            id="1 and PVH",
        ),
        pytest.param(
            kernel(
                header2(
                    tag(maker.REQUEST, 1, 4, 6, 14),
                    tag(maker.REQUEST, 8, 11, optional=True),
                    tag(maker.CONSOLE, 2, optional=True),
                    tag(maker.CONSOLE, 1, optional=True),
                    tag(maker.CONSOLE, 2),
                    tag(maker.FRAMEBUFFER, 0, 0, 0, optional=True),
                    tag(maker.MODULES),
                    tag(maker.EFI),
                    tag(maker.EFI_I386, 0xDEAD),
                    tag(maker.EFI_AMD64, 0xDEAD),
                    tag(maker.RELOCATABLE, BASE, 0xFFFFFFFF, 0x200000, 2),
                    tag(77, 1, 2, 3, optional=True),
                )
            ),
            "ELF32",
            (MULTIBOOT2,),
            id="2 with all that can be provided",
        ),
    ],
)
def test_a_header_gives_a_way_in(data: bytes, format: str, entries: tuple[EntryPoint, ...]) -> None:
    read = image.read(data, "made")
    assert (read.format, read.entries) == (format, entries)
    assert (read.pref_address, read.relocatable, read.setup_header) == (BASE, False, b"")
    assert read.initrd_limit == read.cmdline_limit == 0xFFFFFFFF


def test_an_entry_of_its_own_takes_the_place_of_the_elf_files() -> None:
    (entry,) = image.read(kernel(header2(tag(maker.ENTRY, BASE + 2))), "made").entries
    assert entry.offset == 2


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("bss", [0, 0x3000])
@pytest.mark.parametrize("before", [0, 96])
def test_addresses_in_the_header_say_what_goes_where(version: int, bss: int, before: int) -> None:
    data = flat_kernel(version=version, bss=bss, before=before)
    read = image.read(data, "made")
    assert laid_out(read) == data[before:].ljust(bss, b"\0")
    assert read.file_size == len(data)


@pytest.mark.parametrize("end", [0, BASE + 96 + 100])
def test_a_multiboot2_address_of_minus_1_loads_the_file_from_its_beginning(end: int) -> None:
    """Multiboot2, 3.1.5, load_addr; version 1 has no such value."""
    before = bytes(range(96))
    tags = tag(maker.ADDRESS, BASE + 96, 0xFFFF_FFFF, end, BASE + 0x3000), tag(maker.ENTRY, BASE)
    data = before + header2(*tags) + bytes(range(200))
    loaded = data[: end - BASE] if end else data
    assert laid_out(image.read(data, "made")) == loaded.ljust(0x3000, b"\0")
    other = before + header1(0x10003, (BASE + 96, 0xFFFF_FFFF, 0, 0, BASE)) + bytes(200)
    with pytest.raises(ImageError, match="0xffffffff is not before the header"):
        image.read(other, "made")
    low = before + header2(tag(maker.ADDRESS, 95, 0xFFFF_FFFF, 0, 0), tag(maker.ENTRY, 0))
    with pytest.raises(ImageError, match="0x5f leaves no room for the 0x60 bytes before it"):
        image.read(low, "made")


def test_what_is_behind_load_end_is_not_loaded() -> None:
    data = flat_kernel(load_end=BASE + 60, bss=0)
    assert laid_out(image.read(data, "made")) == data[64 : 64 + 60]


def test_a_way_that_would_load_other_bytes_is_left_out() -> None:
    """Multiboot by address, Multiboot2 as ELF: one image cannot be both."""
    header_addr = BASE + 8
    by_address = header1(0x10003, (header_addr, BASE, 0, 0, BASE))
    read = image.read(kernel(by_address, header2()), "made")
    assert (read.entries, read.init_size) == ((MULTIBOOT2,), 0x4000)

    other = read.alternatives[0]
    assert (other.entries, other.format) == ((MULTIBOOT,), "Multiboot")
    assert other.init_size < read.init_size


def test_required_information_that_a_kexec_does_not_have_is_left_out_and_told() -> None:
    """Multiboot2, 3.1.4: "... the bootloader does not provide the requested tag ... and passes control"."""
    read = image.read(kernel(header2(tag(maker.REQUEST, 1, 8, 17))), "mach")
    assert read.entries == (MULTIBOOT2,)
    (remark,) = read.remarks
    assert remark.endswith("what a kexec does not have: framebuffer, efi memory map")
    assert image.read(kernel(header2(tag(maker.REQUEST, 1, 6))), "kernel").remarks == ()
    optional = tag(maker.REQUEST, 8, 99, optional=True)
    assert image.read(kernel(header2(optional)), "kernel").remarks == ()


def test_a_framebuffer_that_is_asked_for_is_left_out_and_told() -> None:
    """GNU Mach's header has the tag, not optional; GRUB enters it without a screen."""
    read = image.read(kernel(header2(tag(maker.FRAMEBUFFER, 0, 0, 0))), "mach")
    assert (read.entries, len(read.remarks)) == ((MULTIBOOT2,), 1)
    assert "framebuffer" in read.remarks[0]
    optional = header2(tag(maker.FRAMEBUFFER, 0, 0, 0, optional=True))
    assert image.read(kernel(optional), "kernel").remarks == ()


def test_a_header_that_lets_a_loader_move_the_kernel_is_told() -> None:
    read = image.read(kernel(header2(tag(maker.RELOCATABLE, BASE, 0xFFFF_FFFF, 0x20_0000, 2))), "x")
    assert read.movable == Movable(start=BASE, end=1 << 32, alignment=0x20_0000)
    assert image.read(kernel(header2()), "x").movable is None


def test_xen_cuts_its_command_line_off_and_others_do_not_say() -> None:
    banner = b"(XEN) Xen version %d.%d%s (%s) (%s)\0"
    assert image.read(kernel(header2(), banner), "xen").cmdline_limit == 1023
    assert image.read(kernel(header2(), banner[11:]), "other").cmdline_limit == 0xFFFF_FFFF


# ---------------------------------------------------------------------------------- broken kernels


@pytest.mark.parametrize(
    ("data", "field", "words"),
    [
        pytest.param(kernel(header1(4)), "Multiboot flags", "require a video mode", id="1 video"),
        pytest.param(kernel(header1(0x8000)), "Multiboot flags", "require 0x8000", id="1 unknown"),
        pytest.param(
            bytes(64) + header1(), "Multiboot header", "gives no load addresses", id="1, not ELF"
        ),
        pytest.param(
            bytes(64) + header2(), "Multiboot2 header", "gives no load addresses", id="2, not ELF"
        ),
        pytest.param(
            bytes(64) + header1(0x10000), "Multiboot header_addr", "not inside", id="1 cut off"
        ),
        pytest.param(
            flat_kernel(before=8192 - 28),
            "Multiboot header_addr",
            "not inside the file and the header's reach",
            id="1 addresses out of reach",
        ),
        pytest.param(
            bytes(64) + header1(0x10000, (BASE, BASE + 1, 0, 0, BASE)),
            "Multiboot load_addr",
            "not before the header",
            id="1 load_addr behind the header",
        ),
        pytest.param(
            bytes(64) + header1(0x10000, (BASE + 65, BASE, 0, 0, BASE)),
            "Multiboot load_addr",
            "before the file's first byte",
            id="1 load_addr before the file",
        ),
        pytest.param(
            flat_kernel(load_end=BASE + 8), "Multiboot load_end_addr", "not behind", id="1 short"
        ),
        pytest.param(
            flat_kernel(load_end=BASE + 5000), "Multiboot load_end_addr", "cut off", id="1 long"
        ),
        pytest.param(flat_kernel(bss=20), "Multiboot bss_end_addr", "not behind", id="1 bss"),
        pytest.param(flat_kernel(entry=BASE - 1), "Multiboot entry_addr", "0xfffff", id="1 entry"),
        pytest.param(
            flat_kernel(entry=BASE + 0x2000), "Multiboot entry_addr", "not in", id="1 entry in bss"
        ),
        pytest.param(
            flat_kernel(version=2, entry=BASE - 1),
            "Multiboot2 entry address tag",
            "0xfffff is not in",
            id="2 entry",
        ),
        pytest.param(
            kernel(header2(tag(maker.ENTRY, 5))),
            "Multiboot2 entry",
            "0x5 is not in",
            id="2 ELF entry",
        ),
        pytest.param(
            bytes(64) + header2(tag(maker.ADDRESS, BASE, BASE, 0, 0)),
            "Multiboot2 address tag",
            "no tag gives the entry",
            id="2 address without entry",
        ),
        pytest.param(
            kernel(header2(architecture=4)), "Multiboot2 architecture", "4 is not i386", id="2 MIPS"
        ),
        pytest.param(
            kernel(header2(end=False)), "Multiboot2 tags", "without an end tag", id="2 no end"
        ),
        pytest.param(
            kernel(header2(tag(maker.ENTRY, BASE, size=4))),
            "Multiboot2 entry address tag size",
            "4 bytes",
            id="2 tag without a head",
        ),
        pytest.param(
            kernel(header2(tag(maker.ENTRY, BASE, size=8))),
            "Multiboot2 entry address tag size",
            "0 bytes, not 4",
            id="2 short tag",
        ),
        pytest.param(
            kernel(header2(tag(maker.REQUEST, 1, size=400))),
            "Multiboot2 information request tag size",
            "400 bytes",
            id="2 long tag",
        ),
        pytest.param(
            kernel(header2(tag(maker.REQUEST, 1, 8, 22, 1 << 31))),
            "Multiboot2 information request tag",
            "requires types 22, 2147483648, which nobody knows",
            id="2 information",
        ),
        pytest.param(
            kernel(header2(tag(maker.CONSOLE, 1))),
            "Multiboot2 console flags tag",
            "requires a console",
            id="2 console",
        ),
        pytest.param(
            kernel(header2(tag(77))), "Multiboot2 type 77 tag", "is required", id="2 unknown tag"
        ),
        pytest.param(
            kernel(header2(tag(maker.RELOCATABLE, 2, 1, 1, 0))),
            "Multiboot2 relocatable tag",
            "min_addr is above max_addr",
            id="2 empty range",
        ),
        pytest.param(
            kernel(header2(tag(maker.RELOCATABLE, BASE, BASE + 0x3FFE, 1, 0))),
            "Multiboot2 relocatable tag",
            r"linked outside \[0x100000, 0x103fff\)",
            id="2 outside its range",
        ),
    ],
)
def test_what_cannot_be_provided_or_loaded_is_refused(data: bytes, field: str, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        image.read(data, "made")
    assert (caught.value.source, caught.value.field) == ("made", field)
    assert caught.value.offset is not None
    assert 0 < caught.value.offset <= len(data)


def test_a_header_that_is_longer_than_the_file_is_refused() -> None:
    magic, length = 0xE85250D6, 16 + 4000
    header = struct.pack("<IIII", magic, 0, length, -(magic + length) % (1 << 32))
    with pytest.raises(ImageError, match="header_length at offset 0x48: 0xfb0 bytes from 0x40"):
        image.read(bytes(64) + header + bytes(40), "made")


@pytest.mark.parametrize("spoil", [0, 4, 8])
def test_without_magic_flags_and_checksum_that_agree_there_is_no_header(spoil: int) -> None:
    data = bytearray(kernel(header1()))
    at = data.index(header1())
    data[at + spoil] ^= 0x40
    (entry,) = image.read(bytes(data), "made").entries
    assert entry.protocol is Protocol.FLAT


def test_the_first_header_that_sums_up_is_the_one() -> None:
    decoy = header1()[:8] + bytes(4)
    (entry,) = image.read(kernel(decoy, header1()), "made").entries
    assert entry.protocol is Protocol.MULTIBOOT


# ------------------------------------------------------------------------------------- any bytes

GOOD = [
    kernel(header1(), header2(tag(maker.ENTRY, BASE), tag(maker.RELOCATABLE, 0, 1 << 30, 8, 0))),
    flat_kernel(),
    flat_kernel(version=2),
]


@settings(max_examples=300)
@given(st.sampled_from(GOOD), st.integers(0, 1 << 20), st.integers(0, 255))
def test_one_wrong_byte_is_an_image_or_an_image_error(data: bytes, at: int, value: int) -> None:
    wrong = bytearray(data)
    wrong[at % len(data)] = value
    answer_to(bytes(wrong))


@given(st.lists(st.integers(0, 0xFFFFFFFF), max_size=6), st.integers(0, 0x1FFFF), st.binary())
def test_any_header_of_version_1_is_an_image_or_an_image_error(
    words: list[int], flags: int, more: bytes
) -> None:
    answer_to(bytes(16) + header1(flags, words) + more)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 11),
            st.lists(st.integers(0, 0xFFFFFFFF), max_size=5),
            st.booleans(),
            st.one_of(st.none(), st.integers(0, 60)),
        )
    ),
    st.booleans(),
)
def test_any_tags_are_an_image_or_an_image_error(
    tags: list[tuple[int, list[int], bool, int | None]], as_elf: bool
) -> None:
    made = [tag(kind, *words, optional=flag, size=size) for kind, words, flag, size in tags]
    answer_to(kernel(header2(*made)) if as_elf else bytes(16) + header2(*made))


@given(
    before=st.integers(0, 500).map(lambda number: number * 8),
    load=st.integers(0, 1 << 31),
    more=st.binary(max_size=9000),
    bss=st.one_of(st.just(0), st.integers(10_000, 1 << 20)),
    version=st.sampled_from([1, 2]),
)
def test_what_is_made_is_what_is_laid_out(
    before: int, load: int, more: bytes, bss: int, version: int
) -> None:
    data = flat_kernel(version=version, before=before, load=load, more=more, bss=bss)
    read = image.read(data, "made")
    assert read.pref_address == load
    assert laid_out(read) == data[before:].ljust(bss, b"\0")
    assert isinstance(answer_to(data), Image)


# ------------------------------------------------------------------------------------ the real one


def test_debians_xen_is_a_kernel_packed_or_not(xen_hypervisor: Path) -> None:
    packed = xen_hypervisor.read_bytes()
    plain = gzip.decompress(packed)
    read = image.read(packed, "xen.gz")
    assert read.source == "xen.gz (unpacked)"
    assert (read.format, read.file_size) == ("ELF32", len(plain))
    assert [each.protocol for each in read.entries] == [Protocol.MULTIBOOT2, Protocol.MULTIBOOT]
    assert (read.movable is not None, read.cmdline_limit) == (True, 1023)
    # Its one PT_LOAD is the first program header, at 52; p_offset, p_vaddr, p_paddr, sizes.
    offset, _, physical, in_file, in_memory = struct.unpack_from("<5I", plain, 52 + 4)
    assert (read.pref_address, read.init_size) == (physical, in_memory)
    assert laid_out(read) == plain[offset : offset + in_file].ljust(in_memory, b"\0")
    again = image.read(plain, "xen")
    assert (again.entries, again.parts) == (read.entries, read.parts)
