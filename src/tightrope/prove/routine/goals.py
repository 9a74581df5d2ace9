"""Theorem 5 as goals and mutants; and the same question about somebody else's code.

Rules: this file is where theorem 5 meets the command line: words, limits, answers.  z3 is imported
by the modules that it imports inside its functions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tightrope import routines
from tightrope.errors import BadInput
from tightrope.model import Paging
from tightrope.model.proof import Answer, Fate, Killed, Result
from tightrope.prove.goal import Goal, Limits, Mutant, Script, Undecided
from tightrope.prove.routine import stub_goals
from tightrope.prove.solver import solver_library, written

if TYPE_CHECKING:
    from tightrope.model import Participant
    from tightrope.participants.linux import Convention
    from tightrope.prove.routine.contract import Contract
    from tightrope.prove.routine.decide import Failure, Known
    from tightrope.prove.routine.foreign import Foreign
    from tightrope.prove.routine.mutations import Mutation
    from tightrope.prove.routine.verify import Verified

STATEMENT = (
    "the routine's bytes, for all V, P, lists and old TLBs: the prologue comes to the loop, each way"
    " round is one step of the list interpreter, IND_DONE enters the new kernel in the contract's"
    " state; nothing faults, nothing else is written"
)
WINDOW = (
    "from the instruction that gives up the old kernel's stack to the one that disarms its idt, and"
    " FRED, nothing can fault: no handler of the old kernel's runs on a stack that is not its own"
)
LINUX = "linux"
"""The contract of an old kernel's own code: its image says which."""
NEEDED = "each hypothesis about the plan and the old kernel is needed: without it the code fails"
BITS = {routines.RELOCATE_X86_64: 64, routines.RELOCATE_I386: 32}
MODES = {
    routines.RELOCATE_X86_64: (Paging.X86_64, Paging.LA57),
    routines.RELOCATE_I386: (Paging.I386, Paging.PAE),
}


def goals() -> Iterator[Goal]:
    """One goal per routine and mode, and one per routine on its hypotheses."""
    for name, modes in MODES.items():
        for mode in modes:
            yield Goal(
                theorem="code",
                name="relocation",
                statement=STATEMENT,
                decide=partial(_relocation, name, mode),
                mode=mode,
                smt=partial(_scripts, name, mode),
            )
    for name, modes in MODES.items():
        for mode in modes:
            yield Goal(
                theorem="code",
                name="fault-window",
                statement=WINDOW,
                decide=partial(_fault_window, name, mode),
                mode=mode,
            )
    yield from stub_goals.goals()
    for name, modes in MODES.items():
        yield Goal(
            theorem="code",
            name="hypotheses",
            statement=NEEDED,
            decide=partial(_hypotheses, name),
            mode=modes[0],
        )


def _relocation(name: str, mode: Paging, limits: Limits) -> Result:
    solver_library()
    from tightrope.prove.routine.contract import Contract
    from tightrope.prove.routine.verify import verify

    contract = Contract(BITS[name], mode)
    return _result(contract, verify(routines.read(name).data, contract, limits))


def _fault_window(name: str, mode: Paging, limits: Limits) -> Result:
    solver_library()
    from tightrope.prove.routine.contract import Contract
    from tightrope.prove.routine.verify import in_window

    contract = Contract(BITS[name], mode)
    got, window = in_window(routines.read(name).data, contract, limits)
    result = _result(contract, got)
    if got.answer is not Answer.HOLDS:
        return result
    span = f", instructions {min(window):#x} to {max(window):#x}" if window else ""
    return replace(result, detail=result.detail + span)


def _scripts(name: str, mode: Paging) -> Iterator[Script]:
    """The obligations between two cutpoints in one formula: hypotheses, and one of them broken."""
    z3 = solver_library()
    from tightrope.prove.routine.contract import Contract
    from tightrope.prove.routine.cutpoints import Walker

    walker = Walker(Contract(BITS[name], mode), routines.read(name).data)
    for number, segment in enumerate(walker.segments(), 1):
        broken = [z3.And(*each.path, z3.Not(each.formula)) for each in segment.obligations]
        formulas = [*segment.hypotheses, z3.Or(*broken)]
        yield written(f"code-{mode.value}-{number}", formulas, logic="QF_AUFBV")


