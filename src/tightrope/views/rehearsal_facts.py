"""A verdict as plain facts.  `docs/json.md` documents them; a test holds both together.

Rules: addresses and sizes are numbers (bytes), names are strings, nothing is formatted for people.
"""

from __future__ import annotations

import resource
from typing import TypedDict

from tightrope.model import Finding, Sight, Step, Stop, Verdict
from tightrope.model.handover import Tables
from tightrope.views import blackout, host, plan, registers, segments, steps, words, xen


class StepFacts(TypedDict):
    number: int
    name: str
    ok: bool | None


class FindingFacts(TypedDict):
    rule: str
    step: int
    message: str
    evidence: dict[str, str]
    mend: str


class UnpackedFacts(TypedDict):
    what: str
    flaw: str | None
    untold: str | None


class StoppedFacts(TypedDict):
    why: str
    registers: registers.RegisterFacts


class TableFacts(TypedDict):
    root: int
    pages: list[int]


class WalkedPlanFacts(plan.PlanFacts):
    page_table_a: TableFacts
    page_table_b: TableFacts | None


class ConsoleFacts(TypedDict):
    lines: list[str]
    seconds: float
    stopped: str
    ending: str
    speaker: str
    rip: int | None
    exception: str | None


class StatFacts(TypedDict):
    machine: str
    blind: list[str]
    sees: list[str]
    instructions: int
    translations: int
    pages_copied: int
    pages_in_place: int
    bytes_copied: int
    seconds: dict[str, float]
    peak_memory: int


class RehearsalFacts(TypedDict):
    """Everything that `tightrope rehearse --json` prints."""

    verdict: str
    steps: list[StepFacts]
    findings: list[FindingFacts]
    facts: list[host.FactFacts]
    advice: list[FindingFacts]
    relocation_code: str | None
    segments: segments.SegmentsFacts
    rules: list[str]
    unasked: dict[str, str]
    unpacked: list[UnpackedFacts]
    entry: registers.RegisterFacts | None
    stopped: StoppedFacts
    plan: WalkedPlanFacts
    xen: xen.XenFacts | None
    console: ConsoleFacts | None
    blackout: blackout.BlackoutFacts | None
    stats: StatFacts


def facts(verdict: Verdict) -> RehearsalFacts:
    """The verdict, its findings, the plan with its tables, and what the run was like."""
    run, built = verdict.run, verdict.handover
    heard = verdict.console
    return {
        "verdict": verdict.outcome.value,
        "steps": [
            {
                "number": int(step),
                "name": words.step_name(step, built),
                "ok": steps.step_ok(verdict, step),
            }
            for step in Step
        ],
        "findings": [_finding(each) for each in verdict.findings],
        "facts": host.facts_of(verdict.handover.host),
        "advice": [_finding(each) for each in verdict.advice],
        "relocation_code": built.relocation_code.image,
        "segments": segments.facts(verdict),
        "rules": list(verdict.rules),
        "unasked": dict(verdict.unasked),
        "unpacked": [
            {"what": each.what, "flaw": each.flaw, "untold": each.untold}
            for each in verdict.contents
        ],
        "entry": registers.facts(run.registers) if run.stop is Stop.ENTRY else None,
        "stopped": {"why": run.stop.value, "registers": registers.facts(run.registers)},
        "plan": {
            **plan.facts(built.plan),
            "page_table_a": _tables(built.page_table_a),
            "page_table_b": None if built.page_table_b is None else _tables(built.page_table_b),
        },
        "xen": xen.facts(built),
        "console": None
        if heard is None
        else {
            "lines": list(heard.lines),
            "seconds": heard.seconds,
            "stopped": heard.stopped,
            "ending": heard.ending.value,
            "speaker": heard.speaker.value,
            "rip": heard.rip,
            "exception": heard.exception,
        },
        "blackout": None if verdict.blackout is None else blackout.facts(verdict.blackout),
        "stats": _stats(verdict),
    }


def _stats(verdict: Verdict) -> StatFacts:
    run = verdict.run
    copied = words.copied(run)
    return {
        "machine": run.machine,
        "blind": list(run.blind),
        "sees": [sight.value for sight in Sight if sight in run.sees],
        "instructions": run.instructions,
        "translations": len(run.translations),
        "pages_copied": len(copied),
        "pages_in_place": verdict.handover.intent.in_place,
        "bytes_copied": int(copied[:, 3].sum()),
        "seconds": dict(verdict.seconds),
        # Linux counts ru_maxrss in KiB (getrusage(2)).
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _tables(tables: Tables) -> TableFacts:
    return {"root": tables.root, "pages": sorted(tables.pages)}


def _finding(finding: Finding) -> FindingFacts:
    return {
        "rule": finding.rule,
        "step": int(finding.step),
        "message": finding.message,
        "evidence": dict(finding.evidence),
        "mend": finding.mend,
    }
