"""Every way through the purgatory's own code: the entry stub is left for past each comparison, and no other way.

    next_row --no row left--> all_right --> stub
       |  ^------------ equal ----------------+
       +--> digest_segment --> compare -------+-- not equal --> damaged --> halt, reset

Rules: the bytes are read as instructions here and nowhere run; a call goes on behind itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import iced_x86 as x

from tightrope import routines

CODE = routines.read(routines.PURGATORY_64)
AT = CODE.symbols
Edge = tuple[int, int]


def instructions(data: bytes) -> dict[int, x.Instruction]:
    """What is before the digests' own functions, by offset; `halt` and what it calls with it."""
    return {each.ip: each for each in x.Decoder(64, data[: AT["digest"]], ip=0)}


def ways_on(each: x.Instruction) -> Iterator[int]:
    """Where the CPU may be after an instruction, as long as it is in this code."""
    flow = each.flow_control
    if flow in (x.FlowControl.CONDITIONAL_BRANCH, x.FlowControl.UNCONDITIONAL_BRANCH):
        yield each.near_branch_target
    if flow not in (
        x.FlowControl.UNCONDITIONAL_BRANCH,
        x.FlowControl.INDIRECT_BRANCH,
        x.FlowControl.RETURN,
    ):
        yield each.next_ip


def reached(data: bytes, start: int, *, without: frozenset[Edge] = frozenset()) -> set[int]:
    """The offsets that may be executed from one on."""
    code, seen, todo = instructions(data), set[int](), [start]
    while todo:
        at = todo.pop()
        if at in seen or at not in code:
            continue
        seen.add(at)
        todo += [to for to in ways_on(code[at]) if (at, to) not in without]
    return seen


def leaving(data: bytes) -> int:
    """The one instruction that jumps to where a word says."""
    (one,) = [
        at
        for at, each in instructions(data).items()
        if each.flow_control == x.FlowControl.INDIRECT_BRANCH
    ]
    return one


def compared(data: bytes) -> tuple[int, int]:
    """The comparison of two digests, and the branch behind it."""
    code = instructions(data)
    (at,) = [n for n, each in code.items() if each.mnemonic == x.Mnemonic.CMPSQ]
    assert code[at].has_repe_prefix
    return at, code[at].next_ip


def unsafe_ways(data: bytes) -> list[str]:
    """What would let a damaged segment be entered."""
    code, leaves = instructions(data), leaving(data)
    _, branch = compared(data)
    wrong = []
    equal = (branch, code[branch].next_ip)
    if code[branch].mnemonic != x.Mnemonic.JNE or code[branch].near_branch_target != AT["damaged"]:
        wrong.append("the comparison has no way to damaged")
    # A digest is made: from there on, only the edge of equal digests leads out.
    (made,) = [
        n
        for n, each in code.items()
        if each.mnemonic == x.Mnemonic.CALL and each.near_branch_target == AT["digest_segment"]
    ]
    if leaves in reached(data, made, without=frozenset({equal})):
        wrong.append("the stub is left for without a comparison")
    if leaves in reached(data, AT["damaged"]):
        wrong.append("damaged goes on")
    # Between two rows lies nothing but the step to the next: a row is left for its digest or for the end.
    rows = code[AT["next_row"]].next_ip
    if code[rows].near_branch_target != AT["all_right"] or made not in reached(data, rows):
        wrong.append("a row is passed over")
    return wrong


def test_the_stub_is_left_for_past_every_comparison_and_no_other_way() -> None:
    assert leaving(CODE.data) in reached(CODE.data, AT["purgatory"])
    assert unsafe_ways(CODE.data) == []


def test_each_branch_that_is_turned_or_left_out_is_seen() -> None:
    """The comparison's branch, and every way out of `damaged`, changed as somebody would by mistake."""
    code = instructions(CODE.data)
    _, branch = compared(CODE.data)
    halt = next(
        n
        for n, each in code.items()
        if n >= AT["halt"] and each.flow_control == x.FlowControl.UNCONDITIONAL_BRANCH
    )
    size = code[branch].len
    for at, bytes_ in (
        (branch, b"\x90" * size),  # not looked at
        (branch, bytes([CODE.data[branch] ^ 1]) + CODE.data[branch + 1 : branch + size]),  # turned
        (halt, b"\xeb" + (AT["all_right"] - halt - 2).to_bytes(1, "little", signed=True)),
    ):
        changed = CODE.data[:at] + bytes_ + CODE.data[at + len(bytes_) :]
        assert unsafe_ways(changed) != [], hex(at)