def _result(contract: Contract, got: Verified) -> Result:
    """A verified image as the answer to a goal."""
    counterexample = None
    detail = f"{got.obligations} obligations"
    explained = None
    if got.refused:
        detail = f"the model refuses it: {got.refused}"
    elif got.failure is not None:
        detail = got.failure.obligation.says
        if got.failure.model is not None:
            from tightrope.prove.routine.counterexample import concrete
            from tightrope.prove.routine.source_lines import Lines
            from tightrope.prove.routine.told import told

            found = concrete(contract, got.failure)
            counterexample, explained = found.printed(), told(got.failure, found, Lines(), "")
    return Result(
        answer=got.answer,
        how="z3",
        cases=None,
        seconds=got.seconds,
        counterexample=counterexample,
        detail=detail,
        told=explained,
    )


def _hypotheses(name: str, limits: Limits) -> Result:
    """Drop each hypothesis; every time some obligation must fail.  The walk itself uses none."""
    solver_library()
    from tightrope.prove.routine.contract import Contract
    from tightrope.prove.routine.cutpoints import Walker
    from tightrope.prove.routine.decide import failures

    deadline = time.perf_counter() + limits.seconds
    contract = Contract(BITS[name], None)
    segments = list(Walker(contract, routines.read(name).data).segments())
    at = next(each.list_state for each in segments if each.list_state is not None)
    every = [*contract.hypotheses, *contract.list_hypotheses(at)]
    spare = []
    for number, hypothesis in enumerate(every):
        limits.progress(f"without {hypothesis.name}", number, len(every))
        for segment in segments:
            left = tuple(h for h in segment.hypotheses if not h.eq(hypothesis.formula))
            failed = next(failures(replace(segment, hypotheses=left), deadline=deadline), None)
            if failed is not None and failed.model is None:
                raise Undecided(f"without {hypothesis.name}")
            if failed is not None:
                break
        else:
            spare.append(hypothesis.name)
    return Result(
        answer=Answer.FAILS if spare else Answer.HOLDS,
        how="z3",
        cases=len(every),
        counterexample={"not needed": ", ".join(spare)} if spare else None,
    )


# ------------------------------------------------------------------------------------- mutants


@dataclass(slots=True)
class Original:
    """A shipped routine, verified once: what its mutants are compared with."""

    contract: Contract
    verified: Verified
    known: Known


@lru_cache(maxsize=2)
def _original(name: str) -> Original:
    solver_library()
    from tightrope.prove.routine.contract import Contract
    from tightrope.prove.routine.decide import Known
    from tightrope.prove.routine.verify import verify

    contract, known = Contract(BITS[name], None), Known()
    data = routines.read(name).data
    return Original(contract, verify(data, contract, Limits(), known=known), known)


def mutants() -> Iterator[Mutant]:
    """Every mutation of both routines, and of the entry stubs."""
    from tightrope.prove.routine.mutations import mutations

    for name, bits in BITS.items():
        code = routines.read(name)
        for mutation in mutations(code.data, code.symbols["gdt"], bits):
            yield Mutant(
                subject=name,
                name=f"{mutation.kind} at {mutation.at.offset:#x}: {mutation.says}",
                says=f"{mutation.kind}: {mutation.says}",
                kill=partial(kill, name, mutation),
            )
    yield from stub_goals.mutants()


def kill(name: str, mutation: Mutation, limits: Limits) -> Killed:
    """The fate of one mutation of a shipped routine."""
    from tightrope.prove.routine.equivalence import equivalent
    from tightrope.prove.routine.verify import verify

    original = _original(name)
    got = verify(mutation.data, original.contract, limits, known=original.known)
    fate, by, evidence = Fate.UNDECIDED, "", "not decided in time"
    if got.refused:
        fate, by, evidence = Fate.KILLED, "a refusal of the model", got.refused
    elif got.answer is Answer.FAILS and got.failure is not None:
        result = _result(original.contract, got)
        fate, by = Fate.KILLED, got.failure.segment.name
        keys = ("V", "P", "cr0", "cr4", "word of the list")
        shown = {k: v for k, v in (result.counterexample or {}).items() if k in keys}
        at = got.failure.obligation.at
        where = "" if at is None else f"at {at}: "
        evidence = f"{where}{result.detail}; " + ", ".join(f"{k} = {v}" for k, v in shown.items())
    elif got.answer is Answer.HOLDS:
        one, other = original.verified.walked, got.walked
        if one is not None and other is not None and (why := equivalent(one, other)):
            fate, by, evidence = Fate.EQUIVALENT, "comparison of states", why
        else:
            fate, evidence = Fate.SURVIVED, "the theorem holds of it, and its states differ"
    return Killed(
        subject=name,
        name=mutation.kind,
        says=f"{mutation.kind}: {mutation.says}",
        fate=fate,
        by=by,
        evidence=evidence,
        seconds=got.seconds,
    )


