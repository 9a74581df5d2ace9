"""What all instructions share: operands, flags, conditions, the stack, and the port to the rest.

Rules: written against `Algebra`, so that the proofs run what the tests compare with a CPU.  Memory
and everything privileged is asked of a `Port`: it knows addresses, faults and legality, this file
does not.  An operand or case that is not here is Refused, never guessed.
"""

from __future__ import annotations

from functools import partial
from typing import Generic, Protocol

from tightrope.prove.isa.algebra import Algebra, Truth, Word, mask
from tightrope.prove.isa.decode import Imm, Instruction, Mem, Operand
from tightrope.prove.isa.state import Later, State

SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
CONTROL = ("cr0", "cr3", "cr4")


class Refused(Exception):
    """The model does not know this: said, not guessed.  Nothing is proved about such code."""


class Port(Protocol[Word, Truth]):
    """The rest of the machine, for one algebra."""

    def load(
        self, state: State[Word, Truth], at: Instruction, address: Word, width: int
    ) -> Word: ...
    def store(
        self, state: State[Word, Truth], at: Instruction, address: Word, width: int, value: Word
    ) -> None: ...
    def control(
        self, state: State[Word, Truth], at: Instruction, register: str, value: Word
    ) -> None: ...
    def read_msr(
        self, state: State[Word, Truth], at: Instruction, number: Word
    ) -> tuple[Word, Word]:
        """The low and the high 32 bits of a model-specific register."""

    def write_msr(
        self, state: State[Word, Truth], at: Instruction, number: Word, low: Word, high: Word
    ) -> None: ...
    def segment(
        self, state: State[Word, Truth], at: Instruction, register: str, selector: Word
    ) -> None: ...
    def table(
        self, state: State[Word, Truth], at: Instruction, name: str, base: Word, limit: Word
    ) -> None: ...
    def copy(self, state: State[Word, Truth], at: Instruction) -> None:
        """REP MOVS, whole."""

    def serialize(self, state: State[Word, Truth]) -> None:
        """A serializing instruction has run (SDM 9.3)."""


