"""A verdict, or a plan, as one JSON object.  `docs/json.md` documents it; a test holds both together.

Rules: addresses and sizes are numbers (bytes), names are strings, nothing is formatted for people.
"""

from __future__ import annotations

import resource
from typing import Any

from tightrope.model import Finding, Plan, Registers, Sight, Step, Stop, Verdict
from tightrope.report import words, xen
from tightrope.report.terminal import step_ok

Document = dict[str, Any]


def verdict_document(verdict: Verdict) -> Document:
    """Everything that `tightrope rehearse --json` prints."""
    run, built = verdict.run, verdict.handover
    copied = words.copied(run)
    return {
        "verdict": verdict.outcome.value,
        "steps": [
            {
                "number": int(step),
                "name": words.step_name(step, built),
                "ok": step_ok(verdict, step),
            }
            for step in Step
        ],
        "findings": [_finding(each) for each in verdict.findings],
        "rules": list(verdict.rules),
        "unasked": dict(verdict.unasked),
        "unpacked": [
            {"what": each.what, "flaw": each.flaw, "untold": each.untold}
            for each in verdict.contents
        ],
        "entry": _registers(run.registers) if run.stop is Stop.ENTRY else None,
        "stopped": {"why": run.stop.value, "registers": _registers(run.registers)},
        "plan": plan_document(built.plan)
        | {
            "page_table_a": {
                "root": built.page_table_a.root,
                "pages": sorted(built.page_table_a.pages),
            },
            "page_table_b": built.page_table_b
            and {
                "root": built.page_table_b.root,
                "pages": sorted(built.page_table_b.pages),
            },
        },
        "xen": xen.document(built),
        "console": None
        if verdict.console is None
        else {
            "lines": list(verdict.console.lines),
            "seconds": verdict.console.seconds,
            "stopped": verdict.console.stopped,
        },
        "stats": {
            "machine": run.machine,
            "blind": list(run.blind),
            "sees": [sight.value for sight in Sight if sight in run.sees],
            "instructions": run.instructions,
            "translations": len(run.translations),
            "pages_copied": len(copied),
            "pages_in_place": built.intent.in_place,
            "bytes_copied": int(copied[:, 3].sum()),
            "seconds": dict(verdict.seconds),
            "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        },
    }


def plan_document(plan: Plan) -> Document:
    """Everything that `tightrope plan --json` prints."""
    return {
        "image": plan.image.source,
        "host": plan.host.source,
        "crash": plan.crash,
        "segments": [
            {
                "name": segment.name,
                "start": segment.destination.start,
                "size": segment.destination.size,
                "data": len(segment.data),
                "why": segment.why,
            }
            for segment in plan.segments
        ],
        "control_page": plan.control_page,
        "relocation": plan.relocation,
        "entry": plan.entry,
        "kernel_entry": plan.kernel_entry,
        "entry_bits": plan.entry_bits,
        "protocol": plan.protocol.value,
        "boot_params": plan.arguments.get("rsi"),
        "arguments": dict(plan.arguments),
        "command_line": plan.command_line,
        "list": {"head": plan.head, "pages": sorted(plan.list_pages)},
        "pages": len(plan.destinations),
        "pages_in_place": plan.in_place,
        "identity": [
            {"start": each.extent.start, "size": each.extent.size, "what": each.what}
            for each in plan.identity
        ],
    }


def _finding(finding: Finding) -> Document:
    return {
        "rule": finding.rule,
        "step": int(finding.step),
        "message": finding.message,
        "evidence": dict(finding.evidence),
        "mend": finding.mend,
    }


def _registers(registers: Registers) -> Document:
    return {
        "general": dict(registers.general),
        "rip": registers.rip,
        "rflags": registers.rflags,
        "cr0": registers.cr0,
        "cr3": registers.cr3,
        "cr4": registers.cr4,
        "efer": registers.efer,
        "segments": dict(registers.segments),
        "gdt": {"base": registers.gdt[0], "limit": registers.gdt[1]},
        "idt": {"base": registers.idt[0], "limit": registers.idt[1]},
    }
