"""One image under one contract: does it do what it should, and if not, what is the first thing
wrong?

Rules: obligations are decided in the order of the walk and the first failure is the answer; what
comes after it may only follow from it.  Code that the model does not know is refused, which is an
answer of its own: nothing was proved, and nothing was found wrong.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from tightrope.model.proof import Answer
from tightrope.prove.goal import Limits
from tightrope.prove.isa.semantics import Refused
from tightrope.prove.routine.contract import Contract
from tightrope.prove.routine.cutpoints import Walked, Walker
from tightrope.prove.routine.decide import Failure, Known, failures, feasible


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """`failure` where it FAILS; `refused` says what the model does not know, and then UNDECIDED."""

    answer: Answer
    obligations: int
    seconds: float
    failure: Failure | None = None
    refused: str = ""
    walked: Walked | None = None


def verify(
    image: bytes, contract: Contract, limits: Limits, *, known: Known | None = None
) -> Verified:
    """Walk an image and decide what it has to meet."""
    started = time.perf_counter()
    deadline = started + limits.seconds
    known = Known() if known is None else known
    walker = Walker(contract, image)
    count = 0

    def verdict(answer: Answer, failure: Failure | None = None, refused: str = "") -> Verified:
        return Verified(
            answer=answer,
            obligations=count,
            seconds=time.perf_counter() - started,
            failure=failure,
            refused=refused,
            walked=walker.walked,
        )

    try:
        for segment in walker.segments():
            count += len(segment.obligations)
            if not feasible(segment):
                return verdict(Answer.UNDECIDED, refused="the hypotheses cannot hold together")
            for failure in failures(segment, deadline=deadline, known=known):
                return verdict(Answer.FAILS if failure.model else Answer.UNDECIDED, failure)
    except Refused as err:
        return verdict(Answer.UNDECIDED, refused=str(err))
    if walker.walked is None:
        return verdict(Answer.UNDECIDED, refused="it has no loop over a list")
    return verdict(Answer.HOLDS)


def in_window(image: bytes, contract: Contract, limits: Limits) -> tuple[Verified, frozenset[int]]:
    """What has to hold in the fault window, and the offsets of the instructions in it.

    Raises Refused where the model cannot follow.
    """
    started = time.perf_counter()
    walker = Walker(contract, image)
    segments = [
        replace(segment, obligations=tuple(each for each in segment.obligations if each.in_window))
        for segment in walker.segments()
    ]
    failure = next(
        (
            failure
            for segment in segments
            for failure in failures(segment, deadline=started + limits.seconds)
        ),
        None,
    )
    answer = Answer.HOLDS
    if failure is not None:
        answer = Answer.FAILS if failure.model else Answer.UNDECIDED
    return (
        Verified(
            answer=answer,
            obligations=sum(len(segment.obligations) for segment in segments),
            seconds=time.perf_counter() - started,
            failure=failure,
        ),
        walker.window,
    )