class Model(Generic[Word, Truth]):
    """The instruction set over one algebra and one port."""

    def __init__(self, algebra: Algebra[Word, Truth], port: Port[Word, Truth]) -> None:
        self.a = algebra
        self.port = port

    # --------------------------------------------------------------------------------- operands

    def address(self, state: State[Word, Truth], operand: Mem) -> Word:
        """The linear address that an operand names, in flat segments."""
        if operand.odd:
            raise Refused(f"the model has no {operand.odd}")
        a, bits = self.a, state.bits
        out = a.const(operand.displacement, bits)
        if operand.base == "rip":
            out = a.add(state.rip, out, bits)
        elif operand.base is not None:
            out = a.add(state.registers[operand.base], out, bits)
        if operand.index is not None:
            shift = operand.scale.bit_length() - 1
            index = a.shift_left(state.registers[operand.index], shift, bits)
            out = a.add(out, index, bits)
        return out

    def read(
        self, state: State[Word, Truth], at: Instruction, operand: Operand, width: int
    ) -> Word:
        """An operand's value; `width` is for immediates."""
        if isinstance(operand, Imm):
            return self.a.const(operand.value, width)
        if isinstance(operand, Mem):
            return self.port.load(state, at, self.address(state, operand), operand.width)
        if operand.name in SEGMENTS:
            return state.segments[operand.name]
        if operand.name not in state.registers:
            raise Refused(f"the model has no {at.text}")
        whole = state.registers[operand.name]
        if operand.shift:
            whole = self.a.shift_right(whole, operand.shift, state.bits)
        return self.a.low(whole, operand.width)

    def write(
        self, state: State[Word, Truth], at: Instruction, operand: Operand, value: Word
    ) -> None:
        """Into a register or memory.
        A 32-bit write zeroes the upper half (SDM volume 1, 3.4.1.1).
        """
        a, bits = self.a, state.bits
        if isinstance(operand, Mem):
            self.port.store(state, at, self.address(state, operand), operand.width, value)
            return
        if isinstance(operand, Imm) or operand.name not in state.registers:
            raise Refused(f"the model has no {at.text}")
        if operand.width >= 32:
            state.registers[operand.name] = a.wide(value, operand.width, bits)
            return
        hole = a.const(~(mask(operand.width) << operand.shift), bits)
        part = a.shift_left(a.wide(value, operand.width, bits), operand.shift, bits)
        state.registers[operand.name] = a.either(a.both(state.registers[operand.name], hole), part)

    def flag(self, state: State[Word, Truth], name: str) -> Truth:
        """A flag as it is now."""
        got = state.flag(name)
        if got is None:
            got = state.flags[name] = self.a.unknown()
        return got

    # ------------------------------------------------------------------------------------ flags

    def _result(self, state: State[Word, Truth], value: Word, width: int) -> None:
        """ZF, SF and PF (of the low byte)."""
        a = self.a

        def parity() -> Truth:
            odd = a.bit(value, 0)
            for number in range(1, 8):
                odd = a.unlike(odd, a.bit(value, number))
            return a.negate(odd)

        state.flags["ZF"] = Later(lambda: a.equal(value, a.const(0, width)))
        state.flags["SF"] = Later(lambda: a.bit(value, width - 1))
        state.flags["PF"] = Later(parity)

    def add(
        self, state: State[Word, Truth], x: Word, y: Word, width: int, *, carry: bool = True
    ) -> Word:
        """x + y and its flags; without `carry` CF stays (INC)."""
        a = self.a
        value = a.add(x, y, width)
        if carry:
            state.flags["CF"] = Later(lambda: a.below(value, x))
        state.flags["AF"] = Later(lambda: a.bit(a.differ(a.differ(x, y), value), 4))
        state.flags["OF"] = Later(
            lambda: a.bit(a.both(a.differ(x, value), a.differ(y, value)), width - 1)
        )
        self._result(state, value, width)
        return value

    def sub(
        self, state: State[Word, Truth], x: Word, y: Word, width: int, *, carry: bool = True
    ) -> Word:
        """x - y and its flags; without `carry` CF stays (DEC)."""
        a = self.a
        value = a.sub(x, y, width)
        if carry:
            state.flags["CF"] = Later(lambda: a.below(x, y))
        state.flags["AF"] = Later(lambda: a.bit(a.differ(a.differ(x, y), value), 4))
        state.flags["OF"] = Later(
            lambda: a.bit(a.both(a.differ(x, y), a.differ(x, value)), width - 1)
        )
        self._result(state, value, width)
        return value

    def logic(self, state: State[Word, Truth], value: Word, width: int) -> Word:
        """Flags after AND, OR, XOR, TEST: CF and OF clear, AF undefined."""
        state.flags["CF"] = state.flags["OF"] = self.a.truth(False)
        state.flags["AF"] = None
        self._result(state, value, width)
        return value

    def condition(self, state: State[Word, Truth], name: str) -> Truth:
        """A condition code (SDM volume 1, appendix B)."""
        a = self.a
        negated = name in ("ne", "ae", "a", "ns", "np", "no", "ge", "g")
        flag = partial(self.flag, state)
        if name in ("e", "ne"):
            holds = flag("ZF")
        elif name in ("b", "ae"):
            holds = flag("CF")
        elif name in ("be", "a"):
            holds = a.any(flag("CF"), flag("ZF"))
        elif name in ("s", "ns"):
            holds = flag("SF")
        elif name in ("p", "np"):
            holds = flag("PF")
        elif name in ("o", "no"):
            holds = flag("OF")
        elif name in ("l", "ge"):
            holds = a.unlike(flag("SF"), flag("OF"))
        elif name in ("le", "g"):
            holds = a.any(flag("ZF"), a.unlike(flag("SF"), flag("OF")))
        else:
            raise Refused(f"the model has no condition {name}")
        return a.negate(holds) if negated else holds

    # ------------------------------------------------------------------------------------ stack

    def push(self, state: State[Word, Truth], at: Instruction, value: Word, width: int) -> None:
        a, bits = self.a, state.bits
        top = a.sub(state.registers["rsp"], a.const(width // 8, bits), bits)
        self.port.store(state, at, top, width, value)
        state.registers["rsp"] = top

    def pop(self, state: State[Word, Truth], at: Instruction, width: int) -> Word:
        a, bits = self.a, state.bits
        top = state.registers["rsp"]
        value = self.port.load(state, at, top, width)
        state.registers["rsp"] = a.add(top, a.const(width // 8, bits), bits)
        return value
