"""Sabotages of what is the old kernel's: its page tables, and what a dump of it leads to.

Rules: as `edits`; what is not there to be changed raises BadInput with the reason.
"""

from __future__ import annotations

from dataclasses import replace

from tightrope.abi import elf
from tightrope.errors import BadInput
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Handover, Paging, Piece, PieceRole, SegmentRole, Step
from tightrope.sabotage.edits import edit_segment
from tightrope.sabotage.sabotage import sabotage


@sabotage("overwrite-pgd", Step.PREPARE, breaks="current-pgd-kept")
def overwrite_pgd(handover: Handover) -> Handover:
    """Overwrite the low half of the current pgd, as Linux did before the thread.

    What Linux did before the thread: the identity map goes into the low half of the live pgd.
    """
    world = handover.world
    # A 32-bit kernel needs one only for the control page: paging is off when the copy begins.
    tables = handover.page_table_b or handover.page_table_a
    # PAE's pgd is four entries of eight bytes.
    half = 16 if handover.intent.paging is Paging.PAE else PAGE_SIZE // 2
    low = bytes(tables.pages[tables.root])[:half]
    high = bytes(world.tables[world.pgd])[half:]
    if low == bytes(world.tables[world.pgd])[:half]:
        raise BadInput("P lies in the upper half: the low one stays as it was", source="--sabotage")
    piece = Piece(phys=world.pgd, data=low + high, role=PieceRole.PLANTED)
    return replace(handover, extra=(*handover.extra, piece))


@sabotage("no-backup", Step.COPY, breaks="backup-complete", crash=True, backup=True)
def no_backup(handover: Handover) -> Handover:
    """In a crash kexec, leave the backup of low memory out."""
    _saved(handover)

    def clear(data: bytearray) -> None:
        for each in handover.intent.backup:
            row = b"".join(n.to_bytes(8, "little") for n in (each.source.start, each.copy))
            at = data.index(row)
            data[at + 16 : at + 24] = bytes(8)

    return edit_segment(handover, SegmentRole.ENTRY_STUB, clear, planned=True)


@sabotage("dump-overwritten", Step.PREPARE, breaks="dump-survives", crash=True, backup=True)
def dump_overwritten(handover: Handover) -> Handover:
    """In a crash kexec, let the core header lead to low memory itself and not to its backup.

    The core header's file offsets into the backup become the saved memory's own addresses.
    """
    saved = _saved(handover)

    def lead(data: bytearray) -> None:
        bits = elf.CLASS_BITS[data[elf.IDENT_CLASS]]
        layout = elf.PROGRAM_HEADER[bits]
        width = bits // 8
        for row in range(elf.HEADER[bits].size, len(data), layout.size):
            at, phys = row + layout.offset("offset"), row + layout.offset("paddr")
            if int.from_bytes(data[phys : phys + width], "little") in saved:
                data[at : at + width] = data[phys : phys + width]

    return edit_segment(handover, SegmentRole.CORE_HEADER, lead, planned=True)


def _saved(handover: Handover) -> Extent:
    """Low memory as far as it is saved.  Raises BadInput where none is."""
    backup = handover.intent.backup
    if not backup:
        raise BadInput("the plan saves no low memory: see --backup", source="--sabotage")
    return Extent(backup[0].source.start, backup[-1].source.end)
