"""The rule about PAE's four top entries: the CPU keeps them in registers of its own.

Rules: what was loaded when is told by the run's register writes, what was written when by its
stores; a slot counts as used when an address below it is translated, or faults, before the next
load.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.check.case import Case
from tightrope.check.rule import Found, finding, rule
from tightrope.model import Paging, Sight, Step
from tightrope.x86 import cpu as x86
from tightrope.x86.walk import Access

PDPT_BYTES = 32
ROOT = 0xFFFF_FFE0
"""Where CR3 has the address under PAE paging (SDM table 4-7)."""


def _loads(case: Case) -> Iterator[tuple[int, int]]:
    """(instruction, PDPT in use from then on) of every load; -1 for the one before the walk, and 0
    for a PDPT where paging is off."""
    start = case.handover.registers
    cr0, cr3, cr4 = start.cr0, start.cr3, start.cr4
    yield -1, cr3 & ROOT
    for write in case.run.register_writes:
        now = {"cr0": cr0, "cr3": cr3, "cr4": cr4} | {write.register: write.after}
        if write.register == "cr3" or x86.loads_pdptes(
            now["cr0"], now["cr4"], was_cr0=cr0, was_cr4=cr4
        ):
            yield write.instruction, now["cr3"] & ROOT if now["cr0"] & x86.CR0_PG else 0
        cr0, cr3, cr4 = now["cr0"], now["cr3"], now["cr4"]


def _used(case: Case) -> list[tuple[int, int]]:
    """(the last instruction that was over, linear address) of every translation, and of the fault.

    A fetch is asked for when the instruction before it is over, an operand while its own runs.
    """
    run = case.run
    used = [
        (each.instruction - (each.access is not Access.FETCH), int(each.virt))
        for each in run.translations
    ]
    if run.fault is not None and run.fault.address is not None:
        over = run.fault.instruction - (run.fault.access is not Access.FETCH)
        used.append((over, run.fault.address))
    return used


@rule(
    "pdptes-current",
    Step.TABLE_A,
    says="With PAE, no PDPTE is used that was written after the CPU loaded it.",
    source="SDM 4.4.1: the PDPTEs are loaded with CR3 and not read again",
    mend="fill the table before CR3 is loaded, or load CR3 again",
    needs={Sight.INSTRUCTIONS, Sight.STORES, Sight.TRANSLATIONS, Sight.REGISTER_WRITES},
)
def pdptes_current(case: Case) -> Iterator[Found]:
    """No address is translated through a PDPTE that was written after the CPU loaded it."""
    if case.intent.paging is not Paging.PAE:
        return
    loads = list(_loads(case))
    ends = [at for at, _ in loads[1:]] + [case.run.instructions]
    for (loaded, root), end in zip(loads, ends, strict=True):
        stores = case.run.stores
        inside = (stores[:, 0] > loaded) & (stores[:, 0] < end)
        inside &= (stores[:, 2] >= root) & (stores[:, 2] < root + PDPT_BYTES)
        for index, step, phys, _size in stores[inside].tolist() if root else ():
            slot = (phys - root) // 8
            virt = next(
                (at for when, at in _used(case) if index <= when < end and at >> 30 == slot), None
            )
            if virt is None:
                continue
            trace = case.run.trace
            yield finding(
                f"the PDPTE at {phys & -8:#x} is written after CR3 was loaded, and {virt:#x} is"
                " translated with the one that was there before",
                evidence={
                    "written by": f"`{case.run.texts.get(int(trace[index]), '?')}`"
                    f" (number {index} of the walk)",
                    "loaded": "before the walk" if loaded < 0 else f"at instruction {loaded}",
                },
                step=Step(step),
            )
            return
