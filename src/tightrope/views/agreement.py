"""What the machines agreed on.

Rules: every difference that nobody can explain is shown with the command that replays it; explained
ones are counted by their reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TypedDict

from tightrope.model.agreement import Agreement, Difference
from tightrope.model.sheet import Line, Pairs, Section, Sheet
from tightrope.views import words
from tightrope.views.view import View

NAMES = 10


def sheet(agreement: Agreement) -> Sheet:
    """The whole screen."""
    last = Line(_sentence(agreement))
    if not agreement.unexplained:
        return Sheet((Section(_title(agreement), (_machines(agreement), last)),))
    return Sheet(
        (
            Section(_title(agreement), (_machines(agreement),)),
            *(_difference(agreement, each) for each in agreement.unexplained),
            Section(None, (last,)),
        )
    )


def _title(agreement: Agreement) -> str:
    falls = agreement.cases - agreement.holds
    return (
        f"{words.count(agreement.cases, 'case')} of seed {agreement.seed} on"
        f" {words.machine(agreement.machines[0])}: {agreement.holds:,} hold, {falls:,} fall"
    )


def _machines(agreement: Agreement) -> Pairs:
    return Pairs(rows=tuple(_counts(agreement)), names=NAMES, indent=2)


def _counts(agreement: Agreement) -> Iterator[tuple[str, str]]:
    for machine, count in agreement.compared.items():
        yield machine, f"walked {count:,} of them"
        for (whose, reason), times in agreement.could_not.items():
            if whose == machine:
                yield "", f"could not walk {times:,}: {reason}"
    known = Counter((each.machine, each.explained) for each in agreement.differences)
    for (machine, why), times in sorted(known.items(), key=str):
        if why is not None:
            yield machine, f"differs {times:,} times, explained: {why}"


def _difference(agreement: Agreement, each: Difference) -> Section:
    rows = (
        (agreement.machines[0], each.was),
        (each.machine, each.got),
        ("replay", replay(agreement, each)),
    )
    return Section(
        f"case {each.number} ({each.says}): {each.what}",
        (Pairs(rows=rows, names=NAMES, indent=4),),
    )


def _sentence(agreement: Agreement) -> str:
    if agreement.unexplained:
        return f"They do not agree: {words.count(len(agreement.unexplained), 'difference')}."
    if not any(agreement.compared.values()):
        return "No other machine walked a case: nothing was compared."
    return "They agree."


def replay(agreement: Agreement, difference: Difference) -> str:
    """The command that shows one case again."""
    on = f"{agreement.machines[0]},{difference.machine}"
    return f"tightrope agree --seed {agreement.seed} --only {difference.number} --on {on}"


class CouldNotFacts(TypedDict):
    machine: str
    reason: str
    cases: int


class DifferenceFacts(TypedDict):
    number: int
    says: str
    machine: str
    what: str
    was: str
    got: str
    explained: str | None
    replay: str


class AgreementFacts(TypedDict):
    """Everything that `tightrope agree --json` prints."""

    seed: int
    cases: int
    holds: int
    machines: list[str]
    compared: dict[str, int]
    could_not: list[CouldNotFacts]
    differences: list[DifferenceFacts]


def facts(agreement: Agreement) -> AgreementFacts:
    """The same as plain data."""
    return {
        "seed": agreement.seed,
        "cases": agreement.cases,
        "holds": agreement.holds,
        "machines": list(agreement.machines),
        "compared": dict(agreement.compared),
        "could_not": [
            {"machine": machine, "reason": reason, "cases": count}
            for (machine, reason), count in agreement.could_not.items()
        ],
        "differences": [
            {
                "number": each.number,
                "says": each.says,
                "machine": each.machine,
                "what": each.what,
                "was": each.was,
                "got": each.got,
                "explained": each.explained,
                "replay": replay(agreement, each),
            }
            for each in agreement.differences
        ],
    }


VIEW = View(name="agree", version=1, shape=AgreementFacts, sheet=sheet, facts=facts)
