"""Guests of 6.1 and 7.3 that leave for another kernel, watched: sound, and with their memory sabotaged.

    kexec -l, kexec -s -l, kexec -p     loaded once each, in one guest of a kernel; each case comes back to one
    five sabotages                      made while the guest stands at the call, told, and let go

Whether what was told is so, the guest itself says: it comes up, resets, or is never heard of again.
"""

from __future__ import annotations

import functools
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.conftest import lacking
from tests.watch.guests import CRASHES, LEAVE, Guest, load
from tightrope.deeds.rehearse import Stages
from tightrope.deeds.watch import watch
from tightrope.deeds.watch.deed import Call, arrive, judge
from tightrope.deeds.watch.follow import follow
from tightrope.deeds.watch.loaded import KImage, read_kimage
from tightrope.deeds.watch.memory import GuestMemory
from tightrope.machine.attached import Attached
from tightrope.machine.port import no_progress
from tightrope.memory import PAGE_SIZE
from tightrope.model import Outcome, SegmentRole, Verdict
from tightrope.model.watched import Passed
from tightrope.participants.linux import Convention
from tightrope.views.watched import blackout
from tightrope.x86.walk import Access, Refused, walk

FLAVOURS = ["amd64", "amd64-7.3"]
LOADS = {"tools": ("-c", "-l"), "file": ("-s", "-l"), "panic": ("-c", "-p")}
CALLED = "called"
"""A guest that stands at V."""
PROMPT = "up"
FOLLOW_SECONDS = 120.0
"""Far above the longest digest: what is lost is noticed when it stands still."""


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="watched-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def guest_of(folder: Path) -> Iterator[Callable[[str], Guest]]:
    """A guest of a kernel that has loaded another in one of three ways, each a state of it."""
    if shutil.which("qemu-system-x86_64") is None or not Path("/sbin/kexec").exists():
        lacking("no QEMU or no kexec here: run scripts/system-packages")
    with ExitStack() as left:

        @functools.cache
        def boot(flavour: str) -> Guest:
            # 7.3 as its file is: it unpacks itself, and KASLR moves it.
            guest = left.enter_context(Guest(folder / flavour, flavour, kaslr=flavour != "amd64"))
            guest.wait("guest: up")
            guest.save(PROMPT)
            for name, how in LOADS.items():
                guest.do(load(*how))
                guest.save(name)
            return guest

        yield boot


@contextmanager
def case(guest: Guest, state: str, *, run: bool = True) -> Iterator[Guest]:
    """A guest as it was then; behind the case it stands, whatever it was made to do."""
    guest.back(state, run=run)
    try:
        yield guest
    finally:
        guest.monitor("stop")


@pytest.mark.parametrize("how", LOADS)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_guest_that_leaves_is_seen_step_by_step_and_comes_up(
    guest_of: Callable[[str], Guest], flavour: str, how: str
) -> None:
    said: list[Passed] = []
    with case(guest_of(flavour), how) as guest:
        with guest.attached() as attached:
            guest.say(CRASHES if how == "panic" else LEAVE)
            got = watch(
                attached,
                walk=how == "file" and flavour == "amd64-7.3",
                console=str(guest.console),
                said=said.append,
            )
        if how == "file":
            guest.wait("guest: up")
    assert got.heard is not None
    assert "Linux version 6.1." in got.heard.line
    assert got.heard.seconds > got.passed[-1].seconds
    assert [each.what for each in blackout(got)] == ["copy", "digest", "unpack", "first line"]
    verdict = got.verdict
    assert (verdict.outcome, verdict.findings) == (Outcome.HOLDS, ())
    assert got.ended is None
    assert tuple(said) == got.passed
    names = ", ".join(each.name for each in got.passed)
    assert [*dict.fromkeys(names.split(", "))] == [
        "after_table_a",
        "set_stack",
        "identity_mapped",
        "the purgatory",
        "the new kernel's entry",
        "the decompressor",
        "moved",
        "it is unpacked",
    ]
    seconds = [each.seconds for each in got.passed]
    assert seconds == sorted(seconds)
    intent = verdict.handover.intent
    assert intent.crash is (how == "panic")
    assert "tightrope=watched" in intent.command_line
    roles = {each.role for each in intent.segments}
    assert {SegmentRole.KERNEL, SegmentRole.INITRD, SegmentRole.PURGATORY} <= roles
    loader = "kexec_file_load of Linux" if how == "file" else "kexec-tools"
    assert verdict.handover.plan.loaded is not None
    assert verdict.handover.plan.loaded.by.startswith(loader)
    assert (got.version or "").startswith("6.1." if flavour == "amd64" else "7.3.")
    if flavour == "amd64-7.3":
        assert got.text != 0xFFFF_FFFF_8100_0000, "KASLR is on"


# --------------------------------------------------------------------------------- sabotages


def poke(guest: Attached, at: int, data: bytes) -> None:
    """Physical memory of the guest's, as nobody but a test writes it."""
    guest.read(at, 1)  # the stub's addresses are physical from here on
    assert guest.gdb(b"M%x,%x:%b" % (at, len(data), data.hex().encode())) == b"OK"


def image_of(call: Call) -> KImage:
    return read_kimage(call.memory, call.kernel, call.kimage)


