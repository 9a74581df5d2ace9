"""The manual's rules about control registers, read for numbers and for words of an algebra:
they agree.
"""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
import z3

from tightrope.prove.isa.algebra import Numbers
from tightrope.prove.isa.legality import Now, flushes_everything, refusals
from tightrope.prove.isa.terms import Terms
from tightrope.x86 import control
from tightrope.x86 import cpu as x86

STATES = 20_000
RULES = {
    "cr0": x86.cr0_refusal,
    "cr3": x86.cr3_refusal,
    "cr4": x86.cr4_refusal,
    "efer": x86.efer_refusal,
}


def some_state(random_: random.Random) -> dict[str, int]:
    """Mostly bits that mean something."""

    def of(bits: dict[str, int], density: float) -> int:
        return sum(bit for bit in bits.values() if random_.random() < density)

    return {
        "cr0": of(x86.CR0_NAMES, 0.5),
        "cr3": random_.choice(
            [0, 0x1000, 0x1005, 1 << 45, 1 << 46, 1 << 63, (1 << 63) | 0x2000, 1 << 61]
        ),
        "cr4": of(x86.CR4_NAMES, 0.5),
        "efer": of(x86.EFER_NAMES, 0.6),
    }


def some_value(random_: random.Random, register: str, now: dict[str, int]) -> int:
    """Like the state, a bit away from it, or anything."""
    kind = random_.random()
    if kind < 0.5:
        return some_state(random_)[register]
    if kind < 0.9:
        return now[register] ^ 1 << random_.randrange(64)
    return random_.getrandbits(64)


def general(register: str, reason: str | None) -> str | None:
    """What a rule says where no numbers of one state are at hand."""
    for rule in control.RULES[register]:
        shown = re.escape(rule.shown).replace(r"\{bits:\#x\}", ".*").replace(r"\{top\}", ".*")
        if reason and rule.shown and re.fullmatch(shown, reason):
            return rule.says
    return reason


@pytest.mark.parametrize("code64", [True, False])
@pytest.mark.parametrize("register", RULES)
def test_the_rules_for_terms_are_the_rules_for_numbers(register: str, code64: bool) -> None:
    random_ = random.Random(f"{register} {code64}")
    states = [some_state(random_) for _ in range(STATES)]
    values = [some_value(random_, register, state) for state in states]
    la57 = [random_.random() < 0.5 for _ in range(STATES)]
    numbers = Numbers(STATES)
    now = Now(
        control={name: np.array([s[name] for s in states], np.uint64) for name in states[0]},
        bits=64,
        code64=code64,
        physical=numbers.const(1 << 46, 64),
        la57=np.array(la57),
    )
    said = list(refusals(numbers, now, register, np.array(values, np.uint64)))
    first: list[str | None] = [None] * STATES
    for reason, when in reversed(said):
        for index in np.flatnonzero(when):
            first[index] = reason
    meant = [
        RULES[register](
            x86.ControlState(**state, code64=code64, physical_bits=46, la57=five), value
        )
        for state, value, five in zip(states, values, la57, strict=True)
    ]
    assert first == [general(register, reason) for reason in meant]
    assert {None, *(rule.says for rule in control.RULES[register])} >= set(first) > {None}
    # Those that code of this width cannot break are not looked for.
    assert len(set(first)) >= {"cr0": 8 if code64 else 7, "cr3": 3, "cr4": 8, "efer": 3}[register]


def test_what_flushes_everything_is_the_same() -> None:
    random_ = random.Random(5)
    before = [some_state(random_)["cr4"] for _ in range(STATES)]
    after = [some_value(random_, "cr4", {"cr4": value}) for value in before]
    got = flushes_everything(
        Numbers(STATES), np.array(before, np.uint64), np.array(after, np.uint64), 64
    )
    meant = [x86.flushes_everything(one, other) for one, other in zip(before, after, strict=True)]
    assert got.tolist() == meant
    assert {True, False} == set(meant)


def test_terms_say_what_numbers_say() -> None:
    """The two algebras, on the same words."""
    random_ = random.Random(8)
    numbers, terms = Numbers(1), Terms()

    def same(name: str, *arguments: int, width: int = 64, plain: tuple[int, ...] = ()) -> None:
        one = getattr(numbers, name)(*(numbers.const(v, width) for v in arguments), *plain)
        other = getattr(terms, name)(*(terms.const(v, width) for v in arguments), *plain)
        value = int(one[0])
        if z3.is_bool(other):
            assert bool(value) == z3.is_true(other), name
        else:
            assert value == other.as_long(), name

    for _ in range(100):
        a, b = random_.getrandbits(64), random_.choice([random_.getrandbits(64), 0, 1, 2**64 - 1])
        for name in ("add", "sub"):
            same(name, a, b, plain=(64,))
            same(name, a & 0xFFFF, b & 0xFFFF, width=16, plain=(16,))
        for name in ("both", "either", "differ", "equal", "below"):
            same(name, a, b)
        same("shift_left", a, plain=(12, 64))
        same("shift_right", a, plain=(12, 64))
        same("low", a, plain=(16,))
        same("bit", a, plain=(random_.randrange(64),))
        same("wide", a & 0xFF, width=8, plain=(8, 64))
