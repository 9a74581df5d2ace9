"""What a crash kernel did when it was tried, for people and for programs.

Rules: the sheet is for people; the facts are the same with sizes as numbers.  A console's line is
shown with what cannot be printed escaped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

from tightrope.errors import visible
from tightrope.model import Outcome
from tightrope.model.crash_boot import Cause, CrashBoot, Kept
from tightrope.model.sheet import Line, Pairs, Section, Sheet, Span, Text, Tone
from tightrope.views import host, rules, words
from tightrope.views.view import View

_NAMES = 12
_CHANGED = 4
"""Places that are named."""
_TONES = {Outcome.HOLDS: Tone.GOOD, Outcome.FALLS: Tone.WORST, Outcome.UNKNOWN: Tone.BAD}
_ANSWERS = {
    Outcome.HOLDS: "The crash kernel works",
    Outcome.FALLS: "The crash kernel does not work",
    Outcome.UNKNOWN: "It cannot be told whether the crash kernel works",
}
NOT_SEEN = (
    "QEMU's firmware and devices in place of this host's; one CPU; the old kernel's memory is described,"
    " not a real one's"
)

LOOK = "its console above that line says why; --json has every line of it"
MENDS = {
    Cause.WALK: "what the finding says, at its step: `tightrope rehearse --crash` shows the walk",
    Cause.MEMORY: "a larger crash region (crashkernel=); --size finds the smallest that works",
    Cause.INITRD: "an initrd that is whole, built for this kernel and with the driver of its root: --initrd FILE",
    Cause.ROOT: "root= on its command line, or the image of the disk where it is: --append, --disk",
    Cause.MODULE: "put the module into the initrd, and build it again",
    Cause.VMCORE: "load it again, so that it is told of a core header (elfcorehdr=)",
    Cause.SAVING: "where it saves to, and the room there: what it said is below",
    Cause.OUTSIDE: "find out what in it writes there: a driver, /dev/mem, memory that its command line gives it",
    Cause.PANIC: LOOK,
    Cause.TIME: "--limit SECONDS listens longer",
    Cause.FELL: LOOK,
}
"""By what it came no further, where no finding knows better."""


def sheet(boot: CrashBoot) -> Sheet:
    """The answer; how far it came and what that rests on; what it said; what it took."""
    sections = [Section(None, (Pairs(rows=tuple(_first(boot)), names=_NAMES),))]
    if boot.evidence:
        title = "it said" if boot.outcome is Outcome.FALLS else "its last words"
        sections.append(Section(title, tuple(Line(visible(each), 2) for each in boot.evidence)))
    sections.append(Section(None, (Pairs(rows=tuple(_rows(boot)), names=_NAMES),)))
    sections.extend(rules.asked(boot.asked))
    return Sheet(tuple(sections), headline=headline(boot))


def headline(boot: CrashBoot) -> Text:
    """Whether it works, and why not."""
    return (Span(_ANSWERS[boot.outcome], _TONES[boot.outcome]), f": {visible(boot.why)}")


def _first(boot: CrashBoot) -> Iterator[tuple[str, str]]:
    """What is asked first of an answer."""
    yield "reached", boot.reached.words
    if boot.cause is not None:
        yield "mend", boot.findings[0].mend if boot.findings else MENDS[boot.cause]
    yield "code", visible(boot.code)
    asked = f", and {words.count(len(boot.asked), 'rule')} of the walk" if boot.asked else ""
    yield "rests on", f"{host.rests_on(boot.host)}, a PC of QEMU's in its place{asked}"


def _rows(boot: CrashBoot) -> Iterator[tuple[str, str]]:
    yield "host", boot.host.source
    yield "kernel", boot.kernel
    yield "initrd", boot.initrd or "none"
    yield "line", visible(boot.command_line)
    if boot.target:
        yield "saves to", visible(boot.target)
    yield from _memory(boot)
    if boot.smallest is not None:
        yield from _smallest(boot)
    if (core := boot.shown) is not None:
        release = f"Linux {visible(core.release)}" if core.release else "no VMCOREINFO"
        rows = f"{words.count(core.rows, 'row')}, {words.count(core.cpus, 'CPU')}"
        yield "/proc/vmcore", f"{words.size(core.size)}: {release}, {rows}"
        yield "its pgd", f"{visible(core.pgd)}: the page tables of the kernel that died"
    if (kept := boot.kept) is not None:
        yield "outside", _outside(kept)
    if boot.waits:
        why = "crashkernel=...,cma lent memory out, and devices may still write there"
        yield "before it", f"{boot.waits:.0f} s of waiting, which are not in the time below: {why}"
    for finding in boot.findings:
        yield "walk", f"{finding.rule}: {visible(finding.message)}"
    if boot.console is not None:
        yield "not seen", NOT_SEEN
    yield "took", f"{boot.seconds:.1f} s"


def _outside(kept: Kept) -> str:
    """Whether the dead kernel's memory is what it was."""
    what = f"{words.size(kept.size)} of the dead kernel's memory, {words.size(kept.held)} of it not zeros"
    if not kept.changed:
        return f"{what}: not a byte of it was changed"
    where = ", ".join(str(each) for each in kept.changed[:_CHANGED])
    more = len(kept.changed) - _CHANGED
    return f"{what}: changed at {where}{f' and {more} more places' if more > 0 else ''}"


