"""Rules at their edges, asked alone: what is just inside, what is just outside, and who is meant.

Rules: a case here has only what the rule looks at; whole walks are asked in test_rules.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.check.breaking import through_multiboot
from tests.rehearse.runs import sound
from tightrope.check.case import Case
from tightrope.check.digest import _changed
from tightrope.check.entry import CONTRACTS
from tightrope.check.evidence import _left_outside
from tightrope.check.faults import _mend
from tightrope.check.switching import stack_inside
from tightrope.check.told.handed_on import hop_keeps_setup_data
from tightrope.check.told.memory import Row, Told
from tightrope.check.told.memory_map import map_problems
from tightrope.check.xen.way_out import long_mode_left
from tightrope.memory import Extent, MemoryMap, Region, RegionKind, Virt
from tightrope.model import Protocol, RegisterWrite, SegmentRole, Step
from tightrope.model.entered import Entered

PAGE = 4096
MIB, GIB = 1 << 20, 1 << 30


def having(**parts: Any) -> Case:
    """A case with these parts and no other."""
    return cast(Case, SimpleNamespace(**parts))


REGION = Extent.sized(64 * MIB, 16 * MIB)


def old_kernel(*ram: Extent) -> SimpleNamespace:
    """A host as far as it is asked whose an address is."""
    return SimpleNamespace(
        memory=MemoryMap(tuple(Region(each, RegionKind.RAM) for each in ram)),
        text=SimpleNamespace(phys=16 * MIB, size=MIB), private=Extent.sized(20 * MIB, MIB),
        busy=(), firmware=(), crash_region=REGION,
    )  # fmt: skip


NOBODYS = {"pieces": (), "intent": SimpleNamespace(segments=(), identity=())}
"""What else is asked then."""


def write(register: str, after: int, step: Step = Step.CALL) -> RegisterWrite:
    return RegisterWrite(
        instruction=0, step=step, rip=Virt(0x1000), register=register, before=0, after=after
    )


# ------------------------------------------------------------------------------------- the stack


def stack_set_to(top: int, page: int, word: int) -> bool:
    """Whether the rule lets a stack be."""
    run = SimpleNamespace(register_writes=[write("rsp", top, Step.STATE)], texts={})
    handover = SimpleNamespace(world=SimpleNamespace(way_out=None, pieces=()))
    control = Extent.sized(page, PAGE)
    case = having(
        run=run, handover=handover, control_page=control, word=word, host=old_kernel(), **NOBODYS
    )
    return not list(stack_inside.search(case))


@settings(max_examples=300)
@given(
    st.sampled_from([4, 8]),
    st.sampled_from([0x1000, 0x7800_5000, 0xFFFF_F000]),
    st.sampled_from([*range(-12, 13), *range(PAGE - 12, PAGE + 13)]),
)
def test_the_first_word_that_is_pushed_lies_in_the_control_page(
    word: int, page: int, offset: int
) -> None:
    """Byte by byte, addresses as wide as a word."""
    top = (page + offset) % (1 << 8 * word)
    pushed = [(top - 1 - byte) % (1 << 8 * word) for byte in range(word)]
    assert stack_set_to(top, page, word) == all(page <= at < page + PAGE for at in pushed)


# ------------------------------------------------------------------------------------ setup_data

NODES = st.lists(st.tuples(st.sampled_from([1, 4, 9]), st.sampled_from([16, 17, 32])), max_size=4)


def handed(nodes: list[tuple[int, int]]) -> Entered:
    return Entered(rows=(), setup_data=tuple(nodes), rsdp=0, screen=b"", efi=b"", command_line=b"")


@given(NODES, NODES)
@example([(9, 16)], [(9, 17)])
def test_setup_data_keeps_its_nodes_and_does_not_grow(
    before: list[tuple[int, int]], now: list[tuple[int, int]]
) -> None:
    """Type by type, but for rows of the memory map."""
    case = having(host=SimpleNamespace(entered=handed(before)), once=lambda _: handed(now))
    quiet = True
    for kind in (4, 9):
        sizes = [[size for each, size in nodes if each == kind] for nodes in (before, now)]
        quiet &= len(sizes[0]) == len(sizes[1]) and sum(sizes[1]) <= sum(sizes[0])
    found = list(hop_keeps_setup_data.search(case))
    assert bool(found) != quiet
    counts = [Counter(kind for kind, _ in nodes) for nodes in (before, now)]
    if not quiet and counts[0] == counts[1]:
        first = min(
            kind
            for kind in (4, 9)
            if sum(s for k, s in now if k == kind) > sum(s for k, s in before if k == kind)
        )
        grown = sum(s for k, s in now if k == first) - sum(s for k, s in before if k == first)
        assert found[0].message == f"setup_data grows by {grown} bytes in its nodes of type {first}"


# ------------------------------------------------------------------------------------- the dead


def test_a_purgatory_is_not_among_the_segments_that_it_looks_at() -> None:
    """Its own variables are other bytes than were loaded, whatever it finds."""
    data = bytes(range(64))

    def segment(role: SegmentRole, start: int) -> SimpleNamespace:
        return SimpleNamespace(role=role, data=data, destination=Extent.sized(start, len(data)))

    kernel, purgatory = segment(SegmentRole.KERNEL, 0x1000), segment(SegmentRole.PURGATORY, 0x2000)
    memory = SimpleNamespace(read=lambda _: memoryview(data[:-1] + b"!"))
    intent = SimpleNamespace(segments=[purgatory, kernel])
    [(found, bad)] = _changed(having(intent=intent, run=SimpleNamespace(memory=memory)))
    assert found.role is SegmentRole.KERNEL
    assert bad.tolist() == [63]


def left_outside(ram: list[Extent], at: int) -> list[str]:
    """What the rule says of one page that holds something when the walk is over."""
    memory = SimpleNamespace(
        written=lambda: frozenset({at >> 12}), read=lambda _: memoryview(b"\1" + bytes(PAGE - 1))
    )
    handover = SimpleNamespace(world=SimpleNamespace(pieces=()), static=(), pieces=(), host=None)
    case = having(
        copies=SimpleNamespace(destinations=np.zeros(0, np.int64)), changes=(),
        host=old_kernel(*ram), handover=handover, run=SimpleNamespace(memory=memory), **NOBODYS,
    )  # fmt: skip
    return [each.message for each in _left_outside(case, REGION)]


@pytest.mark.parametrize(
    ("ram", "at", "told"),
    [
        ([Extent(MIB, GIB)], 32 * MIB, True),
        ([Extent(MIB, GIB)], REGION.start - PAGE, True),
        ([Extent(MIB, GIB)], REGION.start, False),
        ([Extent(MIB, GIB)], REGION.end - PAGE, False),
        ([Extent(MIB, GIB)], REGION.end, True),
        ([Extent(0, MIB - PAGE), Extent(MIB, GIB)], 0x9000, False),
        ([Extent(MIB, GIB)], MIB, True),
        ([Extent(MIB, 16 * GIB + MIB)], 32 * MIB, True),
        ([Extent(MIB, 16 * GIB + MIB + PAGE)], 32 * MIB, False),
    ],
    ids=[
        "free", "before the region", "its first page", "its last page", "behind it",
        "low memory", "the second MiB", "16 GiB", "a page more",
    ],
)  # fmt: skip
def test_what_an_unseen_store_left_outside_the_crash_region_is_found(
    ram: list[Extent], at: int, told: bool
) -> None:
    said = [f"something was written at {at:#x}, outside the crash region {REGION}"]
    assert left_outside(ram, at) == (said if told else [])


# ------------------------------------------------------------------------------------- the way out

PG, LME = 1 << 31, 1 << 8


@pytest.mark.parametrize(
    ("writes", "told"),
    [
        ([write("cr0", 1), write("efer", 0), write("cr0", PG | 1)], False),
        ([write("cr0", 1), write("cr0", PG | 1)], True),
        ([write("cr0", 1), write("cr3", PG), write("efer", 0), write("cr0", PG | 1)], False),
        ([write("cr0", 1), write("efer", LME), write("cr0", PG | 1)], True),
        ([write("cr0", 1), write("efer", 0), write("cr0", PG), write("cr3", PG)], False),
    ],
    ids=["left", "LME stays", "a root of 2 GiB", "LME is set again", "one after paging"],
)
def test_long_mode_is_left_when_paging_comes_on_without_lme(
    writes: list[RegisterWrite], told: bool
) -> None:
    registers = SimpleNamespace(cr0=PG | 1, efer=LME)
    world = SimpleNamespace(way_out=object())
    at_v = write("cr0", 1, Step.TABLE_A)
    case = having(
        handover=SimpleNamespace(world=world, registers=registers),
        run=SimpleNamespace(register_writes=[*writes, at_v], texts={}),
    )
    assert bool(list(long_mode_left.search(case))) == told


# ------------------------------------------------------------------------------ words and contracts


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ("fetch-executable", "clear NX (bit 63)"),
        ("fault-reserved", "clear the reserved bits; this CPU has "),
        ("legal-writes", "change the order or the value"),
        ("exception", "look at what was executed last"),
    ],
)
def test_each_kind_of_fault_has_a_mend_of_its_own(which: str, says: str) -> None:
    good = sound()
    fault = SimpleNamespace(address=0x5000, vector=14, access=None)
    assert _mend(Case(good.handover, good.run), cast(Any, fault), which).startswith(says)


def test_every_entry_is_of_as_many_bits_as_its_contract() -> None:
    assert set(CONTRACTS) == {
        (Protocol.LINUX_64, 64),
        *((each, 32) for each in Protocol if each is not Protocol.LINUX_64),
        (Protocol.FLAT, 64),
    }
    assert all(each.bits == bits for (_, bits), each in CONTRACTS.items())


@pytest.mark.parametrize("multiboot", [False, True])
@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (RegionKind.PMEM, 7),
        (RegionKind.PRAM, 12),
        (RegionKind.SOFT_RESERVED, 0xEFFF_FFFF),
    ],
)
def test_multiboot_has_no_word_for_persistent_and_special_memory(
    kind: RegionKind, number: int, multiboot: bool
) -> None:
    good = sound()
    handover, run = good.handover, good.run
    if multiboot:
        handover, run = through_multiboot(handover, run)
    extent = Extent.sized(1 << 36, GIB)
    host = handover.host
    host = replace(host, memory=MemoryMap((*host.memory, Region(extent, kind))))
    case = Case(replace(handover, world=replace(handover.world, host=host)), run)
    known = {RegionKind.RAM: 1, RegionKind.RESERVED: 2, RegionKind.ACPI: 3, RegionKind.NVS: 4}
    rows = [Row(extent=each.extent, type=known[each.kind]) for each in good.handover.host.memory]
    for said in (number, 2):
        told = Told(line=b"", modules=(), rows=(*rows, Row(extent=extent, type=said)))
        right = said == (2 if multiboot else number)
        assert (not list(map_problems(case, told, run.memory))) == right
