"""Rules about a 64-bit hypervisor that calls a 32-bit dom0's code: long mode is left first.

    its tables and dom0's code are mapped     under both trees of the way out
    then                                      PG off, LME off, PG on: never in another order

Rules: asked of every handover, and silent where long mode is not left.  The trees are walked as
built.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tightrope.check.case import Case
from tightrope.check.rule import Found, finding, rule
from tightrope.model import Sight, Step, Tables, XenCompat
from tightrope.x86 import cpu as x86
from tightrope.x86.walk import Access, Mmu, Refused, entries_in, walk

LONG = x86.EFER_LME | x86.EFER_LMA


def mmu(case: Case, tables: Tables, *, wide: bool) -> Mmu:
    """The MMU under one of the two trees: long mode's, or PAE's."""
    registers = case.handover.registers
    return replace(
        registers.mmu(case.host.cpu, root=tables.root),
        cr4=x86.CR4_PAE,
        efer=registers.efer if wide else registers.efer & ~LONG,
    )


@rule(
    "xen-way-out-maps",
    Step.CALL,
    says="A 64-bit hypervisor's way to 32-bit code is mapped in its 4-level and its PAE tables.",
    source="x86_64/compat_kexec.S of Xen 3.1 to 4.3: PML4[0] and compat_pg_table",
    mend="map the code there, in both tables, when the image is loaded",
)
def way_out_maps(case: Case) -> Iterator[Found]:
    """Both trees map the code and the words, and the second one the pages of page_list."""
    way, load = case.handover.world.way_out, case.intent.through
    if way is None or not isinstance(load, XenCompat):
        return
    own = [
        ("the code that leaves long mode", int(way.code), int(way.code), Access.FETCH),
        ("its words", int(way.words), int(way.words), Access.READ),
    ]
    call = ("the code that is called", int(way.virt), int(way.code), Access.FETCH)
    listed = [
        (f"VA_{each.name}", int(each.fixmap), int(each.machine), access)
        for each in load.pages
        if each.fixmap is not None
        for access in (Access.WRITE, *([Access.FETCH] if each.slot == 0 else []))
    ]
    for name, tables, rows in (
        ("the 4-level tables", way.wide, [call, *own]),
        ("the PAE tables", way.narrow, [*own, *listed]),
    ):
        read = entries_in(tables.pages)
        for what, virt, phys, access in rows:
            got = walk(read, mmu(case, tables, wide=tables is way.wide), virt, access)
            if not isinstance(got, Refused) and got.phys == phys:
                continue
            problem = got.reason if isinstance(got, Refused) else f"leads to {got.phys:#x}"
            yield finding(
                f"{name} of the way out of long mode do not give {what} at {virt:#x} for a"
                f" {access.value}: {problem}",
                evidence={v.level: f"{v.entry:#x} at {v.at:#x}" for v in got.visits},
                mend=f"map {virt:#x} to {phys:#x} there when the image is loaded",
            )
            return


@rule(
    "xen-long-mode-left",
    Step.CALL,
    says="A 64-bit hypervisor leaves long mode before it calls a 32-bit dom0's code.",
    source="SDM 9.8.5.4; x86_64/compat_kexec.S of Xen 3.1 to 4.3",
    mend="clear EFER.LME while paging is off",
    needs={Sight.REGISTER_WRITES},
)
def long_mode_left(case: Case) -> Iterator[Found]:
    """Before V, EFER.LME is cleared with paging off, and paging is on again when V is called."""
    if case.handover.world.way_out is None:
        return
    registers = case.handover.registers
    cr0, efer = registers.cr0, registers.efer
    for write in case.run.register_writes:
        if write.step is not Step.CALL:
            break
        if write.register == "cr0":
            cr0 = write.after
            if cr0 & x86.CR0_PG and efer & x86.EFER_LME:
                yield finding(
                    f"`{case.run.texts.get(write.rip, '?')}` at {write.rip:#x} turns paging on with"
                    " EFER.LME set: that is long mode again, and 32-bit tables are read as 4-level ones",
                    evidence={"EFER": f"{efer:#x}", "CR0": f"{cr0:#x}"},
                )
                return
        elif write.register == "efer":
            efer = write.after
