"""All rules, and asking them.

Rules: findings come sorted by the step of the walk.  Within a step what is wrong in memory comes
before the exception that it caused, so that the first finding is the one to mend.
"""

from __future__ import annotations

from tightrope.check import copying, entry, faults, ownership, switching, tables
from tightrope.check.rule import Case, Rule
from tightrope.model import Finding, Handover, Run

RULES: tuple[Rule, ...] = (
    *tables.RULES,
    *switching.RULES,
    *ownership.EVIDENCE_RULES,
    *copying.RULES,
    *ownership.RULES,
    *entry.RULES,
    *faults.RULES,
)


def check(handover: Handover, run: Run) -> tuple[Finding, ...]:
    """Every finding of every rule, the one to mend first."""
    case = Case(handover, run)
    found = [finding for rule in RULES for finding in rule.check(case)]
    return tuple(sorted(found, key=lambda finding: finding.step))
