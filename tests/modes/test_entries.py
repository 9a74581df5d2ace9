"""Which entry an old kernel reaches, in which state, and why some cannot be reached."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.makers.hosts import GIB, MIB, PAGE, PRIVATE_SIZE, Home, make_host, mode_host
from tests.modes.runs import LEGACY, XLF_5LEVEL, kernel, request, shared, walk
from tests.rehearse.runs import mode_host as example_of
from tests.rehearse.runs import shipped_kernel, shipped_request
from tests.stand_ins.played import Fake
from tightrope.check import check
from tightrope.deeds.rehearse import build, prepare, rehearse
from tightrope.errors import PlanError
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent
from tightrope.model import Host, Image, Outcome, Paging, Protocol, Verdict
from tightrope.observe.physical import Ram

LONG = (Paging.X86_64, Paging.LA57)
PE, PG, PAE, LA57 = 1, 1 << 31, 1 << 5, 1 << 12
LMA, LME = 1 << 10, 1 << 8


def without_5_levels() -> Image:
    return kernel(xloadflags=0b0111_1111 & ~XLF_5LEVEL)


def entered_in_32_bits(got: Verdict) -> None:
    """boot.rst, "32-bit Boot Protocol": paging off, flat 32-bit segments, esi, the rest zero."""
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())
    now, the_plan = got.run.registers, got.handover.intent
    assert the_plan.protocol is Protocol.LINUX_32
    assert now.rip == the_plan.kernel_entry == the_plan.segments[0].destination.start
    assert now.cr0 & (PG | PE) == PE
    assert (now.cr3, now.cr4) == (0, 0)
    assert not now.efer & (LMA | LME)
    assert now.segments == {"cs": 0x10} | dict.fromkeys(("ds", "es", "ss", "fs", "gs"), 0x18)
    descriptor = got.run.descriptors["cs"]
    assert (descriptor >> 54 & 1, descriptor >> 53 & 1) == (1, 0)  # D and not L
    assert now.general["rsi"] == the_plan.boot_params
    assert {name for name, value in now.general.items() if value} == {"rsi", "rsp"}
    assert max(segment.destination.end for segment in the_plan.segments) <= 4 * GIB


@pytest.mark.parametrize("machine", [None, Fake()], ids=["emulator", "fake"])
@pytest.mark.parametrize("paging", list(Paging))
def test_the_32_bit_entry_is_reached_from_every_mode(paging: Paging, machine: Fake | None) -> None:
    entered_in_32_bits(walk(mode_host(paging), protocol=Protocol.LINUX_32, machine=machine))


@pytest.mark.parametrize("paging", list(Paging))
def test_the_shipped_kernel_is_reached_from_every_mode(paging: Paging) -> None:
    """From 32 bits this is a 64-bit kernel through its 32-bit entry; it does not accept 5 levels."""
    got = rehearse(shipped_kernel(), example_of(paging), shipped_request(), machine=Emulator())
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())
    wanted = Protocol.LINUX_64 if paging is Paging.X86_64 else Protocol.LINUX_32
    assert got.handover.intent.protocol is wanted


@pytest.mark.parametrize("paging", LEGACY)
def test_a_32_bit_kernel_takes_the_32_bit_entry_by_itself(paging: Paging) -> None:
    entered_in_32_bits(walk(mode_host(paging)))


@pytest.mark.parametrize("paging", LONG)
def test_a_64_bit_kernel_takes_the_64_bit_entry_by_itself(paging: Paging) -> None:
    got = walk(mode_host(paging))
    assert got.outcome is Outcome.HOLDS
    assert got.handover.intent.protocol is Protocol.LINUX_64
    assert got.run.registers.cr4 == PAE | (LA57 if paging is Paging.LA57 else 0)
    assert got.run.registers.efer & LMA


def test_an_image_that_does_not_accept_5_levels_is_entered_without_them() -> None:
    """Leaving 5 levels is only legal outside long mode, which the 32-bit entry does."""
    entered_in_32_bits(walk(mode_host(Paging.LA57), without_5_levels()))


def test_with_4_levels_an_image_need_not_accept_5() -> None:
    got = walk(mode_host(Paging.X86_64), without_5_levels())
    assert got.handover.intent.protocol is Protocol.LINUX_64


def test_behind_the_stack_of_a_32_bit_entry_may_lie_anything() -> None:
    """Its top word is 4 bytes long, also where the old kernel's words had 8."""
    built = build(
        prepare(kernel(), mode_host(Paging.X86_64), request(protocol=Protocol.LINUX_32)),
        design="two-tables",
    )
    run = shared().run(built)
    stack = run.registers.general["rsp"]
    assert stack == built.intent.entry + PAGE - 4
    assert isinstance(run.memory, Ram)
    run.memory.write(built.intent.entry + PAGE, b"\xff" * 4)
    assert "entry-stack" not in [finding.rule for finding in check(built, run)]


