"""image.read on ELF kernels: segments by physical address, entries, notes; broken ones are refused.

Files come from the maker, which has its own offsets; real ones are what Debian's kernels unpack to.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.image.laid_out import answer_to, laid_out
from tests.makers.elf import CODE, FIRST_BYTE, Segment, elf, note, put, pvh_note
from tightrope import image
from tightrope.errors import ImageError
from tightrope.model import EntryPoint, Image, Protocol

BASE = 0x1000000
LINUX = note("Linux", 0x100, b"salt")
BANNER = b"\0Linux version 6.1.0-test (maker@tests) #1 SMP\n\0"
KERNEL = elf(
    Segment(BASE, CODE * 100, virtual=0xFFFFFFFF81000000),
    Segment(BASE + 0x4000, b"data" * 64, size=0x5000, flags=6),
    notes=LINUX + pvh_note(BASE + 0x20),
)


def entries(data: bytes) -> list[tuple[Protocol, int, int]]:
    return [(each.protocol, each.offset, each.bits) for each in image.read(data, "made").entries]


# ------------------------------------------------------------------------------------ good kernels


def test_a_linux_kernel_comes_back_as_it_was_made() -> None:
    read = image.read(KERNEL, "vmlinux")
    assert (read.source, read.format, read.file_size) == ("vmlinux", "ELF64", len(KERNEL))
    assert (read.pref_address, read.init_size, read.relocatable) == (BASE, 0x9000, False)
    assert read.entries == (
        EntryPoint(name="startup_64", offset=0, bits=64, protocol=Protocol.LINUX_64),
        EntryPoint(name="PVH", offset=0x20, bits=32, protocol=Protocol.PVH),
    )
    assert (read.setup_header, read.protocol, read.payload) == (b"", 0, None)
    assert (read.cmdline_limit, read.initrd_limit, read.above_4g) == (2047, 0x7FFFFFFF, False)
    memory = laid_out(read)
    assert memory[: len(CODE) * 100] == CODE * 100
    assert memory[0x4000:] == (b"data" * 64).ljust(0x5000, b"\0")
    assert all(part.data.obj is KERNEL for part in read.parts)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(elf(notes=LINUX), [(Protocol.LINUX_64, 0, 64)], id="Linux's note"),
        pytest.param(elf(Segment(BASE, BANNER)), [(Protocol.LINUX_64, 0, 64)], id="Linux's banner"),
        pytest.param(elf(bits=32, notes=LINUX), [(Protocol.LINUX_32, 0, 32)], id="32-bit Linux"),
        pytest.param(elf(), [(Protocol.FLAT, 0, 64)], id="somebody's 64-bit kernel"),
        pytest.param(elf(bits=32, kind=3), [(Protocol.FLAT, 0, 32)], id="somebody's, ET_DYN"),
        pytest.param(elf(notes=pvh_note(BASE + 8)), [(Protocol.PVH, 8, 32)], id="PVH alone"),
        pytest.param(
            elf(bits=32, notes=note("GNU", 18, b"1234") + pvh_note(BASE + 8, size=4)),
            [(Protocol.PVH, 8, 32)],
            id="a PVH note of 4 bytes, behind another's note 18",
        ),
        pytest.param(
            elf(Segment(BASE, virtual=0xC1000000), bits=32, entry=0xC1000010, notes=LINUX),
            [(Protocol.LINUX_32, 0x10, 32)],
            id="a virtual entry",
        ),
        pytest.param(
            elf(Segment(BASE, virtual=0xC1000000), bits=32, entry=BASE + 9, notes=LINUX),
            [(Protocol.LINUX_32, 9, 32)],
            id="a physical entry",
        ),
        pytest.param(
            elf(
                Segment(BASE, CODE * 80),
                Segment(BASE + 0x8000, virtual=BASE, flags=6),
                entry=BASE + 5,
            ),
            [(Protocol.FLAT, 5, 64)],
            id="data at the entry's virtual address",
        ),
        pytest.param(
            elf(Segment(BASE + 0x3000, b"data"), Segment(BASE), entry=BASE + 1),
            [(Protocol.FLAT, 1, 64)],
            id="segments upside down",
        ),
    ],
)
def test_the_ways_in_are_found(data: bytes, expected: list[tuple[Protocol, int, int]]) -> None:
    assert entries(data) == expected


def test_the_version_is_in_the_last_banner() -> None:
    early = b"Linux version 6.1.0-test (maker@tests) # SMP\0"
    read = image.read(elf(Segment(BASE, early + BANNER)), "vmlinux")
    assert read.version == "6.1.0-test (maker@tests) #1 SMP"
    assert image.read(elf(), "other").version is None


def test_segments_of_no_memory_are_left_out() -> None:
    read = image.read(elf(Segment(BASE), Segment(0, b"")), "made")
    assert (read.pref_address, len(read.parts)) == (BASE, 1)


def test_segments_in_one_page_become_parts_in_pages_of_their_own() -> None:
    read = image.read(elf(Segment(BASE, b"a" * 5000), Segment(BASE + 5200, b"b" * 9000)), "made")
    assert [(part.offset, part.size) for part in read.parts] == [
        (0, 4096),
        (4096, 4096),
        (8192, 5200 + 9000 - 8192),
    ]
    assert laid_out(read) == b"a" * 5000 + bytes(200) + b"b" * 9000


@given(
    bits=st.sampled_from([32, 64]),
    sizes=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 9000), st.integers(0, 5000))),
    start=st.integers(1, 1 << 30),
)
def test_what_is_made_is_what_is_laid_out(
    bits: int, sizes: list[tuple[int, int, int]], start: int
) -> None:
    segments, at = [Segment(start)], start + len(CODE)
    for number, (used, zeros, gap) in enumerate(sizes[:8]):
        segments.append(Segment(at + gap, bytes([number + 1]) * used, size=used + zeros))
        at += gap + used + zeros
    read = image.read(elf(*segments, bits=bits), "made")
    assert isinstance(answer_to(elf(*segments, bits=bits)), Image)
    memory = laid_out(read)
    for one in segments:
        size = len(one.data) if one.size is None else one.size
        there = memory[one.start - start : one.start - start + size]
        assert there == one.data.ljust(size, b"\0")


# ---------------------------------------------------------------------------------- broken kernels


@pytest.mark.parametrize(
    ("data", "field", "offset", "words"),
    [
        pytest.param(b"\x7fELF", "e_ident", 0, "cut off after 4 bytes", id="magic alone"),
        pytest.param(elf()[:63], "e_ident", 0, "cut off after 63", id="header cut off"),
        pytest.param(b"\x7fELF\x03" + elf()[5:], "e_ident", 0, "unknown class", id="class"),
        pytest.param(elf()[:5] + b"\2" + elf()[6:], "e_ident", 5, "little-endian", id="big-endian"),
        pytest.param(elf(kind=1), "e_type", 16, "ET_REL is not ET_EXEC or ET_DYN", id="object"),
        pytest.param(elf(kind=4), "e_type", 16, "ET_CORE", id="core dump"),
        pytest.param(elf(kind=0xABCD), "e_type", 16, "43981 is not", id="unknown type"),
        pytest.param(elf(machine=183), "e_machine", 18, "EM_AARCH64", id="another machine"),
        pytest.param(elf(machine=3), "e_machine", 18, "ELF64 file for EM_386", id="i386, 64-bit"),
        pytest.param(elf(bits=32, machine=62), "e_machine", 18, "EM_X86_64", id="x32"),
        pytest.param(put(elf(), "e_phnum", 0), "e_phnum", 56, "0 program headers", id="none"),
        pytest.param(put(elf(), "e_phnum", 0xFFFF), "e_phnum", 56, "65535", id="too many"),
        pytest.param(
            put(elf(bits=32), "e_phnum", 200), "e_phoff", 28, "not inside the file", id="table"
        ),
        pytest.param(put(elf(), "e_phoff", 1 << 63), "e_phoff", 32, "not inside", id="far table"),
        pytest.param(put(elf(), "e_phentsize", 32), "e_phentsize", 54, "32 bytes", id="row size"),
        pytest.param(put(elf(), "p_type", 6), "e_phnum", 56, "no PT_LOAD segment", id="no load"),
        pytest.param(
            put(KERNEL, "p_filesz", 1 << 40, 1),
            "PT_LOAD p_filesz",
            64 + 56 + 32,
            "not inside the file",
            id="bytes beyond the file",
        ),
        pytest.param(
            put(elf(bits=32), "p_offset", 0xFFFFFFFF),
            "PT_LOAD p_filesz",
            52 + 16,
            "not inside the file",
            id="offset beyond the file",
        ),
        pytest.param(
            put(KERNEL, "p_memsz", 1),
            "PT_LOAD p_filesz",
            64 + 32,
            "of memory",
            id="memory too small",
        ),
        pytest.param(
            put(KERNEL, "p_paddr", (1 << 64) - 4096, 1),
            "PT_LOAD p_paddr",
            64 + 56 + 24,
            "not a physical address",
            id="physical address",
        ),
        pytest.param(
            put(KERNEL, "p_paddr", BASE + 0x100, 1),
            "PT_LOAD p_paddr",
            64 + 56 + 24,
            "overlaps",
            id="overlap",
        ),
        pytest.param(
            elf(Segment(0xFFFFF000, size=0x2000), bits=32),
            "PT_LOAD p_paddr",
            52 + 12,
            "more than can be loaded to",
            id="beyond 4 GiB",
        ),
        pytest.param(elf(entry=0), "e_entry", 24, "0x0 is in no PT_LOAD", id="entry nowhere"),
        pytest.param(
            elf(Segment(BASE, size=0x1000), entry=BASE + 0x800),
            "e_entry",
            24,
            "no PT_LOAD segment's bytes",
            id="entry in zeros",
        ),
        pytest.param(
            put(KERNEL, "p_filesz", 1 << 40, 2),
            "PT_NOTE p_filesz",
            64 + 112 + 32,
            "not",
            id="notes",
        ),
        pytest.param(
            elf(notes=bytes(70000)),
            "PT_NOTE p_filesz",
            64 + 56 + 32,
            "more than any",
            id="many notes",
        ),
        pytest.param(
            elf(notes=note("Xen", 18, b"12345")),
            "Xen note, PHYS32_ENTRY",
            FIRST_BYTE + len(CODE),
            "5 bytes are not an address",
            id="PVH note of 5 bytes",
        ),
        pytest.param(
            elf(notes=pvh_note(BASE - 1)),
            "Xen note, PHYS32_ENTRY",
            None,
            "0xffffff is in no PT_LOAD",
            id="PVH entry nowhere",
        ),
    ],
)
def test_a_broken_file_is_refused_where_it_is_broken(
    data: bytes, field: str, offset: int | None, words: str
) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        image.read(data, "broken")
    assert (caught.value.source, caught.value.field) == ("broken", field)
    assert caught.value.offset == offset


def test_a_pvh_kernel_has_to_lie_below_4_gib() -> None:
    high = elf(Segment(BASE), Segment(1 << 32, b"data"), notes=LINUX)
    assert image.read(high, "high").init_size == (1 << 32) + 4 - BASE
    with pytest.raises(ImageError, match="more than can be loaded to"):
        image.read(
            elf(Segment(BASE), Segment(1 << 32, b"data"), notes=LINUX + pvh_note(BASE)), "high"
        )


@pytest.mark.parametrize(
    "notes",
    [
        pytest.param(struct.pack("<III", 4, 64, 1) + b"GNU\0" + bytes(8), id="its description"),
        pytest.param(struct.pack("<III", 400, 0, 1) + b"GNU\0", id="its name"),
        pytest.param(note("GNU", 3, b"123")[:-1], id="its padding"),
    ],
)
def test_a_note_that_runs_over_its_segment_is_told_and_no_reason_to_refuse(notes: bytes) -> None:
    """kexec-tools stops there: "ELF Note corrupted !" (kexec/kexec-elf.c)."""
    read = image.read(elf(bits=32, notes=pvh_note(BASE, 4) + notes), "made")
    assert [each.protocol for each in read.entries] == [Protocol.PVH]
    (remark,) = read.remarks
    assert remark.endswith("runs over its segment: kexec-tools refuses such a file")
    assert image.read(elf(bits=32, notes=pvh_note(BASE, 4)), "made").remarks == ()


def test_what_a_note_of_another_says_is_not_looked_at() -> None:
    """A GNU property note (type 5) whose description ends inside a property."""
    assert image.read(elf(notes=note("GNU", 5, struct.pack("<I", 1))), "made").remarks == ()


def test_no_library_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "elftools", None)
    assert image.read(KERNEL, "vmlinux").format == "ELF64"


@pytest.mark.parametrize(
    ("data", "doubt"),
    [
        pytest.param(elf(), "no Linux, Multiboot header or PVH note", id="64-bit code"),
        pytest.param(elf(bits=32, kind=3), "ET_DYN", id="32 bits, anywhere"),
        pytest.param(elf(notes=note("GNU", 1, bytes(16))), "looks like a program", id="ABI tag"),
        pytest.param(
            put(elf(Segment(BASE), Segment(0, b"")), "p_type", 3, 1), "looks like", id="interpreter"
        ),
        pytest.param(
            elf(notes=LINUX + note("GNU", 1, bytes(16))), "looks like a program", id="Linux's vdso"
        ),
        pytest.param(
            elf(Segment(BASE, BANNER), kind=3), "nor where it wants to lie", id="a library's words"
        ),
        pytest.param(elf(bits=32), None, id="32-bit code at an address, as kexec-tools takes it"),
        pytest.param(KERNEL, None, id="Linux"),
        pytest.param(elf(notes=pvh_note(BASE)), None, id="PVH"),
    ],
)
def test_what_does_not_say_that_it_is_a_kernel_is_in_doubt(data: bytes, doubt: str | None) -> None:
    read = image.read(data, "made")
    if doubt is None:
        assert read.doubt is None
    else:
        assert doubt in str(read.doubt)
        assert [each.protocol for each in read.entries] == [Protocol.FLAT]


def test_a_file_without_an_entry_is_no_kernel_even_where_address_0_is_loaded() -> None:
    with pytest.raises(ImageError, match=r"e_entry .*without an entry has 0 there"):
        image.read(elf(Segment(0), entry=0, notes=LINUX), "lib.so")


def test_a_program_that_mentions_linux_is_not_linux() -> None:
    words = b"\0Linux version 6.1 is needed\0"
    assert image.read(elf(Segment(BASE, words)), "tool").version is None


# ------------------------------------------------------------------------------------- any bytes


@given(st.binary(max_size=400), st.sampled_from([b"\x7fELF\x01\x01\x01", b"\x7fELF\x02\x01\x01"]))
def test_any_bytes_behind_the_magic_are_an_image_or_an_image_error(
    data: bytes, magic: bytes
) -> None:
    answer_to(magic + data)


@settings(max_examples=300)
@given(
    data=st.sampled_from([KERNEL, elf(bits=32, notes=LINUX), elf(notes=note("GNU", 5, bytes(16)))]),
    at=st.integers(0, 240),
    value=st.integers(0, 255),
    from_end=st.booleans(),
)
def test_one_wrong_byte_is_an_image_or_an_image_error(
    data: bytes, at: int, value: int, from_end: bool
) -> None:
    wrong = bytearray(data)
    wrong[-1 - at % 100 if from_end else at] = value
    answer_to(bytes(wrong))


@given(
    st.sampled_from(
        ["e_entry", "e_phoff", "e_phnum", "p_offset", "p_paddr", "p_filesz", "p_memsz"]
    ),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, 2),
)
def test_one_wrong_field_is_an_image_or_an_image_error(name: str, value: int, segment: int) -> None:
    bits = 16 if name == "e_phnum" else 64
    answer_to(put(KERNEL, name, value % (1 << bits), segment))


@given(st.integers(0, len(KERNEL) - 1))
def test_a_file_that_is_cut_off_is_refused(length: int) -> None:
    assert isinstance(answer_to(KERNEL[:length]), ImageError)


# ------------------------------------------------------------------------------------ real kernels


@pytest.mark.parametrize("kernel", ["debian_amd64", "debian_cloud"])
def test_what_debians_kernels_unpack_to_is_a_kernel(
    request: pytest.FixtureRequest, kernel: str
) -> None:
    path: Path = request.getfixturevalue(kernel)
    packed = image.read(path.read_bytes(), path.name)
    read = image.read(image.unpack(packed), "vmlinux")
    assert [each.protocol for each in read.entries] == [Protocol.LINUX_64, Protocol.PVH]
    assert read.pref_address == packed.pref_address
    assert packed.version is not None
    assert read.version is not None
    release = packed.version.split()[0]
    assert read.version.split()[0] == release
    # The bzImage asks for more: its decompressor works there too.
    assert read.init_size <= packed.init_size
