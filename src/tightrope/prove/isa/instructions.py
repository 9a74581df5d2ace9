"""What each instruction does: the project's own model of the CPU, from the manual (SDM volume 2).

Rules: as in `semantics`; one small function for each kind of instruction, and one table of them.  An
instruction that is not in the table is Refused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tightrope.prove.isa.algebra import Word
from tightrope.prove.isa.decode import Imm, Instruction, Mem, Operand, Reg
from tightrope.prove.isa.semantics import CONTROL, SEGMENTS, Model, Refused
from tightrope.prove.isa.state import FLAG_BITS, Flow, State

ON = Flow()


def execute(model: Model, state: State, at: Instruction) -> Flow:
    """Do `at` to `state`, in place.  Raises Refused."""
    known = _TABLE.get(at.mnemonic)
    if known is None:
        raise Refused(f"the model has no {at.text}")
    return known(model, state, at)


def _width(operand: Operand) -> int:
    assert not isinstance(operand, Imm)
    return operand.width


def _mov(m: Model, state: State, at: Instruction) -> Flow:
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
    return ON


def _lea(m: Model, state: State, at: Instruction) -> Flow:
    into, where = at.operands
    assert isinstance(where, Mem)
    m.write(state, at, into, m.a.low(m.address(state, where), _width(into)))
    return ON


def _arithmetic(
    do: Callable[[Model, State, Word, Word, int], Word],
    keep: bool,
    m: Model,
    state: State,
    at: Instruction,
) -> Flow:
    into, out_of = at.operands
    width = _width(into)
    x, y = m.read(state, at, into, width), m.read(state, at, out_of, width)
    value = do(m, state, x, y, width)
    if keep:
        m.write(state, at, into, value)
    return ON


def _by_one(up: bool, m: Model, state: State, at: Instruction) -> Flow:
    (into,) = at.operands
    width = _width(into)
    change = m.add if up else m.sub
    x, one = m.read(state, at, into, width), m.a.const(1, width)
    m.write(state, at, into, change(state, x, one, width, carry=False))
    return ON


def _neg(m: Model, state: State, at: Instruction) -> Flow:
    (into,) = at.operands
    width = _width(into)
    x = m.read(state, at, into, width)
    m.write(state, at, into, m.sub(state, m.a.const(0, width), x, width))
    return ON


def _not(m: Model, state: State, at: Instruction) -> Flow:
    (into,) = at.operands
    width = _width(into)
    x = m.read(state, at, into, width)
    m.write(state, at, into, m.a.differ(x, m.a.const(-1, width)))
    return ON


def _shift(left: bool, m: Model, state: State, at: Instruction) -> Flow:
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
    return ON


def _bit(change: str, m: Model, state: State, at: Instruction) -> Flow:
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
    return ON


def _xchg(m: Model, state: State, at: Instruction) -> Flow:
    one, other = at.operands
    x, y = m.read(state, at, one, _width(one)), m.read(state, at, other, _width(one))
    m.write(state, at, one, y)
    m.write(state, at, other, x)
    return ON


def _push(m: Model, state: State, at: Instruction) -> Flow:
    (operand,) = at.operands
    value = m.read(state, at, operand, at.width)
    if isinstance(operand, Reg) and operand.name in SEGMENTS:
        value = m.a.wide(value, 16, at.width)
    m.push(state, at, value, at.width)
    return ON


def _pop(m: Model, state: State, at: Instruction) -> Flow:
    (operand,) = at.operands
    if isinstance(operand, Reg) and operand.name in SEGMENTS:
        raise Refused(f"the model has no {at.text}")
    value = m.pop(state, at, at.width)
    m.write(state, at, operand, value)
    return ON


def _popf(m: Model, state: State, at: Instruction) -> Flow:
    value = m.pop(state, at, at.width)
    for name, number in FLAG_BITS.items():
        if number < at.width:
            state.flags[name] = m.a.bit(value, number)
    return ON


def _set_flag(name: str, value: bool, m: Model, state: State, _at: Instruction) -> Flow:
    state.flags[name] = m.a.truth(value)
    return ON


def _table(name: str, m: Model, state: State, at: Instruction) -> Flow:
    (operand,) = at.operands
    assert isinstance(operand, Mem)
    a, bits = m.a, state.bits
    where = m.address(state, operand)
    limit = m.port.load(state, at, where, 16)
    base = m.port.load(state, at, a.add(where, a.const(2, bits), bits), bits)
    m.port.table(state, at, name, base, limit)
    return ON


def _rdmsr(m: Model, state: State, at: Instruction) -> Flow:
    number = m.a.low(state.registers["rcx"], 32)
    for name, part in zip(("rax", "rdx"), m.port.read_msr(state, at, number), strict=True):
        state.registers[name] = m.a.wide(part, 32, state.bits)
    return ON


def _wrmsr(m: Model, state: State, at: Instruction) -> Flow:
    number, low, high = (m.a.low(state.registers[name], 32) for name in ("rcx", "rax", "rdx"))
    m.port.write_msr(state, at, number, low, high)
    return ON


def _jmp(m: Model, state: State, at: Instruction) -> Flow:
    if at.target is not None:
        return Flow(target=at.target)
    if at.far:
        return _far_jmp(m, state, at)
    if not at.operands or _width(at.operands[0]) != state.bits:
        raise Refused(f"the model has no {at.text}")
    return Flow(address=m.read(state, at, at.operands[0], state.bits))


def _far_jmp(m: Model, state: State, at: Instruction) -> Flow:
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


def _jcc(m: Model, state: State, at: Instruction) -> Flow:
    if at.condition is None or at.target is None:
        raise Refused(f"the model has no {at.text}")
    return Flow(target=at.target, condition=m.condition(state, at.condition))


def _call(m: Model, state: State, at: Instruction) -> Flow:
    a, bits = m.a, state.bits
    after = a.add(state.rip, a.const(at.offset + at.size, bits), bits)
    flow = _jmp(m, state, at)
    m.push(state, at, after, bits)
    return flow


def _ret(m: Model, state: State, at: Instruction) -> Flow:
    if at.operands or at.width != state.bits:
        raise Refused(f"the model has no {at.text}")
    return Flow(address=m.pop(state, at, state.bits))


def _far_ret(m: Model, state: State, at: Instruction) -> Flow:
    if at.operands or at.width != 2 * state.bits:
        raise Refused(f"the model has no {at.text} of this operand size")
    address = m.pop(state, at, state.bits)
    selector = m.a.low(m.pop(state, at, state.bits), 16)
    m.port.segment(state, at, "cs", selector)
    return Flow(address=address, far=True)


def _movs(m: Model, state: State, at: Instruction) -> Flow:
    if not at.rep:
        raise Refused("the model has no string move without rep")
    m.port.copy(state, at)
    return ON


def _nothing(_m: Model, _state: State, _at: Instruction) -> Flow:
    return ON


def _flush(m: Model, state: State, _at: Instruction) -> Flow:
    m.port.serialize(state)
    return ON


def _halt(_m: Model, _state: State, _at: Instruction) -> Flow:
    return Flow(halts=True)


def _and(m: Model, s: State, x: Word, y: Word, w: int) -> Word:
    return m.logic(s, m.a.both(x, y), w)


def _or(m: Model, s: State, x: Word, y: Word, w: int) -> Word:
    return m.logic(s, m.a.either(x, y), w)


def _xor(m: Model, s: State, x: Word, y: Word, w: int) -> Word:
    return m.logic(s, m.a.differ(x, y), w)


_TABLE: dict[str, Callable[[Model, State, Instruction], Flow]] = {
    "mov": _mov,
    "lea": _lea,
    "add": partial(_arithmetic, Model.add, True),
    "sub": partial(_arithmetic, Model.sub, True),
    "cmp": partial(_arithmetic, Model.sub, False),
    "and": partial(_arithmetic, _and, True),
    "test": partial(_arithmetic, _and, False),
    "or": partial(_arithmetic, _or, True),
    "xor": partial(_arithmetic, _xor, True),
    "inc": partial(_by_one, True),
    "dec": partial(_by_one, False),
    "neg": _neg,
    "not": _not,
    "shl": partial(_shift, True),
    "shr": partial(_shift, False),
    "bt": partial(_bit, "test"),
    "bts": partial(_bit, "set"),
    "btr": partial(_bit, "reset"),
    "xchg": _xchg,
    "push": _push,
    "pop": _pop,
    **dict.fromkeys(("popfq", "popfd"), _popf),
    "cli": partial(_set_flag, "IF", False),
    "sti": partial(_set_flag, "IF", True),
    "cld": partial(_set_flag, "DF", False),
    "std": partial(_set_flag, "DF", True),
    "clc": partial(_set_flag, "CF", False),
    "stc": partial(_set_flag, "CF", True),
    "lgdt": partial(_table, "gdt"),
    "lidt": partial(_table, "idt"),
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
