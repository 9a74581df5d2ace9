"""The sabotage that fills in a PDPTE too late.

    the control page, sabotaged

      P + 0x800   page_table_a's four PDPTEs; that of P is left out
      P + 0x700   what the routine jumps to from `set_stack`: two stores that fill it in, the
                  instruction that was there, and a jump back

Rules: the PDPT is moved into the control page because page_table_a maps nothing else: only there
can the walk write into the table that it runs on.  The stores come after the write of CR4 that
clears PGE, which would load the PDPTEs again (SDM 4.4.1).
"""

from __future__ import annotations

import struct
from dataclasses import replace

from tightrope.errors import BadInput
from tightrope.memory import PAGE_SIZE, Phys
from tightrope.model import Bare, Handover, Paging, Step, Tables, with_code
from tightrope.sabotage.edits import control
from tightrope.sabotage.sabotage import sabotage

PDPT, LATE = 0x800, 0x700
PDPT_BYTES = 32
SET_STACK = b"\x8d\xa6\x00\x10\x00\x00"
"""lea 4096(%esi), %esp: the first instruction after which P is used."""


@sabotage("stale-pdpte", Step.TABLE_A, breaks="pdptes-current", modes=(Paging.PAE,))
def stale_pdpte(handover: Handover) -> Handover:
    """On PAE, fill in the PDPTE for P after CR3 was loaded.

    The PDPTE for P is written by the walk, after CR3 was loaded.  Raises BadInput.
    """
    plan, old = handover.intent, handover.page_table_a
    code = handover.code
    if not isinstance(plan.through, Bare):
        raise BadInput("through Xen the root is handed over in page_list", source="--sabotage")
    at = code.symbols.get("set_stack", 0)
    if code.data[at : at + len(SET_STACK)] != SET_STACK or len(code.data) > LATE:
        raise BadInput(f"{code.name} is not the code that this sabotage knows", source="set_stack")
    slot = control(handover) >> 30
    if slot == plan.relocation >> 30:
        raise BadInput("V and P share a PDPTE: without it V is gone too", source="--sabotage")
    pdptes = bytearray(bytes(old.pages[old.root])[:PDPT_BYTES])
    low, high = struct.unpack_from("<II", pdptes, 8 * slot)
    struct.pack_into("<Q", pdptes, 8 * slot, 0)
    # movl $imm32, disp32 is c7 05 disp32 imm32.
    place = plan.relocation + PDPT + 8 * slot
    stores = b"".join(
        struct.pack("<BBII", 0xC7, 0x05, place + offset, value)
        for offset, value in ((4, high), (0, low))
    )
    page = bytearray(code.data.ljust(PAGE_SIZE, b"\0"))
    page[at : at + 6] = _jump(at, LATE) + b"\x90"
    late = stores + SET_STACK
    late += _jump(LATE + len(late), at + 6)
    page[LATE : LATE + len(late)] = late
    page[PDPT : PDPT + PDPT_BYTES] = pdptes
    root = Phys(plan.control_page + PDPT)
    rest = {frame: each for frame, each in old.pages.items() if frame != old.root}
    # What page_table_a has in the control page is its PDPT; the code beside it is no table.
    table = bytes(PDPT) + bytes(pdptes) + bytes(PAGE_SIZE - PDPT - PDPT_BYTES)
    data = bytes(page)
    world = replace(
        handover.world,
        laid=tuple(
            replace(each, data=data) if each.phys == handover.world.code_phys else each
            for each in handover.world.laid
        ),
    )
    general = {**handover.registers.general, "rcx": int(root)}
    return replace(
        handover,
        world=world,
        chain=with_code(handover.chain, replace(code, data=data)),
        page_table_a=Tables(root=root, pages={**rest, plan.control_page: memoryview(table)}),
        registers=replace(handover.registers, general=general),
    )


def _jump(at: int, to: int) -> bytes:
    """jmp rel32 from one offset of the page to another."""
    return b"\xe9" + struct.pack("<i", to - (at + 5))
