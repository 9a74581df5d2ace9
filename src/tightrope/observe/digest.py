"""A digest that is done in one step, as a copy is: SHA-256 of millions of bytes, an event and not a
loop.

    rdi   where the 32 bytes go        rsi   the first byte        rdx   how many
    (%rsp)   where it goes on

A routine's own instructions would be thousands a page, each of them watched.  That both give the
same is what tests/purgatory asks, of the bytes themselves on this computer's CPU and instruction by
instruction here.

Rules: every page is translated as a read of the CPU would be, and recorded; nothing here knows an
engine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from tightrope.memory import PAGE_SIZE
from tightrope.observe.observed import ObservedCpu
from tightrope.x86.walk import Access

SIZE = 32


def pieces(start: int, size: int) -> Iterator[tuple[int, int]]:
    """(address, bytes) of each part of a range that lies in one page."""
    end = start + size
    while start < end:
        part = min(end - start, PAGE_SIZE - start % PAGE_SIZE)
        yield start, part
        start += part


class Digests:
    """The digests of one walk.  `starts` are the addresses at which a function begins to make
    one."""

    def __init__(
        self,
        engine: ObservedCpu,
        starts: frozenset[int],
        translate: Callable[[int, Access], int | None],
        access: Callable[[bool, int, int], None],
        hole: Callable[[int], bool],
    ) -> None:
        """`translate` gives a physical address, None where the walk is over; the others record."""
        self.starts = starts
        self.resume: int | None = None
        """Where to go on after a digest: the engine stopped for it."""
        self._engine, self._translate, self._access, self._hole = engine, translate, access, hole
        self._call = engine.batch("rdi", "rsi", "rdx", "rsp") if starts else None

    def let_go(self) -> None:
        """Forget whom to tell: there will be none any more."""
        del self._translate, self._access, self._hole

    def make(self) -> None:
        """The digest that a function is about to make, and back to who called it."""
        assert self._call is not None
        values = self._call.read()
        into, start, size, stack = values
        self._engine.stop()
        seen = hashlib.sha256()
        for at, part in pieces(start, size):
            view = self._piece(at, part, Access.READ)
            if view is None:
                return
            seen.update(view)
        made, done = seen.digest(), 0
        for at, part in pieces(into, SIZE):
            view = self._piece(at, part, Access.WRITE)
            if view is None:
                return
            view[:] = made[done : done + part]
            done += part
        back = self._piece(stack, 8, Access.READ)
        if back is not None:
            self.resume = int.from_bytes(back, "little")
            values[3] = stack + 8
            self._call.write()

    def _piece(self, virt: int, size: int, access: Access) -> memoryview | None:
        """Memory of one page that is read or written, recorded; None where the CPU cannot."""
        phys = self._translate(virt, access)
        if phys is None:
            return None
        view = self._engine.ram.view(phys, size)
        if view is None:
            self._hole(phys)
            return None
        self._access(access is Access.WRITE, phys, size)
        return view
