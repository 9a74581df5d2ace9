"""The order of the switch as a routine's bytes have it: decoded, not written down by hand.

    bytes --iced-x86--> instructions, straight on to the first conditional branch --> "AGJB"

A write of CR4 counts as G only if PGE is certainly 0 in what is written, a write of CR0 as O only
if PG is; so the bits of each register that are known to be 0 are followed, for the few instructions
that make them.

Rules: nothing is guessed: what an instruction does to a register that is not understood is
"anything".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tightrope import routines
from tightrope.errors import MissingPart
from tightrope.model import Code, Paging

if TYPE_CHECKING:
    from iced_x86 import Instruction

PGE, PG = 1 << 7, 1 << 31
ALL = (1 << 64) - 1


def shipped_order(mode: Paging) -> str:
    """The order of the routine that ships for a mode.  Raises MissingPart without a decoder."""
    name = routines.RELOCATE_X86_64 if mode.long_mode else routines.RELOCATE_I386
    return "".join(events(routines.read(name), 64 if mode.long_mode else 32))


def events(code: Code, bits: int) -> Iterator[str]:
    """A G J B O, in the order of the bytes, up to the first conditional branch."""
    try:
        import iced_x86 as x
    except ModuleNotFoundError as err:
        raise MissingPart("iced-x86 is not installed: install tightrope[rehearse]") from err
    known_zero: dict[int, int] = {}
    loads = iter("AB")
    clear = paging = True
    ends = (x.FlowControl.CONDITIONAL_BRANCH, x.FlowControl.EXCEPTION)
    for it in _straight_on(x, code, bits):
        if it.flow_control in ends:
            return
        if it.mnemonic in (x.Mnemonic.RETF, x.Mnemonic.RET, x.Mnemonic.IRET) or (
            it.flow_control in (x.FlowControl.INDIRECT_BRANCH, x.FlowControl.INDIRECT_CALL)
        ):
            yield "J"
            # Where it goes on is the code behind it: the jump is to its identity address.
            continue
        to = it.op0_register if it.op_count else x.Register.NONE
        zero = (
            known_zero.get(x.RegisterExt.full_register(it.op1_register), 0)
            if it.op_count > 1
            else 0
        )
        what = (it.mnemonic, to)
        if what == (x.Mnemonic.MOV, x.Register.CR3):
            if paging:
                yield next(loads)
        elif what == (x.Mnemonic.MOV, x.Register.CR4) and zero & PGE:
            if clear:
                yield "G"
            clear = False
        elif what == (x.Mnemonic.MOV, x.Register.CR0) and zero & PG:
            paging = False
            yield "O"
        else:
            _follow(x, it, known_zero)


def _straight_on(x: Any, code: Code, bits: int) -> Iterator[Instruction]:
    """Instructions from the first byte on; a direct jump is followed, forward only."""
    at = 0
    while at < len(code.data):
        it = x.Decoder(bits, code.data[at:], ip=at).decode()
        yield it
        at += len(it)
        if it.flow_control == x.FlowControl.UNCONDITIONAL_BRANCH:
            if it.near_branch_target < at:
                return
            at = it.near_branch_target


def _follow(x: Any, it: Instruction, known_zero: dict[int, int]) -> None:
    """What is known to be 0 in the registers after one instruction."""
    written = {
        x.RegisterExt.full_register(used.register)
        for used in x.InstructionInfoFactory().info(it).used_registers()
        if used.access not in (x.OpAccess.READ, x.OpAccess.COND_READ, x.OpAccess.NONE)
    }
    to = it.op0_register if it.op_count else x.Register.NONE
    full = x.RegisterExt.full_register(to)
    before = known_zero.get(full, 0)
    for register in written:
        known_zero.pop(register, None)
    size = 8 * x.RegisterExt.size(to) if to != x.Register.NONE else 0
    if size not in (32, 64):
        return
    immediate = (
        it.op_count > 1 and it.op1_kind != x.OpKind.REGISTER and (it.op1_kind != x.OpKind.MEMORY)
    )
    # A 32-bit operation clears the upper half of its register (SDM vol. 1, 3.4.1.1).
    upper = 0 if size == 64 else ALL ^ 0xFFFF_FFFF
    if it.mnemonic == x.Mnemonic.AND and immediate:
        known_zero[full] = before | ~it.immediate(1) & ALL | upper
    elif it.mnemonic == x.Mnemonic.MOV and immediate:
        known_zero[full] = ~it.immediate(1) & ALL | upper
    elif it.mnemonic == x.Mnemonic.XOR and it.op0_register == it.op1_register:
        known_zero[full] = ALL