def _memory(boot: CrashBoot) -> Iterator[tuple[str, str]]:
    used = boot.used
    where = " and ".join(str(each) for each in used.region)
    yield "region", f"{words.size(used.size)} at {where}"
    if used.peak is not None:
        share = f"{100 * used.peak // used.size} %"
        least = f"{words.size(used.least or 0)} were left at the worst moment seen"
        yield "in use", f"{words.size(used.peak)} at most ({share}); {least}"
    if used.touched is not None:
        yield "", f"{words.size(used.touched)} in pages that were ever written to"


def _smallest(boot: CrashBoot) -> Iterator[tuple[str, str]]:
    found = boot.smallest
    assert found is not None
    first = boot.used.region[0].size
    more = (
        "as large"
        if first == found.size
        else f"{words.size(abs(first - found.size))} {'larger' if first > found.size else 'smaller'}"
    )
    yield (
        "smallest",
        f"{words.size(found.size)} still work, {words.size(found.step)} less do not; the region is {more}",
    )
    yield (
        "",
        f"crashkernel={found.advised >> 20}M has a margin of {words.size(found.advised - found.size)}",
    )
    tried = ", ".join(
        f"{size >> 20}M {'works' if good else 'does not'}" for size, good in found.tried
    )
    yield "", f"tried: {tried}"


class ExtentFacts(TypedDict):
    """Bytes from `start` to `end`."""

    start: int
    end: int


class UsedFacts(TypedDict):
    """Memory, in bytes."""

    region: list[ExtentFacts]
    size: int
    peak: int | None
    least_available: int | None
    total: int | None
    touched: int | None


class ShownFacts(TypedDict):
    """What /proc/vmcore shows."""

    size: int
    rows: int
    cpus: int
    release: str | None
    pgd: str
    whole: bool | None


class KeptFacts(TypedDict):
    """The dead kernel's memory outside of what a crash may write."""

    size: int
    held: int
    changed: list[ExtentFacts]


class TriedFacts(TypedDict):
    """One size, and whether it worked."""

    size: int
    works: bool


class SmallestFacts(TypedDict):
    """The smallest region."""

    size: int
    step: int
    advised: int
    tried: list[TriedFacts]


class CrashBootFacts(TypedDict):
    """Everything that `tightrope kdump check --json` prints."""

    verdict: str
    reached: str
    cause: str | None
    why: str
    evidence: list[str]
    memory: UsedFacts
    smallest: SmallestFacts | None
    vmcore: ShownFacts | None
    outside: KeptFacts | None
    waits: float
    findings: list[str]
    console: list[str]
    command_line: str
    host: str
    kernel: str
    initrd: str | None
    relocation_code: str
    disk: bool
    target: str | None
    not_seen: str
    seconds: float


def facts(boot: CrashBoot) -> CrashBootFacts:
    """The same as plain data."""
    used, core, found = boot.used, boot.shown, boot.smallest
    return {
        "verdict": boot.outcome.value,
        "reached": boot.reached.name.lower(),
        "cause": None if boot.cause is None else boot.cause.name.lower(),
        "why": boot.why,
        "evidence": list(boot.evidence),
        "memory": {
            "region": [{"start": each.start, "end": each.end} for each in used.region],
            "size": used.size,
            "peak": used.peak,
            "least_available": used.least,
            "total": used.total,
            "touched": used.touched,
        },
        "smallest": None
        if found is None
        else {
            "size": found.size,
            "step": found.step,
            "advised": found.advised,
            "tried": [{"size": size, "works": good} for size, good in found.tried],
        },
        "vmcore": None
        if core is None
        else {
            "size": core.size,
            "rows": core.rows,
            "cpus": core.cpus,
            "release": core.release,
            "pgd": core.pgd,
            "whole": core.whole,
        },
        "outside": None
        if boot.kept is None
        else {
            "size": boot.kept.size,
            "held": boot.kept.held,
            "changed": [{"start": each.start, "end": each.end} for each in boot.kept.changed],
        },
        "waits": boot.waits,
        "findings": [f"{each.rule}: {each.message}" for each in boot.findings],
        "console": [] if boot.console is None else list(boot.console.lines),
        "command_line": boot.command_line,
        "host": boot.host.source,
        "kernel": boot.kernel,
        "initrd": boot.initrd,
        "relocation_code": boot.code,
        "disk": boot.disk,
        "target": boot.target or None,
        "not_seen": NOT_SEEN,
        "seconds": boot.seconds,
    }


VIEW = View(name="kdump check", version=1, shape=CrashBootFacts, sheet=sheet, facts=facts)
