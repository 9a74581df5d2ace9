"""Turns of a copy loop done many at a time: a walk records the same as when the CPU does each by itself.

The other door is the CPU: the same handover is walked by an emulator that does no turn in bulk.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import debian_kernel
from tests.machine.test_reuse import same
from tests.machine.walks import MIB, PAGE
from tests.makers.bzimage import bzimage
from tests.makers.designs import DESIGNS, TWO_TABLES
from tightrope import host, image
from tightrope.deeds import old_kernel
from tightrope.deeds.rehearse import build
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent
from tightrope.model import Handover, Host, Named, Paging, Run, Stop, XenInterface
from tightrope.observe.loops import loop
from tightrope.observe.watch import Watch
from tightrope.plan import Request, prepare
from tightrope.sabotage import SABOTAGES

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=25)
LIMIT = 400_000
OLD = {"6.1": "amd64", "6.12": "amd64-6.12", "7.2": "amd64-7.2", "7.3": "amd64-7.3"}
NARROW = {Paging.I386: "686", Paging.PAE: "686-pae"}
IN_BULK, STEPPED = (
    Emulator(instruction_limit=LIMIT),
    Emulator(instruction_limit=LIMIT, in_bulk=False),
)


@cache
def code(flavour: str) -> old_kernel.OldKernel:
    return old_kernel.read(debian_kernel(flavour).read_bytes(), flavour)


@cache
def old(paging: Paging) -> Host:
    """The example host, busy in a few pages where the new kernel goes, so that some are copied."""
    example = host.read(host.example(paging), paging.value)
    busy = Named(extent=Extent.sized(16 * MIB, 40 * PAGE), what="in use")
    return replace(example, busy=(*example.busy, busy))


def handover(
    paging: Paging,
    flavour: str | None = None,
    *,
    design: str = TWO_TABLES,
    size: int = 100,
    initrd: int = 3,
    scatter: int | None = None,
) -> Handover:
    """A handover with copies and pages in place; `flavour`: by an old kernel's own code."""
    new = image.read(bzimage(init_size=size * PAGE, pref_address=16 * MIB), "made")
    request = Request(initrd=bytes(range(1, 251)) * 17 * initrd, scatter=scatter)
    machine = old(paging)
    if flavour is None:
        return build(prepare(new, machine, request), design=design)
    own = code(flavour)
    the_plan = prepare(new, own.host(machine), own.request(request))
    return build(the_plan, design=own.participant)


def both(built: Handover) -> Run:
    """The run in bulk, when it equals the other one; every frame that either used included."""
    stepped = STEPPED.run(built)
    frames = stepped.memory.written() or _touched(built, stepped)
    kept = {frame: bytes(stepped.memory.read(Extent.sized(frame << 12, PAGE))) for frame in frames}
    got = IN_BULK.run(built)
    code = built.intent.control_page
    over = stepped.copies[stepped.copies[:, 1] == code]
    if len(over):
        # The running code is copied over: what Unicorn still executes of it, and so whether that
        # ends in a fault or goes in circles, is its own affair.
        last = int(over[0][0])
        assert (got.stop is Stop.ENTRY) == (stepped.stop is Stop.ENTRY)
        assert np.array_equal(got.trace[: last + 1], stepped.trace[: last + 1])
        for name in ("loads", "stores", "copies"):
            one, other = getattr(got, name), getattr(stepped, name)
            assert np.array_equal(one[one[:, 0] <= last], other[other[:, 0] <= last]), name
        return got
    same(got, stepped)
    for frame, was in kept.items():
        assert bytes(got.memory.read(Extent.sized(frame << 12, PAGE))) == was, hex(frame << 12)
    return got


def _touched(built: Handover, run: Run) -> set[int]:
    """The frames that a walk wrote, and all that was laid out for it."""
    rows = {int(phys) >> 12 for phys in (*run.stores[:, 2], *run.copies[:, 1])}
    laid = [each.extent for each in (*built.pieces, *built.world.pieces)]
    laid += [each.destination for each in built.intent.segments]
    return rows | {number for each in laid for number in each.page_aligned().pages}


def asked(monkeypatch: pytest.MonkeyPatch, built: Handover) -> tuple[int, Run]:
    """How often the CPU asked before an instruction, and the run."""
    count = 0
    before = Watch.instruction

    def counted(watch: Watch, rip: int) -> None:
        nonlocal count
        count += 1
        before(watch, rip)

    monkeypatch.setattr(Watch, "instruction", counted)
    run = IN_BULK.run(built)
    return count, run


# ----------------------------------------------------------------------------- whose loop it is


@pytest.mark.parametrize("paging", Paging)
@pytest.mark.parametrize("design", DESIGNS)
def test_our_designs_are_recorded_alike(design: str, paging: Paging) -> None:
    run = both(handover(paging, design=design))
    assert len(run.copies)


@pytest.mark.parametrize("scatter", [None, 3])
@pytest.mark.parametrize("flavour", OLD.values(), ids=OLD)
def test_linuxes_own_code_is_recorded_alike(flavour: str, scatter: int | None) -> None:
    run = both(handover(Paging.X86_64, flavour, scatter=scatter))
    assert run.stop is Stop.ENTRY


@pytest.mark.parametrize(("paging", "flavour"), NARROW.items(), ids=NARROW.values())
def test_linuxes_own_32_bit_code_is_recorded_alike(paging: Paging, flavour: str) -> None:
    run = both(handover(paging, flavour))
    assert run.stop is Stop.ENTRY


