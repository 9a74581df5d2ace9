"""A watch that is asked ahead of an instruction: what it will touch, page by page."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.machine import walks
from tests.machine.walks import PAGE, made
from tightrope.machine.expected import expectations
from tightrope.machine.layout import lay
from tightrope.observe.lookout import Lookout
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.physical import Ram, backed
from tightrope.observe.post_mortem import StandingCpu

STORE, LOAD = b"\x48\x89\x03", b"\x48\x8b\x03"
"""mov %rax, (%rbx) and mov (%rbx), %rax"""


def ahead(code: bytes, rbx: int) -> tuple[Lookout, int]:
    """The lookout of a CPU that is about to execute `code`, and what is added to physical addresses."""
    handover = made(code)
    host = handover.plan.host
    ram = Ram(backed(host.memory, host.firmware))
    lay(handover, ram)
    expected = expectations(handover)
    virt = int(host.direct_map.virt)
    general = {**handover.registers.general, "rbx": virt + rbx}
    registers = replace(handover.registers, general=general)
    mmu = WatchedMmu(ram, host.cpu, registers, expected.tables)
    watch = Lookout(StandingCpu(ram, registers, 64), mmu, expected.steps(), expected, 10)
    watch.ahead(registers.rip)
    return watch, virt


@pytest.mark.parametrize("inside", range(1, 8))
@pytest.mark.parametrize("code", [STORE, LOAD], ids=["store", "load"])
def test_an_access_across_two_pages_is_two(code: bytes, inside: int) -> None:
    end = 4 * walks.MIB
    watch, virt = ahead(code, end - inside)
    log = watch.stores if code == STORE else watch.loads
    rows = [tuple(log[n + 2 : n + 4]) for n in range(0, len(log), 4)]
    assert rows == [(end - inside, inside), (end, 8 - inside)]
    asked = {each.virt & -PAGE for each in watch._mmu.log}
    assert {virt + end - PAGE, virt + end} <= asked


@pytest.mark.parametrize("at", [0, 8, PAGE - 8])
def test_an_access_inside_a_page_is_one(at: int) -> None:
    watch, _ = ahead(STORE, 4 * walks.MIB + at)
    assert list(watch.stores)[2:4] == [4 * walks.MIB + at, 8]
    assert len(watch.stores) == 4
