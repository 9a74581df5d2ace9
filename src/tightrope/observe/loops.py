"""What one turn of a loop over a page list does, read once from its instructions.

    next_word:  mov (%rbx), %rcx        a path is one way round, from the head back to it:
                add $8, %rbx              where        the offset of each instruction on it
                test $1, %cl              whether      what has to be so for it to be taken
                jz 1f                     words        which word of memory is read
                ...                       copies       which pages are copied onto which
                rep movsq                 after        the registers when the head is reached again
                jmp next_word

Every value on a path is a term: a register as it was at the head, or the word that was read,
masked, plus a number.  Everything that no term can say ends the path: an instruction that is not in
`_EFFECTS`, a second word, a store, flags that nobody set on the path, a jump out of the loop.  Such
a turn is left to the CPU, and so is the last one.  So nothing is known of anybody's routine here:
ours, Linux's of each version and a user's own are read alike.

Rules: no memory, no engine; the same bytes give the same loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import lru_cache

from iced_x86 import Decoder, Instruction, Mnemonic, OpKind, Register

from tightrope.memory import PAGE_SIZE
from tightrope.x86.cpu import GENERAL
from tightrope.x86.flags import Computes

WINDOW = 256
"""Bytes from the head on that a loop may have."""
LONGEST, MOST = 64, 64
"""Instructions of a path, and paths of a loop."""
WORD = "word"
"""The name of the word that is read on a path, beside those of registers."""
_WHOLE = {getattr(Register, name.upper()): name for name in GENERAL}
_LOW_HALF = {getattr(Register, f"E{name[1:]}".upper()): name for name in GENERAL[:8]} | {
    getattr(Register, f"{name}D".upper()): name for name in GENERAL[8:]
}
_LOW_BYTES = {
    getattr(Register, low): name
    for low, name in (("AL", "rax"), ("CL", "rcx"), ("DL", "rdx"), ("BL", "rbx"), ("SIL", "rsi"))
} | {getattr(Register, f"R{number}L"): f"r{number}" for number in range(8, 16)}
_ELEMENT = {Mnemonic.MOVSQ: 8, Mnemonic.MOVSD: 4, Mnemonic.MOVSB: 1}


@dataclass(frozen=True, slots=True)
class Term:
    """(base & mask) + plus, in the width of the code; without a base `plus` alone."""

    base: str | None
    mask: int
    plus: int


class Asks(Enum):
    """What flags were set by."""

    BITS = auto()
    """Whether `left & right` is zero."""
    EQUAL = auto()
    """Whether `left == right`."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a conditional jump asks: the zero flag of a TEST or of a CMP."""

    asks: Asks
    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class LastFlags:
    """The last instruction of a path that changes flags, and its operands; `bits` is their size."""

    by: Computes
    left: Term
    right: Term
    bits: int


@dataclass(frozen=True, slots=True)
class Copy:
    """A page that the instruction at place `at` of the path copies."""

    at: int
    to: Term
    of: Term


@dataclass(frozen=True, slots=True)
class Path:
    """One way round; places on it count from 0."""

    where: tuple[int, ...]
    bits: int
    set: int
    """Taken only by a word in which, of these bits, those are set."""
    whether: tuple[tuple[Question, bool], ...]
    """What else has to be so."""
    read_at: int
    read_from: Term
    copies: tuple[Copy, ...]
    after: tuple[tuple[str, Term], ...]
    """The registers that differ when the head is reached again."""
    flags: LastFlags


@dataclass(frozen=True, slots=True)
class Loop:
    """All ways round; `bits` of the code."""

    paths: tuple[Path, ...]
    bits: int
    read_from: Term | None
    """Where each way round reads its word; None where they differ."""


@dataclass(slots=True)
class _Way:
    """A path while it is followed."""

    at: int
    registers: dict[str, Term]
    where: tuple[int, ...] = ()
    whether: tuple[tuple[Question, bool], ...] = ()
    read: tuple[int, Term] | None = None
    copies: tuple[Copy, ...] = ()
    zero: Question | None = None
    flags: LastFlags | None = None

    def turned(self, *, taken: bool, to: int) -> _Way:
        """The way on behind a conditional jump."""
        assert self.zero is not None
        return replace(
            self,
            at=to,
            registers=dict(self.registers),
            whether=(*self.whether, (self.zero, taken)),
        )


class _NotKnown(Exception):
    """An instruction whose effect no term can say."""


