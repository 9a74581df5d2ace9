"""What the checks found, and the answer of a rehearsal.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tightrope.memory import Extent
    from tightrope.model.blackout import Blackout
    from tightrope.model.handover import Handover
    from tightrope.model.host import Fact
    from tightrope.model.image import Contents
    from tightrope.model.run import Console, Run
    from tightrope.model.walk import Step


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that a check found wrong, at the step of the walk where it belongs."""

    rule: str
    step: Step
    message: str
    evidence: Mapping[str, str]
    mend: str
    advice: bool = False
    """Nothing falls by it: a weakness of code whose contract does not promise better, or what may
    go wrong."""
    at: Extent | None = None
    """The physical memory that it is about: the smallest extent that has all of it; None where it
    is not about memory, or where the rule does not say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Criterion:
    """What is asked of every rehearsal: a sentence that must hold, at a step, and who says so."""

    rule: str
    step: Step
    says: str
    source: str
    mend: str
    """What mends it, whichever way it was broken; a finding may know more."""
    breakages: tuple[str, ...] = ()
    """Sabotages of the shipped kernel that break it first."""


class Outcome(StrEnum):
    """The three verdicts."""

    HOLDS = "holds"
    FALLS = "falls"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The answer of a rehearsal, with everything that a report needs."""

    outcome: Outcome
    handover: Handover
    run: Run
    findings: tuple[Finding, ...]
    advice: tuple[Finding, ...] = ()
    """What is weak and did not make it fall."""
    asked: tuple[Criterion, ...]
    """Every rule that was asked, found or not."""
    unasked: Mapping[str, str] = field(default_factory=dict)
    """Each rule that this machine could not answer, and why."""
    contents: tuple[Contents, ...] = ()
    """What was unpacked beside the walk: the payload, the initrd."""
    console: Console | None
    blackout: Blackout | None = None
    """What the jump costs, by what was seen of it; None where there is no plan."""
    seconds: Mapping[str, float]
    """Wall time of each stage."""

    @property
    def rules(self) -> tuple[str, ...]:
        """The ids of the rules that were asked."""
        return tuple(each.rule for each in self.asked)

    @property
    def assumed(self) -> tuple[Fact, ...]:
        """What of the host nothing told: the verdict is good if it is so."""
        return self.handover.host.assumed()


@dataclass(frozen=True, kw_only=True, slots=True)
class Breakage:
    """What a sabotage breaks, and the rule and the step at which that is found."""

    name: str
    says: str
    rule: str
    step: Step
