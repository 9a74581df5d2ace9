"""How long the proofs take: each theorem once, then every mutant.  Rules: as in `clock`, one run each."""

from __future__ import annotations

import time
from collections import Counter

from bench.clock import show
from tightrope.prove import run
from tightrope.prove.goal import Limits


def theorems() -> None:
    """Each theorem, and the enumeration of theorem 1 alone."""
    limits = Limits(seconds=600)
    whole = 0.0
    for word in run.THEOREMS:
        judged = [run.judge(goal, limits) for goal in run.goals(word)]
        taken = sum(each.result.seconds for each in judged)
        whole += taken
        right = sum(each.as_stated for each in judged)
        show(f"prove {word}", f"{taken:.2f} s", f"{right} of {len(judged)} as the theorem says")
        if word == "tables":
            counted = [each for each in judged if each.result.how == "enumeration"]
            taken = sum(each.result.seconds for each in counted)
            show("  by enumeration alone, all modes", f"{taken:.2f} s")
    show("prove", f"{whole:.2f} s")


def mutants() -> None:
    """Every deliberate mistake."""
    started = time.perf_counter()
    fates = Counter(run.kill(each, Limits(seconds=600)).fate for each in run.mutants())
    told = ", ".join(f"{number} {fate.value}" for fate, number in sorted(fates.items()))
    show("prove --mutants", f"{time.perf_counter() - started:.1f} s", told)
