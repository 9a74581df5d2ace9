"""Deliberate mistakes in a routine's bytes, one at a time, and what becomes of each.

    NOP out          every instruction
    wrong register   each register field, to its neighbour
    wrong size       REX.W and the opcode's width bit, where the length stays
    swapped          two neighbours of which neither is a branch

Rules: a mutant is bytes.  It is killed by an obligation that fails (with an input) or by a refusal
of the model (labelled so); a survivor has to be equivalent (`equivalence`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from tightrope.prove.isa.decode import Imm, Instruction, Mem, Undecodable, decode, sweep

NOP = 0x90


@dataclass(frozen=True, slots=True)
class Mutation:
    """`kind` is one of the four above; `data` is the whole changed image."""

    kind: str
    at: Instruction
    says: str
    data: bytes


def mutations(image: bytes, end: int, bits: int, start: int = 0) -> Iterator[Mutation]:
    """Every mutation of the instructions in image[start:end]; padding behind them is left out."""
    code = [each for each in sweep(image, end, bits, start) if each.mnemonic != "nop"]
    for at in code:
        yield _changed(image, "NOP out", at, bytes([NOP]) * at.size, f"{at} is gone")
    for at in code:
        yield from _registers(image, at, bits)
    for at in code:
        yield from _sizes(image, at, bits)
    for one, other in pairwise(code):
        if one.target is None and other.target is None and not _leaves(one) and not _leaves(other):
            both = image[one.offset : other.offset + other.size]
            swapped = both[one.size :] + both[: one.size]
            if swapped != both:
                yield _changed(
                    image, "swapped", one, swapped, f"{one} changes places with {other.text}"
                )


def _leaves(at: Instruction) -> bool:
    return at.mnemonic in ("ret", "retf", "jmp", "call", "hlt") or any(
        getattr(operand, "base", None) == "rip" for operand in at.operands
    )


def _changed(image: bytes, kind: str, at: Instruction, data: bytes, says: str) -> Mutation:
    return Mutation(kind, at, says, image[: at.offset] + data + image[at.offset + len(data) :])


def _fields(raw: bytes, bits: int) -> Iterator[tuple[int, int]]:
    """(byte, mask) of what may hold a register's number."""
    start = 1 if bits == 64 and raw[0] & 0xF0 == 0x40 else 0
    for index in range(start, min(len(raw), start + 4)):
        yield index, 0x01
        yield index, 0x08


def _registers(image: bytes, at: Instruction, bits: int) -> Iterator[Mutation]:
    """Instructions that differ in one register: found by changing a bit and decoding again."""
    raw = image[at.offset : at.offset + at.size]
    seen = set()
    for index, mask in _fields(raw, bits):
        data = bytes([*raw[:index], raw[index] ^ mask, *raw[index + 1 :]])
        other = _decoded(image, at, data, bits)
        if other is None or not _differs_in_register(at, other) or other.text in seen:
            continue
        seen.add(other.text)
        yield _changed(image, "wrong register", at, data, f"{at} becomes {other.text}")


def _sizes(image: bytes, at: Instruction, bits: int) -> Iterator[Mutation]:
    """Instructions of the same length and operands, of another width."""
    raw = image[at.offset : at.offset + at.size]
    has_rex = bits == 64 and raw[0] & 0xF0 == 0x40
    edits = [bytes([raw[0] ^ 8, *raw[1:]])] if has_rex else []
    opcode = 1 if has_rex else 0
    if opcode < len(raw):
        edits.append(bytes([*raw[:opcode], raw[opcode] ^ 1, *raw[opcode + 1 :]]))
    for data in edits:
        other = _decoded(image, at, data, bits)
        if other is not None and other.mnemonic == at.mnemonic and _differs_in_size(at, other):
            yield _changed(image, "wrong size", at, data, f"{at} becomes {other.text}")


def _decoded(image: bytes, at: Instruction, data: bytes, bits: int) -> Instruction | None:
    """The instruction that changed bytes make, where it has the same length."""
    whole = image[: at.offset] + data + image[at.offset + at.size :]
    try:
        other = decode(whole, at.offset, bits)
    except Undecodable:
        return None
    return other if other.size == at.size and other.text != at.text else None


def _differs_in_register(one: Instruction, other: Instruction) -> bool:
    if (one.mnemonic, one.target, len(one.operands)) != (
        other.mnemonic, other.target, len(other.operands),
    ):  # fmt: skip
        return False
    different = 0
    for x, y in zip(one.operands, other.operands, strict=True):
        if type(x) is not type(y):
            return False
        if x != y:
            same_width = getattr(x, "width", 0) == getattr(y, "width", 0)
            if not same_width or isinstance(x, Imm) or isinstance(y, Imm):
                return False
            if isinstance(x, Mem) and isinstance(y, Mem) and x.displacement != y.displacement:
                return False
            different += 1
    return different == 1


def _differs_in_size(one: Instruction, other: Instruction) -> bool:
    widths = [[getattr(o, "width", 0) for o in each.operands] for each in (one, other)]
    return widths[0] != widths[1] or one.width != other.width
