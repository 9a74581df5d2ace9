"""A verdict for someone at a terminal: the six steps as the thread numbers them, and what was seen.

Rules: text in, text out; colour only where it is asked for, and never the only carrier of a meaning.
Everything shown was observed by the machine or lies in the handover; nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import (
    Finding,
    Handover,
    Outcome,
    Registers,
    RegisterWrite,
    Run,
    Sight,
    Step,
    Stop,
    Translation,
    UnderXen,
    Verdict,
    XenCompat,
    XenV1,
)
from tightrope.report import words, xen
from tightrope.x86 import cpu as x86
from tightrope.x86.walk import Access

_COLOURS = {"ok": "32", "FELL": "1;31", "wrong": "31", "-": "2", "?": "2", "head": "1"}
WIDTH = 78


class _Ink:
    """Colour or none."""

    def __init__(self, colour: bool) -> None:
        self._colour = colour

    def __call__(self, kind: str, text: str) -> str:
        return f"\033[{_COLOURS[kind]}m{text}\033[0m" if self._colour else text


def text(verdict: Verdict, *, colour: bool) -> str:
    """The whole screen, without a line break at its end."""
    ink = _Ink(colour)
    return "\n".join(
        [
            *_header(verdict, ink),
            *_steps(verdict, ink),
            *_copy(verdict),
            *_entry(verdict),
            *_console(verdict),
            *_findings(verdict, ink),
            "",
            *_sentence(verdict, ink),
        ]
    )


def _header(verdict: Verdict, ink: _Ink) -> Iterator[str]:
    built, plan = verdict.handover, verdict.handover.plan
    image, host = plan.image, built.host
    version = f" ({image.version.split(' ', 1)[0]})" if image.version else ""
    ram = sum(each.size for each in host.memory.ram)
    yield ink("head", f"rehearsal of {image.source}{version}")
    yield f"  old kernel      {host.source}: {host.paging.value}, {words.size(ram)} of RAM"
    yield from xen.header(built)
    if plan.crash:
        yield f"  kind            {words.crash_kexec(plan)}"
    yield f"  design          {built.design}, on the {verdict.run.machine}"
    text = Extent.sized(host.text.virt, host.text.size)
    where = (
        "the control page's machine address, mapped to itself when long mode is left"
        if isinstance(plan.through, XenCompat)
        else "the hypervisor's fixmap of the control page"
        if isinstance(plan.through, XenV1)
        else "in the old kernel's text"
        if plan.relocation in text
        else "in the direct map"
        if host.relocation is None
        else "in a mapping of its own"
    )
    yield f"  V               {plan.relocation:#x}   {where}, frame {built.world.code_phys:#x}"
    yield f"  P               {plan.control_page:#x}   the control page"
    yield f"  current pgd     {built.world.pgd:#x}"
    for name, tables in (
        ("page_table_a", built.page_table_a),
        ("page_table_b", built.page_table_b),
    ):
        if tables is None:
            continue
        if tables.root == built.world.pgd:
            yield f"  {name}    none: the routine at V overwrites the current pgd"
            continue
        yield f"  {name}    {tables.root:#x}   {words.count(len(tables.pages), 'page')} of table"
    yield ""


def step_ok(verdict: Verdict, step: Step) -> bool | None:
    """True: done and nothing found; False: a finding; None: never reached, or not seen."""
    if any(finding.step == step for finding in verdict.findings):
        return False
    if step is Step.CALL and Sight.INSTRUCTIONS not in verdict.run.sees:
        return None
    reached = {start for _, start in verdict.run.step_starts}
    return True if step in reached or step is Step.PREPARE else None


def _steps(verdict: Verdict, ink: _Ink) -> Iterator[str]:
    fell = None if verdict.run.stop is Stop.ENTRY else verdict.run.step_starts[-1][1]
    for step in Step:
        state = step_ok(verdict, step)
        if step is Step.PREPARE and state is not False:
            continue
        never = "-" if Sight.INSTRUCTIONS in verdict.run.sees else "?"
        mark = {True: "ok", False: "FELL" if step == fell else "wrong", None: never}[state]
        name = words.step_name(step, verdict.handover)
        title = f"{int(step)} {name}"
        load = verdict.handover.intent.through
        if step is Step.CALL and isinstance(load, UnderXen):
            yield from xen.asked(verdict.handover)
            title = xen.jump(load)
        yield f"{title:<{WIDTH - 6}}  {ink(mark, mark)}"
        if state is not None and step is not Step.PREPARE:
            for line in _seen(verdict, step):
                yield f"    {line}"


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
    segments = [w for w in writes if w.register in ("ds", "es", "ss", "fs", "gs")]
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
    if step_ok(verdict, Step.COPY) is None:
        return
    copied = words.copied(run)
    done = int(copied[:, 3].sum())
    pages = len(plan.destinations)
    if Sight.COPIES not in run.sees:
        return
    yield (
        f"    copied {words.count(len(copied), 'page')} ({words.size(done)})"
        f" of {pages:,}; {plan.in_place:,} were in place already"
    )
    yield f"    page list: {words.count(len(verdict.handover.page_list), 'page')}, head {verdict.handover.plan.head:#x}"
    yield f"    {words.count(run.instructions, 'instruction')} from V to here"


GENERAL_ROWS = (
    ("rax", "rbx", "rcx", "rdx"),
    ("rsi", "rdi", "rbp", "rsp"),
    ("r8", "r9", "r10", "r11"),
    ("r12", "r13", "r14", "r15"),
)


LEGACY_ROWS = 2
"""A CPU that is not in long mode has the first two rows, by their 32-bit names."""


def registers(values: Registers) -> Iterator[str]:
    """The CPU in six lines; in four, with 32-bit names and widths, where it is not in long mode."""
    if values.efer & x86.EFER_LMA:
        for row in GENERAL_ROWS:
            yield "  ".join(f"{name:<3} {values.general[name]:#018x}" for name in row)
    else:
        for row in GENERAL_ROWS[:LEGACY_ROWS]:
            yield "  ".join(f"e{name[1:]} {values.general[name]:#010x}" for name in row)
    yield f"cr0 {words.control('cr0', values.cr0)}   cr4 {words.control('cr4', values.cr4)}"
    yield (
        f"cr3 {values.cr3:#x}   efer {words.control('efer', values.efer)}"
        f"   flags {words.control('rflags', values.rflags)}"
    )
    selectors = " ".join(f"{name} {value:#x}" for name, value in values.segments.items())
    yield f"{selectors}   gdt {values.gdt[0]:#x}/{values.gdt[1]:#x}   idt limit {values.idt[1]:#x}"


def _entry(verdict: Verdict) -> Iterator[str]:
    run, plan = verdict.run, verdict.handover.intent
    yield ""
    if run.stop is Stop.ENTRY:
        offset = plan.kernel_entry - plan.segments[0].destination.start
        yield f"at the new kernel's first instruction, {run.registers.rip:#x} (load + {offset:#x})"
    else:
        yield from _last(verdict.handover, run)
        yield f"the CPU when it stopped, at {run.registers.rip:#x}"
    for line in registers(run.registers):
        yield f"    {line}"


LAST_INSTRUCTIONS = 8
"""How many are shown when a walk does not arrive."""


def _last(handover: Handover, run: Run) -> Iterator[str]:
    """The end of the trace, each instruction with its number, its place and its address."""
    yield "the last instructions"
    count = len(run.trace)
    for number in range(max(0, count - LAST_INSTRUCTIONS), count):
        rip = int(run.trace[number])
        place = words.place(handover, rip)
        yield f"    {number:>9,}  {rip:#18x}  {place:<28}  {run.texts.get(rip, '?')}"
    yield ""


def _console(verdict: Verdict) -> Iterator[str]:
    if verdict.console is None:
        return
    yield ""
    yield f"the new kernel says, within {verdict.console.seconds:.2f} s"
    for line in verdict.console.lines:
        yield f"    {line}"
    yield f"    ({verdict.console.stopped})"


def _findings(verdict: Verdict, ink: _Ink) -> Iterator[str]:
    for number, finding in enumerate(verdict.findings):
        yield ""
        yield from _finding(finding, "what is wrong" if number == 0 else "and also", ink)


def _finding(finding: Finding, head: str, ink: _Ink) -> Iterator[str]:
    step = f"step {int(finding.step)}" if finding.step else "before the walk"
    yield f"{ink('FELL', head)}  [{finding.rule}] {step}: {finding.message}"
    for key, value in finding.evidence.items():
        yield f"    {key:<16} {value}"
    yield f"    {'mend':<16} {finding.mend}"


def _sentence(verdict: Verdict, ink: _Ink) -> Iterator[str]:
    plan = verdict.handover.intent
    if verdict.outcome is Outcome.HOLDS:
        spoke = ", and the new kernel spoke" if verdict.console else ""
        seen = (
            f", as far as this machine sees: the new kernel is entered at {plan.kernel_entry:#x}"
            if verdict.unasked
            else f": from V to {plan.kernel_entry:#x} nothing was touched that the walk does not own"
        )
        yield (
            f"{ink('ok', 'It holds')}{seen}{spoke}; {len(verdict.rules)} rules asked, none broken."
        )
    elif verdict.outcome is Outcome.FALLS:
        first = verdict.findings[0]
        where = f"at step {int(first.step)}" if first.step else "before the walk"
        end = (
            "the machine would reset without a word"
            if verdict.run.fault and verdict.run.fault.triple
            else "the new kernel would be entered all the same"
            if verdict.run.stop is Stop.ENTRY
            else "the new kernel would never be entered"
        )
        yield f"{ink('FELL', 'It falls')} {where} ({first.rule}); {end}."
    else:
        assert verdict.console is not None
        yield f"It cannot be told: the walk holds, and the new kernel said nothing: {verdict.console.stopped}."
    yield from _unpacked(verdict)
    yield from _unasked(verdict)
    if verdict.run.blind:
        yield f"Not seen by this machine: {'; '.join(verdict.run.blind)}."


def _unpacked(verdict: Verdict) -> Iterator[str]:
    """What was unpacked beside the walk, as far as it is whole; what is wrong is a finding."""
    whole = [each.what for each in verdict.contents if each.flaw is None and each.untold is None]
    if whole:
        yield f"Unpacked as well, and whole: {'; '.join(whole)}."
    for each in verdict.contents:
        if each.untold is not None:
            yield f"Not told of {each.what}: {each.untold}."


def _unasked(verdict: Verdict) -> Iterator[str]:
    """What this machine did not observe, and the rules that it could therefore not be asked."""
    if not verdict.unasked:
        return
    unseen = [sight.value for sight in Sight if sight not in verdict.run.sees]
    yield (
        f"{words.count(len(verdict.unasked), 'rule')} could not be asked:"
        f" the {verdict.run.machine} does not show {', '.join(unseen)}:"
    )
    line = ""
    for rule in verdict.unasked:
        if len(line) + len(rule) > WIDTH:
            yield f"    {line}".rstrip()
            line = ""
        line += f"{rule}  "
    yield f"    {line}".rstrip()
