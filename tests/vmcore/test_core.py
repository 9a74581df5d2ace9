"""Reading an ELF core: what memory it holds, what its notes say, and that no bytes are too bad.

Made cores are read back through pyelftools as well, so that the maker is held to the format too.
"""

from __future__ import annotations

import contextlib
import io
from itertools import pairwise
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment
from hypothesis import given
from hypothesis import strategies as st

from tests.vmcore.cores import (
    BASE,
    Load,
    crashed,
    elf_core,
    note,
    prstatus,
    qemu,
    vmcoreinfo,
    xen,
)
from tightrope import vmcore
from tightrope.errors import CoreError
from tightrope.memory import Extent
from tightrope.model.dump import Standing

INFO = {
    "OSRELEASE": "6.1",
    "NUMBER(phys_base)": "-4096",
    "KERNELOFFSET": "1e000000",
    "NUMBER(x)": "y",
}
BITS = pytest.mark.parametrize("bits", [32, 64])


def page(fill: int) -> bytes:
    return bytes([fill]) * 4096


def page_of(core: vmcore.Core, at: int) -> bytes | None:
    """A frame's bytes."""
    return core.page(at)


@BITS
def test_the_maker_writes_what_another_reader_calls_a_core(bits: int) -> None:
    data = elf_core([Load(0x1000, page(1), 0xC000_1000)], vmcoreinfo(INFO), bits=bits)
    elf = ELFFile(io.BytesIO(data))
    assert (elf.elfclass, elf.header["e_type"]) == (bits, "ET_CORE")
    notes, load = elf.iter_segments()
    assert (load["p_paddr"], load["p_vaddr"], load.data()) == (0x1000, 0xC000_1000, page(1))
    assert isinstance(notes, NoteSegment)
    (only,) = notes.iter_notes()
    assert only["n_name"] == "VMCOREINFO"


@BITS
@pytest.mark.parametrize("many", [False, True], ids=["few headers", "count in section 0"])
def test_memory_is_found_where_the_program_headers_put_it(bits: int, many: bool) -> None:
    loads = [Load(0x5000, page(5) + page(6)), Load(0x1000, page(1))]
    core = vmcore.parse(elf_core(loads, bits=bits, many=many), "made")
    assert core.extents == (Extent(0x1000, 0x2000), Extent(0x5000, 0x7000))
    assert {at: page_of(core, at) for at in (0x1000, 0x5000, 0x6000)} == {
        0x1000: page(1),
        0x5000: page(5),
        0x6000: page(6),
    }
    assert [page_of(core, at) for at in (0, 0x2000, 0x6800, 0x7000, 1 << 63, (1 << 64) - 4096)] == [
        None
    ] * 6


def test_memory_need_not_lie_at_page_offsets_in_the_file() -> None:
    core = vmcore.parse(elf_core([Load(0x1000, page(7))], skew=740), "made")
    assert page_of(core, 0x1000) == page(7)


def test_memory_that_two_headers_hold_is_taken_once() -> None:
    text = Load(0x2000, page(2) + page(3), 0xFFFF_FFFF_8100_0000)
    core = vmcore.parse(
        elf_core([text, Load(0x1000, page(1) + page(2) + page(3) + page(4))]), "made"
    )
    assert core.extents == (Extent(0x1000, 0x5000),)
    assert page_of(core, 0x4000) == page(4)
    overlapping = [Load(0x1000, page(1) + page(2)), Load(0x2000, page(9) + page(3))]
    core = vmcore.parse(elf_core(overlapping), "made")
    assert [page_of(core, at) for at in (0x2000, 0x3000)] == [page(2), page(3)]


def test_what_a_filtered_dump_left_out_is_missing_not_zero() -> None:
    core = vmcore.parse(elf_core([Load(0x1000, page(1), left_out=0x3000)]), "made")
    assert core.extents == (Extent(0x1000, 0x2000),)
    assert page_of(core, 0x2000) is None


def test_a_dump_that_was_cut_short_keeps_what_it_has() -> None:
    data = elf_core([Load(0x1000, page(1)), Load(0x8000, page(8) + page(9))])
    core = vmcore.parse(data[:-4096], "made")
    assert core.extents == (Extent(0x1000, 0x2000), Extent(0x8000, 0x9000))


def test_how_much_of_an_extent_is_held_is_counted_across_pieces() -> None:
    import numpy as np

    core = vmcore.parse(elf_core([Load(0x1000, page(1)), Load(0x4000, page(4) * 2)]), "made")
    asked = [
        (0, 0x1000),
        (0x1000, 0x1000),
        (0x800, 0x1000),
        (0, 0x10000),
        (0x5FFF, 9),
        (1 << 51, 1),
    ]
    starts, sizes = (np.array(column, np.uint64) for column in zip(*asked, strict=True))
    assert core.held.covered(starts, sizes).tolist() == [0, 0x1000, 0x800, 0x3000, 1, 0]


