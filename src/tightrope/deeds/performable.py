"""What a rehearsal leaves behind for `perform`: the load that held, as bytes, and when there is
none.

Rules: only what was rehearsed whole and held is written; no file is opened here.
"""

from __future__ import annotations

from typing import assert_never

from tightrope.errors import BadInput
from tightrope.model import Bare, Outcome, Plan, Verdict, XenCompat, XenInterface, XenV1, XenV2
from tightrope.perform import load_file
from tightrope.perform.load_file import NOTHING, Load, LoadSegment, Taker, ordered
from tightrope.sabotage import Sabotage


def refuse(*, xen: str | None, sabotage: Sabotage | None) -> None:
    """Raise BadInput for what no way of performing takes, before anything is rehearsed."""
    if xen == XenInterface.V1.value:
        raise BadInput("a plan for --xen v1 cannot be written", source="--write")
    if sabotage is not None:
        raise BadInput(
            "a sabotaged plan is not written: it must never be performed", source="--write"
        )


def of(plan: Plan, rehearsed: str) -> Load:
    """What a plan hands to whoever takes it.  Raises BadInput for Xen's v1, which takes no
    segments."""
    segments = [*ordered(plan.segments)]
    match plan.through:
        case Bare():
            legacy, taker = not plan.paging.long_mode, Taker.LINUX
        case XenV2():
            segments += [
                LoadSegment(destination=each.extent, data=NOTHING) for each in plan.through.mapped
            ]
            legacy, taker = plan.through.legacy_exit, Taker.XEN
        case XenV1() | XenCompat():
            raise BadInput("a plan for --xen v1 cannot be written", source="--write")
        case _:
            assert_never(plan.through)
    return Load(
        segments=tuple(sorted(segments, key=lambda each: each.destination.start)),
        entry=int(plan.entry),
        legacy=legacy,
        crash=plan.crash,
        rehearsed=rehearsed,
        taker=taker,
    )


def load(verdict: Verdict) -> bytes | None:
    """The load file of a verdict that holds, None of any other."""
    if verdict.outcome is not Outcome.HOLDS:
        return None
    return load_file.write(of(verdict.handover.plan, verdict.outcome.value))
