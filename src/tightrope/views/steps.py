"""The six steps of a walk as the thread numbers them, each with how it went and what was seen of
it.

Rules: everything shown was observed by the machine or lies in the handover; nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.memory import PAGE_SIZE
from tightrope.model import RegisterWrite, Run, Sight, Step, Stop, Translation, UnderXen, Verdict
from tightrope.model.sheet import Block, Line, Mark, Stage, Stages
from tightrope.views import words, xen
from tightrope.x86.walk import Access

INDENT = 4
SEGMENTS = ("ds", "es", "ss", "fs", "gs")


def step_ok(verdict: Verdict, step: Step) -> bool | None:
    """True: done and nothing found; False: a finding; None: never reached, or not seen."""
    if any(finding.step == step for finding in verdict.findings):
        return False
    if step is Step.CALL and Sight.INSTRUCTIONS not in verdict.run.sees:
        return None
    reached = {start for _, start in verdict.run.step_starts}
    return True if step in reached or step is Step.PREPARE else None


def blocks(verdict: Verdict) -> Iterator[Block]:
    """Each step's title and mark, and under it what was seen; the copy at the end of step 6."""
    fell = None if verdict.run.stop is Stop.ENTRY else verdict.run.step_starts[-1][1]
    before: list[Stage] = []
    walk: list[Stage] = []
    for step in Step:
        state = step_ok(verdict, step)
        if step is Step.PREPARE and state is not False:
            continue
        title = f"{int(step)} {words.step_name(step, verdict.handover)}"
        load = verdict.handover.intent.through
        if step is Step.CALL and isinstance(load, UnderXen):
            title = xen.jump(load)
        seen = list(_seen(verdict, step)) if state is not None and step is not Step.PREPARE else []
        if step is Step.COPY:
            seen += _copy(verdict)
        stage = Stage(
            title=title,
            mark=_mark(verdict, state, fell=step == fell),
            blocks=tuple(Line(text, INDENT) for text in seen),
        )
        (before if step is Step.PREPARE else walk).append(stage)
    if before:
        yield Stages(tuple(before))
    yield from xen.asked(verdict.handover)
    yield Stages(tuple(walk))


def _mark(verdict: Verdict, state: bool | None, *, fell: bool) -> Mark:
    if state is None:
        return Mark.NEVER if Sight.INSTRUCTIONS in verdict.run.sees else Mark.UNSEEN
    return Mark.OK if state else Mark.FELL if fell else Mark.WRONG


def _seen(verdict: Verdict, step: Step) -> Iterator[str]:
    run, plan = verdict.run, verdict.handover.intent
    writes = [write for write in run.register_writes if write.step == step]
    if step is Step.COPY:
        yield from _writes(run, [w for w in writes if w.register == "cr3"])
        return
    if step is Step.CALL:
        start = verdict.handover.registers
        yield f"CR3 {start.cr3:#x}, stack {start.general['rsp']:#x}"
    yield from _writes(run, writes)
    shown: set[tuple[int, int, Access]] = set()
    for each in run.translations:
        what = (each.cr3, each.virt & -PAGE_SIZE, each.access)
        if each.step != step or what in shown:
            continue
        shown.add(what)
        yield from _translation(each, plan.relocation, plan.control_page)


def _writes(run: Run, writes: list[RegisterWrite]) -> Iterator[str]:
    segments = [w for w in writes if w.register in SEGMENTS]
    for write in writes:
        if write in segments:
            continue
        instruction = run.texts.get(write.rip, "?")
        if write.register in ("gdt", "idt"):
            what = words.table(write.register, write.after)
        elif write.register == "rsp":
            what = f"stack {write.before:#x} -> {write.after:#x}"
        else:
            before = words.control(write.register, write.before)
            after = words.control(write.register, write.after)
            what = f"{write.register.upper()} {before} -> {after}"
        yield f"{what}   `{instruction}` at {write.rip:#x}"
    if segments:
        names = " ".join(write.register for write in segments)
        yield f"{names} = {segments[-1].after:#x}"


def _translation(each: Translation, virt: int, control: int) -> Iterator[str]:
    page = each.virt & -PAGE_SIZE
    name = "V" if page == virt else "P" if page == control else f"{each.virt:#x}"
    yield f"{each.access.value:<5} {name} -> {each.phys:#x}   {words.walked(each.visits)}"
    for stale in each.stale:
        kind = "global entry" if stale.is_global else "entry"
        verdict = "the same bytes there" if stale.harmless else "NOT the same bytes there"
        yield f"      a stale {kind} may lead to {stale.phys:#x}: {verdict}"


def _copy(verdict: Verdict) -> Iterator[str]:
    run, plan = verdict.run, verdict.handover.intent
    if step_ok(verdict, Step.COPY) is None or Sight.COPIES not in run.sees:
        return
    copied = words.copied(run)
    yield (
        f"copied {words.count(len(copied), 'page')} ({words.size(int(copied[:, 3].sum()))})"
        f" of {len(plan.destinations):,}; {plan.in_place:,} were in place already"
    )
    pages = words.count(len(verdict.handover.page_list), "page")
    yield f"page list: {pages}, head {verdict.handover.plan.head:#x}"
    yield f"{words.count(run.instructions, 'instruction')} from V to here"
