"""What each instruction does: the project's own model of the CPU, from the manual (SDM volume 2).

Rules: as in `semantics`; one small function for each kind of instruction, and one table of them.
An instruction that is not in the table is Refused.
"""

from __future__ import annotations

from typing import Protocol

from tightrope.prove.isa.algebra import Truth, Word
from tightrope.prove.isa.decode import Imm, Instruction, Mem, Operand, Reg
from tightrope.prove.isa.semantics import CONTROL, SEGMENTS, Model, Refused
from tightrope.prove.isa.state import FLAG_BITS, Flow, State


class Does(Protocol):
    """What an instruction does, over any algebra."""

    def __call__(
        self, m: Model[Word, Truth], state: State[Word, Truth], at: Instruction, /
    ) -> Flow[Word, Truth]: ...


class Makes(Protocol):
    """A value of two operands, with its flags."""

    def __call__(
        self, m: Model[Word, Truth], s: State[Word, Truth], x: Word, y: Word, w: int, /
    ) -> Word: ...


def execute(
    model: Model[Word, Truth], state: State[Word, Truth], at: Instruction
) -> Flow[Word, Truth]:
    """Do `at` to `state`, in place.  Raises Refused."""
    known = _TABLE.get(at.mnemonic)
    if known is None:
        raise Refused(f"the model has no {at.text}")
    return known(model, state, at)


def _width(operand: Operand) -> int:
    assert not isinstance(operand, Imm)
    return operand.width


