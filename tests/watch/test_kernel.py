"""A guest that cannot be watched is told in one line: no kernel yet, no symbols, no relocation
code, a reset before its kexec.  Its memory is made here; what holds is shown by real guests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest

from tightrope.deeds.watch.deed import _wait
from tightrope.deeds.watch.kernel import TEXT, find_kernel, mmu_of
from tightrope.deeds.watch.memory import GuestMemory
from tightrope.errors import BadInput, ImageError, TightropeError
from tightrope.image import kallsyms
from tightrope.machine.attached import Attached
from tightrope.model.vmlinux import LinkedSegment, Symbols
from tightrope.x86.walk import Mmu

PAGE, LARGE = 4096, 2 << 20
MMU = Mmu(cr0=0x8000_0011, cr3=PAGE, cr4=0x20, efer=0x500, physical_bits=40)
FREE = 16 * PAGE
"""Where the next table lies that a guest's memory is given."""


class Made:
    """A guest's memory, which maps what it is told to, in pages of 2 MiB, to zeros."""

    def __init__(self, *mapped: int) -> None:
        self.data = bytearray(8 * LARGE)
        self._free = FREE
        for number, virt in enumerate(mapped):
            table = MMU.cr3
            for low in (39, 30):
                at = table + (virt >> low & 511) * 8
                if not self.data[at]:
                    self._put(at, self._free | 3)
                    self._free += PAGE
                table = int.from_bytes(self.data[at : at + 8], "little") & -PAGE
            self._put(table + (virt >> 21 & 511) * 8, (1 + number) * LARGE | 0x83)

    def _put(self, at: int, word: int) -> None:
        self.data[at : at + 8] = word.to_bytes(8, "little")

    def read(self, phys: int, size: int) -> bytes | None:
        found = bytes(self.data[phys : phys + size])
        return found if len(found) == size else None


KERNEL = tuple(TEXT + LARGE * (8 + number) for number in range(4))


def looked_for(*mapped: int, image: bytes | None = None) -> None:
    find_kernel(GuestMemory(cast("Attached", Made(*mapped))), MMU, image, "--from")


@pytest.mark.parametrize("cr0", [0, 0x11], ids=["real mode", "protected mode"])
def test_a_guest_without_paging(cr0: int) -> None:
    registers = cast("object", type("R", (), {"efer": 0, "cr0": cr0, "cr3": 0, "cr4": 0})())
    with pytest.raises(BadInput, match="has paging off: a Linux is watched once it has booted"):
        mmu_of(registers, 40)  # type: ignore[arg-type]


@pytest.mark.parametrize("mapped", [(), KERNEL[:2]], ids=["nothing", "two pages"])
def test_a_guest_that_maps_no_kernel(mapped: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="it has not booted yet, or is not Linux"):
        looked_for(*mapped)


def test_a_kernel_without_symbols() -> None:
    with pytest.raises(BadInput, match=r"no kallsyms that can be read: give .* --from"):
        looked_for(*KERNEL)


def test_a_kernel_whose_relocation_code_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    some = Symbols(
        names=b"\nTstart_kernel",
        starts=np.array([0], np.int64),
        addresses=np.array([KERNEL[0]], np.uint64),
    )
    monkeypatch.setattr(kallsyms, "recover", lambda *_: some)
    with pytest.raises(TightropeError, match="reloc"):
        looked_for(*KERNEL)


# ------------------------------------------------------------------------------------- 32 bits

OFFSET = 0xC000_0000
NARROW = {
    "i386": Mmu(cr0=0x8001_0011, cr3=PAGE, cr4=0x10, efer=0, physical_bits=36),
    "PAE": Mmu(cr0=0x8001_0011, cr3=PAGE, cr4=0x20, efer=0x800, physical_bits=36),
}


def narrow(mode: str, *, read_only: Sequence[int], megabytes: int = 64) -> bytearray:
    """Memory of a 32-bit guest whose direct map has these MiB, some of them read-only."""
    data = bytearray(megabytes << 20)
    size, large = (8, 2 << 20) if mode == "PAE" else (4, 4 << 20)

    def put(at: int, entry: int) -> None:
        data[at : at + size] = entry.to_bytes(size, "little")

    table = PAGE
    if mode == "PAE":
        table = 2 * PAGE
        put(PAGE + 8 * (OFFSET >> 30), table | 1)
    for phys in range(0, megabytes << 20, large):
        index = phys // large if mode == "PAE" else (OFFSET + phys) // large
        writable = 0 if phys >> 20 in read_only else 2
        put(table + size * index, phys | 0x81 | writable)
    return data


@pytest.mark.parametrize("mode", NARROW)
def test_a_32_bit_kernel_lies_where_the_direct_map_cannot_be_written(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[LinkedSegment] = []

    def recover(segments: tuple[LinkedSegment, ...], bits: int) -> None:
        asked.extend(segments)
        assert bits == 32

    monkeypatch.setattr(kallsyms, "recover", recover)
    guest = Made()
    guest.data = narrow(mode, read_only=[8, *range(16, 24)])  # some code is made as it runs
    with pytest.raises(BadInput, match="no kallsyms that can be read"):
        find_kernel(GuestMemory(cast("Attached", guest)), NARROW[mode], None, "--from")
    (found,) = asked
    assert found.virt == OFFSET + (16 << 20)
    assert bytes(found.data) == bytes(guest.data[16 << 20 :])


@pytest.mark.parametrize("mode", NARROW)
@pytest.mark.parametrize(("read_only", "megabytes"), [(range(0), 64), (range(16, 24), 32)])
def test_a_32_bit_guest_that_has_no_kernel_is_one_line(
    mode: str, read_only: range, megabytes: int
) -> None:
    guest = Made()
    guest.data = narrow(mode, read_only=read_only, megabytes=megabytes)
    with pytest.raises(BadInput, match="maps no kernel where a 32-bit Linux has its text"):
        find_kernel(GuestMemory(cast("Attached", guest)), NARROW[mode], None, "--from")


def test_an_image_that_is_none() -> None:
    with pytest.raises(ImageError, match=r"^--from: "):
        looked_for(*KERNEL, image=b"no kernel")


class Ends:
    """A guest that runs, and then is reset, or does nothing."""

    def __init__(self, event: str | None) -> None:
        self._event = event

    def break_at(self, virt: int) -> None:
        assert virt == 0x1000

    def go(self, *, seconds: float) -> bool:
        assert seconds == 7
        return False

    def ended(self) -> str | None:
        return self._event


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ("RESET", "the guest: --qmp: ended before its kexec: QEMU says RESET"),
        (None, "the guest: --limit: made no kexec within 7 s"),
    ],
)
def test_a_guest_that_is_reset_or_does_nothing(event: str | None, said: str) -> None:
    with pytest.raises(BadInput, match=f"^{said}$"):
        _wait(cast("Attached", Ends(event)), 0x1000, 7)
