"""A crash kernel, tried once.

    plan -> lay out a PC as the crash leaves it -> walk -> the crash kernel runs -> what it said

The old kernel is the one that the host file describes, its relocation code a real one's where it
is given.  The PC has the host's memory map, as a sparse file; what is not the host's (its firmware,
its devices) is QEMU's, and a verdict says so.

Rules: composes rooms and opens no file; the machine is closed however it ends.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass, field, replace

from tightrope import participants
from tightrope.deeds import blackout
from tightrope.deeds.kdump_check import kept, shown, told
from tightrope.deeds.kdump_check.words import Words, tried
from tightrope.deeds.rehearse import rehearse
from tightrope.errors import BadInput, CoreError, PlanError
from tightrope.kdump import witness
from tightrope.kdump.witness import Witness
from tightrope.machine.port import Progress, no_progress
from tightrope.machine.qemu import Qemu
from tightrope.memory import Extent
from tightrope.model import (
    Console,
    Criterion,
    Finding,
    Host,
    Image,
    Outcome,
    Participant,
    Stop,
    Verdict,
)
from tightrope.model.crash_boot import Cause, CrashBoot, Reached, ShownCore, Used
from tightrope.plan import Request

SECONDS = 900.0
"""How long a crash kernel is listened to."""
ONLY_GUESSED = frozenset({"crash-region-room", "crash-region-low"})
"""Rules that say by experience what is tried here."""

NO_ROOM = frozenset({"init_size", "initrd_addr_max", "crash_region"})
"""What a plan says is wrong where a region is too small for what has to lie in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What is tried.  `request` has the initrd and the command line as they would be loaded."""

    image: Image
    host: Host
    request: Request
    design: str | Participant = participants.OURS
    code: str = "Tightrope's own"
    drive: int | None = None
    """Descriptor of an image of a disk; what is written to it is forgotten."""
    needed: frozenset[str] = field(default_factory=frozenset)
    """Modules without which this host's root is not there."""
    seconds: float = SECONDS
    target: str = ""
    """Where its configuration saves a dump, in words."""


def check(asked: Asked, progress: Progress = no_progress) -> CrashBoot:
    """Try it.  Raises TightropeError where it cannot be told: bad input, QEMU missing."""
    if asked.host.crash_region is None:
        raise BadInput(
            "has no crash region: crashkernel= reserved nothing", source=asked.host.source
        )
    started = time.monotonic()
    token = secrets.token_hex(8)
    initrd = asked.request.initrd
    words = tried(asked.request.command_line, witnessed=initrd is not None)
    if initrd is not None:
        initrd = witness.behind(initrd, witness.archive(token, words.init))
    request = replace(asked.request, initrd=initrd, command_line=words.line, crash=True)
    port = os.memfd_create("tightrope-second-port", os.MFD_CLOEXEC)
    machine = Qemu(drive=asked.drive, drive_kept=False, second_port=port)
    try:
        try:
            verdict = rehearse(
                asked.image,
                asked.host,
                request,
                design=asked.design,
                machine=machine,
                progress=progress,
            )
        except PlanError as err:
            return _unplaced(asked, words, err, time.monotonic() - started)
        findings = tuple(each for each in verdict.findings if each.rule not in ONLY_GUESSED)
        if verdict.run.stop is not Stop.ENTRY:
            fallen = _fallen(asked, words, findings, time.monotonic() - started)
            return replace(fallen, asked=_counted(verdict))
        was = kept.before(verdict.run.memory, asked.host)
        console, said = _listened(machine, port, token, asked, progress)
        found = None if was is None else kept.after(verdict.run.memory, was)
        used = _used(machine, asked.host, said)
        core, spoiled = _core(verdict, said)
    finally:
        machine.close()
        os.close(port)
    answer = told.judge(
        console,
        said,
        initrd=initrd is not None,
        disk=asked.drive is not None,
        root=_root(words.line),
        needed=asked.needed,
    )
    cause, why, falls = answer.cause, answer.why, True
    if findings:
        cause, why = Cause.WALK, findings[0].message
    elif found is not None and found.changed:
        size = sum(each.size for each in found.changed)
        cause, why = (
            Cause.OUTSIDE,
            f"it writes outside of its region: {size >> 10} KiB at and behind",
        )
        why += f" {found.changed[0].start:#x}, so its dump is not what the dead kernel left"
    elif spoiled:
        cause, why = Cause.VMCORE, spoiled
    else:
        falls = False
    return replace(
        _ended(asked, words, cause, why, findings, time.monotonic() - started),
        outcome=Outcome.FALLS if falls else answer.outcome,
        reached=answer.reached,
        evidence=answer.evidence,
        used=used,
        shown=core,
        kept=found,
        console=console,
        asked=_counted(verdict),
    )


