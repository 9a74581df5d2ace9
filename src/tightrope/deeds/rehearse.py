"""The rehearsal: plan, build, run, check, and a verdict.  The function that people call.

    from tightrope import host, image
    from tightrope.plan import Request
    from tightrope.deeds.rehearse import rehearse

    verdict = rehearse(image.read(data, "vmlinuz"), host.read(host.example(), "example"), Request())

Rules: this file composes the rooms and opens no file.  Where a machine is not given, it makes an
emulator; a caller with many rehearsals passes one in and it is reused.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tightrope import check, handover, participants, plan
from tightrope import world as world_room
from tightrope.deeds import blackout
from tightrope.deeds.machines import emulator
from tightrope.deeds.unpacking import LARGE, Unpacking
from tightrope.deeds.until import (
    ENTRY,
    Entry,
    Spoken,
    Until,
    Userspace,
    judged,
    listen,
    refuse,
)
from tightrope.errors import MachineError
from tightrope.machine.port import Machine, Progress, WholeMachine, no_progress
from tightrope.model import (
    Console,
    Finding,
    Handover,
    Host,
    Image,
    Outcome,
    Participant,
    Plan,
    Run,
    Speaker,
    Stop,
    Verdict,
    relocation_code,
)
from tightrope.plan import Request
from tightrope.sabotage import Sabotage

CONSOLE_WORDS = "earlyprintk=ttyS0,115200"
"""What makes a Linux kernel speak early, on the first serial port."""


class Stages:
    """Wall seconds of each stage, as they pass."""

    def __init__(self, progress: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._done = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        self._progress(name, self._done, 0)
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - started
            self._done += 1


def prepare(image: Image, old: Host, request: Request) -> Plan:
    """The plan alone: see `plan.prepare`."""
    return plan.prepare(image, old, request)


def build(
    the_plan: Plan, *, design: str | Participant, sabotage: Sabotage | None = None
) -> Handover:
    """The old kernel's world and the handover for a plan, broken where a sabotage says so."""
    if sabotage:
        the_plan = sabotage.plan(the_plan)
    chain = participants.chain(the_plan, design)
    the_plan = handover.fitted(the_plan, chain)
    old = the_plan.host
    if sabotage:
        sabotage.refuse(the_plan.paging)
        chain, old = sabotage.chain(chain), sabotage.host(old, the_plan)
    world = world_room.planned(the_plan, relocation_code(chain).called, old)
    built = handover.build(the_plan, world, chain)
    return sabotage.handover(built) if sabotage else built


def rehearse(
    image: Image,
    old: Host,
    request: Request,
    *,
    design: str | Participant = participants.OURS,
    sabotage: Sabotage | None = None,
    until: Until = ENTRY,
    machine: Machine | None = None,
    unpacking: Unpacking | None = None,
    progress: Progress = no_progress,
) -> Verdict:
    """Plan, build, walk, check; and go on as far as `until` says.

    `unpacking` is that of this image and initrd, where a caller has started it already.

    Raises `TightropeError` when it cannot be told: bad input, or a part that is missing here.
    """
    stages = Stages(progress)
    if request.initrd is None or len(request.initrd) < LARGE:
        unpacking = unpacking or Unpacking(image, request.initrd)
    if isinstance(machine, WholeMachine):
        old = machine.with_own_firmware(old)
    with stages.stage("plan"):
        the_plan = prepare(image, old, request)
    unpacking = unpacking or Unpacking(image, request.initrd)
    with stages.stage("tables"):
        built = build(the_plan, design=design, sabotage=sabotage)
    if machine is None:
        with stages.stage("load the emulator"):
            machine = emulator()
    refuse(until, machine)
    run, findings = _walked(machine, built, stages, unpacking)
    heard: Console | None = None
    if run.stop is Stop.ENTRY and not isinstance(until, Entry):
        with stages.stage("userspace" if isinstance(until, Userspace) else "console"):
            heard = listen(machine, until, image, progress)
            findings += tuple(judged(heard, until, image))
    return verdict(built, run, findings, heard, until, unpacking, stages)


def verdict(
    built: Handover,
    run: Run,
    findings: tuple[Finding, ...],
    heard: Console | None,
    until: Until,
    unpacking: Unpacking,
    stages: Stages,
) -> Verdict:
    """What all of it comes to.  A new kernel that was listened to and not heard is no verdict."""
    advice = tuple(each for each in findings if each.advice)
    findings = tuple(each for each in findings if not each.advice)
    silent = isinstance(until, Spoken) and heard and heard.speaker is not Speaker.KERNEL
    return Verdict(
        outcome=Outcome.FALLS if findings else Outcome.UNKNOWN if silent else Outcome.HOLDS,
        handover=built,
        run=run,
        findings=findings,
        advice=advice,
        asked=tuple(rule.criterion() for rule in check.asked(run)),
        unasked=check.unasked(run),
        contents=unpacking.contents(),
        console=heard,
        blackout=blackout.walked(built, run),
        seconds=stages.seconds,
    )


def _walked(
    machine: Machine, built: Handover, stages: Stages, unpacking: Unpacking
) -> tuple[Run, tuple[Finding, ...]]:
    """The run and what is wrong with it; of a handover that no machine can begin, what is wrong
    there.

    Raises MachineError where the handover is not to blame.
    """
    try:
        with stages.stage("walk"):
            run = machine.run(built)
    except MachineError:
        run, findings = check.laid(built)
        if not findings:
            raise
        return run, findings
    with stages.stage("check"):
        told = check.check(built, run, unpacked=unpacking.initrd_size())
        return run, (*unpacking.findings(), *told)
