"""A verdict: who and where, the six steps, the CPU at the end, what is wrong, and the sentence.

Rules: everything shown was observed by the machine or lies in the handover; nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.memory import Extent
from tightrope.model import (
    Bare,
    Finding,
    Outcome,
    Run,
    SegmentRole,
    Sight,
    Speaker,
    Stop,
    Verdict,
    XenCompat,
    XenV1,
    XenV2,
)
from tightrope.model.handover import Handover
from tightrope.model.sheet import Block, Line, Pairs, Section, Sheet, Span, Text, Tone
from tightrope.views import blackout, host, registers, rules, segments, steps, trees, words, xen
from tightrope.views.handler import printed
from tightrope.views.pictures import memory_map
from tightrope.views.rehearsal_facts import RehearsalFacts, facts
from tightrope.views.view import View

COLUMNS = 78
"""Where a list of rules is wrapped."""
NAMES, EVIDENCE = 15, 16
LAST_INSTRUCTIONS = 8
"""How many are shown when a walk does not arrive."""


def sheet(verdict: Verdict) -> Sheet:
    """The answer; what is wrong, and what that rests on; who and where; the walk; the limits.

    The first screen of a terminal has all of what a newcomer asks: so advice, by which nothing
    falls, stands below the walk.
    """
    built = verdict.handover
    first, *more = _findings(verdict) if verdict.findings else (None, *_findings(verdict))
    return Sheet(
        (
            *(() if first is None else (first, _resting(verdict))),
            *more,
            _header(verdict),
            Section(None, tuple(steps.blocks(verdict))),
            *_advice(verdict),
            *xen.handed(built),
            *_end(verdict),
            *_handler(verdict),
            *_console(verdict),
            *_blackout(verdict),
            Section("memory", (memory_map(built.host, built.intent, built),), detail=True),
            *trees.sections(built),
            Section(None, tuple(_sentence(verdict))),
            *rules.asked(verdict.asked),
        ),
        headline=headline(verdict),
    )


def headline(verdict: Verdict) -> Text:
    """The answer in one line that stands alone: what holds, on whose code, resting on what."""
    crash = " after a crash" if verdict.handover.intent.crash else ""
    who = f"{_kernel(verdict)} from {verdict.handover.host.source}{crash}"
    if verdict.outcome is Outcome.FALLS:
        first = verdict.findings[0]
        where = f"at step {int(first.step)}" if first.step else "before the walk"
        return (
            Span("It falls", Tone.WORST),
            f" {where}: {who}, by {_code(verdict)}: {first.message} ({first.rule});"
            f" {_what_would_be(verdict)}",
        )
    if verdict.outcome is Outcome.UNKNOWN:
        return (Span("No verdict", Tone.HEAD), f": {who}: the walk holds, {_unheard(verdict)}")
    rests = host.condition(verdict.handover.host)
    spoke = ", and it spoke" if _heard(verdict) else ""
    return (
        Span("It holds", Tone.GOOD),
        f"{rests}: {who}, by {_code(verdict)}{spoke}; {len(verdict.rules)} rules asked",
    )


def _kernel(verdict: Verdict) -> str:
    return f"{verdict.handover.intent.image.source}{_version(verdict)}"


def _name(verdict: Verdict) -> str:
    """The kernel without its folder, which the answer has: a title is one line."""
    source = verdict.handover.intent.image.source
    return f"{source.rsplit('/', 1)[-1] or source}{_version(verdict)}"


def _version(verdict: Verdict) -> str:
    """What the image calls itself, unless its name says so already."""
    image = verdict.handover.intent.image
    version = image.version.split(" ", 1)[0] if image.version else ""
    return f" ({version})" if version and not image.source.endswith(version) else ""


def _code(verdict: Verdict) -> str:
    """Whose code is walked."""
    code = verdict.handover.relocation_code
    if code.file is not None:
        return f"the relocation code of {code.file}"
    own = code.image is not None
    return "the old kernel's own relocation code" if own else "Tightrope's own relocation code"


def _heard(verdict: Verdict) -> bool:
    return verdict.console is not None and verdict.console.speaker is Speaker.KERNEL


def _unheard(verdict: Verdict) -> str:
    """Why a walk that holds has no verdict."""
    assert verdict.console is not None
    said = "the new kernel said nothing"
    if verdict.console.speaker is Speaker.DECOMPRESSOR:
        said = "only its decompressor spoke"
    elif verdict.console.lines:
        said += " but control characters"
    return f"and {said}: {verdict.console.stopped}"


def _header(verdict: Verdict) -> Section:
    return Section(
        (Span(f"rehearsal of {_name(verdict)}", Tone.HEAD),),
        (
            Pairs(rows=tuple(_programs(verdict)), names=NAMES, indent=2),
            Pairs(rows=tuple(_places(verdict.handover)), names=NAMES, indent=2, detail=True),
        ),
    )


def _programs(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """Who hands over to whom, and by what."""
    built, plan = verdict.handover, verdict.handover.intent
    old = built.host
    ram = sum(each.size for each in old.memory.ram)
    for remark in plan.image.remarks:
        yield "the file", remark
    yield "old kernel", f"{old.source}: {old.paging.value}, {words.size(ram)} of RAM"
    yield from xen.header(built)
    if plan.crash:
        yield "kind", words.crash_kexec(built.plan)
    yield "design", f"{built.design}, on {words.machine(verdict.run.machine)}"
    if (image := built.relocation_code.image) is not None:
        yield "code", f"the old kernel's own, out of {image}"
    elif (file := built.relocation_code.file) is not None:
        yield "code", f"yours, {file}"
    elif isinstance(plan.through, Bare):
        yield "code", f"{words.OURS}; --from FILE walks that of an old kernel's image"
    elif isinstance(plan.through, XenV2):
        yield "code", f"{words.OURS}; --from FILE walks that of a hypervisor's image"
    else:
        yield "code", f"{words.OURS}, in a page of dom0's as its kernel would have it"
    yield from segments.lines(verdict)
    if not verdict.findings:
        yield _rests_on(verdict)


def _resting(verdict: Verdict) -> Section:
    """What a fall rests on, right below what is wrong: both are on the first screen."""
    return Section(None, (Pairs(rows=(_rests_on(verdict),), names=NAMES, indent=2),))


def _rests_on(verdict: Verdict) -> tuple[str, str]:
    asked = words.count(len(verdict.rules), "rule")
    return "rests on", f"{host.rests_on(verdict.handover.host)}, and {asked}"


def _places(built: Handover) -> Iterator[tuple[str, str]]:
    plan = built.intent
    yield "V", f"{plan.relocation:#x}   {_where_v_is(built)}, frame {built.world.code_phys:#x}"
    yield "P", f"{plan.control_page:#x}   the control page"
    yield "current pgd", f"{built.world.pgd:#x}"
    for name, tables in (
        ("page_table_a", built.page_table_a),
        ("page_table_b", built.page_table_b),
    ):
        if tables is None:
            continue
        if tables.root == built.world.pgd:
            yield name, "none: the routine at V overwrites the current pgd"
            continue
        yield name, f"{tables.root:#x}   {words.count(len(tables.pages), 'page')} of table"


def _where_v_is(built: Handover) -> str:
    plan, host = built.intent, built.host
    if isinstance(plan.through, XenCompat):
        return "the control page's machine address, mapped to itself when long mode is left"
    if isinstance(plan.through, XenV1):
        return "the hypervisor's fixmap of the control page"
    if plan.relocation in Extent.sized(host.text.virt, host.text.size):
        return "in the old kernel's text"
    return "in the direct map" if host.relocation is None else "in a mapping of its own"


def _end(verdict: Verdict) -> Iterator[Section]:
    """Where the walk ended: at the entry, or with the last instructions before it stopped."""
    run, plan = verdict.run, verdict.handover.intent
    cpu = tuple(Line(line, steps.INDENT) for line in registers.lines(run.registers))
    if run.stop is Stop.ENTRY:
        kernel = next(each for each in plan.segments if each.role is SegmentRole.KERNEL)
        offset = plan.kernel_entry - kernel.destination.start
        where = (
            f"at the new kernel's first instruction, {run.registers.rip:#x} (load + {offset:#x})"
        )
        yield Section(where, cpu, detail=True)
        return
    yield Section("the last instructions", tuple(_last(verdict.handover, run)), detail=True)
    yield Section(f"the CPU when it stopped, at {run.registers.rip:#x}", cpu, detail=True)


def _last(handover: Handover, run: Run) -> Iterator[Block]:
    """The end of the trace, each instruction with its number, its place and its address."""
    count = len(run.trace)
    for number in range(max(0, count - LAST_INSTRUCTIONS), count):
        rip = int(run.trace[number])
        place = words.place(handover, rip)
        text = f"{number:>9,}  {rip:#18x}  {place:<28}  {run.texts.get(rip, '?')}"
        yield Line(text, steps.INDENT)


def _handler(verdict: Verdict) -> Iterator[Section]:
    """What the old kernel's own handler would print of a fault, and halt."""
    if lines := printed(verdict):
        head = "the old kernel's own handler would print, where it knows of a serial port, and halt"
        yield Section(head, tuple(Line(each, steps.INDENT) for each in lines))


