"""Classes of hosts: equal decisive facts, equal verdicts; a fact that is changed splits a class."""

from __future__ import annotations

import os
import random
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.machine.walks import kernel
from tests.makers.efi import EFI
from tests.makers.fleet import booted
from tightrope import host as host_room
from tightrope import plan
from tightrope.deeds.rehearse import rehearse
from tightrope.deeds.sweep.decisive import key
from tightrope.deeds.unpacking import Unpacking
from tightrope.errors import CannotBe, PlanError, TightropeError
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent, MemoryMap, Phys, Region, RegionKind, Virt
from tightrope.model import Host, Named, Paging
from tightrope.model.entered import Entered
from tightrope.model.host import CpuVendor, LowMapping
from tightrope.plan import Request
from tightrope.sabotage import SABOTAGES

EXAMPLE = host_room.read(host_room.example(), "the default host")
IMAGE = kernel()
UNPACKING = Unpacking(IMAGE, None)
EMULATOR = Emulator()


def key_of(old: Host, *, crash: bool = False) -> str:
    return key(plan.prepare(IMAGE, old, Request(crash=crash)))


def verdict(old: Host, request: Request, sabotage: str | None) -> object:
    """What a rehearsal comes to, as far as two of a class have to agree."""
    try:
        found = rehearse(
            IMAGE,
            old,
            request,
            sabotage=SABOTAGES[sabotage] if sabotage else None,
            machine=EMULATOR,
            unpacking=UNPACKING,
        )
    except TightropeError as err:
        return type(err)
    told = tuple((each.rule, each.step) for each in (*found.findings, *found.advice))
    return found.outcome, told


hosts = st.builds(
    lambda seed, cr4, bits, gbpages, crash, notes: replace(
        EXAMPLE,
        cr4=EXAMPLE.cr4 ^ cr4,
        cpu=replace(EXAMPLE.cpu, physical_bits=bits, gbpages=gbpages),
        crash_region=Extent.sized(0x3300_0000, 0x1000_0000) if crash else None,
        crash_notes=(Named(extent=Extent.sized(0x210_0000, 0x200), what="CPU 0's registers"),)
        if notes
        else (),
    ),
    seed=st.just(0),
    cr4=st.sampled_from([0, 1 << 7, 1 << 16, 1 << 17, 1 << 20, 1 << 21]),
    bits=st.sampled_from([36, 39, 46]),
    gbpages=st.booleans(),
    crash=st.booleans(),
    notes=st.booleans(),
)


EXAMPLES = int(os.environ.get("TIGHTROPE_EXAMPLES", "60"))
"""Pairs of a run; docs/proof.md says what came of 10,000."""


@settings(
    max_examples=EXAMPLES, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
@given(
    old=hosts,
    seeds=st.lists(st.integers(0, 1 << 32), min_size=12, max_size=12, unique=True),
    sabotage=st.none() | st.sampled_from(sorted(SABOTAGES)),
    crash=st.booleans(),
)
def test_two_of_a_class_come_to_the_same(
    old: Host, seeds: list[int], sabotage: str | None, crash: bool
) -> None:
    """Of twelve boots of a machine two that are of one class, each rehearsed by itself."""
    request = Request(crash=crash)
    seen: dict[str, Host] = {}
    for seed in seeds:
        other = booted(old, random.Random(seed))
        try:
            group = key_of(other, crash=crash)
        except (PlanError, CannotBe):
            assume(False)
        if group in seen:
            assert verdict(seen[group], request, sabotage) == verdict(other, request, sabotage)
            return
        seen[group] = other
    assume(False)


def test_boots_of_one_machine_are_few_classes() -> None:
    chance = random.Random(5)
    keys = [key_of(booted(EXAMPLE, chance)) for _ in range(200)]
    assert len(set(keys)) < 40


CHANGED: dict[str, Any] = {
    "paging": None,  # below: it brings other fields along
    "cpu": replace(EXAMPLE.cpu, vendor=CpuVendor.AMD),
    "cr0": EXAMPLE.cr0 ^ 1 << 16,
    "cr4": EXAMPLE.cr4 ^ 1 << 16,
    "efer": EXAMPLE.efer ^ 1,
    "memory": MemoryMap(
        (*EXAMPLE.memory.regions, Region(extent=Extent.sized(1 << 40, 4096), kind=RegionKind.PMEM))
    ),
    "text": replace(EXAMPLE.text, size=EXAMPLE.text.size + (2 << 20)),
    "relocation": Virt(EXAMPLE.text.virt + 0x5000),
    "direct_map": replace(EXAMPLE.direct_map, page_size=4096),
    "private": Extent.sized(EXAMPLE.private.start, EXAMPLE.private.size - 4096),
    "busy": (Named(extent=Extent.sized(0x200_0000, 4096), what="a driver"),),
    "crash_region": Extent.sized(0x3300_0000, 0x1000_0000),
    "firmware": (Named(extent=Extent.sized(0xBFFD_9000, 4096), what="EFI"),),
    "rsdp": Phys(0xF_5A50),
    "low_mappings": (
        LowMapping(virt=Virt(1 << 30), phys=Phys(0x200_0000), size=4096, is_global=True),
    ),
    "crash_notes": (Named(extent=Extent.sized(0x210_0000, 0x200), what="CPU 0's registers"),),
    "crash_memory": (Named(extent=Extent.sized(0x3300_0000, 4096), what="low"),),
    "preserved": (Named(extent=Extent.sized(0x200_0000, 4096), what="KHO"),),
    "screen": b"\1" * 64,
    "efi": EFI,
    "entered": Entered(
        rows=(), setup_data=(), rsdp=0, screen=bytes(64), efi=bytes(32), command_line=b""
    ),
}
NOT_DECISIVE = {"source", "facts"}


@pytest.mark.parametrize("name", sorted(CHANGED))
def test_a_changed_fact_splits_a_class(name: str) -> None:
    if name == "paging":
        other = host_room.read(host_room.example(Paging.LA57), "another mode")
    else:
        other = replace(EXAMPLE, **{name: CHANGED[name]})
    assert key_of(other) != key_of(EXAMPLE)


def test_every_fact_is_changed_above_or_is_known_not_to_be_decisive() -> None:
    assert {each.name for each in fields(Host)} == {*CHANGED, *NOT_DECISIVE, "xen"}


@pytest.mark.parametrize("name", sorted(NOT_DECISIVE))
def test_a_name_splits_no_class(name: str) -> None:
    other = replace(EXAMPLE, source="elsewhere") if name == "source" else replace(EXAMPLE, facts=())
    assert key_of(other) == key_of(EXAMPLE)


def test_of_a_32_bit_host_every_address_is_decisive() -> None:
    old = host_room.read(host_room.example(Paging.PAE), "pae")
    moved = replace(old, text=replace(old.text, phys=Phys(old.text.phys + (4 << 20))))
    assert key_of(old) != key_of(moved)