def _counted(verdict: Verdict) -> tuple[Criterion, ...]:
    """The rules that its walk was asked and that count here."""
    return tuple(each for each in verdict.asked if each.rule not in ONLY_GUESSED)


def _listened(
    machine: Qemu, port: int, token: str, asked: Asked, progress: Progress
) -> tuple[Console, Witness]:
    """The console until it is over, and what the witness said meanwhile."""
    size, said = -1, Witness()

    def ends(lines: list[str]) -> str | None:
        nonlocal size, said
        now = os.fstat(port).st_size
        if now != size:
            size, said = now, witness.heard(os.pread(port, now, 0), token)
        return told.over(lines, said, disk=asked.drive is not None)

    console = machine.listen(ends, seconds=asked.seconds, progress=progress)
    return console, witness.heard(os.pread(port, os.fstat(port).st_size, 0), token)


def _core(verdict: Verdict, said: Witness) -> tuple[ShownCore | None, str]:
    """The core that it shows, and what is wrong with it."""
    if not said.head:
        return None, ""
    try:
        core = shown.shown(said.head, verdict.run.memory, verdict.handover.intent.backup)
    except CoreError as err:
        return None, f"its /proc/vmcore cannot be read as a dump: {err}"
    return core, "" if core.whole is not False else f"its dump has the pgd {core.pgd}"


def _used(machine: Qemu, host: Host, said: Witness) -> Used:
    region = _region(host)
    return Used(
        region=region,
        touched=sum(machine.touched(each) for each in region),
        total=said.total,
        least=said.least,
    )


def _region(host: Host) -> tuple[Extent, ...]:
    assert host.crash_region is not None
    return (host.crash_region, *(each.extent for each in host.crash_memory))


def _root(line: str) -> str:
    return next((w for w in line.split() if w.startswith("root=")), "")


def _ended(
    asked: Asked,
    words: Words,
    cause: Cause | None,
    why: str,
    findings: tuple[Finding, ...],
    seconds: float,
) -> CrashBoot:
    """One that was never entered: what is to be said of every other as well."""
    return CrashBoot(
        outcome=Outcome.FALLS,
        reached=Reached.NOWHERE,
        cause=cause,
        why=why,
        evidence=(),
        used=Used(region=_region(asked.host)),
        shown=None,
        findings=findings,
        console=None,
        command_line=words.line,
        host=asked.host,
        kernel=asked.image.source,
        initrd=asked.request.initrd_source if asked.request.initrd is not None else None,
        code=asked.code,
        disk=asked.drive is not None,
        target=asked.target,
        waits=blackout.waits_for_dma(asked.host),
        seconds=seconds,
    )


def _unplaced(asked: Asked, words: Words, err: PlanError, seconds: float) -> CrashBoot:
    """It does not even fit; a plan that cannot be made for another reason is raised again."""
    if err.field not in NO_ROOM:
        raise err
    why = f"kernel and initrd do not fit into the region: {err}"
    return _ended(asked, words, Cause.MEMORY, why, (), seconds)


def _fallen(asked: Asked, words: Words, findings: tuple[Finding, ...], seconds: float) -> CrashBoot:
    why = findings[0].message if findings else "the walk does not get to the crash kernel's entry"
    return _ended(asked, words, Cause.WALK, why, findings, seconds)