# --------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("paging", LEGACY)
def test_the_64_bit_entry_is_out_of_reach_of_a_32_bit_kernel(paging: Paging) -> None:
    with pytest.raises(PlanError, match="a 32-bit old kernel cannot take the 64-bit entry"):
        walk(mode_host(paging), protocol=Protocol.LINUX_64)


def test_the_64_bit_entry_is_out_of_reach_with_5_levels_where_the_image_takes_4() -> None:
    with pytest.raises(PlanError, match="does not accept 5-level tables \\(no XLF_5LEVEL\\)"):
        walk(mode_host(Paging.LA57), without_5_levels(), protocol=Protocol.LINUX_64)


@pytest.mark.parametrize(
    ("protocol", "name"),
    [(Protocol.PVH, "PVH entry"), (Protocol.MULTIBOOT, "Multiboot entry")],
)
def test_an_entry_that_the_image_does_not_have_is_said_so(protocol: Protocol, name: str) -> None:
    with pytest.raises(PlanError, match=f"the image has no {name}, only linux64, linux32"):
        walk(mode_host(Paging.PAE), protocol=protocol)


def low_memory_busy(paging: Paging) -> Host:
    return mode_host(paging, high=GIB, busy=[Extent(MIB, 128 * MIB)])


@pytest.mark.parametrize("paging", LEGACY)
def test_free_memory_above_4_gib_is_of_no_use_to_a_32_bit_kernel(paging: Paging) -> None:
    reason = "can give 0 below 0x100000000: above it no linear address equals its own"
    with pytest.raises(PlanError, match=reason) as refused:
        walk(low_memory_busy(paging))
    assert refused.value.field == "memory"


def test_free_memory_above_4_gib_is_of_use_to_a_64_bit_kernel() -> None:
    assert walk(low_memory_busy(Paging.X86_64)).outcome is Outcome.HOLDS


@pytest.mark.parametrize("paging", LEGACY)
def test_v_in_the_direct_map_needs_a_free_page_in_lowmem(paging: Paging) -> None:
    old = mode_host(paging, 0xC000_0000, home=Home.DIRECT_MAP, busy=[Extent(MIB, 32 * MIB)])
    small = replace(old, direct_map=replace(old.direct_map, size=32 * MIB))
    with pytest.raises(PlanError, match="the control page, which the direct map has to reach"):
        walk(small)
    # In the text it is mapped wherever the control page is.
    assert walk(replace(small, relocation=old.text.virt)).outcome is Outcome.HOLDS


def test_memory_beyond_the_lower_half_has_no_identity_with_4_levels() -> None:
    far = 1 << 47
    ram = [Extent(0, 0x9FC00), Extent.sized(far, 128 * MIB)]
    old = make_host(ram, text=far + 4 * MIB, private=Extent.sized(far + 12 * MIB, PRIVATE_SIZE))
    old = replace(old, cpu=replace(old.cpu, physical_bits=52))
    with pytest.raises(PlanError, match="of RAM in one piece"):
        walk(old)
    five = mode_host(Paging.LA57)
    wide = replace(
        old,
        paging=Paging.LA57,
        cr4=five.cr4,
        cpu=replace(five.cpu, physical_bits=52),
        direct_map=five.direct_map,
    )
    # The 32-bit entry would need memory below 4 GiB.  Linux's decompressor goes no further than
    # 64 TiB (misc.c); the tables would let another kernel.
    with pytest.raises(PlanError, match="below 0x400000000000"):
        walk(wide, protocol=Protocol.LINUX_64)
    another = replace(kernel(), reach=None)
    assert walk(wide, another, protocol=Protocol.LINUX_64).outcome is Outcome.HOLDS