def source_of(call: Call, verdict: Verdict, role: SegmentRole, offset: int) -> int:
    """Where a byte of a segment lies before the copy."""
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
    """A source of the list is the frame before it."""
    for frame, data in image_of(call).list_pages.items():
        for at in range(64 * 8, len(data), 8):
            word = int.from_bytes(data[at : at + 8], "little")
            if word & 8:
                poke(guest, frame + at, (word - PAGE_SIZE).to_bytes(8, "little"))
                return


def segment_byte(guest: Attached, call: Call, sound: Verdict) -> None:
    """A bit of the initrd."""
    at = source_of(call, sound, SegmentRole.INITRD, 0x4321)
    old = call.memory.phys(at, 1)
    poke(guest, at, bytes([old[0] ^ 0x10]))


def control_page(guest: Attached, call: Call, sound: Verdict) -> None:
    """What runs first at P is no instruction."""
    built = sound.handover
    offset = built.relocation_code.code.symbols["identity_mapped"]
    poke(guest, built.intent.control_page + offset, b"\x0f\x0b")


def boot_params(guest: Attached, call: Call, sound: Verdict) -> None:
    """The command line's address is another."""
    at = source_of(call, sound, SegmentRole.BOOT_PARAMS, 0x228)
    poke(guest, at, b"\x10\x00\x00\x00")


@dataclass(frozen=True, slots=True)
class Standing:
    """A guest that stood at V when it was saved, and what was said of it."""

    guest: Guest
    call: Call
    sound: Verdict

    @contextmanager
    def again(self) -> Iterator[tuple[Attached, Call]]:
        """As it stood; its memory is read anew."""
        with case(self.guest, CALLED, run=False), self.guest.attached() as attached:
            yield attached, replace(self.call, memory=GuestMemory(attached))


@pytest.fixture(scope="session")
def standing(guest_of: Callable[[str], Guest]) -> Callable[[str], Standing]:
    @functools.cache
    def arrived(flavour: str) -> Standing:
        stages = Stages(no_progress)
        with case(guest_of(flavour), "file") as guest, guest.attached() as attached:
            guest.say(LEAVE)
            call = arrive(attached, stages=stages)
            sound = judge(call, walk=False, stages=stages)
            assert sound.findings == ()
            attached.leave(standing=True)
            guest.save(CALLED)
        return Standing(guest, call, sound)

    return arrived


@pytest.mark.parametrize(
    ("sabotage", "rules"),
    [
        (table_entry, {"table-a-maps-p", "fetch-mapped", "table-b-covers"}),
        (list_entry, {"list-is-the-segments", "digest-agrees"}),
        (segment_byte, {"digest-agrees"}),
        (control_page, {"control-page-is-the-kernels"}),
        (boot_params, {"digest-agrees"}),
    ],
)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_sabotage_is_told_before_the_jump_and_happens(
    standing: Callable[[str], Standing],
    flavour: str,
    sabotage: Callable[[Attached, Call, Verdict], None],
    rules: set[str],
) -> None:
    stood = standing(flavour)
    with stood.again() as (attached, call):
        sabotage(attached, call, stood.sound)
        call.memory.forget()
        broken = judge(call, walk=False, stages=Stages(no_progress))
        assert broken.outcome is Outcome.FALLS
        assert broken.findings[0].rule in rules, broken.findings
        went = follow(
            attached,
            stood.sound.handover,
            begun=call.spent,
            seconds=FOLLOW_SECONDS,
            said=lambda each: None,
        )
    names = [each.name for each in went.passed]
    assert went.ended is not None
    assert "the new kernel's entry" not in names
    stood.guest.hear()
    assert "Linux version" not in stood.guest.text
    if sabotage in (table_entry, control_page):
        assert "the purgatory" not in names
        # 7.3 has handlers in its control page, and what those come to is theirs; before it a triple
        # fault resets.  Where P itself is not mapped, neither are they.
        handlers = call.kernel.found.convention is Convention.LINUX_7
        if not (handlers and sabotage is control_page):
            assert "the machine was reset" in went.ended
    else:
        assert "the purgatory" in names
        assert "it goes in circles at purgatory + " in went.ended


def test_it_is_left_standing_where_a_finding_was_made(standing: Callable[[str], Standing]) -> None:
    stood = standing("amd64-7.3")
    with stood.again() as (attached, call):
        segment_byte(attached, call, stood.sound)
        call.memory.forget()
        assert judge(call, walk=False, stages=Stages(no_progress)).findings
        attached.leave(standing=True)
        with stood.guest.attached() as again:  # the port is free, and it stands where it stood
            assert again.raw()["rip"] == call.virt
            assert again.qmp("query-status")["running"] is False  # type: ignore[index]


@pytest.mark.parametrize("how", [None, signal.SIGINT, signal.SIGTERM])
def test_a_guest_runs_on_when_it_is_left(
    guest_of: Callable[[str], Guest], how: signal.Signals | None
) -> None:
    with case(guest_of("amd64"), PROMPT) as guest:
        words = [sys.executable, "-m", "tightrope", "watch", "--qmp", guest.qmp, "--gdb", guest.gdb]
        words += ["--limit", "2" if how is None else "600"]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as watcher:
            assert watcher.stderr is not None
            assert "attached" in watcher.stderr.readline()
            if how is not None:
                watcher.send_signal(how)
            said = watcher.stderr.read()
        assert watcher.returncode == (2 if how is None else 128 + how)
        if how is None:
            assert "did no kexec within 2 s" in said
        guest.do("true")