# ------------------------------------------------------------------------------- somebody else's


def foreign(path: Path, contract: str, mode: Paging | None) -> Iterator[Goal]:
    """The theorem about a file, in each mode that its code can be for.

    Raises BadInput for a contract that is none, or a file that holds no code.
    """
    from tightrope.prove.routine import foreign as files

    if contract == LINUX:
        yield from _linux(path, mode)
        return
    if contract not in files.CONTRACTS:
        known = ", ".join((*files.CONTRACTS, LINUX))
        raise BadInput(f"{contract!r} is not a contract; there are {known}", source="--contract")
    read = files.read(path, mode)
    for each in (mode,) if mode else tuple(Paging):
        bits = 64 if each.long_mode else 32
        if read.code.bits not in (None, bits):
            if mode:
                raise BadInput(
                    f"its code is {read.code.bits}-bit, and {mode.value} is not", source=str(path)
                )
            continue
        if read.code.bits is None and mode is None and bits == 32:
            continue
        yield Goal(
            theorem="code",
            name=path.name,
            statement=f"{path.name} keeps the contract {contract}",
            decide=partial(_foreign, read, each),
            mode=each,
        )


def _linux(path: Path, mode: Paging | None) -> Iterator[Goal]:
    """The theorem about an old kernel's own relocation code, in its image."""
    from tightrope.deeds import old_kernel
    from tightrope.participants.linux import Convention

    try:
        data = path.read_bytes()
    except OSError as err:
        raise BadInput(err.strerror or "cannot be read", source=str(path)) from err
    found = old_kernel.code_of(data, str(path))
    if not isinstance(found, old_kernel.OldKernel):
        raise BadInput(
            "is a hypervisor, and there is a proof for Linux's own code alone: rehearse --from walks it",
            source=str(path),
        )
    known = {Convention.LINUX_6: 64, Convention.LINUX_7: 64, Convention.LINUX_I386: 32}
    bits = known[found.found.convention]
    if mode is not None and mode.long_mode != (bits == 64):
        raise BadInput(f"its code is {bits}-bit, and {mode.value} is not", source=str(path))
    for each in (mode,) if mode else tuple(Paging):
        if each.long_mode != (bits == 64):
            continue
        yield Goal(
            theorem="code",
            name=path.name,
            statement=f"{found.participant.name}, as it lies in the image, for all V, P, lists and old"
            " TLBs, under what its C code has done before: it does what theorem 5 says of ours",
            decide=partial(_by_linux, found.found.convention, found.participant, each),
            mode=each,
        )


def _by_linux(
    convention: Convention, participant: Participant, mode: Paging, limits: Limits
) -> Result:
    solver_library()
    from tightrope.participants.linux import Convention
    from tightrope.prove.routine.linux import linux_7
    from tightrope.prove.routine.linux_6 import linux_6, linux_i386
    from tightrope.prove.routine.verify import verify

    code = participant.code.data
    if convention is Convention.LINUX_7:
        contract: Contract = linux_7(participant, mode)
    else:
        contract = linux_6(mode) if convention is Convention.LINUX_6 else linux_i386(mode)
        code = code[: participant.contract.same]
    return _result(contract, verify(code, contract, limits))


def _foreign(code: Foreign, mode: Paging, limits: Limits) -> Result:
    solver_library()
    from tightrope.prove.routine.contract import Contract
    from tightrope.prove.routine.verify import verify

    contract = Contract(64 if mode.long_mode else 32, mode)
    got = verify(code.code.data, contract, limits)
    result = _result(contract, got)
    if got.failure is None or got.failure.model is None:
        return result
    return _with_replay(contract, code, mode, got.failure, result)


def _with_replay(
    contract: Contract, code: Foreign, mode: Paging, failure: Failure, result: Result
) -> Result:
    """The counterexample of an example host, and what the emulator says to it."""
    from tightrope.deeds import machines
    from tightrope.prove.routine.counterexample import concrete
    from tightrope.prove.routine.foreign import misfit
    from tightrope.prove.routine.replay import Stage
    from tightrope.prove.routine.told import told

    with machines.opened("emulator") as machine:
        stage = Stage(mode, machine)
        found = concrete(contract, failure, stage.wishes())
        played = stage.replay(code.code.data, found)
    printed: dict[str, Any] = found.printed()
    explained = told(failure, found, code.lines, played.says)
    other = misfit(code.code.data, contract.bits)
    return replace(
        result,
        counterexample=printed,
        told={"contract": other, **explained} if other else explained,
    )
