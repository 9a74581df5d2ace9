"""`tightrope prove`: goals or mutants, one after the other, a line as soon as it is known.

Rules: as in `deeds`; exit status 1 when an answer is not the theorem's, 2 when one was not found out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tightrope.cli import files
from tightrope.errors import BadInput

if TYPE_CHECKING:
    from tightrope.model.proof import Judged
    from tightrope.prove.goal import Goal, Limits
    from tightrope.report.progress import Bar

HOLDS, FINDING, UNKNOWN = 0, 1, 2


def code_arguments(deed: argparse.ArgumentParser) -> None:
    """What `prove code` takes besides the options of every theorem."""
    deed.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="somebody else's code: .S (GNU as), .o, or raw bytes; called at its first byte; without"
        " --mode an .o says its width, and the others are 64-bit code",
    )
    deed.add_argument(
        "--contract", default="two-tables", help="what it is held to: two-tables (the default)"
    )


def prove(options: argparse.Namespace) -> int:
    """The theorems, or the mutants that they have to kill."""
    from tightrope.prove.goal import Limits
    from tightrope.report.progress import Bar

    bar = Bar()
    limits = Limits(seconds=options.limit, progress=bar)
    try:
        if options.theorem == "plan":
            return _plan(options, limits, bar)
        if options.mutants:
            return _mutants(options, limits, bar)
        return _goals(options, limits, bar)
    finally:
        bar.close()


def _goals(options: argparse.Namespace, limits: Limits, bar: Bar) -> int:
    from tightrope.model import Paging
    from tightrope.prove import run

    mode = Paging(options.mode) if options.mode else None
    if getattr(options, "file", None):
        chosen = run.foreign(options.file, options.contract, mode)
    else:
        chosen = run.goals(options.theorem, mode=mode, design=options.design)
    if not chosen:
        raise BadInput("no theorem is about that mode and design", source="command line")
    return _told(chosen, options, limits, bar)


def _plan(options: argparse.Namespace, limits: Limits, bar: Bar) -> int:
    """The hypotheses on the plan that `tightrope plan` shows."""
    from tightrope.deeds.rehearse import build, prepare
    from tightrope.prove.theorems import hypotheses

    image, old, request = files.inputs(options)
    built = build(prepare(image, old, request), design=options.design)
    return _told(hypotheses.goals(built), options, limits, bar)


def _told(goals: Iterable[Goal], options: argparse.Namespace, limits: Limits, bar: Bar) -> int:
    """Judge, print, write SMT-LIB where asked; the exit status."""
    from tightrope.prove import run
    from tightrope.report import proofs

    done: list[Judged] = []
    shown = None
    goals = tuple(goals)
    for number, goal in enumerate(goals, 1):
        bar(f"{goal.theorem} {goal.name} {goal.mode or ''} ({number} of {len(goals)})", 0, 0)
        done.append(judged := run.judge(goal, limits))
        if not options.json:
            bar.pause()
            if proofs.heading(judged) != shown:
                shown = proofs.heading(judged)
                print(shown)
            print(proofs.line(judged), flush=True)
    if options.json:
        files.print_json(proofs.document(done))
    else:
        print(proofs.summary(done))
    if options.smt:
        files.write_scripts(
            options.smt, (script for goal in goals if goal.smt for script in goal.smt())
        )
    return status(done)


def status(done: Iterable[Judged]) -> int:
    """1 for an answer that is not the theorem's, else 2 for a missing one."""
    from tightrope.model.proof import Answer

    wrong = [each for each in done if not each.as_stated]
    if any(each.result.answer is not Answer.UNDECIDED for each in wrong):
        return FINDING
    return UNKNOWN if wrong else HOLDS


def _mutants(options: argparse.Namespace, limits: Limits, bar: Bar) -> int:
    from tightrope.model.proof import Fate
    from tightrope.prove import run
    from tightrope.report import proofs

    mutants = run.mutants()
    done = []
    for number, mutant in enumerate(mutants, 1):
        bar(f"{mutant.subject}: {mutant.name} ({number} of {len(mutants)})", 0, 0)
        done.append(killed := run.kill(mutant, limits))
        if not options.json:
            bar.pause()
            print(proofs.mutant_line(killed), flush=True)
    if options.json:
        files.print_json(proofs.mutant_document(done))
    else:
        print(proofs.mutant_summary(done))
    fates = {each.fate for each in done}
    return FINDING if Fate.SURVIVED in fates else UNKNOWN if Fate.UNDECIDED in fates else HOLDS
