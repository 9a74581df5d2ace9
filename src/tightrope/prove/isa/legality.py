"""Which writes to control registers the CPU refuses, for words of any algebra.

Rules: the rows are `x86.control`'s, which `x86.cpu` reads for numbers; only the reading is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic

from tightrope.prove.isa.algebra import Algebra, Truth, Word
from tightrope.x86 import control
from tightrope.x86.control import ALL, CR3_LAM, CR3_NO_FLUSH, Asked

PROFILE = (control.IS_INTEL, control.IS_AMD, control.IN_TDX, control.IN_SEV_ES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Now(Generic[Word, Truth]):
    """What legality depends on; `control` has cr0, cr3, cr4 and efer, all `bits` wide.

    `physical` is 2^MAXPHYADDR and `la57` whether the CPU has 5 levels.
    """

    control: Mapping[str, Word]
    bits: int
    code64: bool
    physical: Word
    la57: Truth
    facts: int = 0
    """Whose CPU it is, and what guest runs on it: IS_INTEL to IN_SEV_ES of `control`."""


def refusals(
    a: Algebra[Word, Truth], now: Now[Word, Truth], register: str, value: Word
) -> Iterator[tuple[str, Truth]]:
    """(the manual's reason, when it applies) for a MOV to a control register,
    or a WRMSR to EFER.
    """
    words = {
        **now.control,
        control.NEW: value,
        control.CHANGE: a.differ(value, now.control[register]),
        control.BEYOND: _beyond(a, now, value),
    }
    facts = {
        control.CODE64: a.truth(now.code64),
        control.HAS_LA57: now.la57,
        **{bit: a.truth(bool(now.facts & bit)) for bit in PROFILE},
    }
    for rule in control.RULES[register]:
        yield rule.says, _all(a, rule.when, words, facts, now.bits)


def flushes_everything(a: Algebra[Word, Truth], before: Word, after: Word, bits: int) -> Truth:
    """Whether a CR4 write drops all translations, as `x86.cpu.flushes_everything`."""
    words = {control.NEW: after, control.CHANGE: a.differ(before, after), "cr4": before}
    return a.any(*(_all(a, each, words, {}, bits) for each in control.FLUSHES))


def _beyond(a: Algebra[Word, Truth], now: Now[Word, Truth], value: Word) -> Word:
    """The bits that are too high for a physical address, LAM's for themselves; with one that is no
    more than an address's, all of it.  32-bit code has none, and no PCIDs either.
    """
    if now.bits == 32:
        return a.const(0, now.bits)
    kept = a.both(value, a.const(ALL ^ CR3_NO_FLUSH, 64))
    lam = a.both(value, a.const(CR3_LAM, 64))
    return a.choose(a.below(a.differ(kept, lam), now.physical), lam, kept)


def _all(
    a: Algebra[Word, Truth],
    when: Iterable[Asked],
    words: Mapping[str, Word],
    facts: Mapping[int, Truth],
    bits: int,
) -> Truth:
    """Whether everything that a rule asks is so."""
    return a.all(
        *(
            _fact(a, asked, facts[asked.mask])
            if asked.word == control.CPU
            else _of(a, asked, words[asked.word], bits)
            for asked in when
        )
    )


def _fact(a: Algebra[Word, Truth], asked: Asked, fact: Truth) -> Truth:
    return fact if asked.want else a.negate(fact)


def _of(a: Algebra[Word, Truth], asked: Asked, word: Word, bits: int) -> Truth:
    """Whether a word is as asked; bits that a narrow word has not are clear."""
    mask = asked.mask & ((1 << bits) - 1)
    if asked.want is not None and asked.want & ~mask:
        return a.truth(False)
    if mask.bit_count() == 1:
        there = a.bit(word, mask.bit_length() - 1)
        return a.negate(there) if asked.want == 0 else there
    seen, wanted = a.both(word, a.const(mask, bits)), asked.want or 0
    same = a.equal(seen, a.const(wanted, bits))
    return a.negate(same) if asked.want is None else same
