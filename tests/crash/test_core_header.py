"""The core header that a crash kernel is handed, read with pyelftools: all memory but the region."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crash.hosts import LEGACY, REGION, crash_hosts, example, small_kernel
from tests.crash.reader import Row, core_header, header_of, segment
from tests.makers.hosts import GIB, MIB, PAGE
from tightrope.errors import PlanError
from tightrope.host.examples import PAGE_OFFSETS
from tightrope.memory import Extent, MemoryMap, Region, RegionKind
from tightrope.model import Host, Named, Paging
from tightrope.plan import Request, prepare
from tightrope.plan.crash import core_header as core_header_of

CRASH = Request(crash=True)
MODES = pytest.mark.parametrize("paging", list(Paging))
SIZES = {32: (52, 32), 64: (64, 56)}
"""ELF class -> bytes of the header and of a program header (System V ABI)."""


def rows_of(old: Host) -> tuple[list[Row], list[Row], list[Row]]:
    """Notes, the kernel text, memory."""
    header = header_of(prepare(small_kernel(), old, CRASH))
    text, *memory = header.of("PT_LOAD")
    return header.of("PT_NOTE"), [text], memory


def ram_but_the_region(old: Host, first: int = MIB, end: int = 1 << 64) -> list[tuple[int, int]]:
    """The byte ranges that have to be dumped, found region by region and not by set algebra.

    The first MiB is the new kernel's: what the old one has below 640 KiB is dumped out of a backup.
    """
    lowest, highest = first, end
    assert old.crash_region is not None
    holes = [old.crash_region, *(each.extent for each in old.crash_memory)]
    out: list[tuple[int, int]] = []
    for region in old.memory:
        if region.kind is not RegionKind.RAM:
            continue
        start, end = max(region.extent.start, lowest), min(region.extent.end, highest)
        pieces = [(start, end)]
        for hole in holes:
            pieces = [
                piece
                for first, last in pieces
                for piece in (
                    (first, min(last, hole.start)),
                    (max(first, hole.end), last),
                )
                if piece[0] < piece[1]
            ]
        for first, last in sorted(set(pieces)):
            if first < last and out and out[-1][1] == first:
                out[-1] = (out[-1][0], last)
            elif first < last:
                out.append((first, last))
    return out


@settings(max_examples=80)
@given(old=crash_hosts())
def test_the_loads_are_all_ram_but_the_region_and_nothing_else(old: Host) -> None:
    _notes, _text, memory = rows_of(old)
    high = [(row.phys, row.phys + row.memory_size) for row in memory if row.phys >= MIB]
    assert high == ram_but_the_region(old)
    low = [(row.phys, row.phys + row.memory_size) for row in memory if row.phys < MIB]
    assert low == (ram_but_the_region(old, 0, 640 << 10) if has_low_memory(old) else [])


def has_low_memory(old: Host) -> bool:
    """Something of the old kernel's begins in the first MiB."""
    return any(each.extent.start < MIB for each in (*old.busy, *old.crash_notes))


@settings(max_examples=40)
@given(old=crash_hosts())
def test_what_lies_where_is_said_by_offset_and_nothing_is_left_out(old: Host) -> None:
    plan = prepare(small_kernel(), old, CRASH)
    notes, text, memory = rows_of(old)
    for row in (*notes, *text, *memory):
        assert row.file_size == row.memory_size > 0
        if row.phys >= MIB:
            assert row.offset == row.phys
        else:
            # vmcore.c reads whole pages: the bytes are at the same place in theirs.
            assert row.offset % PAGE == row.phys % PAGE
            kept = segment(plan, "backup of low memory").destination
            assert kept.covers(Extent.sized(row.offset, row.file_size))


@settings(max_examples=40)
@given(old=crash_hosts())
def test_addresses_are_those_of_the_direct_map_and_of_the_text(old: Host) -> None:
    _notes, (text,), memory = rows_of(old)
    assert (text.virt, text.phys, text.memory_size) == (
        old.text.virt,
        old.text.phys,
        old.text.size,
    )
    for row in memory:
        mapped = row.phys < old.direct_map.size
        assert row.virt == (old.direct_map.virt + row.phys if mapped else 0)


@settings(max_examples=40)
@given(old=crash_hosts())
def test_each_note_of_the_old_kernel_has_a_program_header(old: Host) -> None:
    notes, _text, _memory = rows_of(old)
    assert [row.extent for row in notes] == [note.extent for note in old.crash_notes]
    assert all(row.virt == 0 for row in notes)


