"""Page tables put into a `Ram` by hand, for the tests of the MMU and of delivery.

Rules: written from the SDM's figure 4-8 with its own constants; neither the builder nor the walker
of the house takes part.
"""

from __future__ import annotations

from tightrope.memory import Extent
from tightrope.model import Buffer, Cpu, Registers
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.physical import Ram
from tightrope.x86.cpu import GENERAL

PAGE = 4096
M2 = 1 << 21
P, RW, US, PWT, PCD, A, D, PS, G = (1 << n for n in range(9))
XD = 1 << 63
OPEN = P | RW | A | D

CR0 = 0x8001_0033
"""PG, WP, NE, ET, MP, PE."""
PAE, PSE, PGE, PCIDE, SMEP = 1 << 5, 1 << 4, 1 << 7, 1 << 17, 1 << 20
EFER = 0xD00
"""LME, LMA, NXE."""
NO_FLUSH = 1 << 63

CPU = Cpu(physical_bits=46, nx=True, pse=True, pge=True, gbpages=True, la57=False)


class Trees:
    """Trees of tables in the first MiB of a memory of 8 MiB; frames are handed out from 0x1000 up."""

    def __init__(self) -> None:
        self.ram = Ram((Extent(0, 8 << 20),))
        self._next = 0x1000

    def table(self) -> int:
        """A new table: its physical address."""
        self._next += PAGE
        return self._next - PAGE

    def map(
        self, root: int, virt: int, phys: int, flags: int = OPEN, *, large: bool = False
    ) -> int:
        """Map one 4 KiB page (or 2 MiB with `large`): the physical address of the leaf entry."""
        table = root
        for shift in (39, 30) if large else (39, 30, 21):
            at = table + 8 * (virt >> shift & 511)
            entry = self.ram.word(at, 8)
            assert entry is not None
            if not entry & P:
                entry = self.table() | OPEN | US
                self.ram.write(at, entry.to_bytes(8, "little"))
            table = entry & 0x000F_FFFF_FFFF_F000
        at = table + 8 * (virt >> (21 if large else 12) & 511)
        value = phys | flags | (PS if large else 0)
        self.ram.write(at, value.to_bytes(8, "little"))
        return at

    def frozen(self) -> dict[int, Buffer]:
        """All tables as they are now, for a `WatchedMmu`."""
        return {
            frame: bytes(self.ram.read(Extent.sized(frame, PAGE)))
            for frame in range(0x1000, self._next, PAGE)
        }

    def mmu(self, root: int, *, cr4: int = PAE | PGE) -> WatchedMmu:
        """The MMU with `root` loaded."""
        return WatchedMmu(self.ram, CPU, registers(cr3=root, cr4=cr4), self.frozen())


def registers(
    *,
    cr3: int,
    cr4: int = PAE,
    rsp: int = 0,
    rip: int = 0,
    gdt: tuple[int, int] = (0, 0),
    idt: tuple[int, int] = (0, 0),
) -> Registers:
    """A 64-bit supervisor."""
    return Registers(
        general={**dict.fromkeys(GENERAL, 0), "rsp": rsp},
        rip=rip,
        rflags=2,
        cr0=CR0,
        cr2=0,
        cr3=cr3,
        cr4=cr4,
        efer=EFER,
        segments={"cs": 0x10, **dict.fromkeys(("ss", "ds", "es", "fs", "gs"), 0x18)},
        gdt=gdt,
        idt=idt,
    )
