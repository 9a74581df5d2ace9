"""A state at the call that no CPU can be in: told as a fall, because nothing could be walked from
it.

    a segment register whose selector its gdt does not bear out     whoever loaded it has met #GP
    EFER.LMA that is not LME and CR0.PG                             the CPU keeps that bit itself
    CR0, CR3, CR4 or EFER with what no write of it leaves there     the write has met #GP
    a reserved bit of RFLAGS, or virtual-8086 mode                  POPF changes none of them

A gdt that cannot be read for any of them is none of these: kernels give theirs up before the call.
What they had loaded from it was flat; the ring and the table that a selector names are in the
selector itself.

Rules: asked before anything is executed; legality is `x86.cpu`'s.
"""

from __future__ import annotations

from tightrope.memory import Virt
from tightrope.model import Fault, Memory, Registers, Run, Step, Stop
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.privileged import Refusal
from tightrope.observe.record import known_descriptors
from tightrope.x86 import cpu as x86

GENERAL_PROTECTION = 13
DPL = 45
"""Its lowest bit in a descriptor (SDM figure 3-8)."""


def impossible(mmu: WatchedMmu, registers: Registers) -> Refusal | None:
    """Why the registers at the call contradict one another, or None."""
    long_mode = bool(registers.efer & x86.EFER_LME and registers.cr0 & x86.CR0_PG)
    if bool(registers.efer & x86.EFER_LMA) != long_mode:
        return Refusal(0, "EFER.LMA is not what EFER.LME and CR0.PG make it")
    wrong = x86.impossible(mmu.state(code64=False))
    if wrong is not None:
        name, why = wrong
        return Refusal(0, f"{name.upper()} = {getattr(registers, name):#x}: {why}")
    flags = registers.rflags
    if flags & x86.RFLAGS_RESERVED or not flags & x86.RFLAGS_FIXED:
        return Refusal(0, f"RFLAGS = {flags:#x} has a reserved bit that is not what it always is")
    if flags & x86.RFLAGS_VM:
        return Refusal(0, "RFLAGS.VM is set, and no kernel runs in virtual-8086 mode")
    known = known_descriptors(mmu, registers)
    if known and all(each is None for each in known.values()):
        wide = 64 if registers.efer & x86.EFER_LMA else 32
        known = {
            name: x86.flat_descriptor(code=name == "cs", bits=wide if name == "cs" else 32)
            | _ring(name, registers.segments[name])
            for name in known
        }
    for name, selector in registers.segments.items():
        if not selector & ~3 and name not in ("cs", "ss"):
            continue
        reason = x86.segment_refusal(name, selector, known.get(name))
        if reason is not None:
            return Refusal(selector & ~3, f"{name} cannot hold {selector:#x}: {reason}")
    return None


def _ring(name: str, selector: int) -> int:
    """A descriptor's DPL, in its place: a 32-bit kernel keeps a process's gs, whose data is of ring
    3.

    Linux has no segment of the rings between: what asks for one was never loaded.
    """
    process = name not in ("cs", "ss") and selector & 3 == 3
    return 3 << DPL if process else 0


def refused(
    machine: str, why: Refusal, registers: Registers, memory: Memory, blind: tuple[str, ...]
) -> Run:
    """The run of a machine that was asked to begin in such a state."""
    return Run.unwatched(
        machine=machine,
        stop=Stop.FAULT,
        fault=Fault(
            instruction=0,
            step=Step.CALL,
            vector=GENERAL_PROTECTION,
            error_code=why.error_code,
            address=None,
            access=None,
            rip=Virt(registers.rip),
            text="the call",
            reason=f"no CPU is in this state: {why.reason}",
            visits=(),
            escalation=(),
            triple=False,
        ),
        registers=registers,
        memory=memory,
        descriptors={},
        blind=blind,
        trace=(registers.rip,),
        step_starts=((0, Step.CALL),),
        texts={registers.rip: "the call"},
    )
