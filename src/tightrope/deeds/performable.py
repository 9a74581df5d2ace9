"""What a rehearsal leaves behind for `perform`: the load that held, as bytes, and when there is none.

Rules: only what was rehearsed whole and held is written; no file is opened here.
"""

from __future__ import annotations

from tightrope.errors import BadInput
from tightrope.model import Outcome, Verdict, XenInterface
from tightrope.perform import load_file
from tightrope.sabotage import Sabotage

TAKEN = XenInterface.V2
"""The only way of jumping that `perform` takes from a file."""


def refuse(*, xen: str | None, sabotage: Sabotage | None) -> None:
    """Raise BadInput for what no way of performing takes, before anything is rehearsed."""
    if xen != TAKEN.value:
        raise BadInput(f"only what goes by --xen {TAKEN.value} can be written", source="--write")
    if sabotage is not None:
        raise BadInput("what is sabotaged is not to be performed", source="--write")


def load(verdict: Verdict) -> bytes | None:
    """The load file of a verdict that holds, None of any other."""
    if verdict.outcome is not Outcome.HOLDS:
        return None
    return load_file.write(load_file.of(verdict.handover.plan, verdict.outcome.value))
