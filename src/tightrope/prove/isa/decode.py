"""Bytes to instructions, as the model wants them: a mnemonic, operands, widths.

Rules: iced-x86 decodes and prints; nothing of it leaves this file.  An image is a page of code at
offset 0; branches name offsets.  What the bytes mean is `instructions`'.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from iced_x86 import (
    ConditionCode,
    Decoder,
    Formatter,
    FormatterSyntax,
    MemorySizeExt,
    Mnemonic,
    OpKind,
    Register,
    Register_,
    RegisterExt,
)
from iced_x86 import Instruction as Decoded

_MNEMONICS = {
    value: name.lower() for name, value in vars(Mnemonic).items() if isinstance(value, int)
}
_REGISTERS = {
    value: name.lower() for name, value in vars(Register).items() if isinstance(value, int)
}
_CONDITIONS = {
    value: name.lower() for name, value in vars(ConditionCode).items() if isinstance(value, int)
}
_HIGH = {Register.AH, Register.BH, Register.CH, Register.DH}
_NEAR = {OpKind.NEAR_BRANCH16, OpKind.NEAR_BRANCH32, OpKind.NEAR_BRANCH64}
_IMMEDIATE = {
    OpKind.IMMEDIATE8, OpKind.IMMEDIATE16, OpKind.IMMEDIATE32, OpKind.IMMEDIATE64,
    OpKind.IMMEDIATE8TO16, OpKind.IMMEDIATE8TO32, OpKind.IMMEDIATE8TO64, OpKind.IMMEDIATE32TO64,
}  # fmt: skip
_STRING = {"movsb": 8, "movsw": 16, "movsd": 32, "movsq": 64}

_formatter = Formatter(FormatterSyntax.GAS)
_formatter.branch_leading_zeros = False


@dataclass(frozen=True, slots=True)
class Reg:
    """A register: `name` is the 64-bit one around it (rax for cl's rcx...),
    `shift` 8 for ah..dh.
    """

    name: str
    width: int
    shift: int = 0


@dataclass(frozen=True, slots=True)
class Imm:
    """An immediate; `value` is as wide as the operation, sign-extended by the decoder."""

    value: int


@dataclass(frozen=True, slots=True)
class Mem:
    """An operand in memory: base + index * scale + displacement; `width` 0 where it has none.

    `base` is "rip" when the displacement is an offset into the image.
    """

    base: str | None
    index: str | None
    scale: int
    displacement: int
    width: int
    odd: str = ""
    """What the model does not do: a segment with a base, a short address size."""


Operand = Reg | Imm | Mem


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.  `width` is what a stack or string instruction moves, in bits."""

    offset: int
    size: int
    mnemonic: str
    operands: tuple[Operand, ...]
    text: str
    width: int = 0
    target: int | None = None
    condition: str | None = None
    rep: bool = False
    far: bool = False
    """It loads CS as well, from memory: a jump through m16:16, m16:32 or m16:64."""

    def __str__(self) -> str:
        return f"{self.offset:#x}: {self.text}"


class Undecodable(Exception):
    """There is no instruction at an offset."""


@lru_cache(maxsize=65536)
def decode(code: bytes, offset: int, bits: int) -> Instruction:
    """The instruction at `offset` of an image.  Raises Undecodable."""
    window = code[offset : offset + 15]
    raw = Decoder(bits, window, ip=offset).decode() if window else None
    if raw is None or not raw or raw.mnemonic == Mnemonic.INVALID:
        raise Undecodable(f"there is no instruction at {offset:#x}")
    mnemonic = _MNEMONICS[raw.mnemonic]
    target = None
    operands: list[Operand] = []
    for number in range(raw.op_count):
        kind = raw.op_kind(number)
        if kind in _NEAR:
            target = int(raw.near_branch_target)
        elif kind == OpKind.REGISTER:
            operands.append(_register(raw.op_register(number)))
        elif kind in _IMMEDIATE:
            operands.append(Imm(raw.immediate(number)))
        elif kind == OpKind.MEMORY:
            operands.append(_memory(raw, bits))
    condition = _CONDITIONS[raw.condition_code]
    moved = raw.stack_pointer_increment
    return Instruction(
        offset=offset,
        size=len(raw),
        mnemonic="movs" if mnemonic in _STRING and not operands else mnemonic,
        operands=tuple(operands),
        text=_formatter.format(raw),
        width=_STRING[mnemonic] if mnemonic in _STRING else abs(moved) * 8,
        target=target,
        condition=None if condition == "none" else condition,
        rep=raw.has_rep_prefix or raw.has_repne_prefix,
        far=raw.is_jmp_far_indirect,
    )


def _register(register: Register_) -> Reg:
    if RegisterExt.is_gpr(register):
        return Reg(
            name=_REGISTERS[RegisterExt.full_register(register)],
            width=RegisterExt.size(register) * 8,
            shift=8 if register in _HIGH else 0,
        )
    selector = RegisterExt.is_segment_register(register)
    return Reg(name=_REGISTERS[register], width=16 if selector else 0)


def _memory(raw: Decoded, bits: int) -> Mem:
    named = [each for each in (raw.memory_base, raw.memory_index) if int(each)]
    odd = ""
    if raw.segment_prefix in (Register.FS, Register.GS):
        odd = "an operand in fs or gs"
    elif any(RegisterExt.size(each) * 8 != bits for each in named):
        odd = "an address of another size than the code's"
    return Mem(
        base=_address_register(raw.memory_base),
        index=_address_register(raw.memory_index),
        scale=raw.memory_index_scale,
        displacement=raw.memory_displacement,
        width=MemorySizeExt.size(raw.memory_size) * 8,
        odd=odd,
    )


def _address_register(register: Register_) -> str | None:
    if register == Register.NONE:
        return None
    if register in (Register.RIP, Register.EIP):
        return "rip"
    return _REGISTERS[RegisterExt.full_register(register)]


def sweep(code: bytes, end: int, bits: int, start: int = 0) -> tuple[Instruction, ...]:
    """The instructions of code[start:end], one after the other,
    up to the first bytes that are none.
    """
    out = []
    offset = start
    while offset < end:
        try:
            out.append(decode(code, offset, bits))
        except Undecodable:
            break
        offset += out[-1].size
    return tuple(out)
