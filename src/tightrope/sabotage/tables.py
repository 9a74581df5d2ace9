"""Sabotages of page_table_a and page_table_b: one entry, or one bit of one.

Rules: as `edits`; what is not there to be changed raises BadInput with the reason.
"""

from __future__ import annotations

from tightrope.errors import BadInput
from tightrope.model import Handover, Paging, Step, Tables
from tightrope.sabotage.edits import control, edit_entry, entry_of, virt, with_tables
from tightrope.sabotage.sabotage import LONG_MODES, WIDE_ENTRIES, sabotage
from tightrope.x86.cpu import EFER_NXE

LAST_ADDRESS_BIT = 51
"""The highest bit of an entry that any CPU has for an address (SDM 4.5)."""


@sabotage("no-v", Step.TABLE_A, breaks="table-a-maps-v")
def no_v(handover: Handover) -> Handover:
    """Leave the mapping of V out of page_table_a."""
    return entry_of(virt, lambda _entry: 0)(handover)


@sabotage("no-p", Step.STATE, breaks="table-a-maps-p")
def no_p(handover: Handover) -> Handover:
    """Leave the mapping of P out of page_table_a."""
    if handover.intent.relocation == control(handover):
        raise BadInput("V and P are one address here: see no-v", source="--sabotage")
    return entry_of(control, lambda _entry: 0)(handover)


@sabotage("nx", Step.TABLE_A, breaks="table-a-rights", modes=WIDE_ENTRIES)
def nx(handover: Handover) -> Handover:
    """Set NX on the control page at V.

    NX in the entry for V; without EFER.NXE that bit is reserved, and another sabotage.
    """
    if not handover.registers.efer & EFER_NXE:
        raise BadInput("EFER.NXE is off: there is no NX", source="--sabotage")
    return entry_of(virt, lambda entry: entry | 1 << 63)(handover)


@sabotage("reserved-bit", Step.TABLE_A, breaks="reserved-bits", modes=WIDE_ENTRIES)
def reserved_bit(handover: Handover) -> Handover:
    """Set a physical address bit that the CPU does not have, in the entry for V."""
    bits = handover.host.cpu.physical_bits
    if bits > LAST_ADDRESS_BIT:
        raise BadInput(f"a CPU with {bits} address bits reserves none", source="--sabotage")
    return entry_of(virt, lambda entry: entry | 1 << bits)(handover)


@sabotage("accessed-clear", Step.TABLE_A, breaks="accessed-dirty-preset")
def accessed_clear(handover: Handover) -> Handover:
    """Clear accessed and dirty in the entry for V."""
    return entry_of(virt, lambda entry: entry & ~0x60)(handover)


@sabotage("nx-in-pdpte", Step.TABLE_A, breaks="reserved-bits", modes=(Paging.PAE,))
def nx_in_pdpte(handover: Handover) -> Handover:
    """On PAE, set NX in the PDPTE for V, where that bit is reserved.

    NX in page_table_a's PDPTE for V: execute-disable begins a level below it (SDM 4.4.1).
    """
    tables = handover.page_table_a
    page = bytearray(tables.pages[tables.root])
    # The highest byte of the entry that linear bits 31:30 choose.
    page[8 * (handover.intent.relocation >> 30) + 7] |= 0x80
    return with_tables(handover, tables.root, bytes(page))


@sabotage("table-b-small", Step.TABLE_B, breaks="table-b-covers", modes=LONG_MODES)
def table_b_small(handover: Handover) -> Handover:
    """Leave the kernel's destination out of page_table_b."""
    kernel = handover.intent.segments[0].destination
    return edit_entry(handover, _table_b(handover), kernel.start, lambda _entry: 0)


@sabotage("table-b-top", Step.TABLE_B, breaks="table-b-covers", modes=(Paging.LA57,))
def table_b_top(handover: Handover) -> Handover:
    """Leave page_table_b's own root out of it, which a 5-level kernel reads."""
    tables = _table_b(handover)
    return edit_entry(handover, tables, tables.root, lambda _entry: 0)


@sabotage("table-b-marked", Step.TABLE_B, breaks="table-b-top", modes=(Paging.LA57,))
def table_b_marked(handover: Handover) -> Handover:
    """Mark the first entry of page_table_b's top in bit 58, as Linux does since 2024.

    Bit 58, which a CPU ignores: _PAGE_BIT_NOPTISHADOW (Linux arch/x86, asm/pgtable_types.h).
    """
    tables = _table_b(handover)
    page = bytearray(tables.pages[tables.root])
    page[7] |= 1 << 58 - 56
    return with_tables(handover, tables.root, bytes(page))


def _table_b(handover: Handover) -> Tables:
    """page_table_b, where there is one.  Raises BadInput."""
    if handover.page_table_b is None:
        raise BadInput("there is no page_table_b: paging is turned off", source="--sabotage")
    return handover.page_table_b
