"""A guest that stands at V, and what can be wrong in its memory: made, told, and let go.

Rules: nothing is asserted here.  A sabotage writes into the guest by its debugger, as a stray write would;
what then happens is the guest's own doing, and a `Went` says both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tests.watch.guests import CRASHES, LEAVE, Guest, load
from tightrope.deeds.rehearse import Stages
from tightrope.deeds.watch.console import Console
from tightrope.deeds.watch.deed import Call, arrive, image_at, judge
from tightrope.deeds.watch.follow import follow
from tightrope.deeds.watch.kernel import find_kernel, mmu_of
from tightrope.deeds.watch.loaded import KImage
from tightrope.deeds.watch.memory import GuestMemory
from tightrope.machine.attached import Attached
from tightrope.machine.port import no_progress
from tightrope.memory import PAGE_SIZE
from tightrope.model import SegmentRole, Verdict
from tightrope.x86.walk import Access, Refused, walk

LOADS = {
    "tools": ("-c", "-l", "--console-serial"),
    "file": ("-s", "-l"),
    "panic": ("-c", "-p", "--console-serial"),
}
"""kexec -e, systemctl kexec's kexec_file_load, and a crash; kexec-tools' purgatory is to speak."""
FOLLOW_SECONDS = 180.0
"""Far above the longest digest: what is lost is noticed when it stands still."""
BITS = 40


NARROW = "686-pae"


def ways(flavour: str) -> tuple[str, ...]:
    """The ways that an old kernel has: neither one of 32 bits nor a Xen's dom0 has kexec_file_load."""
    plain = flavour.startswith("amd64")
    return tuple(each for each in LOADS if plain or each != "file")


def changes(flavour: str, how: str) -> tuple[str | None, ...]:
    """What is changed there: nothing, then each.  A 32-bit crash's list is one word of its call, in no
    memory that would be told."""
    left_out = "a list entry" if (flavour, how) == (NARROW, "panic") else ""
    return None, *(each for each in SABOTAGES if each != left_out)


def leaves(how: str) -> str:
    """What is typed for the jump."""
    return CRASHES if how == "panic" else LEAVE


def booted(guest: Guest, hows: tuple[str, ...] = tuple(LOADS), *, prompt: str = "") -> None:
    """Once it is up, each way is loaded and a state of it; `prompt` names the state before."""
    guest.wait("guest: up")
    if prompt:
        guest.save(prompt)
    for how in hows:
        guest.do(load(*LOADS[how]))
        guest.save(how)


@contextmanager
def case(guest: Guest, state: str, *, run: bool = True) -> Iterator[Guest]:
    """A guest as it was then; behind the case it stands, whatever it was made to do."""
    guest.back(state, run=run)
    try:
        yield guest
    finally:
        guest.monitor("stop")


@dataclass(frozen=True, slots=True)
class Standing:
    """A guest that stood at V when it was saved, and what was said of it."""

    guest: Guest
    how: str
    call: Call
    sound: Verdict
    said: str
    """Its console, from the command on."""

    @property
    def state(self) -> str:
        """What the guest's state there is called."""
        return f"{self.how}-called"

    @contextmanager
    def again(self) -> Iterator[tuple[Attached, Call]]:
        """As it stood; its memory is read anew."""
        with case(self.guest, self.state, run=False), self.guest.attached() as attached:
            memory = GuestMemory(attached)
            memory.in_use(self.call.kernel.mmu)
            yield attached, replace(self.call, memory=memory)


def standing(guest: Guest, how: str) -> Standing:
    """A guest that has loaded by one way, at its call."""
    stages = Stages(no_progress)
    with case(guest, how) as there, there.attached() as attached:
        there.say(leaves(how))
        call = arrive(attached, stages=stages)
        verdict = judge(call, walk=False, stages=stages)
        there.hear()
        stood = Standing(guest, how, call, verdict, there.text)
        attached.leave(standing=True)
        there.save(stood.state)
    return stood


# ------------------------------------------------------------------------------- what is wrong


def poke(guest: Attached, at: int, data: bytes) -> None:
    """Physical memory of the guest's, as nobody but a test writes it."""
    guest.read(at, 1)  # the stub's addresses are physical from here on
    assert guest.gdb(b"M%x,%x:%b" % (at, len(data), data.hex().encode())) == b"OK"


def image_of(call: Call) -> KImage:
    """Its struct kimage."""
    return image_at(call.memory, call.kernel, call.kimage)


def source_of(call: Call, verdict: Verdict, role: SegmentRole, offset: int) -> int:
    """Where a byte of a segment lies before the copy; a crash image's lies where it stays."""
    segment = next(e for e in verdict.handover.intent.segments if e.role is role)
    image = image_of(call)
    lies = dict(zip(image.destinations.tolist(), image.sources.tolist(), strict=True))
    frame = (segment.destination.start + offset) // PAGE_SIZE
    return int(lies.get(frame, frame)) * PAGE_SIZE + offset % PAGE_SIZE


def table_entry(guest: Attached, call: Call, sound: Verdict) -> None:
    """The entry of the tables for P's own 2 MiB is not present."""
    built = sound.handover
    mmu = built.registers.mmu(built.host.cpu, root=built.page_table_a.root)
    got = walk(call.memory.entry, mmu, built.intent.control_page, Access.READ)
    assert not isinstance(got, Refused)
    poke(guest, got.visits[-1].at, bytes(8))


