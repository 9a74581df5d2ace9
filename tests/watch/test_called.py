"""What a purgatory does that was called is advice where it is all that has changed, and only there.

Rules: the word is written by code that is walked; a real Xen does it in test_watch.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from tests.history.rebuilt import line_end, purgatory
from tests.makers.designs import TWO_TABLES
from tests.rehearse.runs import shared, shipped_kernel
from tightrope import check, host
from tightrope.deeds.rehearse import build, prepare
from tightrope.deeds.watch.called import SIZE, of_its_call
from tightrope.model import Finding, Handover, Run, SegmentRole, Stop
from tightrope.plan import Request

WORD = b" kexec_jump_back_entry=0x000000002d35a041"
ABOUT_IT = {"command-line-as-given", "destinations-complete", "stores-owned"}


@cache
def sound() -> Handover:
    old = host.read(host.example(), "a host")
    return build(prepare(shipped_kernel(), old, Request(command_line="a word")), design=TWO_TABLES)


def stores(at: int, data: bytes) -> bytes:
    """movabs $each, %rax; movabs %rax, at: four bytes and one at a time."""
    out = b""
    while data:
        size = 4 if len(data) >= 4 else 1
        value = int.from_bytes(data[:size], "little")
        out += b"\x48\xb8" + value.to_bytes(8, "little")
        out += b"\x48\xb9" + at.to_bytes(8, "little")
        out += b"\x89\x01" if size == 4 else b"\x88\x01"
        at, data = at + size, data[size:]
    return out


def walked(*written: tuple[int, bytes]) -> tuple[Run, list[Finding]]:
    """A purgatory that writes each `data` `at` bytes behind the end of the command line."""
    end = line_end(sound())
    own = b"".join(stores(end + at, data) for at, data in written)
    built = purgatory(sound(), own)
    run = shared().run(built)
    assert run.stop is Stop.ENTRY
    return run, list(check.check(built, run))


def falls(run: Run, findings: list[Finding]) -> set[str]:
    return {each.rule for each in of_its_call(findings, run.memory) if not each.advice}


def test_the_word_alone_is_advice() -> None:
    assert len(WORD) == SIZE
    run, findings = walked((0, WORD + b"\0"))  # as kexec-tools' writes it
    before = {each.rule for each in findings if not each.advice}
    assert before == ABOUT_IT
    assert falls(run, findings) == set()
    assert {
        each.rule for each in of_its_call(findings, run.memory)
    } >= ABOUT_IT  # said all the same


@pytest.mark.parametrize(
    "written",
    [
        [(0, WORD.replace(b"jump_back", b"jump_fore"))],
        [(0, WORD[:-1])],
        [(0, WORD + b"0")],
        [(0, WORD[:-1] + b"g")],
        [(0, WORD), (0x200, b"x")],
        [(-1, b"D" + WORD)],
    ],
    ids=["another word", "short", "long", "no number", "a byte far behind it", "a byte before it"],
)
def test_anything_else_falls(written: list[tuple[int, bytes]]) -> None:
    run, findings = walked(*written)
    assert falls(run, findings) == ABOUT_IT


def test_a_store_elsewhere_falls_though_the_word_came_first() -> None:
    # The 4 KiB behind those that the stub has: mapped, and nobody's.
    stub = next(e for e in sound().intent.segments if e.role is SegmentRole.ENTRY_STUB)
    stray = stub.destination.end
    run, findings = walked((0, WORD), (stray - line_end(sound()), b"\0"))
    left = falls(run, findings)
    assert "stores-owned" in left
    assert "command-line-as-given" not in left


def test_what_has_no_place_falls() -> None:
    run, findings = walked((0, WORD))
    assert falls(run, [replace(each, at=None) for each in findings]) == ABOUT_IT
