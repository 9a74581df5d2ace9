"""x86.walk against Bochs, a CPU in software that shares no line with Unicorn's.

Random tables as for Unicorn; reads, writes and fetches at CPL 0 and 3 in 32-bit, PAE and 4-level
paging; Bochs 2.7 has no LA57.  Compared are the bytes that an access met (each 8 bytes of the marked RAM
say where they are), where a store landed, the accessed and dirty bits, or vector, error code and CR2.
CR3 is written before each access.

Left out, because nobody promises what happens: tables in a hole, and fetches from anywhere but markers.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from tests.bochs import sheet as sheet_module
from tests.bochs.sheet import Sheet
from tests.x86.modes import MODES, SMEP, Mode
from tests.x86.worlds import World
from tightrope.x86.walk import Access, Mmu, Refused, Translated, walk

WORLDS, ACCESSES_PER_WORLD = 110, 24
"""Of three formats at CPL 0 and 3: 3 * 2 * 110 * 24 = 15,840 accesses."""
BOCHS_MODES = [MODES[name] for name in ("i386", "pae", "x86_64")]


def asked(mode: Mode, *, user: bool, worlds: int = WORLDS) -> Sheet:
    """A sheet of random worlds, run."""
    rng = random.Random(f"bochs {mode.name} {user}")
    sheet = Sheet(mode, user=user)
    for _ in range(worlds):
        world = World(sheet, rng)
        sheet.load(world.mmu)
        for _ in range(ACCESSES_PER_WORLD):
            sheet.ask(world.mmu, world.address(), rng.choice(list(Access)))
    sheet.run(cr4=mode.cr4, efer=mode.efer)
    return sheet


@pytest.mark.parametrize("user", [False, True], ids=["cpl0", "cpl3"])
@pytest.mark.parametrize("mode", BOCHS_MODES, ids=lambda mode: mode.name)
def test_walk_agrees_with_bochs(mode: Mode, user: bool) -> None:
    seen = asked(mode, user=user).seen
    assert sum(seen.values()) == WORLDS * ACCESSES_PER_WORLD
    assert seen["left out"] < WORLDS * ACCESSES_PER_WORLD / 10
    codes = [0x0, 0x2, 0x10, 0x1, 0x3, 0x11, 0x9, 0xB, 0x19]
    wanted = {f"#14 {code | (4 if user else 0):#x}" for code in codes}
    wanted |= {f"{access} {size:#x}" for access in Access for size in mode.page_sizes}
    wanted |= {"hole"} | ({"#13 0x0"} if mode.linear_bits > 32 else set())
    assert wanted <= set(seen), wanted - set(seen)


def test_a_walk_that_is_wrong_about_one_bit_would_be_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def blind_to_smep(read: Any, mmu: Mmu, virt: int, access: Access) -> Translated | Refused:
        return walk(read, replace(mmu, cr4=mmu.cr4 & ~SMEP), virt, access)

    monkeypatch.setattr(sheet_module, "walk", blind_to_smep)
    with pytest.raises(AssertionError):
        asked(MODES["x86_64"], user=False, worlds=10)