def test_the_notes_are_read_by_name() -> None:
    blob = note("OTHER", 7, b"abc") + prstatus() + prstatus() + vmcoreinfo(INFO)
    blob += qemu(cr3=0x1234000, cr4=0x20) + xen(cr3=0x5678000, cr4=0x6F0)
    notes = vmcore.parse(elf_core([], blob), "made").notes
    assert notes.cpus == 2
    assert dict(notes.vmcoreinfo) == INFO
    assert notes.number("NUMBER(phys_base)") == -4096
    assert notes.number("KERNELOFFSET", 16) == 0x1E00_0000
    assert notes.number("NUMBER(x)") is None
    assert notes.number("NUMBER(absent)") is None
    assert [(c.who, c.cr3, c.cr4) for c in notes.control] == [
        ("QEMU", 0x1234000, 0x20),
        ("Xen", 0x5678000, 0x6F0),
    ]


def test_a_note_that_is_cut_short_ends_the_reading() -> None:
    blob = prstatus() + vmcoreinfo(INFO)[:-8]
    notes = vmcore.parse(elf_core([], blob), "made").notes
    assert (notes.cpus, dict(notes.vmcoreinfo)) == (1, {})


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (0, b"\x7fELG", "not an ELF file"),
        (4, b"\x03", "neither ELFCLASS32 nor ELFCLASS64"),
        (5, b"\x02", "not little-endian"),
        (16, b"\x02", "ELF type 2"),
        (18, b"\xb7", "machine 183"),
        (64 + 56 + 8, b"\xff\xff\xff\xff", "no byte of its memory"),
    ],
)
def test_what_is_no_core_is_named(at: int, value: bytes, words: str) -> None:
    data = bytearray(elf_core([Load(BASE, page(1))], vmcoreinfo(INFO)))
    vmcore.parse(data, "made")
    data[at : at + len(value)] = value
    with pytest.raises(CoreError, match=words) as caught:
        vmcore.parse(data, "made")
    assert caught.value.source == "made"


FIRST, SECOND, NOTE = 64 + 56, 64 + 2 * 56, 64
"""Where the program headers of two PT_LOADs and of the notes begin."""


@pytest.mark.parametrize(
    ("at", "value", "words", "lost"),
    [
        (54, b"\x08", "program headers of 8 bytes are taken as 56", ()),
        (56, b"\x00\x80", "of 32,768 program headers 3 are in the file", ()),
        (56, b"\xff\xff", "section header 0", ()),
        (NOTE + 8, b"\xff\xff\xff", "bytes at offset 0xffffff do not fit", ("notes",)),
        (NOTE + 32, b"\xff" * 8, "notes of 18,446,744,073,709,551,615 bytes", ("notes",)),
        (FIRST + 24, b"\xff" * 8, "a PT_LOAD at 0xffffffffffffffff goes beyond 64 bits", (BASE,)),
        (FIRST + 24, b"\0" * 7 + b"\x80", "", (BASE,)),
        (FIRST + 40, b"\0" * 7 + b"\x80", "", ()),
        (FIRST + 40, b"\xff" * 8, "ends at 64 bits of address", ()),
        (FIRST + 32, b"\xff" * 8, "goes beyond 64 bits", (BASE,)),
        (FIRST, b"\x01\0\0\x60", "", (BASE,)),
    ],
)
def test_an_odd_row_is_left_out_and_said_and_the_rest_is_read(
    at: int, value: bytes, words: str, lost: tuple[object, ...]
) -> None:
    other = BASE + 0x10_0000
    data = bytearray(elf_core([Load(BASE, page(1)), Load(other, page(2))], vmcoreinfo(INFO)))
    good = vmcore.parse(data, "made")
    assert good.unused == ()
    data[at : at + len(value)] = value
    if at == 56 and value == b"\xff\xff":
        data[40:48] = (len(data) - 8).to_bytes(8, "little")
    core = vmcore.parse(data, "made")
    assert any(words in each for each in core.unused) or (not words and core.unused == ())
    assert page_of(core, other) == page(2)
    assert page_of(core, BASE) == (None if BASE in lost else page(1))
    assert dict(core.notes.vmcoreinfo) == ({} if "notes" in lost else INFO)


def pieces(cuts: list[int], gaps: set[int]) -> tuple[bytes, list[Load]]:
    """Eight pages of memory from 0, cut into PT_LOADs; those with a number in `gaps` are left away."""
    memory = bytes(n * 7 & 0xFF for n in range(8 * 4096))
    edges = [0, *sorted(set(cuts)), len(memory)]
    loads = [Load(a, memory[a:b]) for a, b in pairwise(edges)]
    return memory, [load for number, load in enumerate(loads) if number not in gaps]


