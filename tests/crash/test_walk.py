"""A crash walk: it holds on every host, and the old kernel's memory is what it was, all of it.

Memory is compared from outside: everything that the machine has is read before the first instruction
and after the last; outside the region not a byte may differ.  Where nothing lies a pattern is laid, so
that a stray write cannot pass for zeros.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.crash.hosts import REGION, crash_hosts, example, small_kernel
from tests.makers.hosts import MIB, PAGE
from tests.rehearse.runs import crashed, shared, shipped_kernel, shipped_request
from tests.stand_ins.played import Fake
from tightrope import check
from tightrope.deeds.rehearse import build, prepare, rehearse
from tightrope.machine.port import Machine
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent, Phys, subtract
from tightrope.model import Handover, Host, Outcome, Paging, Piece, PieceRole, Run, Stop
from tightrope.plan import Request
from tightrope.sabotage import SABOTAGES

MODES = pytest.mark.parametrize("paging", list(Paging))
FEW = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
PATTERN = bytes(range(256)) * (PAGE // 256)


def sampled(old: Host, seed: int) -> list[int]:
    """Frames of the old kernel outside the region: at its edges, at RAM's edges, and anywhere."""
    assert old.crash_region is not None
    pages = [
        Extent(-(-each.start // PAGE) * PAGE, each.end // PAGE * PAGE) for each in old.memory.ram
    ]
    outside = [e for e in subtract(pages, [old.crash_region]) if e.size]
    random = np.random.default_rng(seed)
    found = {place for each in outside for place in (each.start, each.end - PAGE)}
    for each in outside:
        found |= {each.start + PAGE * int(n) for n in random.integers(0, each.size // PAGE, 30)}
    return sorted(found)


def poisoned(handover: Handover, seed: int) -> Handover:
    """The same handover in a world where sampled pages that nobody described hold a pattern."""
    world = handover.world
    used = {frame for each in world.pieces for frame in each.extent.pages}
    more = tuple(
        Piece(phys=Phys(at), data=PATTERN, role=PieceRole.OTHER, which="the old kernel's memory")
        for at in sampled(handover.host, seed)
        if at // PAGE not in used
    )
    return replace(handover, world=replace(world, laid=(*world.laid, *more)))


def kept(handover: Handover, run: Run) -> None:
    """Every piece of the old kernel's world is byte for byte what it was."""
    region = handover.host.crash_region
    assert region is not None
    for piece in handover.world.pieces:
        if not region.covers(piece.extent):
            assert not region.overlaps(piece.extent)
            assert bytes(run.memory.read(piece.extent)) == bytes(piece.data), piece.what


def handover_of(old: Host, seed: int | None) -> Handover:
    request = Request(crash=True, scatter=seed, command_line="quiet")
    plan = prepare(small_kernel(), old, request)
    return poisoned(build(plan, design="two-tables"), seed or 0)


@MODES
def test_the_example_holds_in_every_mode(paging: Paging) -> None:
    verdict = crashed(paging)
    assert (verdict.outcome, verdict.findings) == (Outcome.HOLDS, ())
    assert verdict.run.stop is Stop.ENTRY
    assert len(verdict.run.copies) == 0
    kept(verdict.handover, verdict.run)


@FEW
@given(old=crash_hosts(), seed=st.none() | st.integers(0, 1 << 40))
@pytest.mark.parametrize("machine", [shared, Fake])
def test_a_crash_walk_holds_and_leaves_the_old_kernel_as_it_was(
    machine: Callable[[], Machine], old: Host, seed: int | None
) -> None:
    handover = handover_of(old, seed)
    run = machine().run(handover)
    assert check.check(handover, run) == ()
    assert run.stop is Stop.ENTRY
    assert run.copies[:, 3].sum() == sum(each.source.size for each in handover.intent.backup)
    kept(handover, run)


def digests(old: Host, run: Run) -> list[str]:
    """Of everything that the old kernel has outside the region, in pieces of up to 64 MiB."""
    assert old.crash_region is not None
    out = []
    for each in subtract((e.page_aligned() for e in old.memory.ram), [old.crash_region]):
        for start in range(each.start, each.end, 64 * MIB):
            part = Extent(start, min(start + 64 * MIB, each.end))
            out.append(hashlib.sha256(run.memory.read(part)).hexdigest())
    return out


def small(paging: Paging) -> Host:
    """The example of a mode with so little RAM that all of it can be read: around what it names."""
    old = example(paging)
    gone = [Extent(0xA00_0000, 0x2E00_0000), Extent(0x4320_0000, 1 << 64)]
    regions = tuple(
        replace(each, extent=part) for each in old.memory for part in subtract([each.extent], gone)
    )
    return replace(old, memory=replace(old.memory, regions=regions), busy=())


@MODES
@pytest.mark.parametrize("machine", [Emulator, Fake])
def test_not_a_byte_outside_the_region_differs(
    machine: Callable[[], Machine], paging: Paging
) -> None:
    """Two walks of two different crash kernels leave the same memory outside the region."""
    old = small(paging)
    one = handover_of(old, 1)
    plan = prepare(
        shipped_kernel(), old, replace(shipped_request(scatter=2, crash=True), command_line="other")
    )
    other = poisoned(build(plan, design="two-tables"), 1)
    before, after = digests(old, machine().run(one)), digests(old, machine().run(other))
    assert before == after
    # The digests see what they should: another pattern is another memory.
    assert digests(old, machine().run(poisoned(one, 3))) != before


@pytest.mark.parametrize("start", [0x3300_1000, 0x3311_F000, 0x9000_3000])
@MODES
def test_a_region_that_no_large_page_fits_holds(paging: Paging, start: int) -> None:
    old = example(paging, Extent.sized(start, 24 * MIB + 3 * PAGE))
    got = rehearse(small_kernel(), old, Request(crash=True), machine=shared())
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())


@MODES
def test_v_in_the_direct_map_holds_as_well(paging: Paging) -> None:
    """Where the old kernel calls the control page itself, that page is in the region too."""
    old = replace(example(paging), relocation=None)
    request = Request(crash=True, scatter=5)
    if paging in (Paging.I386, Paging.PAE):
        old = replace(old, crash_region=Extent.sized(0x2000_0000, REGION.size))
    got = rehearse(small_kernel(), old, request, machine=shared())
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())
    assert old.crash_region is not None
    assert old.crash_region.covers(Extent.sized(got.handover.intent.control_page, PAGE))


def test_an_overwritten_pgd_is_seen_by_this_comparison() -> None:
    """The comparison of this file can fail."""
    verdict = crashed(Paging.X86_64, "overwrite-pgd")
    assert verdict.findings[0].rule == SABOTAGES["overwrite-pgd"].rule == "current-pgd-kept"
    assert "crash-region-only" in [each.rule for each in verdict.findings]
    with pytest.raises(AssertionError, match="page tables"):
        kept(verdict.handover, verdict.run)
