"""Logs of kexecs that really fell: on a PC in QEMU, and on the emulator.

Rules: nothing is asserted here, and no log is written by hand: each is what a machine said when it fell.
What KVM's trace would say of a fall is put into the words of its format (arch/x86/kvm/trace.h).
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from tests.conftest import debian_kernel
from tests.makers.designs import TWO_TABLES
from tests.modes.runs import kernel, request
from tests.qemu.pcs import emulator, old_kernel, qemu
from tests.rehearse.runs import example_host, shipped_kernel, shipped_request
from tightrope import image, participants, shipped
from tightrope.deeds import defaults
from tightrope.deeds import old_kernel as old_kernels
from tightrope.deeds.explain import Rehearsed
from tightrope.deeds.rehearse import build, prepare, rehearse
from tightrope.deeds.until import Spoken
from tightrope.machine.qemu import stage
from tightrope.machine.qemu.pc import Pc
from tightrope.machine.unicorn import Emulator
from tightrope.model import (
    Handover,
    OnDamage,
    Paging,
    Participant,
    SegmentRole,
    Verdict,
    relocation_code,
)
from tightrope.plan import Request
from tightrope.sabotage import named
from tightrope.sabotage.edits import edit_segment
from tightrope.views.handler import printed
from tightrope.x86.cpu import VECTORS

COM1 = 0x3F8
FALL_SECONDS = 600.0
UD2 = b"\x0f\x0b"


def handover(paging: Paging, sabotage: str | None = None) -> Handover:
    """A made kernel from a described old one on a PC, perhaps broken."""
    plan = prepare(kernel(), old_kernel(paging), request())
    return build(plan, design=TWO_TABLES, sabotage=named(sabotage) if sabotage else None)


@cache
def sound(paging: Paging) -> Rehearsed:
    """The same, rehearsed and sound."""
    machine = Emulator()
    verdict = rehearse(kernel(), old_kernel(paging), request(), design=TWO_TABLES, machine=machine)
    return Rehearsed(verdict=verdict, machine=machine)


def on_a_pc(built: Handover) -> bytes:
    """What QEMU logs of a walk that falls."""
    qemu().close()  # skips where there is none
    with Pc(stage.board_for(built.host)) as pc:
        stage.after_firmware(pc)
        stage.lay_out(pc, built)
        pc.monitor("log int,cpu_reset")
        stopped = pc.go(seconds=FALL_SECONDS)
        log = pc.process.logged().encode("latin-1")
    assert stopped is not None, "it did not fall"
    return log


@cache
def qemus(sabotage: str, paging: Paging) -> bytes:
    """QEMU's log of a sabotaged walk."""
    return on_a_pc(handover(paging, sabotage))


@cache
def qemus_of_damaged_code() -> bytes:
    """QEMU's log of a new kernel whose first bytes are none of it."""

    def change(data: bytearray) -> None:
        data[0x200:0x202] = UD2

    return on_a_pc(edit_segment(handover(Paging.X86_64), SegmentRole.KERNEL, change, planned=False))


def kvms(sabotage: str, paging: Paging) -> bytes:
    """The trace of KVM's exits, as its format has a fall of the emulator's."""
    fault = emulator().run(handover(paging, sabotage)).fault
    assert fault is not None
    assert fault.triple
    lines = [
        f" qemu-1021 [000] ..... 81.{n}: kvm_exit: vcpu 0 reason {why} rip 0x{fault.rip:x} info1"
        " 0x0000000000000000 info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000"
        for n, why in enumerate(("EPT_VIOLATION", "TRIPLE_FAULT"))
    ]
    code = "" if fault.error_code is None else f" (0x{fault.error_code:x})"
    lines.insert(
        1, f" qemu-1021 [000] ..... 81.0: kvm_inj_exception: {VECTORS[fault.vector]}{code}"
    )
    return ("\n".join(lines) + "\n").encode()


# ------------------------------------------------------------------------------- Linux's handlers


@cache
def linux_7() -> Rehearsed:
    """Linux 7.3's own code into the shipped kernel, sound."""
    machine = Emulator()
    return Rehearsed(verdict=_from_linux_7(machine), machine=machine)


def _from_linux_7(machine: Emulator, participant: Participant | None = None) -> Verdict:
    path = debian_kernel("amd64-7.3")
    code = old_kernels.read(path.read_bytes(), path.name)
    old = defaults.example(paging=Paging.X86_64, xen=None, dom0_bits=None, crash=False)
    return rehearse(
        image.read(shipped.read(), "the shipped kernel"),
        code.host(old),
        code.request(Request(command_line="a word")),
        design=participant or code.participant,
        machine=machine,
    )


def handlers(was: str, becomes: str) -> bytes:
    """What Linux 7.3's handlers print where an instruction of its control page is another."""
    code = relocation_code(linux_7().handover.chain)
    data = code.code.data
    assert data.count(bytes.fromhex(was)) == 1
    broken = replace(
        code, code=replace(code.code, data=data.replace(bytes.fromhex(was), bytes.fromhex(becomes)))
    )
    lines = printed(_from_linux_7(Emulator(), broken))
    assert lines
    return "".join(f"{each}\r\n" for each in lines).encode()


# ------------------------------------------------------------------------------------- consoles


@cache
def purgatorys() -> bytes:
    """What our purgatory says of an initrd that was changed."""
    asked = replace(shipped_request(), verify=OnDamage.HALT)
    verdict = rehearse(
        shipped_kernel(),
        example_host(),
        asked,
        sabotage=named("initrd-byte"),
        machine=Emulator(),
    )
    return bytes(value for port, value in verdict.run.ports if port == COM1)


@cache
def decompressors() -> bytes:
    """What Debian's kernel says of a payload of which some bytes are others."""
    path = debian_kernel("cloud-amd64")
    new = image.read(path.read_bytes(), path.name)
    payload = new.payload
    assert payload is not None
    line = "console=ttyS0 earlyprintk=ttyS0,115200"
    plan = prepare(new, old_kernel(Paging.X86_64, 512), Request(command_line=line))
    built = build(plan, design=participants.OURS)

    def change(data: bytearray) -> None:
        at = payload.offset + 0x10000
        data[at : at + 64] = b"\xff" * 64

    machine = Emulator()
    machine.run(edit_segment(built, SegmentRole.KERNEL, change, planned=False))
    heard = machine.console(seconds=600, ends=lambda line: "halted" in line)
    return "\n".join(heard.lines).encode() + b"\n"


@cache
def speaks() -> bytes:
    """What a new kernel says that nothing is wrong with."""
    verdict = rehearse(
        shipped_kernel(), example_host(), shipped_request(), until=Spoken(), machine=Emulator()
    )
    assert verdict.console is not None
    return "\n".join(verdict.console.lines).encode()
