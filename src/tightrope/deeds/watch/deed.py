"""Wait for a guest's kexec, check it while the guest stands at the call, and follow it.

    attach -> the kernel in it -> machine_kexec -> V -> observed -> checked -> let go -> passed

    guest = Attached("qmp.sock", "localhost:1234")
    watched = watch(guest)

Rules: whoever attached leaves the guest.  With `stop_on_finding` it is left standing where the
first finding was made, else it goes on whatever was found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tightrope import check
from tightrope.deeds.machines import emulator
from tightrope.deeds.rehearse import Stages
from tightrope.deeds.watch import seen
from tightrope.deeds.watch.called import of_its_call
from tightrope.deeds.watch.console import Console
from tightrope.deeds.watch.follow import Followed, follow
from tightrope.deeds.watch.kernel import SOURCE, GuestKernel, calls_by, find_kernel, mmu_of
from tightrope.deeds.watch.loaded import KImage, bytes_of, read_kimage
from tightrope.deeds.watch.memory import GuestMemory
from tightrope.deeds.watch.observed import control_page, observed
from tightrope.deeds.watch.xen import GuestXen, find_xen, read_image
from tightrope.errors import BadInput, CannotBe, MachineError, PlanError
from tightrope.machine.attached import Attached
from tightrope.machine.port import Progress, no_progress
from tightrope.memory import PAGE_SIZE, Virt
from tightrope.model import (
    Buffer,
    Finding,
    Handover,
    Image,
    Outcome,
    Registers,
    Run,
    Step,
    Stop,
    Verdict,
)
from tightrope.model.watched import Passed, Watched
from tightrope.participants.linux import Convention

LIMIT = 600.0
PHYSICAL_BITS = 40
FOLLOW_SECONDS = 300.0


def nobody(_: object) -> None:
    """Nobody listens."""


@contextmanager
def attached(qmp: str, gdb: str) -> Iterator[Attached]:
    """A guest by its two sockets; it is left in order whatever happens inside.  Raises BadInput."""
    with Attached(qmp, gdb) as guest:
        yield guest


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A guest that stands at V."""

    memory: GuestMemory
    kernel: GuestKernel | GuestXen
    kimage: int
    """The linear address of its struct kimage, Xen's kexec_image."""
    virt: int
    registers: Registers
    spent: float
    """Guest seconds since machine_kexec was called."""
    physical_bits: int
    gbpages: bool


def arrive(
    guest: Attached,
    *,
    old: Buffer | None = None,
    old_source: str = "--from",
    limit: float = LIMIT,
    waiting: Callable[[GuestKernel | GuestXen], None] = nobody,
    stages: Stages,
) -> Call:
    """Wait until the guest stands at V.  Raises as `watch` does."""
    memory = GuestMemory(guest)
    bits = guest.cpu_fact("phys-bits")
    physical_bits = bits if isinstance(bits, int) and 32 <= bits <= 52 else PHYSICAL_BITS
    with stages.stage("find the kernel"):
        mmu = mmu_of(guest.registers(), physical_bits)
        kernel = find_xen(memory, mmu, old, old_source) or find_kernel(memory, mmu, old, old_source)
        called = kernel.address("machine_kexec")
    with stages.stage("wait for the call"):
        guest.break_at(called)
        waiting(kernel)
        _wait(guest, called, limit)
        memory.forget()
        said = guest.raw()
        kernel = replace(kernel, mmu=replace(kernel.mmu, cr3=said["cr3"]))
        memory.in_use(kernel.mmu)
        kimage = said[kernel.width.argument]
        image = image_at(memory, kernel, kimage)
        started = time.monotonic()
        guest.unbreak(called)
        if isinstance(kernel, GuestKernel) and kernel.width.bits == 32:
            site, register = calls_by(kernel, "machine_kexec")
            _wait(guest, site, limit)
            virt = guest.raw()[register]
            guest.unbreak(site)
        else:
            virt = _at_v(memory, kernel, image.control_page)
        _wait(guest, virt, limit)
        spent = time.monotonic() - started
        memory.forget()
        guest.unbreak(virt)
    return Call(
        memory=memory,
        kernel=kernel,
        kimage=kimage,
        virt=virt,
        registers=guest.registers(),
        spent=spent,
        physical_bits=physical_bits,
        gbpages=guest.cpu_fact("pdpe1gb") is True,
    )


def judge(call: Call, *, new: Image | None = None, walk: bool = True, stages: Stages) -> Verdict:
    """Everything that it is about to walk, read and checked; nothing of it has run yet."""
    memory, kernel = call.memory, call.kernel
    memory.in_use(kernel.mmu)
    with stages.stage("read it"):
        image = replace(
            image_at(memory, kernel, call.kimage),
            control_page=control_page(memory, kernel, call.registers),
        )
        datas = bytes_of(memory, image)
        built = observed(
            memory,
            kernel,
            image,
            datas,
            call.registers,
            new=new,
            physical_bits=call.physical_bits,
            gbpages=call.gbpages,
        )
    with stages.stage("check it"):
        page = memory.phys(image.control_page, PAGE_SIZE)
        run, found = check.laid(built)
        told = check.told_apart(built, run, seen.apart(page, kernel, image))
        findings = [
            *(each for each in told if each.step is Step.CALL),
            *seen.tables(built),
            *(each for each in told if each.step is not Step.CALL),
            *seen.digest(image, datas, built),
        ]
        wrong = findings or [each for each in found if not each.advice]
        if walk and not wrong:
            run, found = _walked(built)
        known = {each.rule for each in findings}
        findings += [each for each in found if each.rule not in known]
    if isinstance(kernel, GuestXen):
        findings = of_its_call(findings, run.memory)
    else:
        findings = [_of_its_tables(each) for each in findings]
    return _verdict(built, run, tuple(findings), stages)


