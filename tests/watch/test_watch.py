"""Guests of 6.1 and 7.3, and one of 32 bits, that leave for another kernel, watched: sound, and with their memory sabotaged.

    kexec -l, kexec -s -l, kexec -p     loaded once each, in one guest of a kernel; each case comes back to one
    five sabotages                      made while the guest stands at the call, told, and let go

Whether what was told is so, the guest itself says: it comes up, resets, or is never heard of again.
"""

from __future__ import annotations

import contextlib
import functools
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, debian_kernel, lacking
from tests.watch.guests import NEW, SECONDS, Guest, load, start
from tests.watch.sabotages import (
    LOADS,
    NARROW,
    ON_THE_WALK,
    SABOTAGES,
    Standing,
    booted,
    case,
    leaves,
    let_go,
    segment_byte,
    ways,
)
from tests.watch.sabotages import standing as stands
from tightrope.cli import main
from tightrope.cli.commands import watch as command
from tightrope.cli.signals import GRACE
from tightrope.deeds.explain import Rehearsed, explain
from tightrope.deeds.rehearse import Stages
from tightrope.deeds.watch import watch
from tightrope.deeds.watch.deed import judge
from tightrope.deeds.watch.kernel import GuestKernel
from tightrope.machine.port import no_progress
from tightrope.machine.unicorn import Emulator
from tightrope.model import Outcome, SegmentRole, Step, Stop
from tightrope.model.corpse import LogKind, Phase
from tightrope.model.watched import Passed
from tightrope.views.watched import blackout

FLAVOURS = {"amd64": "tools", "amd64-7.3": "file"}
"""Each old kernel, and the way whose handover is sabotaged here; docs/reality/watched.jsonl has all."""
XEN = "xen-amd64"
PROMPT = "up"
NEW_SPEAKS = re.compile(rf"Linux version 6\.1\.\S+-{NEW} ")
"""The banner of the kernel that each guest has loaded, and of no old one."""


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
            guest = left.enter_context(start(folder / flavour, flavour))
            booted(guest, ways(flavour), prompt=PROMPT)
            return guest

        yield boot


@pytest.mark.parametrize(
    ("flavour", "how"),
    # 6.1's file load is the docs' example, below; a 32-bit kernel has none.
    [
        *((each, how) for each in FLAVOURS for how in LOADS if (each, how) != ("amd64", "file")),
        (NARROW, "tools"),
        (NARROW, "panic"),
    ],
)
def test_a_guest_that_leaves_is_seen_step_by_step_and_comes_up(
    guest_of: Callable[[str], Guest], flavour: str, how: str
) -> None:
    said: list[Passed] = []
    by_image = (flavour, how) == ("amd64-7.3", "tools")  # --from, of a kernel that KASLR has moved
    # Without its digest kexec-tools' purgatory is soon walked; with it, 6.1's guest takes its time.
    # Linux's own, which always has one, is walked for the docs' example.
    walk = quick = (flavour, how) not in (("amd64", "tools"), ("amd64-7.3", "file"))
    with case(guest_of(flavour), how) as guest:
        if quick:
            guest.do(load("-i", *LOADS[how]))
        with guest.attached() as attached:
            guest.say(leaves(how))
            got = watch(
                attached,
                old=debian_kernel(flavour).read_bytes() if by_image else None,
                walk=walk,
                console=str(guest.console),
                said=said.append,
            )
        if how == "file":
            guest.wait("guest: up")
    assert got.heard is not None
    assert NEW_SPEAKS.search(got.heard.line)
    assert got.heard.seconds > got.passed[-1].seconds
    assert [each.what for each in blackout(got)] == ["copy", "digest", "unpack", "first line"]
    verdict = got.verdict
    assert (verdict.outcome, verdict.findings) == (Outcome.HOLDS, ())
    assert (verdict.run.stop is Stop.ENTRY) is walk
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
    assert (got.version or "").startswith("7.3." if flavour == "amd64-7.3" else "6.1.")
    if flavour != "amd64":
        assert got.text not in (0xFFFF_FFFF_8100_0000, 0xC100_0000), "KASLR is on"


