"""What a log comes to by itself: who had the CPU, as far as it says, and causes that leave such
a log.

Rules: every candidate has a reason in the log; what would tell more is a limit, not a guess.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tightrope.model import Step
from tightrope.model.corpse import Candidate, Ending, LogKind, Phase, Raised, Remains
from tightrope.x86 import cpu as x86

HIGH = 1 << 63
PRESENT, WRITE, RESERVED, FETCH = 1, 2, 8, 16
"""Bits of a page fault's error code (SDM 4.7)."""
PAGE_FAULT, PROTECTION, UNDEFINED = 14, 13, 6
PANIC, INITRAMFS = "a kernel panicked", "could not unpack its initramfs"
"""What the table of words says of both."""


def name(raised: Raised) -> str:
    """An exception in words: `#PF (error 0x10) at 0x8005005, address 0x8005005`."""
    words = x86.VECTORS.get(raised.vector, "an exception")
    if raised.error_code is not None:
        words += f" (error {raised.error_code:#x})"
    if raised.rip is not None:
        words += f" at {raised.rip:#x}"
    if raised.address is not None:
        words += f", address {raised.address:#x}"
    return words


def reason(raised: Raised) -> str | None:
    """What a page fault's error code says; None for other exceptions."""
    code = raised.error_code
    if raised.vector != PAGE_FAULT or code is None:
        return None
    what = "fetch" if code & FETCH or raised.address == raised.rip else "read"
    what = "write" if code & WRITE else what
    if code & RESERVED:
        return f"a {what} met an entry with a reserved bit set"
    if code & PRESENT:
        right = {"fetch": "forbids to execute", "write": "forbids to write"}.get(what, "forbids")
        return f"a {what} met an entry that is present and {right}"
    return f"a {what} met an entry that is not present"


def settled(remains: Remains, before: tuple[Remains, ...]) -> Remains:
    """A panic behind an old kernel's last words is the new kernel's, which is no crash any more."""
    left = any(each.phase in (Phase.OLD_KERNEL, Phase.HYPERVISOR) for each in before)
    if remains.phase is not Phase.UNKNOWN or PANIC not in remains.words or not left:
        return remains
    words = remains.words.replace(", and enters its crash kernel where it has one", "")
    return replace(remains, phase=Phase.NEW_KERNEL, ending=Ending.STOPPED, words=words)


def phase(remains: Remains) -> tuple[Phase, Step | None]:
    """Who had the CPU by the log alone."""
    if remains.phase is not Phase.UNKNOWN or not remains.raised:
        return remains.phase, None
    values = remains.raised[0].registers
    rip = remains.raised[0].rip
    if rip is None or "idt_limit" not in values:
        return Phase.UNKNOWN, None
    bare = values["idt_limit"] == 0
    if bare and rip & HIGH:
        return Phase.WALK, None
    return Phase.UNKNOWN, None


def told(remains: Remains) -> Iterator[str]:
    """What the registers say by themselves, one sentence each."""
    if not remains.raised:
        return
    first, values = remains.raised[0], remains.raised[0].registers
    if (why := reason(first)) is not None:
        yield why
    if values.get("idt_limit") == 0:
        yield "the idt has limit 0: whatever is raised becomes a triple fault at once"
    elif remains.ending is Ending.TRIPLE_FAULT and "idt" in values:
        yield f"the idt is at {values['idt']:#x}, and delivery through it failed"
    rip = first.rip
    if rip is not None and "cr0" in values:
        if not values["cr0"] & x86.CR0_PG:
            yield "paging was off"
        elif rip & HIGH:
            yield "the CPU was at an address of the old kernel's, so before the jump to P"
        else:
            yield (
                "the CPU was at a low address, so behind the jump to P: in the control page, a purgatory,"
                " an entry stub or the new kernel"
            )


def candidates(remains: Remains | None, before: tuple[Remains, ...]) -> Iterator[Candidate]:
    """Causes that leave such a log."""
    if remains is None:
        return
    if remains.raised:
        yield from _faults(remains)
    elif remains.ending is Ending.WENT_ON:
        return
    elif PANIC in remains.words:
        yield from _panicked(remains, before)
    elif INITRAMFS in remains.words:
        yield _initrd(remains)
    elif remains.phase is Phase.HYPERVISOR and remains.ending is Ending.STOPPED:
        yield _no_crash_image(remains)
    elif remains.kind is LogKind.PURGATORY:
        yield from _purgatory(remains)
    elif "corrupt" in remains.words or "System halted" in remains.words:
        yield Candidate(
            cause="the packed kernel in memory is not the file's: it was changed on the disk, on its way"
            " through the load, or by the copy",
            speaks_for=(remains.words,),
            speaks_against=_sound_purgatory(before),
        )
        yield Candidate(
            cause="the memory it is unpacked into is not RAM, or is written by somebody else: a device that"
            " still does DMA",
            speaks_for=("the decompressor gives the same words for both",),
        )
    elif remains.phase is Phase.DECOMPRESSOR:
        yield Candidate(
            cause="an address that the decompressor needs is not in the tables that it was entered with",
            speaks_for=("it was entered, and says no more",),
        )
        yield Candidate(
            cause="the place it unpacks to is not RAM, or is in use: the memory map it was handed is wrong",
            speaks_for=("it was entered, and says no more",),
        )
        yield from _quiet()
    elif remains.phase is Phase.NEW_KERNEL and remains.ending is Ending.LAST_WORD:
        yield from _quiet()
        yield Candidate(
            cause="the new kernel fell before it had a console: a wrong memory map, setup_data or initrd"
            " address in boot_params",
            speaks_for=("it was unpacked and about to be entered, and says no more",),
        )
    elif remains.phase in (Phase.OLD_KERNEL, Phase.HYPERVISOR):
        yield from _silence(remains.words)