def watch(
    guest: Attached,
    *,
    old: Buffer | None = None,
    old_source: str = "--from",
    new: Image | None = None,
    limit: float = LIMIT,
    follow_limit: float = FOLLOW_SECONDS,
    walk: bool = True,
    stop_on_finding: bool = False,
    console: str | None = None,
    waiting: Callable[[GuestKernel | GuestXen], None] = nobody,
    said: Callable[[Passed], None] = nobody,
    progress: Progress = no_progress,
) -> Watched:
    """Watch the next kexec of a guest.

    `old` is the image of the kernel that it runs, `new` the one that it will enter; without
    them what is in its memory has to do.  `walk`: the handover is walked on the emulator before
    it is let go.  `limit` and `follow_limit`: seconds that it is waited for, and then followed, at
    most.  `console`: the file that QEMU writes the guest's console to, for the first line.
    `waiting` is told of the kernel that was found, once a breakpoint is at its kexec.
    Raises BadInput when it never comes, or where the guest is none that can be watched.
    """
    stages = Stages(progress)
    heard = None if console is None else Console(console)
    call = arrive(
        guest, old=old, old_source=old_source, limit=limit, waiting=waiting, stages=stages
    )
    verdict = judge(call, new=new, walk=walk, stages=stages)
    went = Followed(passed=(), ended=None, heard=None)
    standing = stop_on_finding and bool(verdict.findings)
    if standing:
        guest.leave(standing=True)
    else:
        with stages.stage("follow it"):
            went = follow(
                guest,
                verdict.handover,
                begun=call.spent,
                seconds=follow_limit,
                said=said,
                console=heard,
            )
    return Watched(
        verdict=replace(verdict, seconds=stages.seconds),
        kernel=call.kernel.name,
        version=call.kernel.version,
        text=Virt(call.kernel.text),
        passed=went.passed,
        ended=went.ended,
        heard=went.heard,
        standing=standing,
    )


def image_at(memory: GuestMemory, kernel: GuestKernel | GuestXen, at: int) -> KImage:
    """What is about to be entered.  Raises BadInput where that is none."""
    if isinstance(kernel, GuestXen):
        return read_image(memory, kernel, at)
    return read_kimage(memory, kernel, at)


def _at_v(memory: GuestMemory, kernel: GuestKernel | GuestXen, control_page: int) -> int:
    """Where the relocation code is called: in the text, or the control page in the direct map."""
    if isinstance(kernel, GuestXen):
        return kernel.address("kexec_reloc")
    if kernel.found.convention is Convention.LINUX_6:
        return int(kernel.found.virt)
    base = memory.word(kernel.mmu, kernel.address("page_offset_base"))
    return base + control_page + kernel.found.symbols["relocate_kernel"]


def _wait(guest: Attached, virt: int, limit: float) -> None:
    """Run to a place.  Raises BadInput when it does not come there."""
    guest.break_at(virt)
    if guest.go(seconds=limit):
        return
    ended = guest.ended()
    if ended is not None:
        raise BadInput(f"ended before its kexec: QEMU says {ended}", source=SOURCE, field="--qmp")
    raise BadInput(f"made no kexec within {limit:.0f} s", source=SOURCE, field="--limit")


def _walked(built: Handover) -> tuple[Run, tuple[Finding, ...]]:
    """Rehearsed on the emulator before it is let go; where it cannot be, what lies there is
    checked."""
    machine = emulator()
    try:
        run = machine.run(built)
    except (CannotBe, PlanError, MachineError):
        return check.laid(built)
    finally:
        machine.close()
    found = check.check(built, run)
    if run.stop is not Stop.ENTRY:
        return run, found
    # Linux takes the tables that map V from where it likes, and is through with them before the
    # copy.
    return run, tuple(
        replace(each, advice=True) if each.rule == "tables-kept" else each for each in found
    )


def _of_its_tables(found: Finding) -> Finding:
    """A kernel takes the tables of a crash from its own memory: weak, and so in every one.

    machine_kexec_alloc_page_tables() in machine_kexec_32.c, init_transition_pgtable() in _64.c.
    """
    if found.rule == "crash-region-only" and found.message.startswith("page_table_a"):
        return replace(found, advice=True)
    return found


def _verdict(built: Handover, run: Run, found: tuple[Finding, ...], stages: Stages) -> Verdict:
    findings = tuple(each for each in found if not each.advice)
    return Verdict(
        outcome=Outcome.FALLS if findings else Outcome.HOLDS,
        handover=built,
        run=run,
        findings=findings,
        advice=tuple(each for each in found if each.advice),
        asked=tuple(rule.criterion() for rule in check.asked(run)),
        unasked=check.unasked(run),
        console=None,
        seconds=stages.seconds,
    )
