"""Which writes to control registers the CPU refuses, for words of any algebra.

Rules: the same rules, in the same order and words, as `x86.cpu`, which knows numbers only; a test
runs both on random states and compares what they say.  Sources as there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tightrope.prove.isa.algebra import Algebra, Truth, Word
from tightrope.x86 import cpu as x86


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """What legality depends on; `control` has cr0, cr3, cr4 and efer, all `bits` wide.

    `physical` is 2^MAXPHYADDR and `la57` whether the CPU has 5 levels.
    """

    control: Mapping[str, Word]
    bits: int
    code64: bool
    physical: Word
    la57: Truth


def refusals(a: Algebra, now: Now, register: str, value: Word) -> Iterator[tuple[str, Truth]]:
    """(the manual's reason, when it applies) for a MOV to `register`."""
    yield from {"cr0": _cr0, "cr3": _cr3, "cr4": _cr4}[register](a, now, value)


def _on(a: Algebra, value: Word, bit: int) -> Truth:
    return a.bit(value, bit.bit_length() - 1)


def _cr0(a: Algebra, now: Now, value: Word) -> Iterator[tuple[str, Truth]]:
    cr0, cr4, efer = now.control["cr0"], now.control["cr4"], now.control["efer"]
    if now.bits == 64:
        zero = a.const(0, 64)
        yield (
            "CR0 bits 63:32 must be zero",
            a.negate(a.equal(a.shift_right(value, 32, 64), zero)),
        )
    paging = _on(a, value, x86.CR0_PG)
    yield "CR0.PG needs CR0.PE", a.all(paging, a.negate(_on(a, value, x86.CR0_PE)))
    yield (
        "CR0.NW needs CR0.CD",
        a.all(_on(a, value, x86.CR0_NW), a.negate(_on(a, value, x86.CR0_CD))),
    )
    yield (
        "CR0.WP cannot be cleared while CR4.CET is set",
        a.all(a.negate(_on(a, value, x86.CR0_WP)), _on(a, cr4, x86.CR4_CET)),
    )
    leaving = a.all(_on(a, cr0, x86.CR0_PG), a.negate(paging))
    if now.code64:
        yield (
            "CR0.PG cannot be cleared in 64-bit code",
            a.all(leaving, _on(a, efer, x86.EFER_LMA)),
        )
    yield (
        "CR0.PG cannot be cleared while CR4.PCIDE is set",
        a.all(leaving, _on(a, cr4, x86.CR4_PCIDE)),
    )
    entering = a.all(paging, a.negate(_on(a, cr0, x86.CR0_PG)), _on(a, efer, x86.EFER_LME))
    yield (
        "entering long mode needs CR4.PAE",
        a.all(entering, a.negate(_on(a, cr4, x86.CR4_PAE))),
    )
    if now.code64:
        yield "entering long mode needs CS.L = 0", entering


def _cr3(a: Algebra, now: Now, value: Word) -> Iterator[tuple[str, Truth]]:
    if now.bits == 32:
        return
    kept = a.both(value, a.const(~x86.CR3_NO_FLUSH, 64))
    value = a.choose(_on(a, now.control["cr4"], x86.CR4_PCIDE), kept, value)
    yield "CR3 has bits that are reserved on this CPU", a.negate(a.below(value, now.physical))


def _cr4(a: Algebra, now: Now, value: Word) -> Iterator[tuple[str, Truth]]:
    cr0, cr3 = now.control["cr0"], now.control["cr3"]
    cr4, efer = now.control["cr4"], now.control["efer"]
    bits = now.bits
    reserved = a.both(value, a.const(~x86.CR4_DEFINED, bits))
    yield "CR4 bits that are reserved", a.negate(a.equal(reserved, a.const(0, bits)))
    five = _on(a, value, x86.CR4_LA57)
    yield "CR4.LA57 is reserved on this CPU", a.all(five, a.negate(now.la57))
    yield (
        "CR4.CET needs CR0.WP",
        a.all(_on(a, value, x86.CR4_CET), a.negate(_on(a, cr0, x86.CR0_WP))),
    )
    long = _on(a, efer, x86.EFER_LMA)
    yield (
        "CR4.PAE cannot be cleared in long mode",
        a.all(long, a.negate(_on(a, value, x86.CR4_PAE))),
    )
    yield (
        "CR4.LA57 cannot be changed in long mode",
        a.all(long, a.unlike(five, _on(a, cr4, x86.CR4_LA57))),
    )
    tagging = a.all(_on(a, value, x86.CR4_PCIDE), a.negate(_on(a, cr4, x86.CR4_PCIDE)))
    yield "CR4.PCIDE needs long mode", a.all(tagging, a.negate(long))
    low = a.both(cr3, a.const(0xFFF, bits))
    yield (
        "CR4.PCIDE cannot be set while CR3 bits 11:0 are not zero",
        a.all(tagging, a.negate(a.equal(low, a.const(0, bits)))),
    )


def efer_refusals(
    a: Algebra, efer: Word, paging: Truth, value: Word
) -> Iterator[tuple[str, Truth]]:
    """(the manual's reason, when it applies) for a WRMSR of the low half of EFER."""
    reserved = a.both(value, a.const(~sum(x86.EFER_NAMES.values()), 32))
    yield (
        "EFER bits other than SCE, LME, LMA, NXE are reserved",
        a.negate(a.equal(reserved, a.const(0, 32))),
    )
    changed = a.unlike(_on(a, value, x86.EFER_LME), _on(a, efer, x86.EFER_LME))
    yield "EFER.LME cannot be changed while paging is on", a.all(paging, changed)


def flushes_everything(a: Algebra, before: Word, after: Word) -> Truth:
    """Whether a CR4 write drops all translations, as `x86.cpu.flushes_everything`."""
    changed = a.differ(before, after)
    tagging, smep = x86.CR4_PCIDE, x86.CR4_SMEP
    return a.any(
        *(_on(a, changed, bit) for bit in (x86.CR4_PGE, x86.CR4_PAE, x86.CR4_PSE)),
        a.all(_on(a, before, tagging), a.negate(_on(a, after, tagging))),
        a.all(_on(a, after, smep), a.negate(_on(a, before, smep))),
    )
