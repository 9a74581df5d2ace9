"""Sabotages of the relocation code: some bytes of this project's own routines.

Rules: a sabotage may use a routine's symbols, so it breaks the shipped code and no other.
"""

from __future__ import annotations

from tightrope.errors import BadInput
from tightrope.memory import Virt
from tightrope.model import Host, Paging, Plan, Step, XenCompat
from tightrope.sabotage.edits import patch, with_global
from tightrope.sabotage.sabotage import Sabotage
from tightrope.x86.cpu import CR4_PGE


def _with_pge(host: Host, plan: Plan) -> Host:
    """The same host, if it has global pages at all, and they are there when V is called."""
    if isinstance(plan.through, XenCompat):
        raise BadInput("the way out of long mode has dropped global entries", source="--sabotage")
    if not host.cr4 & CR4_PGE:
        raise BadInput("CR4.PGE is off already", source="--sabotage", field=host.source)
    return host


def _global_at_p(host: Host, plan: Plan) -> Host:
    """The old kernel has a global mapping at the linear address P, to some other frame."""
    return with_global(_with_pge(host, plan), Virt(plan.control_page))


STACK_OUTSIDE = Sabotage(
    name="stack-outside",
    says="put the stack one page too high",
    rule="stack-inside",
    step=Step.STATE,
    code=patch(
        relocate_x86_64=("set_stack", 3, b"\x00\x10\x00\x00", b"\x00\x20\x00\x00"),
        relocate_xen=("set_stack", 3, b"\x00\x10\x00\x00", b"\x00\x20\x00\x00"),
        relocate_i386=("set_stack", 2, b"\x00\x10\x00\x00", b"\x00\x20\x00\x00"),
    ),
)
STALE_GLOBAL = Sabotage(
    name="stale-global",
    says="a global entry of the old kernel at the linear address P, and CR4 never written",
    rule="tlb-agreement",
    step=Step.STATE,
    host=_global_at_p,
    code=patch(
        relocate_x86_64=("clear_pge", 0, b"\x0f\x22\xe0", b"\x90\x90\x90"),
        relocate_xen=("clear_pge", 0, b"\x0f\x22\xe0", b"\x90\x90\x90"),
        relocate_i386=("clear_pge", 0, b"\x0f\x22\xe0", b"\x90\x90\x90"),
    ),
)
PGE_ON = Sabotage(
    name="pge-on",
    says="leave CR4.PGE on",
    rule="pge-before-identity",
    step=Step.STATE,
    host=_with_pge,
    code=patch(
        relocate_x86_64=("after_table_a", 3, b"\x25\x20\x10\x00\x00", b"\x25\xa0\x10\x00\x00"),
        relocate_xen=("after_table_a", 0, b"\xb8\x20\x00\x00\x00", b"\xb8\xa0\x00\x00\x00"),
        relocate_i386=("after_table_a", 3, b"\x83\xe0\x20", b"\x83\xe0\xa0"),
    ),
)
"""`and $CR4_KEPT` keeps PGE too; under Xen `mov` sets it."""
PAE_BEFORE_PG = Sabotage(
    name="pae-before-pg",
    says="on PAE, clear CR4.PAE before CR0.PG",
    rule="fetch-mapped",
    step=Step.TABLE_B,
    code=patch(
        relocate_i386=(
            "identity",
            0,
            # mov $0x33, %eax; mov %eax, %cr0; jmp; xor %eax, %eax; mov %eax, %cr4
            b"\xb8\x33\0\0\0\x0f\x22\xc0\xeb\0\x31\xc0\x0f\x22\xe0",
            b"\x31\xc0\x0f\x22\xe0\xb8\x33\0\0\0\x0f\x22\xc0\xeb\0",
        )
    ),
    modes=(Paging.PAE,),
)
LA57_TOGGLED = Sabotage(
    name="la57-toggled",
    says="with 5 levels, clear CR4.LA57 at V",
    rule="legal-writes",
    step=Step.TABLE_A,
    code=patch(
        relocate_x86_64=("after_table_a", 3, b"\x25\x20\x10\x00\x00", b"\x25\x20\x00\x00\x00")
    ),
    modes=(Paging.LA57,),
)
"""`and` keeps PAE alone."""
