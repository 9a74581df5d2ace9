"""A log, and what it comes to.  The function that people call.

    from tightrope.deeds.explain import explain

    explanation = explain(data, "qemu.log")

Rules: the log is what is believed.  A rehearsal says where an address lies and what would fall just
so; it never says that this is what happened.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope import corpse
from tightrope.deeds.explain import alone, beside, mistakes
from tightrope.deeds.explain.beside import Located, Rehearsed
from tightrope.machine.port import Progress, no_progress
from tightrope.memory import PAGE_SIZE
from tightrope.model import Buffer, Outcome, Verdict
from tightrope.model.corpse import (
    Candidate,
    Ending,
    Explanation,
    LogKind,
    Phase,
    Raised,
    Remains,
)
from tightrope.x86.walk import Refused

MOST = 40
"""Mistakes that are rehearsed."""
ENOUGH = 4
"""Mistakes that fall just so, after which the house's own sabotages are not tried."""


def explain(
    data: Buffer,
    source: str,
    *,
    rehearsed: Rehearsed | None = None,
    progress: Progress = no_progress,
) -> Explanation:
    """What a log says, and what would leave such a log."""
    remains = corpse.read(data)
    last = alone.settled(remains[-1], remains[:-1]) if remains else None
    phase, step = (Phase.UNKNOWN, None) if last is None else alone.phase(last)
    there = None
    first = last.raised[0] if last and last.raised else None
    if first is not None and rehearsed is not None:
        there = beside.located(first, rehearsed)
    if there is not None:
        phase, step = there.phase, there.step
    before = () if last is None else remains[:-1]
    candidates: list[Candidate] = []
    limits = list(_limits(data, source, last, first, there, rehearsed))
    if there is not None and first is not None and rehearsed is not None:
        candidates += _beside(first, there, rehearsed, progress)
    if not any(each.rehearsed for each in candidates):
        candidates += alone.candidates(last, before) if len(data) else alone.silence()
    if rehearsed is not None and first is None and last is not None:
        candidates = [_weighed(each, rehearsed.verdict) for each in candidates]
    return Explanation(
        source=source,
        size=len(data),
        remains=remains if last is None else (*remains[:-1], last),
        phase=phase,
        step=step,
        place=there.place if there else None,
        instruction=there.instruction if there else None,
        entry=_entry(first, there, rehearsed),
        candidates=tuple(sorted(candidates, key=_rank)),
        compared_with=None if rehearsed is None else _name(rehearsed.verdict),
        limits=tuple(limits),
    )


def _rank(each: Candidate) -> tuple[int, int]:
    """The rehearsed ones that fall just so first, those that do not last."""
    order = {True: 0, None: 1, False: 2}[each.rehearsed]
    return order, len(each.speaks_against) - len(each.speaks_for)


def _name(verdict: Verdict) -> str:
    intent = verdict.handover.intent
    return f"{intent.image.source} from {verdict.handover.host.source}, {verdict.handover.design}"


def _beside(
    raised: Raised, there: Located, rehearsed: Rehearsed, progress: Progress
) -> Iterator[Candidate]:
    """Mistakes rehearsed, and what registers say."""
    odd = tuple(beside.differences(raised, there, rehearsed))
    tried: list[mistakes.Mistake] = [
        *mistakes.entries(raised, there, rehearsed),
        *mistakes.words_of_the_list(raised, there, rehearsed),
    ]
    fitting = 0
    for number, each in enumerate(tried[:MOST]):
        progress("rehearse a mistake", number, len(tried))
        made = mistakes.rehearse(each, raised, there, rehearsed)
        fitting += bool(made.rehearsed)
        yield made
    if not fitting:
        rest = list(mistakes.known(there, rehearsed))[:MOST]
        for number, each in enumerate(rest):
            progress("rehearse a mistake", number, len(rest))
            made = mistakes.rehearse(each, raised, there, rehearsed)
            if made.rehearsed:
                yield made
    if (code := mistakes.damaged(there, raised, rehearsed)) is not None:
        yield code
    if odd:
        yield Candidate(cause="a register was not what the walk had given it", speaks_for=odd)


def _entry(raised: Raised | None, there: Located | None, rehearsed: Rehearsed | None) -> str | None:
    """The table entry that a page fault is about, as the sound tables have it."""
    if raised is None or raised.address is None or there is None or rehearsed is None:
        return None
    found = beside.in_use(raised, there, rehearsed)
    if found is None:
        return f"CR3 {raised.registers['cr3']:#x} is the root of no tables of this handover"
    name, tables = found
    virt = raised.address + (
        there.shift if there.rip % PAGE_SIZE == raised.address % PAGE_SIZE else 0
    )
    got = beside.looked_up(raised, virt, tables, rehearsed)
    visit = got.visits[-1] if got.visits else None
    if isinstance(got, Refused):
        return f"{name}, as it was built, does not let it either: {got.reason}"
    where = f" ({visit.level} entry {visit.entry:#x} at {visit.at:#x})" if visit else ""
    return f"{name}, as it was built, leads {virt:#x} to {got.phys:#x}{where}: it was another"


def _limits(
    data: Buffer,
    source: str,
    last: Remains | None,
    raised: Raised | None,
    there: Located | None,
    rehearsed: Rehearsed | None,
) -> Iterator[str]:
    if last is None:
        yield (
            "The log has no byte."
            if not len(data)
            else "Nothing in it is known: it is none of the logs that are read here, or it says nothing of an end."
        )
    yield from alone.limits(last)
    if raised is None or last is None or last.ending is Ending.WENT_ON:
        return
    if rehearsed is None:
        yield "Give KERNEL, with --host and --from, to have its addresses compared with a rehearsal's."
    elif there is None and raised.rip is not None:
        yield (
            f"{raised.rip:#x} is no place of the rehearsal's: another kernel, another host, or it fell elsewhere"
            " than on the walk."
        )
    elif there is not None and there.shift:
        yield (
            "The control page was another frame than the rehearsal's: its place is known by the offset in the"
            " page alone, and no root of tables can be compared."
        )
    if last.kind is LogKind.QEMU:
        yield "QEMU's log has no memory: what an entry held can only be concluded."


def _weighed(each: Candidate, verdict: Verdict) -> Candidate:
    """What a rehearsal of the handover says of a cause that a silent log leaves open."""
    from dataclasses import replace

    walk = "on the walk" in each.cause
    line = verdict.handover.intent.command_line
    heard = any(word.startswith(("console=", "earlyprintk")) for word in line.split())
    if walk and verdict.outcome is Outcome.FALLS:
        found = verdict.findings[0]
        return replace(
            each,
            speaks_for=(*each.speaks_for, f"the rehearsal falls: {found.message} ({found.rule})"),
        )
    if walk:
        return replace(each, speaks_against=(*each.speaks_against, "the rehearsal holds"))
    if "no console" in each.cause and "digest" not in each.cause:
        said = f"its command line is {line!r}"
        if heard:
            return replace(each, speaks_against=(*each.speaks_against, said))
        return replace(each, speaks_for=(*each.speaks_for, said))
    return each