@pytest.mark.parametrize("interface", XenInterface)
def test_a_hypervisors_code_is_recorded_alike(interface: XenInterface) -> None:
    machine = host.read(host.xen_example(Paging.X86_64, interface), "Xen")
    new = image.read(bzimage(init_size=60 * PAGE), "made")
    both(build(prepare(new, machine, Request(xen=interface, scatter=1)), design=TWO_TABLES))


@pytest.mark.parametrize("flavour", [None, *OLD.values()])
def test_most_turns_are_done_in_bulk(monkeypatch: pytest.MonkeyPatch, flavour: str | None) -> None:
    count, run = asked(monkeypatch, handover(Paging.X86_64, flavour, size=2000))
    assert run.instructions > 20_000
    assert count < run.instructions / 20


# ---------------------------------------------------------------------------- whatever is asked


@SLOW
@given(
    paging=st.sampled_from(Paging),
    flavour=st.sampled_from([None, *OLD.values()]),
    size=st.integers(6, 700),
    initrd=st.integers(1, 40),
    scatter=st.none() | st.integers(0, 1 << 32),
)
def test_any_plan_is_recorded_alike(
    paging: Paging, flavour: str | None, size: int, initrd: int, scatter: int | None
) -> None:
    if flavour and not paging.long_mode:
        flavour = NARROW[paging]
    both(handover(paging, flavour, size=size, initrd=initrd, scatter=scatter))


@pytest.mark.parametrize("name", [n for n, s in SABOTAGES.items() if not (s.crash or s.backup)])
def test_whatever_is_broken_is_recorded_alike(name: str) -> None:
    broken = SABOTAGES[name]
    paging = Paging.X86_64 if Paging.X86_64 in broken.modes else broken.modes[0]
    new = image.read(bzimage(init_size=60 * PAGE, pref_address=16 * MIB), "made")
    the_plan = prepare(new, old(paging), Request(initrd=bytes(9000), scatter=5))
    both(build(the_plan, design=TWO_TABLES, sabotage=broken))


Edit = Callable[[Handover, int], int]
WORDS: dict[str, Edit] = {
    "no flag": lambda _, word: word & ~0xF,
    "no source but a destination": lambda _, word: word & ~0xF | 1,
    "the end": lambda _, word: word | 4,
    "a list page as destination": lambda built, _: min(built.page_list) | 1,
    "the control page as destination": lambda built, _: built.intent.control_page | 1,
    "its root as destination": lambda built, _: built.page_table_a.root | 1,
    "the list again": lambda built, _: min(built.page_list) | 2,
    "a hole": lambda built, _: built.host.memory.ram[-1].end + MIB | 8,
    "a page far away": lambda _, word: word & 0xFFF | 1 << 45,
    "within the last page": lambda built, word: built.host.memory.ram[-1].end - PAGE | word & 0xF,
    "the next page": lambda _, word: word + PAGE,
    "the page before": lambda _, word: word - PAGE,
    "the first page": lambda _, word: word & 0xF,
    "flags that mean nothing": lambda _, word: word | 0xF0,
}


@SLOW
@given(
    flavour=st.sampled_from([None, "amd64-6.12", "amd64-7.3"]),
    edits=st.lists(st.tuples(st.integers(0, 130), st.sampled_from(sorted(WORDS))), max_size=6),
)
def test_any_list_is_recorded_alike(flavour: str | None, edits: list[tuple[int, str]]) -> None:
    built = handover(Paging.X86_64, flavour, size=100)
    pages = {at: bytearray(page) for at, page in built.page_list.items()}
    first = pages[min(pages)]
    for number, name in edits:
        (word,) = struct.unpack_from("<Q", first, 8 * number)
        struct.pack_into("<Q", first, 8 * number, WORDS[name](built, word) % (1 << 64))
    both(replace(built, page_list={at: bytes(page) for at, page in pages.items()}))


@pytest.mark.parametrize("limit", [200, 201, 202, 203, 500, 711])
def test_a_limit_is_met_at_the_same_instruction(limit: int) -> None:
    built = handover(Paging.X86_64)
    runs = [Emulator(instruction_limit=limit, in_bulk=each).run(built) for each in (True, False)]
    same(*runs)
    assert runs[0].stop is Stop.LIMIT


# --------------------------------------------------------------------------- what is read of it


def test_a_loop_that_does_more_than_copy_is_the_cpus() -> None:
    turn = bytes.fromhex("488b0b 4883c308 f6c108 740a b900020000 f348a5 ebea ebe8")
    assert loop(turn + bytes(64), 64) is not None
    # The same with a store among its instructions: mov %rcx, (%rdi).
    assert loop(turn.replace(b"\x48\x83\xc3\x08", b"\x48\x89\x0f\x90") + bytes(64), 64) is None
    assert loop(bytes(256), 64) is None
    assert loop(b"\xeb\xfe", 64) is None


def test_ours_has_five_ways_round() -> None:
    built = handover(Paging.X86_64)
    own = built.relocation_code.code
    found = loop(own.data[own.symbols["next_word"] :][:256], 64)
    assert found is not None
    # A destination, an indirection, a word without a flag, a page in place, a page that is copied.
    assert len(found.paths) == 5
    assert sorted(len(path.copies) for path in found.paths) == [0, 0, 0, 0, 1]
    assert np.array_equal([path.where[0] for path in found.paths], [0] * 5)
