"""What a kernel asks to have in memory, and the parts that a kexec can load.

A kexec copies whole pages, so no two of its segments may have a byte in the same page; the pieces
of an ELF file may.  Where two share a page, that page becomes a part of its own:

    pieces   |----- A -----|  |------ B ------|
    pages    |       |       |       |       |
    parts    |-- A --|- A,B -|------ B -------|

Rules: addresses are physical; nothing is copied but the bytes of shared pages.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tightrope.errors import ImageError
from tightrope.memory import PAGE_SIZE, align_down
from tightrope.model import Part

FOUR_GIB = 1 << 32
PHYSICAL_LIMIT = 1 << 52
"""No x86 CPU has wider physical addresses (Intel SDM 3A, 4.1.4, MAXPHYADDR)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """`data` at the physical address `start`, zeros up to `end`; `field` at `offset` of the file
    says so."""

    start: int
    end: int
    data: memoryview
    field: str
    offset: int

    def holds(self, address: int) -> bool:
        """The address has a byte of the file behind it, not one of the zeros."""
        return self.start <= address < self.start + len(self.data)

    def cut(self, start: int, end: int) -> Piece:
        """The piece without what is not in [start, end)."""
        first = min(max(start - self.start, 0), len(self.data))
        last = max(end - self.start, first)
        return Piece(
            start=max(start, self.start),
            end=min(end, self.end),
            data=self.data[first:last],
            field=self.field,
            offset=self.offset,
        )


def in_order(pieces: Iterable[Piece], *, limit: int, source: str) -> tuple[Piece, ...]:
    """The pieces lowest first, empty ones dropped.

    Raises ImageError when none is left, one ends above `limit`, or two overlap.
    """
    ordered = sorted((each for each in pieces if each.end > each.start), key=lambda p: p.start)
    if not ordered:
        raise ImageError("there is nothing to load", source=source)
    before: Piece | None = None
    for piece in ordered:
        if piece.end > limit:
            problem = f"[{piece.start:#x}, {piece.end:#x}) is more than can be loaded to"
            raise _refusal(piece, problem, source, limit)
        if before is not None and piece.start < before.end:
            problem = (
                f"[{piece.start:#x}, {piece.end:#x}) overlaps [{before.start:#x}, {before.end:#x})"
            )
            raise _refusal(piece, problem, source, before.end)
        before = piece
    return tuple(ordered)


def parts_of(pieces: tuple[Piece, ...]) -> tuple[Part, ...]:
    """The parts of pieces that are `in_order`; offsets count from the first piece's start."""
    apart: list[Piece] = []
    for piece in pieces:
        page = align_down(piece.start, PAGE_SIZE)
        rest = piece
        if apart and apart[-1].end > page:
            before = apart.pop()
            if before.start < page:
                apart.append(before.cut(before.start, page))
            apart.append(_joined(before.cut(page, before.end), piece.cut(page, page + PAGE_SIZE)))
            rest = piece.cut(page + PAGE_SIZE, piece.end)
        if rest.end > rest.start:
            apart.append(rest)
    base = pieces[0].start
    return tuple(
        Part(offset=each.start - base, data=each.data, size=each.end - each.start) for each in apart
    )


def _joined(low: Piece, high: Piece) -> Piece:
    """Two pieces of one page as one."""
    both = bytearray(high.start - low.start + len(high.data))
    both[: len(low.data)] = low.data
    both[high.start - low.start :] = high.data
    return Piece(
        start=low.start,
        end=high.end,
        data=memoryview(bytes(both)),
        field=low.field,
        offset=low.offset,
    )


def _refusal(piece: Piece, problem: str, source: str, limit: int) -> ImageError:
    return ImageError(problem, source=source, field=piece.field, offset=piece.offset, limit=limit)
