"""Setting the CPU up: descriptors are read through the old kernel's tables as they were."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.makers.bzimage import bzimage
from tightrope import host, image
from tightrope.deeds.rehearse import build
from tightrope.machine.unicorn import Emulator
from tightrope.memory import PAGE_SIZE
from tightrope.model import Handover, Paging, Piece, PieceRole, Stop
from tightrope.plan import Request, prepare

MODES = [Paging.I386, Paging.PAE, Paging.X86_64]


def handover(paging: Paging) -> Handover:
    old = host.read(host.example(paging), paging.value)
    plan = prepare(image.read(bzimage(init_size=0x3000), "made"), old, Request())
    return build(plan, design="two-tables")


@pytest.mark.parametrize("paging", MODES)
def test_a_pgd_that_was_overwritten_since_does_not_stop_the_cpu(paging: Paging) -> None:
    # Only what V needs is left: the selectors were loaded long before.
    built = handover(paging)
    empty = Piece(
        phys=built.world.pgd,
        data=bytes(PAGE_SIZE // 2),
        role=PieceRole.OTHER,
        which="zeros in the pgd",
    )
    run = Emulator().run(replace(built, extra=(*built.extra, empty)))
    assert run.stop in (Stop.ENTRY, Stop.FAULT)
    assert run.registers.segments["cs"]


@pytest.mark.parametrize("paging", MODES)
def test_a_gdt_that_was_never_mapped_is_not_needed_before_one_of_our_own(paging: Paging) -> None:
    built = handover(paging)
    nowhere = (0x7000_0000 if paging is not Paging.X86_64 else 0x7000_0000_0000, 0x7F)
    registers = replace(built.registers, gdt=nowhere)
    assert Emulator().run(replace(built, registers=registers)).stop is Stop.ENTRY
