"""What a rule is: a function over a case, with what a reader of its findings should know.

    @rule("list-ends", Step.COPY, says="The page list can be ...", source="Linux kernel/kexec_core.c",
          mend="chain the pages with ...")
    def list_ends(case: Case) -> Iterator[Found]:
        yield finding("the page list cannot be followed ...")

Rules: an id never changes, because scripts match on it; `says` is one sentence that must hold,
`source` the thread or the manual that says so, `mend` what mends it, whichever way it was broken:
a finding has words of its own where it knows more.  A function yields what it found and never
names its own rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType

from tightrope.check.case import Case
from tightrope.memory import Extent
from tightrope.model import Criterion, Finding, Promise, Sight, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a rule's function yields: a finding that does not know its rule yet."""

    message: str
    evidence: Mapping[str, str]
    mend: str | None
    """What would mend it, None for what mends the rule."""
    step: Step | None
    """Where it belongs, None for the rule's own step."""
    advice: bool
    """It is said, and nothing falls by it."""
    at: Extent | None = None
    """The memory that it is about, see `Finding`."""


def finding(
    message: str,
    *,
    mend: str | None = None,
    evidence: Mapping[str, str] | None = None,
    step: Step | None = None,
    at: Extent | None = None,
) -> Found:
    """What is wrong, what was seen (label to text), and what mends it where the rule's own words
    are too general."""
    seen = dict(evidence or {})
    return Found(message=message, evidence=seen, mend=mend, step=step, advice=False, at=at)


def advice(
    message: str, *, mend: str | None = None, evidence: Mapping[str, str] | None = None
) -> Found:
    """What may go wrong, where nobody can tell that it will."""
    seen = dict(evidence or {})
    return Found(message=message, evidence=seen, mend=mend, step=None, advice=True)


Search = Callable[[Case], Iterator[Found]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`says` is a sentence; `source` says who says so; `mend` what mends it; `step` is where it
    belongs.

    `needs` is what a machine has to have observed for an answer; registers and memory at the end,
    and the handover, are always there.  With a `promise` it binds relocation code whose contract
    gives that; of other code what it finds is advice where it is `weak` without, and nothing
    otherwise.
    """

    id: str
    step: Step
    says: str
    source: str
    mend: str
    search: Search
    needs: frozenset[Sight] = frozenset()
    promise: Promise | None = None
    weak: bool = False

    def criterion(self, breakages: tuple[str, ...] = ()) -> Criterion:
        """The rule as a value for reports; `breakages` are the sabotages that break it first."""
        return Criterion(
            rule=self.id,
            step=self.step,
            says=self.says,
            source=self.source,
            mend=self.mend,
            breakages=breakages,
        )

    def check(self, case: Case) -> Iterator[Finding]:
        """Every finding of this rule; none where nobody promised what it asks."""
        promised = self.promise is None or self.promise in case.contract.promises
        if not promised and not self.weak:
            return iter(())
        return map(partial(self._finding, not promised), self.search(case))

    def _finding(self, weak: bool, found: Found) -> Finding:
        return Finding(
            rule=self.id,
            step=self.step if found.step is None else found.step,
            message=found.message,
            evidence=found.evidence,
            mend=self.mend if found.mend is None else found.mend,
            advice=found.advice or weak,
            at=found.at,
        )


def rule(
    id: str,
    step: Step,
    *,
    says: str,
    source: str,
    mend: str,
    needs: Iterable[Sight] = (),
    promise: Promise | None = None,
    weak: bool = False,
) -> Callable[[Search], Rule]:
    """Make a rule of the function below."""

    def made(search: Search) -> Rule:
        return Rule(
            id=id,
            step=step,
            says=says,
            source=source,
            mend=mend,
            search=search,
            needs=frozenset(needs),
            promise=promise,
            weak=weak,
        )

    return made


def rules_of(*modules: ModuleType) -> tuple[Rule, ...]:
    """The rules that modules define, as they stand there."""
    return tuple(
        each for module in modules for each in vars(module).values() if isinstance(each, Rule)
    )