def _console(verdict: Verdict) -> Iterator[Section]:
    if verdict.console is None:
        return
    lines = (*verdict.console.lines, f"({verdict.console.stopped})")
    silent = verdict.console.speaker is Speaker.NOBODY
    who = Speaker.KERNEL if silent else verdict.console.speaker
    yield Section(
        f"{who} says, within {verdict.console.seconds:.2f} s",
        tuple(Line(each, steps.INDENT) for each in lines),
    )


def _blackout(verdict: Verdict) -> Iterator[Section]:
    """Of a walk that arrives, what takes its time."""
    if verdict.blackout is not None and verdict.run.stop is Stop.ENTRY:
        yield blackout.section(verdict.blackout, detail=True)


def _findings(verdict: Verdict) -> Iterator[Section]:
    for number, finding in enumerate(verdict.findings):
        head = "what is wrong" if number == 0 else "and also"
        yield _finding(finding, head, Tone.WORST, whole=number == 0)


def _advice(verdict: Verdict) -> Iterator[Section]:
    for finding in verdict.advice:
        yield _finding(finding, "advice", Tone.HEAD, whole=not verdict.findings)


def _finding(finding: Finding, head: str, tone: Tone, *, whole: bool) -> Section:
    """A finding; its evidence is for who asks for it, where another one is the one to mend."""
    step = f"step {int(finding.step)}" if finding.step else "before the walk"
    evidence = tuple(finding.evidence.items())
    mend = (("mend", finding.mend),)
    rows = (evidence + mend,) if whole else (evidence, mend)
    return Section(
        (Span(head, tone), f"  [{finding.rule}] {step}: {finding.message}"),
        tuple(
            Pairs(
                rows=each,
                names=EVIDENCE,
                indent=steps.INDENT,
                detail=not whole and each is evidence,
            )
            for each in rows
        ),
    )