@MODES
def test_a_header_is_a_core_of_the_old_kernels_machine(paging: Paging) -> None:
    plan = prepare(small_kernel(), example(paging), CRASH)
    data = bytes(segment(plan, "core header").data)
    header = core_header(data)
    assert header.kind == "ET_CORE"
    assert header.machine == ("EM_386" if paging in LEGACY else "EM_X86_64")
    size, entry = SIZES[header.bits]
    assert len(data) == size + entry * len(header.rows)
    assert [row.kind for row in header.rows] == sorted((r.kind for r in header.rows), reverse=True)


@pytest.mark.parametrize("split", PAGE_OFFSETS)
@pytest.mark.parametrize("paging", LEGACY)
def test_a_header_follows_the_memory_split(paging: Paging, split: int) -> None:
    old = example(paging, split=split)
    _notes, (text,), memory = rows_of(old)
    assert text.virt == split + 0x100_0000
    assert memory[0].virt == split + MIB
    saved = Request(crash=True, backup=True)
    _text, first, *_ = header_of(prepare(small_kernel(), old, saved)).of("PT_LOAD")
    assert (first.phys, first.virt) == (0, split)


@pytest.mark.parametrize(
    ("paging", "top", "bits"),
    [
        (Paging.I386, None, 32),
        (Paging.PAE, None, 64),
        (Paging.PAE, 3 * GIB, 32),
        (Paging.PAE, 4 * GIB, 32),
        (Paging.PAE, 4 * GIB + PAGE, 64),
        (Paging.X86_64, 3 * GIB, 64),
        (Paging.LA57, 3 * GIB, 64),
    ],
)
def test_the_class_follows_mode_and_memory(paging: Paging, top: int | None, bits: int) -> None:
    old = example(paging)
    if top is not None:
        memory = MemoryMap((Region(Extent(MIB, top), RegionKind.RAM),))
        old = replace(old, memory=memory)
    header = header_of(prepare(small_kernel(), old, CRASH))
    assert header.bits == bits
    assert max(row.phys + row.memory_size for row in header.rows) == old.memory.ram[-1].end


def test_a_note_above_4_gib_makes_a_32_bit_kernels_header_wide() -> None:
    old = example(Paging.PAE)
    low = tuple(each for each in old.memory if each.extent.end <= 4 * GIB)
    note = Named(extent=Extent.sized(5 * GIB, 0x164), what="a CPU's registers")
    for notes, bits in (((), 32), ((note,), 64)):
        host = replace(old, memory=MemoryMap(low), crash_notes=notes)
        header = header_of(prepare(small_kernel(), host, CRASH))
        assert header.bits == bits


@given(edge=st.sampled_from(["start", "end", "middle"]), shift=st.sampled_from([0, PAGE, 3 * PAGE]))
def test_a_region_at_the_edge_of_ram_leaves_no_empty_load(edge: str, shift: int) -> None:
    block = Extent(0x4000_0000, 0x6000_0000)
    start = {
        "start": block.start + shift,
        "end": block.end - REGION.size - shift,
        "middle": block.start + 64 * MIB + shift,
    }[edge]
    low = Region(Extent(MIB, 0x3800_0000), RegionKind.RAM)
    old = replace(
        example(region=None),
        memory=MemoryMap((low, Region(block, RegionKind.RAM))),
        busy=(),
        crash_region=Extent.sized(start, REGION.size),
    )
    _notes, _text, memory = rows_of(old)
    assert len(memory) == 1 + (2 if edge == "middle" or shift else 1)
    assert [(row.phys, row.phys + row.memory_size) for row in memory] == ram_but_the_region(old)


def test_more_memory_than_a_header_can_count_is_refused() -> None:
    """e_phnum has 16 bits, and its last value says that the number is elsewhere."""
    old = replace(example(), crash_notes=())
    first = 8 * GIB
    loads = 1 + len(ram_but_the_region(old))  # the text, and the RAM that is there already

    def scattered(count: int) -> Host:
        more = tuple(
            Region(Extent.sized(first + 2 * n * PAGE, PAGE), RegionKind.RAM) for n in range(count)
        )
        return replace(old, memory=MemoryMap((*old.memory, *more)))

    most = 0xFFFE - loads
    elf: Any = ELFFile(io.BytesIO(core_header_of(scattered(most))))
    assert elf.num_segments() == 0xFFFE
    with pytest.raises(PlanError) as caught:
        core_header_of(scattered(most + 1))
    assert (caught.value.field, caught.value.limit) == ("memory", 0xFFFE)
