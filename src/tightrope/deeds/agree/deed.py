"""All cases on all machines.

Rules: machines are the caller's, and stay the caller's to close.  A machine that cannot be an old
kernel, or gives up, is counted with its reason; it neither agrees nor disagrees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tightrope import check
from tightrope.deeds.agree.cases import Case, make
from tightrope.deeds.agree.difference import Told, compare
from tightrope.deeds.agree.known import Seen, explained
from tightrope.errors import CannotBe, MachineError, MissingPart
from tightrope.machine.port import Machine, Progress, no_progress
from tightrope.model import Handover, Run
from tightrope.model.agreement import Agreement, Difference
from tightrope.observe.physical import Ram


def agree(
    machines: Sequence[Machine],
    *,
    seed: int,
    numbers: Iterable[int],
    total: int = 0,
    progress: Progress = no_progress,
) -> Agreement:
    """Walk the cases of a seed on each machine and compare them with the first.

    Raises CannotBe, MissingPart or MachineError where the first machine itself cannot walk a case.
    """
    first, *others = machines
    could_not: Counter[tuple[str, str]] = Counter()
    compared = Counter({each.name: 0 for each in others})
    differences: list[Difference] = []
    holds = done = 0
    for number in numbers:
        progress("cases", done, total)
        case = make(seed, number)
        one = _walk(first, case)
        holds += not one.findings
        for machine in others:
            try:
                other = _walk(machine, case)
            except (CannotBe, MissingPart, MachineError) as err:
                could_not[machine.name, str(err)] += 1
                continue
            compared[machine.name] += 1
            differences += explain_all(
                case.handover, one, other, machine=machine.name, number=number, says=case.says
            )
            _forget(other.run)
        _forget(one.run)
        done += 1
    return Agreement(
        seed=seed,
        cases=done,
        machines=tuple(each.name for each in machines),
        compared=compared,
        holds=holds,
        could_not=could_not,
        differences=tuple(differences),
    )


def _walk(machine: Machine, case: Case) -> Told:
    run = machine.run(case.handover)
    return Told(run=run, findings=check.check(case.handover, run))


def _forget(run: Run) -> None:
    """The next case finds memory as a machine that was just turned on has it."""
    if isinstance(run.memory, Ram):
        run.memory.clear()


def explain_all(
    handover: Handover, one: Told, other: Told, *, machine: str, number: int = 0, says: str = ""
) -> list[Difference]:
    """Every difference between two runs of a handover, `other` on `machine`, with what explains
    it."""
    out = []
    for what, was, got, at in compare(one, other):
        seen = Seen(handover, one, other, what, at)
        out.append(
            Difference(
                number=number,
                says=says,
                machine=machine,
                what=what,
                was=was,
                got=got,
                at=at,
                explained=explained(seen, machine),
            )
        )
    return out