def _sentence(verdict: Verdict) -> Iterator[Line]:
    """The answer as a sentence, for who asks for more than the headline; and what limits it."""
    plan = verdict.handover.intent
    if verdict.outcome is Outcome.HOLDS:
        spoke = ", and the new kernel spoke" if _heard(verdict) else ""
        seen = (
            f", as far as this machine sees: the new kernel is entered at {plan.kernel_entry:#x}"
            if verdict.unasked
            else f": from V to {plan.kernel_entry:#x} nothing was touched that the walk does not own"
        )
        asked = f"{len(verdict.rules)} rules asked, none broken."
        rests = host.condition(verdict.handover.host)
        text: Text = (Span("It holds", Tone.GOOD), f"{rests}{seen}{spoke}; {asked}")
    elif verdict.outcome is Outcome.FALLS:
        first = verdict.findings[0]
        where = f"at step {int(first.step)}" if first.step else "before the walk"
        falls = Span("It falls", Tone.WORST)
        text = (falls, f" {where} ({first.rule}); {_what_would_be(verdict)}.")
    else:
        text = f"No verdict: the walk holds, {_unheard(verdict)}."
    yield Line(text, detail=True)
    for each in _limits(verdict):
        yield Line(each)


def _limits(verdict: Verdict) -> Iterator[str]:
    """What the answer rests on, and what nobody looked at."""
    yield from host.assumptions(verdict.handover.host)
    yield from _unpacked(verdict)
    yield from _unasked(verdict)
    if verdict.run.blind:
        yield f"Not seen by this machine: {'; '.join(verdict.run.blind)}."


def _what_would_be(verdict: Verdict) -> str:
    """What the machine would do instead of holding."""
    if verdict.run.fault and verdict.run.fault.triple:
        return "the machine would reset without a word"
    if verdict.run.stop is Stop.ENTRY:
        return "the new kernel would be entered all the same"
    if printed(verdict):
        return "the old kernel's own handler would print the exception and halt"
    return "the new kernel would never be entered"


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
        f" {words.machine(verdict.run.machine)} does not show {', '.join(unseen)}:"
    )
    line = ""
    for rule in verdict.unasked:
        if len(line) + len(rule) > COLUMNS:
            yield f"    {line}".rstrip()
            line = ""
        line += f"{rule}  "
    yield f"    {line}".rstrip()


VIEW = View(name="rehearse", version=1, shape=RehearsalFacts, sheet=sheet, facts=facts)
