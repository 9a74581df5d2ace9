"""The entry stubs' theorem as goals, and their mutants.

Rules: as in `goals`.  A stub has no loop: a mutant that does the same comes to the same states,
term by term, where the new kernel is entered and where the width of the code changes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from tightrope import routines
from tightrope.model import Code, Paging
from tightrope.model.proof import Answer, Fate, Killed, Result
from tightrope.prove.goal import Goal, Limits, Mutant, Undecided
from tightrope.prove.solver import solver_library

if TYPE_CHECKING:
    from tightrope.prove.routine.decide import Failure, Known
    from tightrope.prove.routine.mutations import Mutation
    from tightrope.prove.routine.stubs import Part

LONG, SHORT = (Paging.X86_64, Paging.LA57), (Paging.I386, Paging.PAE)
SAYS = (
    "from the relocation code's entry state the new kernel is entered as the boot protocol says, with"
    " the plan's words, and nothing but the stack is written"
)
GOALS = {
    routines.ENTER_64: ("entry-stub", LONG, f"the 64-bit entry stub's bytes: {SAYS}"),
    routines.ENTER_32: ("entry-stub-32", SHORT, f"the 32-bit entry stub's bytes: {SAYS}"),
    routines.ENTER_32_FROM_64: (
        "entry-stub-32",
        LONG,
        f"the bytes of the stub that leaves long mode: {SAYS}",
    ),
}


def goals() -> Iterator[Goal]:
    """One goal per stub and mode that it is entered from."""
    for stub, (name, modes, statement) in GOALS.items():
        for mode in modes:
            yield Goal(
                theorem="code",
                name=name,
                statement=statement,
                decide=partial(_decided, stub, mode),
                mode=mode,
            )


def _parts(stub: str, mode: Paging | None, data: bytes) -> tuple[Part, ...]:
    from tightrope.prove.routine import stubs
    from tightrope.prove.routine.contract import Contract

    return stubs.parts(stub, Contract(stubs.STUBS[stub], mode), data, routines.read(stub).symbols)


def _decided(stub: str, mode: Paging, limits: Limits) -> Result:
    solver_library()
    from tightrope.prove.routine import stubs

    walked = _parts(stub, mode, routines.read(stub).data)
    count, failure = stubs.first_failure(walked, limits.seconds)
    if failure is None:
        return Result(answer=Answer.HOLDS, how="z3", cases=None, detail=f"{count} obligations")
    if failure.model is None:
        raise Undecided(failure.obligation.says)
    return Result(
        answer=Answer.FAILS,
        how="z3",
        cases=None,
        counterexample=_input(failure),
        detail=_says(failure),
    )


def _says(failure: Failure) -> str:
    where = "" if failure.obligation.at is None else f"at {failure.obligation.at}: "
    return where + failure.obligation.says


def _input(failure: Failure) -> dict[str, str]:
    """Every plain value that the solver chose."""
    assert failure.model is not None
    model = failure.model
    chosen = {each.name(): model[each] for each in model.decls() if each.arity() == 0}
    return {
        name: f"{value.as_long():#x}"
        for name, value in sorted(chosen.items())
        if hasattr(value, "as_long")
    }


# ------------------------------------------------------------------------------------- mutants


@dataclass(slots=True)
class Original:
    """A shipped stub, walked once: what its mutants are compared with."""

    walked: tuple[Part, ...]
    known: Known


@lru_cache(maxsize=3)
def _original(stub: str) -> Original:
    solver_library()
    from tightrope.prove.routine.decide import Known

    return Original(_parts(stub, None, routines.read(stub).data), Known())


def mutations(stub: str) -> Iterator[Mutation]:
    """Every mutation of a stub's instructions, each decoded in the width in which it runs."""
    from tightrope.prove.routine.mutations import mutations as of
    from tightrope.prove.routine.stubs import STUBS

    code: Code = routines.read(stub)
    bits, end = STUBS[stub], code.symbols["gdt"]
    narrow = code.symbols.get("compatibility", end)
    yield from of(code.data, narrow, bits)
    if narrow < end:
        yield from of(code.data, end, 32, narrow)


def mutants() -> Iterator[Mutant]:
    """Every mutation of every entry stub."""
    for stub in GOALS:
        for mutation in mutations(stub):
            yield Mutant(
                subject=stub,
                name=f"{mutation.kind} at {mutation.at.offset:#x}: {mutation.says}",
                says=f"{mutation.kind}: {mutation.says}",
                kill=partial(kill, stub, mutation),
            )


def kill(stub: str, mutation: Mutation, limits: Limits) -> Killed:
    """The fate of one mutation of a shipped stub."""
    started = time.perf_counter()
    original = _original(stub)
    from tightrope.prove.isa.semantics import Refused
    from tightrope.prove.routine.equivalence import same_end
    from tightrope.prove.routine.stubs import first_failure

    fate, by, evidence = Fate.SURVIVED, "", "the theorem holds of it, and its states differ"
    try:
        walked = _parts(stub, None, mutation.data)
        _, failure = first_failure(walked, limits.seconds, original.known)
    except Refused as err:
        fate, by, evidence = Fate.KILLED, "a refusal of the model", str(err)
    else:
        if failure is not None and failure.model is None:
            fate, evidence = Fate.UNDECIDED, "not decided in time"
        elif failure is not None:
            values = _input(failure)
            shown = {k: values[k] for k in ("P", "C", "start", "cr4", "efer") if k in values}
            said = ", ".join(f"{name} = {value}" for name, value in shown.items())
            fate, by = Fate.KILLED, failure.segment.name
            evidence = f"{_says(failure)}; {said or 'whatever the input'}"
        elif len(walked) == len(original.walked) and all(
            one.end and other.end and same_end(one.end, other.end, one.segment.hypotheses)
            for one, other in zip(original.walked, walked, strict=True)
        ):
            fate, by = Fate.EQUIVALENT, "comparison of states"
            evidence = "the same state at its end, term by term"
    return Killed(
        subject=stub,
        name=mutation.kind,
        says=f"{mutation.kind}: {mutation.says}",
        fate=fate,
        by=by,
        evidence=evidence,
        seconds=time.perf_counter() - started,
    )
