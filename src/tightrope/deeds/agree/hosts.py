"""Random old kernels in little memory, so that a thousand of them cost seconds.

    RAM of each           0 .. 0x9fc00, then 1 MiB to under 24 to 40 MiB, sometimes a little above 4 GiB
    text at 4 MiB         `private` at 12 MiB; V in the text, in a mapping of its own, or in the direct map

Rules: all from the given random numbers; nothing here is known to be easy.
"""

from __future__ import annotations

from random import Random

from tightrope.host import SPLITS
from tightrope.memory import PAGE_SIZE, Extent, MemoryMap, Phys, Region, RegionKind, Virt
from tightrope.model import Cpu, DirectMap, Host, KernelText, LowMapping, Named, Paging
from tightrope.model.modes import MODES
from tightrope.x86 import cpu as x86

MIB, GIB = 1 << 20, 1 << 30
TEXT, PRIVATE = 4 * MIB, 12 * MIB
NOTE = Extent.sized(PRIVATE + 2 * MIB, 0x400)
"""A CPU's registers, without which a crash kernel makes no dump."""
TEXT_64 = 0xFFFF_FFFF_8000_0000
FIXMAP, FIXMAP_64 = 0xFFFB_7000, 0xFFFF_FFFF_FF5F_6000
CR4 = x86.CR4_PSE | x86.CR4_MCE | 1 << 9 | 1 << 10
"""PSE, MCE, OSFXSR, OSXMMEXCPT: what every Linux has on."""
CR0 = x86.CR0_PG | x86.CR0_WP | x86.CR0_NE | x86.CR0_ET | x86.CR0_MP | x86.CR0_PE
PC_TABLES = 0x2_0000
"""QEMU's firmware keeps the end of RAM for its ACPI tables."""
LONG = x86.EFER_LME | x86.EFER_LMA | x86.EFER_SCE


def random_host(random: Random, paging: Paging) -> Host:
    """One old kernel."""
    wide = paging.long_mode
    main = Extent(MIB, random.randint(24, 40) * MIB - PC_TABLES + random.choice([0, 0, 0, 0x400]))
    ram = [Extent(0, 0x9FC00), main]
    if paging is not Paging.I386 and random.random() < 0.15:
        ram.append(Extent.sized(4 * GIB, random.randint(1, 4) * MIB))
    nx = paging is not Paging.I386 and random.random() < 0.8
    pge = random.random() < 0.9
    cpu = Cpu(
        physical_bits=random.choice([36, 40, 40, 46]) if paging is not Paging.I386 else 32,
        nx=nx,
        pse=True,
        pge=pge,
        gbpages=False,
        la57=MODES[paging].feature == "la57",
    )
    text, direct = _places(random, paging, main)
    relocation, low = _home(random, paging, text)
    cr4 = CR4 | (x86.CR4_PGE if pge else 0)
    efer = (x86.EFER_NXE if nx else 0) | (LONG if wide else 0)
    return Host(
        source="made",
        paging=paging,
        cpu=cpu,
        cr0=CR0 | random.choice([0, x86.CR0_AM, x86.CR0_TS]),
        cr4=cr4 | MODES[paging].cr4_on,
        efer=efer,
        memory=MemoryMap(tuple(Region(each, RegionKind.RAM) for each in ram)),
        text=text,
        relocation=relocation,
        direct_map=direct,
        private=Extent.sized(PRIVATE, 2 * MIB),
        busy=tuple(_busy(random, main)),
        crash_region=Extent.sized(18 * MIB + random.randint(0, 9) * PAGE_SIZE, 4 * MIB),
        firmware=(),
        rsdp=None,
        low_mappings=low,
        crash_notes=(Named(extent=NOTE, what="CPU 0's registers"),),
    )


def _places(random: Random, paging: Paging, main: Extent) -> tuple[KernelText, DirectMap]:
    """Where text and direct map are."""
    if paging.long_mode:
        virt = TEXT_64 + random.randint(1, 200) * 2 * MIB
        size = random.choice([PAGE_SIZE, 2 * MIB, 2 * MIB])
        return (
            KernelText(virt=Virt(virt), phys=Phys(TEXT), size=2 * MIB),
            DirectMap(virt=MODES[paging].direct_map, page_size=size),
        )
    split = random.choice(SPLITS)
    large = 4 * MIB if paging is Paging.I386 else 2 * MIB
    return (
        KernelText(virt=Virt(split + TEXT), phys=Phys(TEXT), size=4 * MIB),
        DirectMap(
            virt=Virt(split),
            page_size=random.choice([PAGE_SIZE, large, large]),
            size=main.end & -PAGE_SIZE,
        ),
    )


def _home(
    random: Random, paging: Paging, text: KernelText
) -> tuple[Virt | None, tuple[LowMapping, ...]]:
    """V, and the mapping that it is in where that is its own."""
    inside = random.randint(3, text.size // PAGE_SIZE - 1) * PAGE_SIZE
    home = random.random()
    if home < 0.6:
        return Virt(text.virt + inside), ()
    if home < 0.8:
        return None, ()
    page = LowMapping(
        virt=Virt(FIXMAP_64 if paging.long_mode else FIXMAP),
        phys=Phys(text.phys + inside),
        size=PAGE_SIZE,
        is_global=random.random() < 0.5,
    )
    return page.virt, (page,)


def _busy(random: Random, main: Extent) -> list[Named]:
    """Memory that cannot be given away, so that something has to be copied."""
    out = []
    for _ in range(random.randint(0, 3)):
        start = random.randrange(14 * MIB, main.end - MIB, PAGE_SIZE)
        size = random.randint(1, 256) * PAGE_SIZE
        out.append(Named(extent=Extent(start, min(start + size, main.end)), what="busy memory"))
    return out