@lru_cache(maxsize=256)
def loop(code: bytes, bits: int) -> Loop | None:
    """The loop whose head `code` begins with, as far as it is known; None where no way leads
    round."""
    reader = _Reader(code, bits)
    paths = tuple(reader.paths())
    if not any(path.copies for path in paths):
        return None  # it is none of ours; all of its turns are the CPU's
    read_from = {path.read_from for path in paths}
    return Loop(paths, bits, read_from.pop() if len(read_from) == 1 else None)


class _Reader:
    """Follows each way round."""

    def __init__(self, code: bytes, bits: int) -> None:
        self._bits = bits
        self._ones = (1 << bits) - 1
        self._instructions = {each.ip: each for each in Decoder(bits, code, ip=0)}

    def paths(self) -> Iterator[Path]:
        """The ways that lead back to the head, each as long as a path may be."""
        names = GENERAL if self._bits == 64 else GENERAL[:8]
        start = {name: Term(name, self._ones, 0) for name in names}
        open_ways = [_Way(0, dict(start))]
        for _ in range(MOST):
            if not open_ways:
                return
            way = open_ways.pop()
            try:
                while way.at or not way.where:
                    ahead = self._step(way)
                    if ahead is not None:
                        open_ways += ahead
                        break
                else:
                    yield self._closed(way, start)
            except _NotKnown:
                continue

    def _closed(self, way: _Way, start: dict[str, Term]) -> Path:
        if way.read is None or way.flags is None:
            raise _NotKnown
        changed = {name: now for name, now in way.registers.items() if now != start[name]}
        bits = {each: self._bit(each[0]) for each in way.whether}
        return Path(
            where=way.where,
            bits=sum({bit for bit in bits.values() if bit}),
            set=sum({bit for (_, zero), bit in bits.items() if bit and not zero}),
            whether=tuple(each for each, bit in bits.items() if not bit),
            read_at=way.read[0],
            read_from=way.read[1],
            copies=way.copies,
            after=tuple(changed.items()),
            flags=way.flags,
        )

    def _bit(self, question: Question) -> int:
        """The one bit of the word that a question is about; 0 where it is about anything else."""
        bit = question.right.plus if question.right.base is None else 0
        single = bit & bit - 1 == 0 and question.left == Term(WORD, self._ones, 0)
        return bit if single and question.asks is Asks.BITS else 0

    def _step(self, way: _Way) -> list[_Way] | None:
        """Go over one instruction; the two ways behind a jump that is not decided on the path."""
        it = self._instructions.get(way.at)
        if it is None or len(way.where) == LONGEST:
            raise _NotKnown
        way.where += (way.at,)
        if it.mnemonic == Mnemonic.JMP and it.op0_kind in (
            OpKind.NEAR_BRANCH64,
            OpKind.NEAR_BRANCH32,
        ):
            way.at = it.near_branch_target
            return None
        if it.mnemonic in (Mnemonic.JE, Mnemonic.JNE):
            if way.zero is None:
                raise _NotKnown
            on_zero, otherwise = it.near_branch_target, it.next_ip
            if it.mnemonic == Mnemonic.JNE:
                on_zero, otherwise = otherwise, on_zero
            return [way.turned(taken=True, to=on_zero), way.turned(taken=False, to=otherwise)]
        effect = _EFFECTS.get(it.mnemonic)
        if effect is None:
            raise _NotKnown
        effect(self, way, it)
        way.at = it.next_ip
        return None

    # ------------------------------------------------------------------------------- the operands

    def _name(self, register: int) -> str:
        """A register of the code's own width.  Raises _NotKnown."""
        name = (_WHOLE if self._bits == 64 else _LOW_HALF).get(register)
        if name is None:
            raise _NotKnown
        return name

    def _number(self, value: int) -> Term:
        return Term(None, 0, value & self._ones)

    def _plus(self, term: Term, number: int) -> Term:
        return replace(term, plus=(term.plus + number) & self._ones)

    def _operand(self, way: _Way, it: Instruction, number: int) -> Term:
        kind = it.op_kind(number)
        if kind == OpKind.REGISTER:
            return way.registers[self._name(it.op_register(number))]
        if kind in _IMMEDIATES:
            return self._number(it.immediate(number))
        raise _NotKnown

    def _address(self, way: _Way, it: Instruction) -> Term:
        """The operand in memory: a register and a number."""
        if {it.memory_index, it.segment_prefix} != {Register.NONE}:
            raise _NotKnown
        return self._plus(way.registers[self._name(it.memory_base)], it.memory_displacement)

    # -------------------------------------------------------------------------------- the effects

    def mov(self, way: _Way, it: Instruction) -> None:
        """MOV of a register, a number, or the word."""
        if it.op0_kind != OpKind.REGISTER:
            raise _NotKnown
        if it.op1_kind == OpKind.MEMORY:
            name = self._name(it.op0_register)
            if way.read is not None:
                raise _NotKnown
            way.read = len(way.where) - 1, self._address(way, it)
            way.registers[name] = Term(WORD, self._ones, 0)
            return
        half = _LOW_HALF.get(it.op0_register) if self._bits == 64 else None
        if half is not None and it.op1_kind in _IMMEDIATES:
            # A number into the lower half clears the upper one.
            way.registers[half] = self._number(it.immediate(1) & 0xFFFF_FFFF)
            return
        way.registers[self._name(it.op0_register)] = self._operand(way, it, 1)

    def lea(self, way: _Way, it: Instruction) -> None:
        """LEA of a register and a number."""
        way.registers[self._name(it.op0_register)] = self._address(way, it)

    def add(self, way: _Way, it: Instruction) -> None:
        """ADD of a number."""
        name, number = self._name(it.op0_register), self._operand(way, it, 1)
        if number.base is not None:
            raise _NotKnown
        before = way.registers[name]
        way.zero, way.flags = None, LastFlags(Computes.SUM, before, number, self._bits)
        way.registers[name] = self._plus(before, number.plus)

    def and_(self, way: _Way, it: Instruction) -> None:
        """AND with a number, of what nothing was added to."""
        name, number = self._name(it.op0_register), self._operand(way, it, 1)
        before = way.registers[name]
        if number.base is not None or before.plus or before.base is None:
            raise _NotKnown
        way.zero, way.flags = None, LastFlags(Computes.AND, before, number, self._bits)
        way.registers[name] = replace(before, mask=before.mask & number.plus)

    def test(self, way: _Way, it: Instruction) -> None:
        """TEST of a register, or of its lowest byte, with a number."""
        if it.op0_kind != OpKind.REGISTER or it.op1_kind not in _IMMEDIATES:
            raise _NotKnown
        low = _LOW_BYTES.get(it.op0_register)
        number = it.immediate(1) & (0xFF if low else self._ones)
        left = way.registers[low or self._name(it.op0_register)]
        right, bits = self._number(number), 8 if low else self._bits
        way.zero = Question(Asks.BITS, left, right)
        way.flags = LastFlags(Computes.AND, left, right, bits)

    def cmp(self, way: _Way, it: Instruction) -> None:
        """CMP of registers and numbers."""
        left, right = self._operand(way, it, 0), self._operand(way, it, 1)
        way.zero = Question(Asks.EQUAL, left, right)
        way.flags = LastFlags(Computes.DIFFERENCE, left, right, self._bits)

    def movs(self, way: _Way, it: Instruction) -> None:
        """REP MOVS of one page."""
        element = _ELEMENT[it.mnemonic]
        count, kind = (
            way.registers["rcx"],
            OpKind.MEMORY_ESRDI if self._bits == 64 else OpKind.MEMORY_ESEDI,
        )
        whole = count == self._number(PAGE_SIZE // element)
        plain = it.op0_kind == kind and it.segment_prefix == Register.NONE
        if not it.has_rep_prefix or not whole or not plain:
            raise _NotKnown
        to, of = way.registers["rdi"], way.registers["rsi"]
        way.copies += (Copy(len(way.where) - 1, to, of),)
        way.registers["rdi"], way.registers["rsi"] = (
            self._plus(each, PAGE_SIZE) for each in (to, of)
        )
        way.registers["rcx"] = self._number(0)


_IMMEDIATES = frozenset(
    {
        OpKind.IMMEDIATE8,
        OpKind.IMMEDIATE8TO32,
        OpKind.IMMEDIATE8TO64,
        OpKind.IMMEDIATE32,
        OpKind.IMMEDIATE32TO64,
    }
)
_EFFECTS = {
    Mnemonic.MOV: _Reader.mov,
    Mnemonic.LEA: _Reader.lea,
    Mnemonic.ADD: _Reader.add,
    Mnemonic.AND: _Reader.and_,
    Mnemonic.TEST: _Reader.test,
    Mnemonic.CMP: _Reader.cmp,
    **dict.fromkeys(_ELEMENT, _Reader.movs),
}
