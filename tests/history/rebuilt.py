"""What an entry of the history is, and how a fault of the past is put together again.

    Entry      what went wrong once: how it is rebuilt, its fixed twin, and the finding that has to come first
    walked     a handover planned, changed, walked and asked: its findings, without advice
    purgatory  a program of the tests' own in place of the entry stub, as kexec-tools has one
    loaded     what a loader placed that knew less of the machine, or of the image, than there is

Rules: code and placement are rebuilt from their description, in our own words; nothing is copied.  A twin
differs from its fault in nothing but what was mended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.makers.designs import TWO_TABLES
from tests.modes.runs import shared
from tests.rehearse.runs import shipped_kernel
from tightrope.check import check
from tightrope.deeds.rehearse import build, prepare
from tightrope.memory import PAGE_SIZE
from tightrope.model import (
    Code,
    Finding,
    Handover,
    Host,
    Image,
    Kind,
    Participant,
    Plan,
    SegmentRole,
    Step,
)
from tightrope.plan import Request

Findings = tuple[Finding, ...]
Change = Callable[[Handover], Handover]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """`id` is the row of docs/history.md, `rule` and `step` are those of the first finding."""

    id: str
    rule: str
    step: Step
    broken: Callable[[], Findings]
    fixed: Callable[[], Findings]
    what: str = ""
    """Which case of the entry, where it has several."""


def same(handover: Handover) -> Handover:
    return handover


def walked(
    old: Host,
    *,
    new: Image | None = None,
    request: Request | None = None,
    design: str | Participant = TWO_TABLES,
    plan: Callable[[Plan], Plan] = lambda each: each,
    change: Change = same,
) -> Findings:
    """Plan, build, walk, ask: with the plan or the finished handover changed."""
    asked = request or Request(command_line="a word")
    planned = plan(prepare(new or shipped_kernel(), old, asked))
    return asked_of(change(build(planned, design=design)))


def asked_of(built: Handover) -> Findings:
    run = shared().run(built)
    return tuple(each for each in check(built, run) if not each.advice)


# ------------------------------------------------------------------------------ code with other bytes


def with_bytes(code: Code, was: str, becomes: str) -> Code:
    """The code with the only place of some bytes changed."""
    before, after = bytes.fromhex(was), bytes.fromhex(becomes)
    assert code.data.count(before) == 1, f"{was} stands {code.data.count(before)} times"
    assert len(before) == len(after)
    return replace(code, data=code.data.replace(before, after))


def in_relocation(participant: Participant, was: str, becomes: str) -> Participant:
    return replace(participant, code=with_bytes(participant.code, was, becomes))


# ------------------------------------------------------------------------------ a purgatory of our own

OWN = 0x400
"""Where the tests' purgatory lies in the stub's page, which begins with a jump to it."""
STACK = 7
"""Bytes of the stub's first instruction: it sets the stack, from where it stands."""


def purgatory(handover: Handover, own: bytes) -> Handover:
    """The entry stub, with `own` before its first instruction: on the stack that it is entered with.

    That is where kexec-tools' purgatory runs.  `own` may use rax, rcx and rdx.
    """
    segment = next(each for each in handover.segments if each.role is SegmentRole.ENTRY_STUB)
    data = bytearray(bytes(segment.data).ljust(OWN, b"\0"))
    assert data[:3] == b"\x48\x8d\x25", "lea enter + 4096(%rip), %rsp"
    data[:STACK] = b"\xe9" + (OWN - 5).to_bytes(4, "little") + b"\x90\x90"
    data += own
    after = len(data) + STACK
    data += b"\x48\x8d\x25" + (PAGE_SIZE - after).to_bytes(4, "little", signed=True)
    data += b"\xe9" + (STACK - len(data) - 5).to_bytes(4, "little", signed=True)
    new = replace(segment, data=bytes(data))
    stub = handover.chain[-1]
    code = Code(name="a purgatory", data=bytes(data), symbols={})
    program = replace(stub, name="a purgatory", kind=Kind.PURGATORY, code=code)
    wanted = tuple(
        new if each.role is SegmentRole.ENTRY_STUB else each for each in handover.intent.segments
    )
    return replace(
        handover,
        chain=(*handover.chain[:-1], program),
        segments=tuple(new if each is segment else each for each in handover.segments),
        intent=replace(handover.intent, segments=wanted),
    )


def back_entry(line_end: int) -> bytes:
    """What kexec-tools' purgatory does with the word above its return address.

    A kernel that may be come back to leaves its address there, and 0 otherwise; an address is written
    behind the command line (purgatory/arch/x86_64/setup-x86_64.S, x86_setup_jump_back_entry).
    """
    write = b"\x48\xb9" + line_end.to_bytes(8, "little") + b"\x48\x89\x01"
    return b"\x48\x8b\x04\x24\x48\x85\xc0\x74" + bytes([len(write)]) + write


def line_end(handover: Handover) -> int:
    line = next(e for e in handover.intent.segments if e.role is SegmentRole.COMMAND_LINE)
    return line.destination.start + len(bytes(line.data).rstrip(b"\0"))


def with_back_entry(handover: Handover) -> Handover:
    return purgatory(handover, back_entry(line_end(handover)))


# --------------------------------------------------------------------- a loader that knew less than is so


def loaded(
    old: Host,
    *,
    knew: Host | None = None,
    new: Image | None = None,
    took_it_for: Image | None = None,
    request: Request | None = None,
) -> Findings:
    """A plan made from `knew` and `took_it_for`, judged on what the machine and the image are."""
    image = new or shipped_kernel()
    asked = request or Request(command_line="a word")
    plan = prepare(took_it_for or image, knew or old, asked)
    return asked_of(build(replace(plan, host=old, image=image), design=TWO_TABLES))