@pytest.mark.parametrize("how", ways(XEN))
def test_a_xen_that_leaves_is_seen_step_by_step_and_linux_comes_up(
    guest_of: Callable[[str], Guest], how: str
) -> None:
    guest = guest_of(XEN)
    image = debian_kernel(XEN).read_bytes() if how == "panic" else None  # --from
    with case(guest, how):
        if how == "tools":  # without its digest the purgatory is soon walked
            guest.do(load("-i", *LOADS[how]))
        with guest.attached() as attached:
            guest.say(leaves(how))
            got = watch(
                attached,
                old=image,
                walk=how == "tools",
                console=str(guest.console),
            )
    verdict = got.verdict
    assert (verdict.outcome, verdict.findings, got.ended) == (Outcome.HOLDS, (), None)
    assert (got.kernel, got.version, got.text) == ("Xen", "4.17", 0xFFFF_82D0_4020_0000)
    assert NEW_SPEAKS.search(got.heard.line if got.heard else "")
    assert [each.name for each in got.passed] == [
        "after_table_a",
        "identity_mapped",
        "the purgatory",
        "the new kernel's entry",
        "the decompressor, moved",
        "it is unpacked",
    ]
    built = verdict.handover
    assert built.design == "Xen's own kexec_reloc"
    assert got.passed[0].cr3 == built.page_table_a.root
    assert built.intent.crash is (how == "panic")
    if how == "tools":
        # Xen 4.17 calls the image, and the purgatory takes what a call leaves for a way back.
        weak = {each.rule for each in verdict.advice}
        assert {"idt-gone", "pge-before-identity", "command-line-as-given"} <= weak
        assert verdict.run.stop is Stop.ENTRY
    else:
        assert [each.what.split("'")[0] for each in built.host.crash_notes] == [
            "CPU 0",
            "CPU 1",
            "vmcoreinfo of Xen",
        ]


# --------------------------------------------------------------------------------- sabotages


@pytest.fixture(scope="session")
def standing(guest_of: Callable[[str], Guest]) -> Callable[[str], Standing]:
    @functools.cache
    def arrived(flavour: str) -> Standing:
        stood = stands(guest_of(flavour), FLAVOURS.get(flavour, "tools"))
        assert stood.sound.findings == ()
        return stood

    return arrived


@pytest.mark.parametrize(
    ("flavour", "sabotage"),
    # Each once; all of them by all ways are in docs/reality/watched.jsonl.
    [
        ("amd64", "a list entry"),
        ("amd64", "a segment byte"),
        ("amd64", "the control page"),
        ("amd64-7.3", "a table entry"),
        ("amd64-7.3", "the copying code"),
        ("amd64-7.3", "boot_params"),
        (XEN, "a table entry"),
        (XEN, "a list entry"),
    ],
)
def test_a_sabotage_is_told_before_the_jump_and_happens(
    standing: Callable[[str], Standing], flavour: str, sabotage: str
) -> None:
    stood = standing(flavour)
    went = let_go(stood, sabotage)
    assert went.told in SABOTAGES[sabotage][1], went
    assert went.ended is not None
    # A guest that resets may be on its way again before it is stopped: that is its old kernel.
    assert NEW_SPEAKS.search(went.said) is None, went.said
    if sabotage not in ON_THE_WALK:
        assert went.came_to == "the purgatory"
        assert "it goes in circles at purgatory + " in went.ended
        if flavour != "amd64-7.3":  # whose kexec-tools were told a console
            found = explain(went.said.encode(), "serial")
            assert (found.fell, found.phase) == (True, Phase.PURGATORY)
            assert "sha256 digests do not match" in (found.last.words if found.last else "")
    elif (flavour, sabotage) == ("amd64-7.3", "the copying code"):
        _what_its_handlers_print(stood, went.said.encode(), went.ended)
    else:
        # Without handlers a fault is a triple one; 7.3 loads its own behind its first instructions
        # at P.
        assert went.came_to != "the purgatory"
        assert "the machine was reset" in went.ended