def _mov(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
    into, out_of = at.operands
    if isinstance(into, Reg) and into.name in (*CONTROL, "dr7"):
        m.port.control(state, at, into.name, m.read(state, at, out_of, state.bits))
    elif isinstance(out_of, Reg) and out_of.name in (*CONTROL, "dr7"):
        m.write(state, at, into, state.control[out_of.name])
    elif isinstance(into, Reg) and into.name in SEGMENTS:
        if into.name == "cs":
            raise Refused("MOV to CS is no instruction")
        selector = m.read(state, at, out_of, 16)
        m.port.segment(state, at, into.name, m.a.low(selector, 16))
    elif isinstance(out_of, Reg) and out_of.name in SEGMENTS:
        width = _width(into)
        m.write(state, at, into, m.a.wide(state.segments[out_of.name], 16, width))
    else:
        m.write(state, at, into, m.read(state, at, out_of, _width(into)))
    return Flow()


def _lea(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
    into, where = at.operands
    assert isinstance(where, Mem)
    m.write(state, at, into, m.a.low(m.address(state, where), _width(into)))
    return Flow()


def _arithmetic(make: Makes, *, keep: bool = True) -> Does:
    def do(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
        into, out_of = at.operands
        width = _width(into)
        x, y = m.read(state, at, into, width), m.read(state, at, out_of, width)
        value = make(m, state, x, y, width)
        if keep:
            m.write(state, at, into, value)
        return Flow()

    return do


def _by_one(*, up: bool) -> Does:
    def do(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
        (into,) = at.operands
        width = _width(into)
        change = m.add if up else m.sub
        x, one = m.read(state, at, into, width), m.a.const(1, width)
        m.write(state, at, into, change(state, x, one, width, carry=False))
        return Flow()

    return do


def _neg(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
    (into,) = at.operands
    width = _width(into)
    x = m.read(state, at, into, width)
    m.write(state, at, into, m.sub(state, m.a.const(0, width), x, width))
    return Flow()


def _not(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
    (into,) = at.operands
    width = _width(into)
    x = m.read(state, at, into, width)
    m.write(state, at, into, m.a.differ(x, m.a.const(-1, width)))
    return Flow()


def _shift(*, left: bool) -> Does:
    def do(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
        into, by = at.operands
        width = _width(into)
        if not isinstance(by, Imm):
            raise Refused("the model has no shift by a register")
        number = by.value & (63 if width == 64 else 31)
        if not 0 < number < width:
            raise Refused(f"the model has no shift by {number}")
        a = m.a
        x = m.read(state, at, into, width)
        value = (a.shift_left if left else a.shift_right)(x, number, width)
        out = width - number if left else number - 1
        top = a.bit(x, width - 1)
        m._result(state, value, width)
        state.flags["CF"] = a.bit(x, out)
        state.flags["AF"] = None
        # OF is defined for a shift by one only.
        if number != 1:
            state.flags["OF"] = None
        else:
            state.flags["OF"] = a.unlike(top, a.bit(value, width - 1)) if left else top
        m.write(state, at, into, value)
        return Flow()

    return do


def _bit(change: str) -> Does:
    def do(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
        into, which = at.operands
        width = _width(into)
        if not isinstance(into, Reg) or not isinstance(which, Imm):
            raise Refused(f"the model has no {at.text}")
        a = m.a
        number = which.value % width
        x, one = m.read(state, at, into, width), a.const(1 << number, width)
        state.flags["CF"] = a.bit(x, number)
        for name in ("OF", "SF", "AF", "PF"):
            state.flags[name] = None
        if change == "set":
            m.write(state, at, into, a.either(x, one))
        elif change == "reset":
            m.write(state, at, into, a.both(x, a.const(~(1 << number), width)))
        return Flow()

    return do


def _xchg(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
    one, other = at.operands
    x, y = m.read(state, at, one, _width(one)), m.read(state, at, other, _width(one))
    m.write(state, at, one, y)
    m.write(state, at, other, x)
    return Flow()


def _push(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
    (operand,) = at.operands
    value = m.read(state, at, operand, at.width)
    if isinstance(operand, Reg) and operand.name in SEGMENTS:
        value = m.a.wide(value, 16, at.width)
    m.push(state, at, value, at.width)
    return Flow()


def _pop(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
    (operand,) = at.operands
    if isinstance(operand, Reg) and operand.name in SEGMENTS:
        raise Refused(f"the model has no {at.text}")
    value = m.pop(state, at, at.width)
    m.write(state, at, operand, value)
    return Flow()


def _popf(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
    value = m.pop(state, at, at.width)
    for name, number in FLAG_BITS.items():
        if number < at.width:
            state.flags[name] = m.a.bit(value, number)
    return Flow()


def _pushf(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
    a, width = m.a, at.width
    value = a.const(2, width)
    for name, number in FLAG_BITS.items():
        if number < width:
            there = a.word(m.flag(state, name), width)
            value = a.either(value, a.shift_left(there, number, width) if number else there)
    m.push(state, at, value, width)
    return Flow()


def _set_flag(name: str, value: bool) -> Does:
    def do(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
        state.flags[name] = m.a.truth(value)
        return Flow()

    return do


def _table(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
    (operand,) = at.operands
    assert isinstance(operand, Mem)
    a, bits = m.a, state.bits
    where = m.address(state, operand)
    limit = m.port.load(state, at, where, 16)
    base = m.port.load(state, at, a.add(where, a.const(2, bits), bits), bits)
    m.port.table(state, at, at.mnemonic.removeprefix("l"), base, limit)
    return Flow()


def _rdmsr(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
    number = m.a.low(state.registers["rcx"], 32)
    for name, part in zip(("rax", "rdx"), m.port.read_msr(state, at, number), strict=True):
        state.registers[name] = m.a.wide(part, 32, state.bits)
    return Flow()


def _wrmsr(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
    number, low, high = (m.a.low(state.registers[name], 32) for name in ("rcx", "rax", "rdx"))
    m.port.write_msr(state, at, number, low, high)
    return Flow()


def _jmp(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
    if at.target is not None:
        return Flow(target=at.target)
    if at.far:
        return _far_jmp(m, state, at)
    if not at.operands or _width(at.operands[0]) != state.bits:
        raise Refused(f"the model has no {at.text}")
    return Flow(address=m.read(state, at, at.operands[0], state.bits))


def _far_jmp(
    m: Model[Word, Truth], state: State[Word, Truth], at: Instruction
) -> Flow[Word, Truth]:
    """Through memory: the offset, then the selector."""
    (operand,) = at.operands
    assert isinstance(operand, Mem)
    if operand.width != 16 + 32:
        # AMD's CPUs have no m16:64 (APM volume 3, JMP far): what one reads, another does not.
        raise Refused(f"the model has no {at.text} of this operand size")
    a, bits = m.a, state.bits
    where = m.address(state, operand)
    offset = m.port.load(state, at, where, 32)
    selector = m.port.load(state, at, a.add(where, a.const(4, bits), bits), 16)
    m.port.segment(state, at, "cs", selector)
    return Flow(address=a.wide(offset, 32, bits), far=True)


def _jcc(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
    if at.condition is None or at.target is None:
        raise Refused(f"the model has no {at.text}")
    return Flow(target=at.target, condition=m.condition(state, at.condition))


def _call(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
    a, bits = m.a, state.bits
    after = a.add(state.rip, a.const(at.offset + at.size, bits), bits)
    flow = _jmp(m, state, at)
    m.push(state, at, after, bits)
    return flow


def _ret(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
    if at.operands or at.width != state.bits:
        raise Refused(f"the model has no {at.text}")
    return Flow(address=m.pop(state, at, state.bits))


def _far_ret(
    m: Model[Word, Truth], state: State[Word, Truth], at: Instruction
) -> Flow[Word, Truth]:
    if at.operands or at.width != 2 * state.bits:
        raise Refused(f"the model has no {at.text} of this operand size")
    address = m.pop(state, at, state.bits)
    selector = m.a.low(m.pop(state, at, state.bits), 16)
    m.port.segment(state, at, "cs", selector)
    return Flow(address=address, far=True)


def _movs(m: Model[Word, Truth], state: State[Word, Truth], at: Instruction) -> Flow[Word, Truth]:
    if not at.rep:
        raise Refused("the model has no string move without rep")
    m.port.copy(state, at)
    return Flow()


def _nothing(
    _m: Model[Word, Truth], _state: State[Word, Truth], _at: Instruction
) -> Flow[Word, Truth]:
    return Flow()


def _flush(m: Model[Word, Truth], state: State[Word, Truth], _at: Instruction) -> Flow[Word, Truth]:
    m.port.serialize(state)
    return Flow()


def _halt(
    _m: Model[Word, Truth], _state: State[Word, Truth], _at: Instruction
) -> Flow[Word, Truth]:
    return Flow(halts=True)


def _add(m: Model[Word, Truth], s: State[Word, Truth], x: Word, y: Word, w: int) -> Word:
    return m.add(s, x, y, w)


def _sub(m: Model[Word, Truth], s: State[Word, Truth], x: Word, y: Word, w: int) -> Word:
    return m.sub(s, x, y, w)


def _and(m: Model[Word, Truth], s: State[Word, Truth], x: Word, y: Word, w: int) -> Word:
    return m.logic(s, m.a.both(x, y), w)


def _or(m: Model[Word, Truth], s: State[Word, Truth], x: Word, y: Word, w: int) -> Word:
    return m.logic(s, m.a.either(x, y), w)


def _xor(m: Model[Word, Truth], s: State[Word, Truth], x: Word, y: Word, w: int) -> Word:
    return m.logic(s, m.a.differ(x, y), w)


_TABLE: dict[str, Does] = {
    "mov": _mov,
    "lea": _lea,
    "add": _arithmetic(_add),
    "sub": _arithmetic(_sub),
    "cmp": _arithmetic(_sub, keep=False),
    "and": _arithmetic(_and),
    "test": _arithmetic(_and, keep=False),
    "or": _arithmetic(_or),
    "xor": _arithmetic(_xor),
    "inc": _by_one(up=True),
    "dec": _by_one(up=False),
    "neg": _neg,
    "not": _not,
    "shl": _shift(left=True),
    "shr": _shift(left=False),
    "bt": _bit("test"),
    "bts": _bit("set"),
    "btr": _bit("reset"),
    "xchg": _xchg,
    "push": _push,
    "pop": _pop,
    **dict.fromkeys(("popfq", "popfd"), _popf),
    **dict.fromkeys(("pushfq", "pushfd"), _pushf),
    "cli": _set_flag("IF", False),
    "sti": _set_flag("IF", True),
    "cld": _set_flag("DF", False),
    "std": _set_flag("DF", True),
    "clc": _set_flag("CF", False),
    "stc": _set_flag("CF", True),
    **dict.fromkeys(("lgdt", "lidt"), _table),
    "rdmsr": _rdmsr,
    "wrmsr": _wrmsr,
    "jmp": _jmp,
    **dict.fromkeys(
        ("je", "jne", "jb", "jae", "jbe", "ja", "js", "jns", "jp", "jnp", "jo", "jno", "jl", "jge", "jle", "jg"),
        _jcc,
    ),
    "call": _call,
    "ret": _ret,
    "retf": _far_ret,
    "movs": _movs,
    **dict.fromkeys(("nop", "endbr64", "endbr32", "pause"), _nothing),
    **dict.fromkeys(("wbinvd", "invlpg"), _flush),
    "hlt": _halt,
}  # fmt: skip
