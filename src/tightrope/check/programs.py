"""Rules about the programs of the chain: their own bytes, and what the call hands them.

Rules: a program's bytes are those of its participant, whoever placed them; its words are known from the
intent.  Nothing is executed here: a program that differs is told before it is walked.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.check.alike import wrong
from tightrope.check.case import Case
from tightrope.check.rule import Found, finding, rule
from tightrope.model import Kind, Participant, Protocol, SegmentRole, Step

WORDS = {"word_eax": "rax", "word_ebx": "rbx", "word_esi": "rsi", "word_rsi": "rsi"}
"""A stub's word for a register, by its symbol."""
KNOWN_CR0, PVH_CR0 = 0x33, 0x11
"""NE, ET, MP and PE; ET and PE (Xen docs/misc/pvh.pandoc)."""
BACK_UP_AT = 0x800
"""Where a stub's page has the routine that saves low memory, and the stub jumps to it."""


@rule(
    "stub-as-known",
    Step.COPY,
    says="The entry stub is the routine that it is made from, and its words are the new kernel's.",
    source="the thread, step 6: 'jump to the new kernel'; participants.stubs",
)
def stub_as_known(case: Case) -> Iterator[Found]:
    """The stub's segment against its participant, byte for byte."""
    stub = next((each for each in case.handover.chain if each.kind is Kind.STUB), None)
    segment = next(
        (each for each in case.handover.segments if each.role is SegmentRole.ENTRY_STUB), None
    )
    if stub is None or segment is None:
        return
    wanted = _filled(case, stub)
    bad = wrong(bytes(segment.data[: len(wanted)]), wanted)
    if len(bad) or len(segment.data) < len(wanted):
        at = int(bad[0]) if len(bad) else len(segment.data)
        yield finding(
            f"byte {at:#x} of the entry stub at {segment.destination.start:#x} is not {stub.name}'s",
            evidence={
                "is": bytes(segment.data[at : at + 8]).hex(),
                "should be": wanted[at : at + 8].hex(),
            },
            mend="place the routine whole, and fill in its words and nothing else",
        )


def _filled(case: Case, stub: Participant) -> bytes:
    """The stub's bytes with the words that it has for this new kernel."""
    intent = case.intent
    backed = bool(intent.backup)
    words = {symbol: intent.arguments.get(name, 0) for symbol, name in WORDS.items()}
    words["kernel_entry"] = intent.entry + BACK_UP_AT if backed else intent.kernel_entry
    words["known_cr0"] = PVH_CR0 if intent.protocol is Protocol.PVH else KNOWN_CR0
    data = bytearray(stub.code.data)
    for symbol, value in words.items():
        if symbol in stub.code.symbols:
            at = stub.code.symbols[symbol]
            data[at : at + 8] = value.to_bytes(8, "little")
    return bytes(data)