def _what_its_handlers_print(stood: Standing, said: bytes, ended: str) -> None:
    """A real log of 7.3's handlers is explained by what was read of the guest before."""
    assert "it has halted with interrupts off at " in ended
    with stood.again() as (_, call):
        walked = judge(call, walk=True, stages=Stages(no_progress))
    found = explain(said, "serial", rehearsed=Rehearsed(verdict=walked, machine=Emulator()))
    assert found.last is not None
    assert (found.last.kind, found.last.raised[0].vector) == (LogKind.HANDLER, 6)
    assert {"rsp", "rax", "r15", "cr2"} <= found.last.raised[0].registers.keys()
    assert (found.phase, found.step) == (Phase.WALK, Step.COPY)
    assert "swap_pages" in (found.place or "")
    assert "is not what was put there" in found.candidates[0].cause


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


# ---------------------------------------------------------------------------------- the command


@contextmanager
def watcher(guest: Guest, *more: str) -> Iterator[subprocess.Popen[str]]:
    """`tightrope watch` on it, with its breakpoint in place."""
    words = [sys.executable, "-m", "tightrope", "watch", "--qmp", guest.qmp, "--gdb", guest.gdb]
    with subprocess.Popen([*words, *more], stderr=subprocess.PIPE, text=True) as made:
        assert made.stderr is not None
        assert "attached" in made.stderr.readline()
        found = made.stderr.readline()
        assert re.match(r"tightrope: Linux 6\.1\.\S+ at 0xffffffff81000000; waiting", found), found
        yield made


@pytest.mark.parametrize(("how", "busy"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_a_guest_that_is_left_by_a_signal_does_its_kexec_as_if_nobody_had_been_there(
    guest_of: Callable[[str], Guest], how: signal.Signals, busy: bool
) -> None:
    with case(guest_of("amd64"), "file") as guest:
        with watcher(guest) as made:
            with guest.frozen() if busy else contextlib.nullcontext():
                made.send_signal(how)
                time.sleep(3 * GRACE * busy)
            assert made.wait(SECONDS) == 128 + how
        guest.say(leaves("file"))  # a breakpoint that was left in would stop it for ever
        guest.wait("Linux version")


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (None, "the guest: --limit: made no kexec within 2 s"),
        ("reboot -f", "the guest: --qmp: ended before its kexec: QEMU says RESET"),
    ],
)
def test_a_guest_that_does_no_kexec_is_one_line(
    guest_of: Callable[[str], Guest], does: str | None, said: str
) -> None:
    with case(guest_of("amd64"), PROMPT) as guest:
        with watcher(guest, "--limit", "600" if does else "2") as made:
            if does:
                guest.say(does)
            assert made.stderr is not None
            lines = made.stderr.read()
            assert made.wait(SECONDS) == 2
        assert said in lines
        if does is None:
            guest.do("true")


def test_the_example_of_the_docs(
    guest_of: Callable[[str], Guest],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = (REPOSITORY / "docs/watch.md").read_text(encoding="utf-8")
    (words,) = re.findall(r"^    (tightrope watch .*)$", page, re.MULTILINE)
    shown = page[page.index("    blackout\n") :].partition("\n\n")[0]
    labels = re.findall(r"^ +[0-9,.]+ (copy|digest|unpack|first line|in all)", shown, re.MULTILINE)
    assert labels == ["copy", "digest", "unpack", "first line", "in all"]
    with case(guest_of("amd64"), "file") as guest:
        for name, path in (
            ("qmp.sock", Path(guest.qmp)),
            ("gdb.sock", Path(guest.gdb)),
            ("serial.log", guest.console),
        ):
            (tmp_path / name).symlink_to(path.absolute())

        def leave(kernel: GuestKernel) -> None:
            assert (kernel.version or "").startswith("6.1.")
            guest.say(leaves("file"))

        monkeypatch.setattr(command, "_found", leave)
        with contextlib.chdir(tmp_path):
            status = main(shlex.split(words)[1:])
    assert status == 0
    said = capsys.readouterr().out
    assert re.match(r"It holds: the guest's Linux 6\.1\.\S+; let go, and its first line came", said)
    found = re.findall(r"^ +[0-9,.]+ (copy|digest|unpack|first line|in all)", said, re.MULTILINE)
    assert found == labels