def list_entry(guest: Attached, call: Call, _sound: Verdict) -> None:
    """A source of the list is the frame before it; the one word of a Xen crash leads nowhere."""
    pages = image_of(call).list_pages
    if call.kernel.name == "Xen" and image_of(call).crash:
        poke(guest, next(iter(pages)), NOWHERE.to_bytes(8, "little"))
        return
    size = call.kernel.width.size
    for frame, data in pages.items():
        for at in range(64 * size, len(data), size):
            word = int.from_bytes(data[at : at + size], "little")
            if word & 8:
                poke(guest, frame + at, (word - PAGE_SIZE).to_bytes(size, "little"))
                return


NOWHERE = 1 << 39 | 2
"""A word that says that the list goes on where no memory is."""


def head_entry(guest: Attached, memory: GuestMemory) -> None:
    """The one word of a crash image's list, before the crash: the list goes on in no memory."""
    kernel = find_kernel(memory, mmu_of(guest.registers(), BITS), None, "")
    at = memory.word(kernel.mmu, kernel.address("kexec_crash_image"))
    phys = memory.where(kernel.mmu, at)
    assert phys is not None
    poke(guest, phys, NOWHERE.to_bytes(8, "little"))


def segment_byte(guest: Attached, call: Call, sound: Verdict) -> None:
    """A bit of the initrd."""
    at = source_of(call, sound, SegmentRole.INITRD, 0x4321)
    old = call.memory.phys(at, 1)
    poke(guest, at, bytes([old[0] ^ 0x10]))


UD2 = b"\x0f\x0b"


def _no_code(guest: Attached, sound: Verdict, label: str) -> None:
    built = sound.handover
    offset = built.relocation_code.code.symbols[label]
    poke(guest, built.intent.control_page + offset, UD2)


def control_page(guest: Attached, _call: Call, sound: Verdict) -> None:
    """What runs first at P is no instruction: 7.x has not loaded its handlers yet."""
    _no_code(guest, sound, "identity_mapped")


def copying_code(guest: Attached, _call: Call, sound: Verdict) -> None:
    """What copies is no instruction: 7.x has loaded its handlers by then."""
    xen = "relocate_pages" in sound.handover.relocation_code.code.symbols
    _no_code(guest, sound, "relocate_pages" if xen else "swap_pages")


def boot_params(guest: Attached, call: Call, sound: Verdict) -> None:
    """The command line's address is another."""
    at = source_of(call, sound, SegmentRole.BOOT_PARAMS, 0x228)
    poke(guest, at, b"\x10\x00\x00\x00")


SABOTAGES: dict[str, tuple[Callable[[Attached, Call, Verdict], None], frozenset[str]]] = {
    "a table entry": (table_entry, frozenset({"table-a-maps-p", "fetch-mapped", "table-b-covers"})),
    "a list entry": (
        list_entry,
        frozenset({"list-is-the-segments", "digest-agrees", "table-b-covers"}),
    ),
    "a segment byte": (segment_byte, frozenset({"digest-agrees"})),
    "the control page": (control_page, frozenset({"control-page-is-the-kernels"})),
    "the copying code": (copying_code, frozenset({"control-page-is-the-kernels"})),
    "boot_params": (boot_params, frozenset({"digest-agrees"})),
}
"""What is changed; how, and the rules that may say so."""
ON_THE_WALK = frozenset({"a table entry", "the control page", "the copying code"})
"""Those that no purgatory is reached with."""


# ------------------------------------------------------------------------------- and let go


@dataclass(frozen=True, slots=True)
class Went:
    """What was told of a guest before it was let go, and what became of it."""

    told: str | None
    """The first finding's rule; None where it holds."""
    message: str
    came_to: str | None
    """The last place; None where it came to none."""
    ended: str | None
    """Why it came no further; None where it came to the last place."""
    first_line: str | None
    said: str
    """Its console, from the command that makes it leave up to where it was seen last."""


def let_go(stood: Standing, sabotage: str | None) -> Went:
    """Made, where there is one; told, and let go."""
    if (stood.how, sabotage, stood.call.kernel.name) == ("panic", "a list entry", "Linux"):
        return _crashed(stood)
    with stood.again() as (attached, call):
        if sabotage is not None:
            SABOTAGES[sabotage][0](attached, call, stood.sound)
            call.memory.forget()
        return _told(stood, attached, call, stood.said)


def _crashed(stood: Standing) -> Went:
    """A crash image's list is one word, which the call has in a register: that is changed before."""
    with case(stood.guest, stood.how) as guest, guest.attached() as attached:
        head_entry(attached, GuestMemory(attached))
        guest.say(leaves(stood.how))
        return _told(stood, attached, arrive(attached, stages=Stages(no_progress)), "")


def _told(stood: Standing, attached: Attached, call: Call, before: str) -> Went:
    verdict = judge(call, walk=False, stages=Stages(no_progress))
    went = follow(
        attached,
        stood.sound.handover,
        begun=call.spent,
        seconds=FOLLOW_SECONDS,
        said=lambda each: None,
        console=Console(str(stood.guest.console)),
    )
    stood.guest.hear()
    first = verdict.findings[0] if verdict.findings else None
    return Went(
        told=first.rule if first else None,
        message=first.message if first else "",
        came_to=went.passed[-1].name if went.passed else None,
        ended=went.ended,
        first_line=went.heard.line if went.heard else None,
        said=before + stood.guest.text,
    )
