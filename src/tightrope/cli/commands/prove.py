"""`tightrope prove`: goals or mutants, one after the other, a line as soon as it is known.

Rules: exit status 1 when an answer is not the theorem's, 2 when one was not found out.
"""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING

from tightrope.cli import files, outputs
from tightrope.cli.arguments import as_json, design, modes, new_kernel, old_kernel
from tightrope.cli.command import FINDING, HOLDS, UNKNOWN, Help, command, epilog
from tightrope.cli.show import show
from tightrope.cli.values import path, seconds
from tightrope.errors import BadInput

if TYPE_CHECKING:
    from tightrope.model.proof import Judged
    from tightrope.prove.goal import Goal, Limits
    from tightrope.report.progress import Bar


def theorems(parser: ArgumentParser) -> None:
    """A word for each theorem, and one for the hypotheses on a plan."""
    from tightrope.prove.says import SAYS

    _options(parser, default=None)
    parser.set_defaults(theorem=None)
    words = parser.add_subparsers(title="theorems", metavar="THEOREM")
    for word, says in SAYS.items():
        one = words.add_parser(
            word,
            help=says,
            description=f"{says[0].upper()}{says[1:]}.",
            epilog=epilog(_examples(word)),
            formatter_class=Help,
        )
        _options(one, default=argparse.SUPPRESS)
        one.set_defaults(theorem=word)
        if word == "code":
            _foreign_code(one)
    one = words.add_parser(
        "plan",
        help="what the theorems take for granted, checked on one plan",
        description="Make the plan that `tightrope plan` with these arguments shows, lay it out with"
        " two tables (or --design), and check every hypothesis of the theorems on it.",
        epilog=epilog(
            ("tightrope prove plan --shipped", "tightrope prove plan /boot/vmlinuz --crash --json")
        ),
        formatter_class=Help,
    )
    new_kernel(one)
    old_kernel(one)
    design(one, "(%(default)s)")
    as_json(one)
    one.set_defaults(theorem="plan")


def _examples(word: str) -> tuple[str, ...]:
    if word == "code":
        return (
            "tightrope prove code",
            "tightrope prove code relocate.S --mode x86_64",
            "tightrope prove code /boot/vmlinuz --contract linux",
        )
    return (f"tightrope prove {word}", f"tightrope prove {word} --mode x86_64 --json")


def _options(parser: ArgumentParser, *, default: str | None) -> None:
    """The options of `prove` and of each of its words; a word leaves what was said before it."""
    first = default is None
    parser.add_argument(
        "--mode",
        choices=modes(),
        default=default,
        help="only what is about this page-table format",
    )
    parser.add_argument("--design", default=default, help="only what is about this table design")
    parser.add_argument(
        "--limit",
        type=seconds,
        default=60.0 if first else default,
        metavar="SECONDS",
        help="for each goal; then it is not decided (60)",
    )
    parser.add_argument(
        "--smt",
        type=path,
        default=default,
        metavar="PATH",
        help="write the obligations as SMT-LIB too: into one file NAME.smt2, or into a directory",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        default=False if first else default,
        help="replace files that are there; never an input",
    )
    parser.add_argument(
        "--mutants",
        action="store_true",
        default=False if first else default,
        help="break what is proved, piece by piece, and see each mistake refused",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        default=False if first else default,
        help="one JSON object instead of text",
    )


def _foreign_code(parser: ArgumentParser) -> None:
    """What `prove code` takes besides the options of every theorem."""
    parser.add_argument(
        "file",
        nargs="?",
        type=path,
        metavar="FILE",
        help="somebody else's code: .S (GNU as), .o, or raw bytes; called at its first byte; without"
        " --mode an .o says its width, and the others are 64-bit code",
    )
    parser.add_argument(
        "--contract",
        default="two-tables",
        help="what it is held to: two-tables (the default), or linux: FILE is a vmlinuz, and the code is"
        " its own relocate_kernel",
    )


@command(
    "prove",
    help="the theorems behind it, for all memory maps, or the counterexample",
    description="Prove the theorems about tables, designs, the switch, the copy and the code;"
    " without a word all of them.  Some need z3: install tightrope[prove].",
    takes=(theorems,),
    examples=(
        "tightrope prove",
        "tightrope prove tables --mode i386",
    ),
    status="0 all is as the theorems say, 1 a counterexample, 2 something was not decided",
)
def prove(options: Namespace) -> int:
    from tightrope.prove.goal import Limits
    from tightrope.report.progress import Bar

    if options.smt and options.smt.suffix == ".smt2":
        outputs.check(options.smt, force=options.force, inputs=files.named(options))
    elif options.smt:
        outputs.check_folder(options.smt, force=options.force)
    with closing(Bar()) as bar:
        limits = Limits(seconds=options.limit, progress=bar)
        if options.theorem == "plan":
            return _plan(options, limits, bar)
        if options.mutants:
            return _mutants(options, limits, bar)
        return _goals(options, limits, bar)


def _goals(options: Namespace, limits: Limits, bar: Bar) -> int:
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


def _plan(options: Namespace, limits: Limits, bar: Bar) -> int:
    """The hypotheses on the plan that `tightrope plan` shows."""
    from tightrope.deeds.rehearse import build, prepare
    from tightrope.prove.theorems import hypotheses

    image, old, request = files.inputs(options)
    built = build(prepare(image, old, request), design=options.design)
    return _told(hypotheses.goals(built), options, limits, bar)


def _told(goals: Iterable[Goal], options: Namespace, limits: Limits, bar: Bar) -> int:
    """Judge, print, write SMT-LIB where asked; the exit status."""
    from tightrope.prove import run
    from tightrope.views import proofs

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
        show(options, proofs.VIEW, done)
    else:
        print(proofs.summary(done))
    if options.smt:
        scripts = (script for goal in goals if goal.smt for script in goal.smt())
        outputs.write_scripts(options.smt, scripts, force=options.force)
    return proved(done)


def proved(done: Iterable[Judged]) -> int:
    """1 for an answer that is not the theorem's, else 2 for a missing one."""
    from tightrope.model.proof import Answer

    wrong = [each for each in done if not each.as_stated]
    if any(each.result.answer is not Answer.UNDECIDED for each in wrong):
        return FINDING
    return UNKNOWN if wrong else HOLDS


def _mutants(options: Namespace, limits: Limits, bar: Bar) -> int:
    from tightrope.model.proof import Fate
    from tightrope.prove import run
    from tightrope.views import proofs

    mutants = run.mutants()
    done = []
    for number, mutant in enumerate(mutants, 1):
        bar(f"{mutant.subject}: {mutant.name} ({number} of {len(mutants)})", 0, 0)
        done.append(killed := run.kill(mutant, limits))
        if not options.json:
            bar.pause()
            print(proofs.mutant_line(killed), flush=True)
    if options.json:
        show(options, proofs.MUTANTS, done)
    else:
        print(proofs.mutant_summary(done))
    fates = {each.fate for each in done}
    return FINDING if Fate.SURVIVED in fates else UNKNOWN if Fate.UNDECIDED in fates else HOLDS
