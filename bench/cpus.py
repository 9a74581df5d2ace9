"""Dumps and other CPUs: `pgd` on a large core, and how many walks a second are held against a CPU.

Rules: the dump is made in code, in a temporary file; the walks are those of the tests.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from bench.clock import seconds, show
from tests.vmcore.cores import Crashed
from tests.x86 import test_walk_against_unicorn as unicorn
from tests.x86.modes import MODES
from tests.x86.worlds import World
from tightrope import vmcore
from tightrope.memory import Extent
from tightrope.x86.paging import FORMATS, Rights
from tightrope.x86.tables import TableStore
from tightrope.x86.walk import Access

DUMP = 400 << 20
BASE, PGD = 0x100_0000, 0x101_0000
TABLES = BASE + (300 << 20)
TEXT, DIRECT = 0xFFFF_FFFF_8100_0000, 0xFFFF_8880_0000_0000


def dump_of(size: int) -> bytes:
    """An x86_64 kernel that died with `size` bytes of RAM, all mapped by small pages, text by large."""
    frames = iter([PGD, *range(TABLES, TABLES + (1 << 22), 4096)])
    store = TableStore(FORMATS["x86_64"], frames.__next__)
    text, ram = Extent.sized(BASE, 16 << 20), Extent.sized(BASE, size)
    store.map_extent(TEXT, text, Rights(writable=False, is_global=True), page_sizes=(2 << 20,))
    store.map_extent(DIRECT + BASE, ram, Rights(executable=False), page_sizes=(4096,))
    memory = bytearray(size)
    for frame, page in store.pages().items():
        memory[frame - BASE : frame - BASE + 4096] = page
    info = {
        "SYMBOL(swapper_pg_dir)": f"{TEXT + PGD - BASE:x}",
        "SYMBOL(_stext)": f"{TEXT:x}",
        "NUMBER(phys_base)": "0",
        "NUMBER(pgtable_l5_enabled)": "0",
    }
    return Crashed("x86_64", memory, info).core()


def large_dump() -> None:
    """Every mapping of a crashed kernel in a core of 400 MB."""
    with tempfile.NamedTemporaryFile(suffix=".vmcore") as file:
        file.write(dump_of(DUMP))
        file.flush()
        found = vmcore.pgd(vmcore.read(file.name))
        if not found.whole:
            raise SystemExit(f"the benchmark's dump is not whole: {found.faults}")
        whole = seconds(lambda: vmcore.pgd(vmcore.read(file.name)))
        size = Path(file.name).stat().st_size
    show(
        f"pgd on a core of {size / 1e6:.0f} MB, all {found.mappings:,} mappings (aim 1 s)",
        f"{whole * 1e3:.1f} ms",
    )


def agreement() -> None:
    """Walks held against Unicorn's own MMU, access by access."""
    for mode in MODES.values():
        lab = unicorn.Lab(mode, user=True)
        rng = random.Random(mode.name)
        count, worlds = 0, 60
        started = time.perf_counter()
        for _ in range(worlds):
            world = World(lab, rng)
            lab.enter(world.mmu)
            lab.write("eflags", 2 | (unicorn.AC if world.mmu.ac else 0))
            for _ in range(unicorn.ACCESSES_PER_WORLD):
                unicorn.compare(lab, world.mmu, world.address(), rng.choice(list(Access)))
                count += 1
        taken = time.perf_counter() - started
        show(
            f"walks that agree with Unicorn's own MMU, {mode.name}",
            f"{count / taken:.0f} /s",
            f"100,000 in {100_000 / count * taken:.1f} s",
        )