@given(
    st.lists(st.integers(1, 8 * 4096 - 1), max_size=6),
    st.sets(st.integers(0, 6), max_size=3),
    st.integers(0, 3),
)
def test_a_frame_is_held_when_every_byte_of_it_is_in_whatever_pieces(
    cuts: list[int], gaps: set[int], skew: int
) -> None:
    memory, loads = pieces(cuts, gaps)
    if not loads:
        return
    core = vmcore.parse(elf_core(loads, skew=skew), "made")
    there = {n for load in loads for n in range(load.phys, load.phys + len(load.data))}
    for frame in range(-4096, 9 * 4096, 2048):
        if frame < 0:
            continue
        inside = all(n in there for n in range(frame, frame + 4096))
        assert page_of(core, frame) == (memory[frame : frame + 4096] if inside else None)


def test_less_than_a_page_is_no_page() -> None:
    core = vmcore.parse(elf_core([Load(0x1000, b"x" * 100), Load(0x8000, page(8))]), "made")
    assert page_of(core, 0x1000) is None
    assert page_of(core, 0x8000) == page(8)
    core = vmcore.parse(elf_core([Load(0x1000, b"x" * 4095)]), "made")
    assert page_of(core, 0x1000) is None


def test_memory_is_held_left_out_or_outside() -> None:
    import numpy as np

    loads = [Load(0x1000, page(1) + b"x" * 100, left_out=0x2000 - 100), Load(0x8000, page(8))]
    data = elf_core(loads)
    frames = np.array([0, 0x1000, 0x2000, 0x3000, 0x4000, 0x8000, 0x8800], np.uint64)
    standing = vmcore.parse(data, "made").standing(frames)
    out, held, left = Standing.OUTSIDE, Standing.HELD, Standing.LEFT_OUT
    assert standing.tolist() == [out, held, left, left, out, held, out]
    short = vmcore.parse(data[:-10], "made").standing(frames)
    assert short.tolist() == [out, held, left, left, out, left, out]


@pytest.mark.parametrize("size", [0, 4, 5, 40])
def test_a_file_that_ends_early_is_no_core(size: int) -> None:
    with pytest.raises(CoreError):
        vmcore.parse(elf_core([])[:size], "made")


@pytest.mark.parametrize("rows", [0, 1])
def test_a_core_that_ends_inside_its_program_headers_was_cut_short(rows: int) -> None:
    """Notes come first: with them alone it would look like a core without memory."""
    data = elf_core([Load(BASE, page(1)), Load(BASE + 0x1000, page(2))], vmcoreinfo(INFO))
    for size in (64 + rows * 56, 64 + rows * 56 + 55):
        with pytest.raises(CoreError, match=f"cut short inside .* of 3 {rows} are there"):
            vmcore.parse(data[:size], "made")
    with pytest.raises(CoreError, match="which has 232 bytes: it was cut short"):
        vmcore.parse(data[: 64 + 3 * 56], "made")


def test_a_flattened_file_of_nothing_names_what_puts_a_dump_together() -> None:
    with pytest.raises(CoreError, match="makedumpfile -R vmcore < made"):
        vmcore.parse(b"makedumpfile".ljust(4096, b"\0"), "made")


def test_a_file_is_read_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(elf_core([Load(0x1000, page(1))]))
    core = vmcore.read(str(path))
    assert core.source == str(path)
    assert page_of(core, 0x1000) == page(1)


def test_a_file_that_shrinks_while_it_is_read_is_an_error_and_no_signal(tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(crashed("x86_64").core())
    core = vmcore.read(str(path))
    assert vmcore.pgd(core).whole
    with path.open("r+b") as out:
        out.truncate(8192)
    with pytest.raises(CoreError, match="became shorter") as caught:
        vmcore.pgd(core)
    assert caught.value.source == str(path)


def test_what_cannot_be_opened_or_mapped_is_a_core_error(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    for name in ("absent", "empty", ".", "a\0b"):
        with pytest.raises(CoreError):
            vmcore.read(f"{tmp_path}/{name}")
    with pytest.raises(CoreError, match="regular"):
        vmcore.read("/dev/null")


def judged(data: bytes) -> None:
    """A `Pgd` or a CoreError; anything else is a fault of ours."""
    with contextlib.suppress(CoreError):
        vmcore.pgd(vmcore.parse(data, "any"))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_core_or_a_core_error(data: bytes) -> None:
    judged(data)
    for bits in (1, 2):
        head = (
            b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9) + b"\x04\0" + bytes([(0, 3, 62)[bits], 0])
        )
        judged(head + data)


SMALL = {
    mode: elf_core(
        [Load(BASE, crashed(mode).memory[:0x1_4000], 0xC000_0000 + BASE)],
        vmcoreinfo(crashed(mode).info) + qemu(cr3=BASE, cr4=0),
        bits=crashed(mode).bits,
    )
    for mode in ("i386", "pae", "x86_64", "la57")
}


@given(
    st.sampled_from(sorted(SMALL)),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_a_core_with_wrong_bytes_in_its_headers_is_a_core_or_a_core_error(
    mode: str, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(SMALL[mode])
    for at, value in changes:
        data[at] = value
    judged(bytes(data))
