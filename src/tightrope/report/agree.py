"""What the machines agreed on, as text and as a document.

Rules: every difference that nobody can explain is printed with the command that replays it; explained
ones are counted by their reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tightrope.model.agreement import Agreement, Difference
from tightrope.report import words


def text(agreement: Agreement) -> str:
    """The whole screen."""
    return "\n".join(_lines(agreement))


def _lines(agreement: Agreement) -> Iterator[str]:
    first = agreement.machines[0]
    falls = agreement.cases - agreement.holds
    yield (
        f"{words.count(agreement.cases, 'case')} of seed {agreement.seed} on the {first}:"
        f" {agreement.holds:,} hold, {falls:,} fall"
    )
    for machine, count in agreement.compared.items():
        yield f"  {machine:<10} walked {count:,} of them"
        for (whose, reason), times in agreement.could_not.items():
            if whose == machine:
                yield f"  {'':<10} could not walk {times:,}: {reason}"
    known = Counter((each.machine, each.explained) for each in agreement.differences)
    for (machine, why), times in sorted(known.items(), key=str):
        if why is not None:
            yield f"  {machine:<10} differs {times:,} times, explained: {why}"
    for each in agreement.unexplained:
        yield ""
        yield f"case {each.number} ({each.says}): {each.what}"
        yield f"    {first:<10} {each.was}"
        yield f"    {each.machine:<10} {each.got}"
        yield f"    replay     {replay(agreement, each)}"
    if agreement.unexplained:
        yield ""
        yield f"They do not agree: {words.count(len(agreement.unexplained), 'difference')}."
    elif not any(agreement.compared.values()):
        yield "No other machine walked a case: nothing was compared."
    else:
        yield "They agree."


def replay(agreement: Agreement, difference: Difference) -> str:
    """The command that shows one case again."""
    on = f"{agreement.machines[0]},{difference.machine}"
    return f"tightrope agree --seed {agreement.seed} --only {difference.number} --on {on}"


def document(agreement: Agreement) -> dict[str, object]:
    """Everything that `tightrope agree --json` prints."""
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