def _initrd(*remains: Remains) -> Candidate:
    return Candidate(
        cause="the initrd in memory is not the file's, or is packed in a way that this kernel cannot unpack",
        speaks_for=tuple(each.words for each in remains),
    )


def _panicked(remains: Remains, before: tuple[Remains, ...]) -> Iterator[Candidate]:
    if remains.phase is Phase.NEW_KERNEL:
        yield from (_initrd(each, remains) for each in before if INITRAMFS in each.words)
        yield Candidate(
            cause="the new kernel came up and panicked by itself: its lines above say why",
            speaks_for=(remains.words, "an old kernel had left before"),
        )
        return
    if remains.ending is Ending.STOPPED:
        yield _no_crash_image(remains)
        return
    yield from _silence(remains.words)
    yield Candidate(
        cause="no crash kernel was loaded, and panic= with a number below 0 restarts the machine at once",
        speaks_for=("such a kernel says no more than this",),
    )


def _no_crash_image(remains: Remains) -> Candidate:
    return Candidate(
        cause="no crash kernel was loaded when it crashed, or it was unloaded before",
        speaks_for=(remains.words,),
    )


def _sound_purgatory(before: tuple[Remains, ...]) -> tuple[str, ...]:
    entered = any(each.phase is Phase.PURGATORY for each in before)
    return ("a purgatory ran before it, and found its digest right",) if entered else ()


def _quiet() -> Iterator[Candidate]:
    yield Candidate(
        cause="the new kernel runs and has no console: console= or earlyprintk= is not on its command line",
        speaks_for=("nothing in the log says that anything fell",),
    )


def silence() -> Iterator[Candidate]:
    """Causes of a console that never said a word."""
    yield from _silence("the log has no byte")


def _silence(words: str) -> Iterator[Candidate]:
    yield Candidate(
        cause="it fell on the walk: a triple fault resets the machine and says nothing",
        speaks_for=(words, "no word of a new kernel follows"),
    )
    yield Candidate(
        cause="a purgatory waits for ever: a digest does not match, and it was told no console",
        speaks_for=("no word of a new kernel follows",),
    )
    yield from _quiet()


def _purgatory(remains: Remains) -> Iterator[Candidate]:
    if remains.ending is not Ending.STOPPED:
        yield Candidate(
            cause="the digest did not match, or the new kernel fell before its first word",
            speaks_for=(remains.words,),
        )
        return
    yield Candidate(
        cause="a segment was written to after it was loaded: by a device's DMA, by firmware, or by the old"
        " kernel through a stale pointer",
        speaks_for=(remains.words,),
    )
    yield Candidate(
        cause="the copy took a page from a wrong place: a damaged word of the page list",
        speaks_for=(remains.words,),
    )


def _faults(remains: Remains) -> Iterator[Candidate]:
    first = remains.raised[0]
    evidence = tuple(told(remains))
    if remains.ending is Ending.WENT_ON:
        return
    if first.vector == PAGE_FAULT:
        yield Candidate(
            cause="the entry for this address is missing or wrong in the tables in use"
            + (f", at CR3 {first.registers['cr3']:#x}" if "cr3" in first.registers else ""),
            speaks_for=evidence,
        )
        yield Candidate(
            cause="the address is not what it should be: a wrong word of the page list, or a wrong register",
            speaks_for=(f"{name(first)}",),
        )
    elif first.vector == UNDEFINED:
        yield Candidate(
            cause="these bytes are not code: the page was changed, or the CPU was led astray",
            speaks_for=(name(first), *evidence),
        )
    elif first.vector == PROTECTION:
        yield Candidate(
            cause="a control register, EFER or a segment was given what the CPU refuses, or an address is not"
            " canonical",
            speaks_for=(name(first), *evidence),
        )
    elif first.vector >= 0:
        yield Candidate(cause=f"{name(first)} was raised", speaks_for=evidence)


def limits(remains: Remains | None) -> Iterator[str]:
    """What the log does not say."""
    if remains is None:
        return
    if remains.cut:
        yield "The log ends in the middle of this: what follows is of what is there."
    if remains.kind is LogKind.KVM:
        yield "A trace of exits has neither registers nor tables: rip is all that it says."
        if not remains.raised or remains.raised[0].vector < 0:
            yield "Which exception began it is not in the trace: record kvm_inj_exception as well."
    if remains.kind is LogKind.HANDLER:
        yield "The handlers do not print CR3: which tables were in use follows from the place alone."
    if remains.kind is LogKind.QEMU and remains.ending is Ending.LAST_WORD:
        yield (
            "There is no triple fault in it: this is the last exception, and it may have been handled like any"
            " other."
        )
    if remains.ending is Ending.LAST_WORD and not remains.raised:
        yield "That nothing follows does not say that nothing ran."
