"""Instructions that were decoded once, and the memory that they lie in.

A walk decodes the same few routines over and over, and so does the next walk on the same memory.

Rules: an instruction is known by its linear address, its physical one and the CPU's mode; it is
good as long as its bytes are the same, and whoever keeps one from walk to walk asks for `changed`
first.  An instruction is taken to be contiguous in physical memory.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tightrope.memory import PAGE_SHIFT, PAGE_SIZE, Extent
from tightrope.model import Buffer
from tightrope.observe.decode import Operation, decoded
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.physical import Ram
from tightrope.x86.walk import Access

LONGEST = 15
"""Bytes of an instruction (SDM volume 2, 2.3.11)."""


class KnownCode:
    """What was decoded in some memory.  `frames` has the frames that it was decoded from, by
    number, as they were then, each instruction as it was when that was decoded."""

    def __init__(self, ram: Ram) -> None:
        self._ram = ram
        self._operations: dict[tuple[int, int, int], Operation] = {}
        self._plain: dict[tuple[int, int, int], dict[int, Operation]] = {}
        self._bytes: set[int] = set()
        self._dropped = False
        """What is known is not all that was executed."""
        self.frames: dict[int, bytearray] = {}

    def get(self, rip: int, phys: int, bits: int) -> Operation | None:
        """The instruction at `rip`, which lies at `phys` and is decoded in `bits` mode."""
        return self._operations.get((rip, phys, bits))

    def decode(self, rip: int, phys: int | None, bits: int, mmu: WatchedMmu) -> Operation:
        """The instruction at `rip`, known or decoded; without `phys` it is not kept."""
        known = None if phys is None else self.get(rip, phys, bits)
        if known is not None:
            return known
        code = b""
        if phys is not None:
            code = bytes(self._ram.view(phys, min(LONGEST, PAGE_SIZE - rip % PAGE_SIZE)) or b"")
        if len(code) < LONGEST:
            more = mmu.look(rip + len(code), LONGEST - len(code), Access.FETCH)
            code += more if isinstance(more, bytes) else b""
        operation = decoded(code, rip, bits)
        if phys is not None:
            self.keep(rip, phys, bits, operation)
        return operation

    def keep(self, rip: int, phys: int, bits: int, operation: Operation) -> None:
        """Remember an instruction, and the frames that it begins and ends in."""
        self._operations[rip, phys, bits] = operation
        at = rip % PAGE_SIZE
        if operation.plain and at + operation.size <= PAGE_SIZE:
            self._plain.setdefault((rip - at, phys - at, bits), {})[rip] = operation
        end = phys + operation.size
        self._bytes.update(range(phys, end))
        for number in range(phys >> PAGE_SHIFT, (end - 1 >> PAGE_SHIFT) + 1):
            frame = self.frames.get(number)
            if frame is None:
                self.frames[number] = bytearray(self._frame(number))
            else:
                start = number << PAGE_SHIFT
                first, last = max(phys, start), min(end, start + PAGE_SIZE)
                frame[first - start : last - start] = self._ram.view(first, last - first) or b""

    def plain(self, page: int, phys: int, bits: int) -> Mapping[int, Operation]:
        """The plain instructions wholly in a page, which is at `phys`, by their addresses."""
        return self._plain.get((page, phys, bits), {})

    def hit(self, phys: int, size: int) -> bool:
        """Whether one of `size` bytes at a physical address belongs to a known instruction."""
        return not self._bytes.isdisjoint(range(phys, phys + size))

    def changed(self) -> list[int]:
        """The frames in which something is not what it was that an engine may have translated.

        Such are the instructions; and what follows one without a jump and was not executed, because
        an engine translates on until it comes to a jump.  The rest of a page is data.
        """
        out = []
        for number, was in self.frames.items():
            now = self._frame(number)
            if now != was and (self._dropped or self._differs(number, was, now)):
                out.append(number)
        return out

    def _differs(self, number: int, was: Buffer, now: Buffer) -> bool:
        first = number << PAGE_SHIFT
        begins = {phys for _, phys, _ in self._operations}
        translated = np.zeros(PAGE_SIZE, np.bool_)
        for (_, phys, _), each in self._operations.items():
            end = phys + each.size
            if first < end and phys < first + PAGE_SIZE:
                on = each.goes_on and end not in begins
                translated[max(phys - first, 0) : PAGE_SIZE if on else end - first] = True
        differ = np.frombuffer(was, np.uint8) != np.frombuffer(now, np.uint8)
        return bool((differ & translated).any())

    def drop_frame(self, number: int) -> None:
        """Forget a frame, and every instruction that has a byte in it."""
        del self.frames[number]
        gone = Extent.sized(number << PAGE_SHIFT, PAGE_SIZE)
        self._operations = {
            (rip, phys, bits): each
            for (rip, phys, bits), each in self._operations.items()
            if not Extent.sized(phys, each.size).overlaps(gone)
        }
        self._plain = {
            (page, phys, bits): each
            for (page, phys, bits), each in self._plain.items()
            if phys not in gone
        }
        self._bytes.difference_update(range(gone.start, gone.end))

    def drop_instructions(self) -> None:
        """Code was written over: decode again.  The frames stay those that code was executed
        from."""
        self._dropped = True
        self._operations.clear()
        self._plain.clear()
        self._bytes.clear()

    def drop(self) -> None:
        """Forget everything."""
        self.drop_instructions()
        self.frames.clear()
        self._dropped = False

    def _frame(self, number: int) -> bytes:
        return bytes(self._ram.view(number << PAGE_SHIFT, PAGE_SIZE) or b"")
