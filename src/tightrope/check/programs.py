"""Rules about the programs of the chain: their own bytes, and what the call hands them.

Rules: a program's bytes are those of its participant, whoever placed them; its words are known
from the intent.  Nothing is executed here: a program that differs is told before it is walked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from tightrope.check.alike import wrong
from tightrope.check.case import Case
from tightrope.check.rule import Found, finding, rule
from tightrope.model import Kind, Participant, Protocol, Segment, SegmentRole, Step

WORDS = {"word_eax": "rax", "word_ebx": "rbx", "word_esi": "rsi", "word_rsi": "rsi"}
"""A stub's word for a register, by its symbol."""
KNOWN_CR0, PVH_CR0 = 0x33, 0x11
"""NE, ET, MP and PE; ET and PE (Xen docs/misc/pvh.pandoc)."""
BACK_UP_AT = 0x800
"""Where a stub's page has the routine that saves low memory, and the stub jumps to it."""
ROW, DIGEST = 64, slice(16, 48)
"""A purgatory's row: address and bytes, 8 each; SHA-256; a name, with zeros behind it."""


@rule(
    "stub-as-known",
    Step.COPY,
    says="The entry stub is the routine it was made from, filled in with the new kernel's words.",
    source="the thread, step 6: 'jump to the new kernel'; participants.stubs",
    mend="place the routine whole, and fill in its words and nothing else",
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
        )


def _filled(case: Case, stub: Participant) -> bytes:
    """The stub's bytes with the words that it has for this new kernel."""
    intent = case.intent
    backed = bool(intent.backup)
    words = {symbol: intent.arguments.get(name, 0) for symbol, name in WORDS.items()}
    words["kernel_entry"] = intent.stub_at + BACK_UP_AT if backed else intent.kernel_entry
    words["known_cr0"] = PVH_CR0 if intent.protocol is Protocol.PVH else KNOWN_CR0
    data = bytearray(stub.code.data)
    for symbol, value in words.items():
        if symbol in stub.code.symbols:
            at = stub.code.symbols[symbol]
            data[at : at + 8] = value.to_bytes(8, "little")
    return bytes(data)


@rule(
    "purgatory-as-known",
    Step.COPY,
    says="The purgatory's code is the routine it was made from, and leads to the entry stub.",
    source="routines/purgatory_64.S",
    mend="place the routine whole, and fill in its words and rows and nothing else",
)
def purgatory_as_known(case: Case) -> Iterator[Found]:
    """The purgatory's segment against its participant: all but its words and rows."""
    code, segment = _purgatory(case)
    if code is None or segment is None:
        return
    symbols = code.code.symbols
    wanted = bytearray(code.code.data[: symbols["rows"]])
    at = symbols["stub_entry"]
    wanted[at : at + 8] = case.intent.stub_at.to_bytes(8, "little")
    resets = symbols["resets"]
    wanted[resets : resets + 8] = segment.data[resets : resets + 8]
    bad = wrong(bytes(segment.data[: len(wanted)]), bytes(wanted))
    if len(bad) or len(segment.data) < len(wanted):
        at = int(bad[0]) if len(bad) else len(segment.data)
        yield finding(
            f"byte {at:#x} of the purgatory at {segment.destination.start:#x} is not {code.name}'s",
            evidence={
                "is": bytes(segment.data[at : at + 8]).hex(),
                "should be": bytes(wanted[at : at + 8]).hex(),
            },
        )


@rule(
    "digests-right",
    Step.COPY,
    says="The purgatory's rows name every other segment, each with the digest of its bytes.",
    source="FIPS 180-4; routines/purgatory_64.S",
    mend="make the rows last, from the bytes that are loaded",
)
def digests_right(case: Case) -> Iterator[Found]:
    """The purgatory's rows against what lies in the segments."""
    code, segment = _purgatory(case)
    if code is None or segment is None:
        return
    rows = dict(_rows(code, bytes(segment.data)))
    for each in case.handover.segments:
        if not len(each.data) or each.role is SegmentRole.PURGATORY:
            continue
        size, digest = rows.get(each.destination.start, (0, b""))
        seen = _digest_of_nine(bytes(each.data[:size]))
        if size != len(each.data) or seen != digest:
            yield finding(
                f"the {each.name} at {each.destination.start:#x} is not what the purgatory looks for",
                evidence={"bytes": f"{len(each.data):#x}, the row says {size:#x}"}
                | ({"digest": seen.hex(), "the row's": digest.hex()} if size else {}),
            )
            return


def _digest_of_nine(data: bytes) -> bytes:
    """What `digest_segment` of routines/purgatory_64.S makes: of eight stripes of whole blocks, and
    of the rest."""
    stripe = len(data) >> 9 << 6
    ends = [n * stripe for n in range(9)]
    nine = [data[a:b] for a, b in zip(ends, [*ends[1:], len(data)], strict=True)]
    return hashlib.sha256(b"".join(hashlib.sha256(e).digest() for e in nine)).digest()


def _purgatory(case: Case) -> tuple[Participant | None, Segment | None]:
    """Ours and its segment, None where there is none."""
    chain, segments = case.handover.chain, case.handover.segments
    ours = (each for each in chain if each.kind is Kind.PURGATORY and each.contract.digest)
    return next(ours, None), next(
        (each for each in segments if each.role is SegmentRole.PURGATORY), None
    )


def _rows(code: Participant, data: bytes) -> Iterator[tuple[int, tuple[int, bytes]]]:
    """(address, (bytes, digest)) of each row, up to the one of no bytes."""
    at = code.code.symbols["rows"]
    while (row := data[at : at + ROW]) and int.from_bytes(row[8:16], "little"):
        yield int.from_bytes(row[:8], "little"), (int.from_bytes(row[8:16], "little"), row[DIGEST])
        at += ROW
