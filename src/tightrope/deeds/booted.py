"""A rehearsal whose old kernel is a real one: booted on a PC, stopped, and walked from.

    boot -> stop where it would restart -> read its world -> plan -> build -> lay over -> walk -> userspace

The handover goes into what the old kernel reserved (crashkernel=), and our relocation code over its own
page at V; nothing else of it is touched before the copy.  That its page tables are byte for byte
what they were is looked at twice: before the copy begins, all of them, and at the entry, those
that are not themselves destinations of the copy.

Rules: like `rehearse` this composes rooms and opens no file.  The verdict has the same shape.
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrope import check, handover, host, participants
from tightrope.deeds.rehearse import Stages, prepare, verdict
from tightrope.deeds.unpacking import Unpacking
from tightrope.deeds.until import Userspace, judged, listen
from tightrope.machine.port import Progress, no_progress
from tightrope.machine.qemu import Qemu, guest
from tightrope.machine.qemu.pc import Board
from tightrope.machine.qemu.stage import PHYSICAL_BITS
from tightrope.memory import PAGE_SIZE
from tightrope.model import (
    Buffer,
    Console,
    Finding,
    Image,
    Step,
    Stop,
    Verdict,
    relocation_code,
)
from tightrope.plan import Request

BOOT_SECONDS = 300.0
CONSOLE = "console=ttyS0 quiet panic=-1 cryptomgr.notests"


@dataclass(frozen=True, kw_only=True, slots=True)
class OldKernel:
    """A real kernel to walk from; `kernel` is a bzImage, `initrd` one of
    scripts/build-initramfs."""

    kernel: Buffer
    initrd: Buffer
    mebibytes: int = 512
    reserve: str = "128M"
    """The argument of crashkernel=: room for the new kernel's copy."""
    la57: bool = False
    drive: int | None = None
    """Descriptor of a file that both kernels see as their first NVMe disk."""


def rehearse_booted(
    old: OldKernel,
    image: Image,
    request: Request,
    *,
    until: Userspace,
    design: str = participants.OURS,
    machine: Qemu | None = None,
    boot_seconds: float = BOOT_SECONDS,
    progress: Progress = no_progress,
) -> Verdict:
    """Walk from a real old kernel until the new one's init says a word.

    A given `machine` is closed by whoever made it.  Raises TightropeError when it cannot be told.
    """
    if machine is None:
        machine = Qemu()
        try:
            return rehearse_booted(
                old,
                image,
                request,
                until=until,
                design=design,
                machine=machine,
                boot_seconds=boot_seconds,
                progress=progress,
            )
        finally:
            machine.close()
    stages = Stages(progress)
    unpacking = Unpacking(image, request.initrd)
    board = Board(
        size=old.mebibytes << 20,
        kernel=old.kernel,
        initrd=old.initrd,
        command_line=f"{CONSOLE} crashkernel={old.reserve}",
        drive=old.drive,
        cpu=f"max,la57={'on' if old.la57 else 'off'}",
    )
    with stages.stage("boot"):
        standing = guest.boot(board, seconds=boot_seconds, progress=progress)
        machine.own(standing.pc)
    read = standing.pc.ram.view
    with stages.stage("plan"):
        told = host.Told(
            iomem=standing.iomem,
            symbols=standing.symbols,
            notes=standing.notes,
            physical_bits=PHYSICAL_BITS,
            gbpages=True,
        )
        found = host.read_guest(told, standing.registers, read, crash=request.crash)
        the_plan = prepare(image, found.host, request)
        chain = participants.chain(the_plan, design)
        the_plan = handover.fitted(the_plan, chain)
    with stages.stage("tables"):
        world = host.with_code(found, relocation_code(chain).called, the_plan.relocation, read)
        built = handover.build(the_plan, world, chain)
        guest.lay_over(standing, built)
    changed: list[int] = []

    def look(step: Step) -> None:
        if step is Step.TABLE_B:
            changed.extend(
                frame for frame, was in world.tables.items() if read(frame, PAGE_SIZE) != was
            )

    with stages.stage("walk"):
        run = machine.walk(standing.pc, built, look)
    with stages.stage("check"):
        asked = check.check(built, run, unpacked=unpacking.initrd_size())
        findings = (*unpacking.findings(), *_changed(changed), *asked)
    heard: Console | None = None
    if run.stop is Stop.ENTRY:
        with stages.stage("userspace"):
            heard = listen(machine, until, image, progress)
            findings += tuple(judged(heard, until, image))
    return verdict(built, run, findings, heard, until, unpacking, stages)


def _changed(frames: list[int]) -> tuple[Finding, ...]:
    """The finding for page tables of the old kernel that changed before the copy."""
    if not frames:
        return ()
    return (
        Finding(
            rule="current-pgd-kept",
            step=Step.TABLE_B,
            message=f"{len(frames)} of the old kernel's page tables changed before the copy",
            evidence={"first": f"{frames[0]:#x}"},
            mend="build tables of your own: a crash dump must find the current pgd whole",
        ),
    )
