"""QEMU's log of exceptions: `qemu -d int,cpu_reset -D FILE`.

    check_exception old: 0xffffffff new 0xe          nothing was being delivered: the first of a chain
         0: v=0e e=0010 i=0 cpl=0 IP=0010:... pc=... SP=0018:... CR2=...
    RAX=... RBX=...                                  the CPU as it was, 20 lines
    check_exception old: 0xe new 0xe                 came of the delivery of the one before
         1: v=08 ...
    check_exception old: 0x8 new 0xe
    Triple fault

Source: target/i386/tcg/excp_helper.c, check_exception(); tcg/seg_helper.c, do_interrupt_all();
cpu-dump.c, x86_cpu_dump_state().

Rules: a CPU that was reset and nothing before it is no fall: a PC is reset when it starts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tightrope.corpse.log import Log
from tightrope.model.corpse import Ending, LogKind, Phase, Raised, Remains

TRIPLE = b"Triple fault"
RECORD = re.compile(
    rb"^ *\d+: v=(?P<vector>[0-9a-f]{2}) e=(?P<code>[0-9a-f]{4}) i=(?P<soft>\d) cpl=\d"
    rb" IP=[0-9a-f]{4}:[0-9a-f]+ pc=(?P<pc>[0-9a-f]+) SP=[0-9a-f]{4}:[0-9a-f]+"
    rb"(?: CR2=(?P<cr2>[0-9a-f]+))?",
    re.MULTILINE,
)
CHECK = re.compile(rb"^check_exception old: 0x([0-9a-f]+) new 0x([0-9a-f]+)", re.MULTILINE)
NOTHING = 0xFFFF_FFFF
"""`old` where no exception was being delivered."""
REGISTER = re.compile(rb"\b(R[A-Z0-9]{1,3}|E[A-Z]{2}|CR[0234]|EFER|RFL|EFL) ?=([0-9a-f]{8,16})\b")
TABLE = re.compile(rb"\b(GDT|IDT)=\s+([0-9a-f]+) ([0-9a-f]+)")
SEGMENT = re.compile(rb"^(CS|SS) =([0-9a-f]{4}) ", re.MULTILINE)
PAGE_FAULT, EXCEPTIONS = 14, 32
GATE = 2
"""Bit of an error code: its index is one of the idt's, 16 bytes a gate in long mode, else 8."""
WITH_CODE = frozenset({8, 10, 11, 12, 13, 14, 17, 21, 29})


def read(log: Log) -> Iterator[Remains]:
    """The last triple fault, or the last exception where there is none."""
    found = log.last(TRIPLE)
    if found is not None:
        at, _ = found
        window = log.before(at)
        chain = _chain(window, end=True)
        yield Remains(
            kind=LogKind.QEMU,
            line=log.number(at),
            offset=at,
            ending=Ending.TRIPLE_FAULT,
            phase=Phase.UNKNOWN,
            words="Triple fault",
            raised=chain,
        )
        return
    last = log.last(b": v=")
    if last is None:
        return
    at = last[0]
    window = log.before(at)
    start = at - len(window)
    text = window + log.behind(at)
    chain = _chain(text, end=False)
    if not chain:
        return
    records = list(RECORD.finditer(text))
    whole = b"EFER=" in text[records[-1].end() :]
    yield Remains(
        kind=LogKind.QEMU,
        line=log.number(start + records[-1].start()),
        offset=start + records[-1].start(),
        ending=Ending.LAST_WORD,
        phase=Phase.UNKNOWN,
        words=records[-1][0].decode("latin-1").strip(),
        raised=chain,
        cut=not whole,
    )


def _chain(text: bytes, *, end: bool) -> tuple[Raised, ...]:
    """The exceptions that led to the last place of a window: from the first one on, whose delivery
    raised the next."""
    records = [
        each
        for each in RECORD.finditer(text)
        if int(each["vector"], 16) < EXCEPTIONS and each["soft"] == b"0"
    ]
    if not records:
        return ()
    first = len(records) - 1
    while first > 0:
        between = text[records[first - 1].end() : records[first].start()]
        checks = CHECK.findall(between)
        delivering = bool(checks) and int(checks[-1][0], 16) != NOTHING
        if not delivering and not _of_its_gate(records[first - 1], records[first]):
            break
        first -= 1
    chain = []
    for number in range(first, len(records)):
        ends = records[number + 1].start() if number + 1 < len(records) else len(text)
        chain.append(_raised(records[number], text[records[number].end() : ends]))
    checks = CHECK.findall(text[records[-1].end() :]) if end else []
    if checks:
        # The one that ended it is never delivered, so it has no record of its own.
        vector = int(checks[-1][1], 16)
        chain.append(Raised(vector=vector, error_code=None, rip=chain[-1].rip, address=None))
    return tuple(chain)


def _of_its_gate(before: re.Match[bytes], after: re.Match[bytes]) -> bool:
    """The second says by its error code that it is about the gate of the first (SDM 6.13): that is
    told where the first is none that makes a double fault."""
    code, vector = int(after["code"], 16), int(before["vector"], 16)
    same = before["pc"] == after["pc"]
    return same and bool(code & GATE) and vector * 16 in (code & ~7, (code & ~7) * 2)


def _raised(record: re.Match[bytes], dump: bytes) -> Raised:
    vector = int(record["vector"], 16)
    return Raised(
        vector=vector,
        error_code=int(record["code"], 16) if vector in WITH_CODE else None,
        rip=int(record["pc"], 16),
        address=int(record["cr2"], 16) if vector == PAGE_FAULT and record["cr2"] else None,
        registers=registers(dump),
    )


def registers(dump: bytes) -> dict[str, int]:
    """The registers in a dump of the CPU, those that are there."""
    dump = dump.partition(b"check_exception")[0]
    found: dict[str, int] = {}
    for name, value in REGISTER.findall(dump):
        wide = name.decode().lower()
        if wide in ("rfl", "efl"):
            wide = "rflags"
        elif wide[0] == "e" and wide != "efer":
            wide = "r" + wide[1:]
        found.setdefault(wide, int(value, 16))
    for name, base, limit in TABLE.findall(dump):
        found[name.decode().lower()] = int(base, 16)
        found[f"{name.decode().lower()}_limit"] = int(limit, 16)
    for name, selector in SEGMENT.findall(dump):
        found[name.decode().lower()] = int(selector, 16)
    return found
