"""A failure, told: which instruction, which obligation, on what input, and how one gets there.

    says     #GP: CR0.WP cannot be cleared while CR4.CET is set
    at       offset 0xa `mov %rax,%cr0`, mine.S:58
    where    from the call to the list
    when     cr4 = 0xb706f0 (PSE PAE ... CET)           what the failure depends on
    and      V = ..., P = ..., rax = ...                the rest of one whole input
    seen     in the emulator: legal-writes, step 2: ...

Rules: words only.  What a failure depends on is read from its formulas; the rest of the input is an
example, and any other would do.
"""

from __future__ import annotations

from collections.abc import Iterator

import z3

from tightrope.prove.isa.decode import Instruction
from tightrope.prove.routine.counterexample import Counterexample
from tightrope.prove.routine.decide import Failure
from tightrope.prove.routine.source_lines import Lines

MEANT = {
    "word": "word of the list",
    "cursor": "next word at",
    "global_at": "old global mapping of P",
    "global_to": "old global mapping of P",
}
"""What a formula calls a thing, and what a counterexample calls it."""


def told(failure: Failure, found: Counterexample, lines: Lines, seen: str) -> dict[str, str]:
    """Label to text, in the order in which it is read."""
    obligation = failure.obligation
    values = found.printed()
    names = {MEANT.get(name, name) for name in _spoken_of(failure)}
    if any(name.startswith("flag ") for name in names):
        names.add("flags")
    matter = [name for name in values if name in names]
    rest = [name for name in values if name not in names]
    out = {}
    if obligation.at is not None:
        out["at"] = where(obligation.at, lines)
    out["where"] = failure.segment.name
    if obligation.turns:
        out["way"] = "; ".join(
            f"{where(at, lines)} {'taken' if taken else 'not taken'}"
            for at, taken in obligation.turns
        )
    if matter:
        out["when"] = ", ".join(f"{name} = {values[name]}" for name in matter)
    zero = [name for name in rest if values[name] == "0x0"]
    said = [f"{name} = {values[name]}" for name in rest if name not in zero]
    out["and"] = ", ".join([*said, f"0 in {' '.join(zero)}"] if zero else said)
    if seen:
        out["seen"] = seen
    return out


def where(at: Instruction, lines: Lines) -> str:
    """An instruction by offset, text and source line."""
    line = lines.at(at.offset)
    return f"offset {at.offset:#x} `{at.text}`" + (f", {line}" if line else "")


def _spoken_of(failure: Failure) -> set[str]:
    """The names in the formulas that failed."""
    obligation = failure.obligation
    return {name for each in (*obligation.path, obligation.formula) for name in _names(each)}


def _names(formula: z3.ExprRef) -> Iterator[str]:
    work, seen = [formula], set()
    while work:
        each = work.pop()
        if each.get_id() in seen or not z3.is_app(each):
            continue
        seen.add(each.get_id())
        if each.decl().kind() == z3.Z3_OP_UNINTERPRETED:
            yield each.decl().name()
        work += each.children()
