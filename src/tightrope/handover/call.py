"""The call: what is in registers and in memory when V is called, and in the code page before it.

    registers      each argument that the contract names by a register
    stack          the array of pages where the contract has one; the words that it names by rsp+N
    code page      words and gates that are filled in when the image is loaded

The old kernel's stack, four pages: the array lies at its beginning, the words of the call at its
end.

Rules: the contract says what, this file says where; a hypervisor's calls are laid by `world`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace

from tightrope.memory import PAGE_SIZE, Extent, Phys
from tightrope.model import (
    Bare,
    Code,
    Contract,
    Done,
    Gates,
    Given,
    Piece,
    PieceRole,
    Plan,
    Registers,
    World,
)
from tightrope.x86.cpu import CR4_CET, RFLAGS_IF

DATA_SELECTOR: Mapping[int, int] = {8: 0x18, 4: 0x68}
"""__KERNEL_DS by bytes of a word (Linux asm/segment.h)."""
INTERRUPT_GATE = 0x8E
"""Present, ring 0, interrupt gate (SDM figure 6-8)."""


def loaded(code: Code, contract: Contract, values: Mapping[Given, int], plan: Plan) -> Code:
    """The code page as the old kernel fills it in when the image is loaded."""
    if not contract.words and contract.gates is None:
        return code
    data = bytearray(code.data)
    for label, given in contract.words.items():
        at = code.symbols[label]
        data[at : at + plan.word] = values[given].to_bytes(plan.word, "little")
    if contract.gates is not None:
        _fill_gates(data, code, contract.gates, plan.control_page)
    return replace(code, data=bytes(data))


def _fill_gates(data: bytearray, code: Code, gates: Gates, control_page: Phys) -> None:
    """Each gate leads to its handler by the control page's own address."""
    for vector in range(gates.count):
        handler = control_page + code.symbols[gates.handlers] + gates.stride * vector
        gate = struct.pack(
            "<HHBBHII",
            handler & 0xFFFF,
            gates.selector,
            0,
            INTERRUPT_GATE,
            handler >> 16 & 0xFFFF,
            handler >> 32,
            0,
        )
        at = code.symbols[gates.idt] + len(gate) * vector
        data[at : at + len(gate)] = gate


def called(
    plan: Plan, world: World, code: Code, contract: Contract, values: dict[Given, int]
) -> tuple[World, Registers]:
    """The world with what the call lays into it, and the CPU at the call."""
    if world.code_phys == plan.control_page:
        world = replace(
            world,
            laid=tuple(
                replace(each, data=code.data.ljust(PAGE_SIZE, b"\0"))
                if each.role is PieceRole.CODE_AT_V
                else each
                for each in world.laid
            ),
        )
    registers = world.registers
    if isinstance(plan.through, Bare):
        world, registers, values = _on_the_stack(plan, world, contract, values)
    general = registers.general
    return world, _done(
        plan,
        contract,
        replace(
            registers,
            general={
                **general,
                **{
                    at: values[given]
                    for at, given in contract.arguments.items()
                    if at in general and given in values
                },
            },
        ),
    )


def _on_the_stack(
    plan: Plan, world: World, contract: Contract, values: dict[Given, int]
) -> tuple[World, Registers, dict[Given, int]]:
    """The array of pages and the words of the call, where the contract has them."""
    stack, registers, word = world.stack, world.registers, plan.word
    if not contract.array and not any(at.startswith("rsp+") for at in contract.arguments):
        return world, registers, values
    assert stack is not None, "a described old kernel has a stack"
    direct = plan.host.direct_map.virt
    pieces, arguments = [], []

    def lay(at: int, given: list[Given], role: PieceRole, first: bytes = b"") -> None:
        data = first + b"".join(values[each].to_bytes(word, "little") for each in given)
        piece = Piece(phys=Phys(at), data=data, role=role)
        pieces.append(piece)
        arguments.append(Extent(at + len(first), piece.extent.end))

    if contract.array:
        lay(stack.start, list(contract.array), PieceRole.ARRAY_ON_STACK)
        values = values | {Given.PAGE_ARRAY: direct + stack.start}
    named = {
        int(at.removeprefix("rsp+")): given
        for at, given in contract.arguments.items()
        if at.startswith("rsp+")
    }
    if named:
        old_top = registers.general["rsp"] - direct
        back = next(each.data for each in world.laid if each.phys == old_top)
        top = old_top - (len(named) + 1) * word
        lay(
            top,
            [named[at] for at in sorted(named)],
            PieceRole.CALL,
            first=bytes(back)[:word],
        )
        registers = replace(registers, general={**registers.general, "rsp": direct + top})
    if pieces:
        world = replace(
            world,
            laid=(*world.laid, *pieces),
            arguments=(*world.arguments, *arguments),
            registers=registers,
        )
    return world, registers, values


def _done(plan: Plan, contract: Contract, registers: Registers) -> Registers:
    """What the old kernel's C code has done before the call."""
    if Done.INTERRUPTS_OFF in contract.done:
        registers = replace(registers, rflags=registers.rflags & ~RFLAGS_IF)
    if Done.DESCRIPTORS_GONE in contract.done:
        registers = replace(registers, idt=(0, 0), gdt=(0, 0))
    if Done.CET_OFF in contract.done:
        registers = replace(registers, cr4=registers.cr4 & ~CR4_CET)
    if Done.SEGMENTS_LOADED in contract.done:
        # A 32-bit kernel keeps fs and gs: its per-CPU data, and a process's.
        names = ("ds", "es", "ss", *(("fs", "gs") if plan.word == 8 else ()))
        data = dict.fromkeys(names, DATA_SELECTOR[plan.word])
        registers = replace(registers, segments={**registers.segments, **data})
    return registers
