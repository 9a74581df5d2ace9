"""Several jumps: a row per hop, with what each kernel was handed, and what is wrong below.

Rules: the hops are done; what grows or goes is seen in the columns, and is a finding of the rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

from tightrope.model import Loader, Outcome, Plan
from tightrope.model.entered import Entered
from tightrope.model.hops import Hop, Hops
from tightrope.model.sheet import Column, Line, Pairs, Section, Sheet, Span, Table, Text, Tone
from tightrope.views import rules, words
from tightrope.views.view import View

EVIDENCE = 16


def sheet(hops: Hops) -> Sheet:
    """The table, each finding, and what every hop was asked."""
    rows = tuple(_row(hop) for hop in hops.made)
    heads = ("hop", "from", "verdict", "rows", "RAM", "setup_data", "RSDP", "EFI", "line")
    widths = [max(map(len, cells)) for cells in zip(heads, *rows, strict=True)]
    table = Table(
        columns=tuple(
            Column(heads=(head,), width=width) for head, width in zip(heads, widths, strict=True)
        ),
        rows=rows,
    )
    below = (
        Line(f"Walked: each old kernel's own relocation code; {_whose(hops)}."),
        Line(
            "Of what a kernel makes of its world, what boot_params says is followed from hop to hop, and"
            " where it was loaded."
        ),
    )
    asked = rules.asked(*(each.verdict.asked for each in hops.made))
    return Sheet(
        (*_findings(hops), Section(None, (table, *below)), *asked), headline=headline(hops)
    )


def headline(hops: Hops) -> Text:
    """The answer in one line."""
    last = hops.made[-1]
    held = sum(each.verdict.outcome is Outcome.HOLDS for each in hops.made)
    if held == hops.asked:
        return (
            Span("It holds", Tone.GOOD),
            f" for {words.count(held, 'hop')}, each kernel by its own code: nothing that is handed on grows"
            " or gets lost",
        )
    found = last.verdict.findings
    if last.verdict.outcome is Outcome.FALLS and found:
        return (
            Span("It falls", Tone.WORST),
            f" at hop {last.number} of {hops.asked}: {found[0].message} ({found[0].rule})",
        )
    return (
        Span("No verdict", Tone.HEAD),
        f" behind hop {last.number} of {hops.asked}: what it hands over is not Linux's boot_params",
    )


def _whose(hops: Hops) -> str:
    intent = hops.made[0].verdict.handover.intent
    loaded = intent.loaded if isinstance(intent, Plan) else None
    if loaded is None:
        return "segments are ours"
    asked = "kexec" if loaded.loader is Loader.KEXEC_TOOLS else "kexec_file_load"
    return f"segments are those of {asked}, asked anew at each hop"


def _row(hop: Hop) -> tuple[str, ...]:
    told = hop.entered
    name = hop.old.rsplit("/", 1)[-1].removeprefix("vmlinuz-")
    first = (str(hop.number), name, hop.verdict.outcome.value)
    if told is None:
        return (*first, "", "", "", "", "", "")
    kinds = " ".join(str(kind) for kind, _ in told.setup_data)
    return (
        *first,
        str(len(told.rows)),
        words.size(told.ram),
        kinds or "none",
        f"{told.rsdp:#x}" if told.rsdp else "none",
        "yes" if any(told.efi) else "none",
        str(len(told.command_line)),
    )


def _findings(hops: Hops) -> Iterator[Section]:
    for hop in hops.made:
        for finding in hop.verdict.findings:
            yield Section(
                (
                    Span(f"hop {hop.number}", Tone.WORST),
                    f"  [{finding.rule}] {finding.message}",
                ),
                (
                    Pairs(
                        rows=(*finding.evidence.items(), ("mend", finding.mend)),
                        names=EVIDENCE,
                        indent=2,
                    ),
                ),
            )


class NodeFacts(TypedDict):
    type: int
    bytes: int


class EnteredFacts(TypedDict):
    rows: int
    ram: int
    setup_data: list[NodeFacts]
    rsdp: int | None
    efi: bool
    command_line: str


class HopFindingFacts(TypedDict):
    rule: str
    step: int
    message: str


class HopFacts(TypedDict):
    hop: int
    old: str
    new: str
    by: str | None
    outcome: str
    findings: list[HopFindingFacts]
    entered: EnteredFacts | None


class HopsFacts(TypedDict):
    """Everything that `tightrope rehearse --hops N --json` prints."""

    asked: int
    hops: list[HopFacts]


def facts(hops: Hops) -> HopsFacts:
    """One object per hop."""
    return {"asked": hops.asked, "hops": [_hop(each) for each in hops.made]}


def _hop(hop: Hop) -> HopFacts:
    intent = hop.verdict.handover.intent
    loaded = intent.loaded if isinstance(intent, Plan) else None
    return {
        "hop": hop.number,
        "old": hop.old,
        "new": intent.image.source,
        "by": loaded.by if loaded else None,
        "outcome": hop.verdict.outcome.value,
        "findings": [
            {"rule": each.rule, "step": int(each.step), "message": each.message}
            for each in hop.verdict.findings
        ],
        "entered": None if hop.entered is None else _entered(hop.entered),
    }


def _entered(told: Entered) -> EnteredFacts:
    return {
        "rows": len(told.rows),
        "ram": told.ram,
        "setup_data": [{"type": kind, "bytes": size} for kind, size in told.setup_data],
        "rsdp": told.rsdp or None,
        "efi": any(told.efi),
        "command_line": told.command_line.decode("utf-8", "backslashreplace"),
    }


VIEW = View(name="hops", version=1, shape=HopsFacts, sheet=sheet, facts=facts)
