"""A handover's bytes in memory: segments in their source frames, poison where a copy has to come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.machine.walks import PAGE, made, moving, sound
from tightrope.errors import MachineError
from tightrope.machine.layout import LARGE, PIECE, POISON, lay, lay_segment
from tightrope.memory import Extent, Phys
from tightrope.model import Handover, Piece, PieceRole, Segment, SegmentRole
from tightrope.observe.physical import Ram, backed

RAM = Extent(0, 64 * PAGE)


def memory_of(handover: Handover) -> Ram:
    host = handover.host
    return Ram(backed(host.memory, host.firmware))


def page_of(ram: Ram, frame: int) -> bytes:
    return bytes(ram.read(Extent.sized(frame * PAGE, PAGE)))


def segment(data: bytes, pages: int) -> Segment:
    return Segment(role=SegmentRole.OTHER, destination=Extent(0, pages * PAGE), data=data, why="")


def lay_out(ram: Ram, data: bytes, destinations: list[int], sources: list[int]) -> None:
    lay_segment(
        segment(data, len(sources)),
        np.array(destinations, np.int64),
        np.array(sources, np.int64),
        ram,
    )


def test_each_segment_lands_in_its_source_frames() -> None:
    handover = sound(moving())
    ram = memory_of(handover)
    lay(handover, ram)
    at = 0
    for each in handover.segments:
        pages = len(each.destination.pages)
        frames = handover.intent.sources[at : at + pages].tolist()
        data = b"".join(page_of(ram, frame) for frame in frames)
        assert data == bytes(each.data).ljust(pages * PAGE, b"\0"), each.name
        at += pages
    assert handover.intent.in_place < len(handover.intent.sources)


def test_destinations_that_a_copy_has_to_fill_are_poisoned() -> None:
    handover = sound(moving())
    ram = memory_of(handover)
    lay(handover, ram)
    plan = handover.intent
    moved = plan.destinations[plan.sources != plan.destinations].tolist()
    assert moved
    for frame in moved:
        assert page_of(ram, frame) == bytes([POISON]) * PAGE


def test_zeros_of_a_large_segment_take_no_memory_and_what_lay_there_is_gone() -> None:
    """As of a sparse file; a byte at a piece's very end counts, and the last piece is a short one."""
    data = bytearray(LARGE + PIECE + 3 * PAGE + 5)
    for at in (0, 7 * PIECE - 1, 9 * PIECE, len(data) - 1):
        data[at] = 0x11
    pages = -(-len(data) // PAGE)
    ram = Ram((Extent(0, pages * PAGE),))
    ram.write(3 * PIECE, b"an earlier walk's")
    frames = list(range(pages))
    lay_out(ram, bytes(data), frames, frames)
    held = {frame * PAGE // PIECE for frame in ram.in_use()}  # before it is read, which maps zeros
    last = len(data) // PIECE
    assert {0, 6, 9, last} <= held <= {0, 1, 6, 7, 8, 9, last - 1, last}  # huge pages have two
    assert ram.read(Extent(0, len(data))) == data


def test_pieces_lie_where_they_say() -> None:
    handover = sound(moving())
    ram = memory_of(handover)
    lay(handover, ram)
    for piece in (*handover.world.pieces, *handover.pieces):
        assert ram.read(piece.extent) == bytes(piece.data), piece.what


def test_a_handover_s_piece_wins_over_the_old_kernel_s() -> None:
    handover = made(b"\xf4")
    first = handover.world.pieces[0]
    over = Piece(phys=first.phys, data=b"over", role=PieceRole.OTHER, which="on top")
    ram = memory_of(handover)
    lay(replace(handover, extra=(*handover.extra, over)), ram)
    assert bytes(ram.read(Extent.sized(first.phys, 4))) == b"over"


def test_a_piece_outside_memory_is_refused() -> None:
    handover = made(b"\xf4")
    outside = Piece(phys=Phys(1 << 40), data=b"x", role=PieceRole.OTHER, which="nowhere")
    with pytest.raises(MachineError, match="not memory of this machine"):
        lay(replace(handover, extra=(outside,)), memory_of(handover))


def test_the_tail_of_a_page_and_the_pages_behind_the_data_are_zero_on_used_memory() -> None:
    ram = Ram((RAM,))
    ram.write(0, b"\xee" * RAM.size)
    lay_out(ram, b"x" * (PAGE + 1), [8, 9, 10, 11], [8, 9, 10, 11])
    assert page_of(ram, 8) == b"x" * PAGE
    assert page_of(ram, 9) == b"x" + bytes(PAGE - 1)
    assert page_of(ram, 10) == page_of(ram, 11) == bytes(PAGE)
    assert page_of(ram, 7) == page_of(ram, 12) == b"\xee" * PAGE


@pytest.mark.parametrize("short", [1, 2, PAGE - 1])
def test_the_end_of_a_page_is_zero_however_little_is_missing(short: int) -> None:
    ram = Ram((RAM,))
    ram.write(0, b"\xee" * RAM.size)
    lay_out(ram, b"x" * (PAGE - short), [8], [8])
    assert page_of(ram, 8) == b"x" * (PAGE - short) + bytes(short)


def test_data_of_whole_pages_does_not_lose_its_last_one() -> None:
    ram = Ram((RAM,))
    lay_out(ram, b"x" * 2 * PAGE, [8, 9, 10], [8, 9, 10])
    assert page_of(ram, 9) == b"x" * PAGE
    assert page_of(ram, 10) == bytes(PAGE)


@given(st.data())
def test_scattered_pages_hold_what_the_plan_says_and_nothing_else_changes(
    data: st.DataObject,
) -> None:
    pages = data.draw(st.integers(1, 12))
    size = data.draw(st.integers(1, pages * PAGE))
    content = bytes(n % 253 + 1 for n in range(size))
    destinations = list(range(20, 20 + pages))
    pool = data.draw(st.permutations(range(33, 60)))
    moved = data.draw(st.lists(st.booleans(), min_size=pages, max_size=pages))
    sources = [pool[n] if moves else destinations[n] for n, moves in enumerate(moved)]
    ram = Ram((RAM,))
    ram.write(0, b"\xee" * RAM.size)
    lay_out(ram, content, destinations, sources)
    wanted = content.ljust(pages * PAGE, b"\0")
    expected = dict.fromkeys(range(64), b"\xee" * PAGE)
    for number, (source, destination) in enumerate(zip(sources, destinations, strict=True)):
        expected[source] = wanted[number * PAGE : (number + 1) * PAGE]
        if source != destination:
            expected[destination] = bytes([POISON]) * PAGE
    assert {frame: page_of(ram, frame) for frame in range(64)} == expected
