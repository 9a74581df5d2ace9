"""kdump check without a guest: what a console says, the line it is tried with, sizes narrowed down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.deeds.kdump_check import told
from tightrope.deeds.kdump_check.size import narrowed
from tightrope.deeds.kdump_check.words import tried
from tightrope.kdump.witness import PATH, Witness
from tightrope.memory import align_up
from tightrope.model import Console, Ending, Outcome
from tightrope.model.crash_boot import Cause, Reached

BANNER = "[    0.000000] Linux version 6.1.0-57-amd64"
THERE = Witness(there=True, vmcore=True, done=True, modules=frozenset({"nvme", "ext4"}))
PANIC = "[    2.1] Kernel panic - not syncing: "


def judged(
    *lines: str,
    witness: Witness = THERE,
    ending: Ending = Ending.HEARD,
    initrd: bool = True,
    disk: bool = False,
    needed: tuple[str, ...] = (),
) -> told.Told:
    console = Console(lines=(BANNER, *lines), seconds=1, stopped="over", ending=ending)
    return told.judge(
        console, witness, initrd=initrd, disk=disk, root="root=UUID=1", needed=frozenset(needed)
    )


@pytest.mark.parametrize(
    "line",
    [
        PANIC + "System is deadlocked on memory",
        "[ 9.0] Out of memory: Killed process 77 (systemd-udevd) total-vm:9876kB, anon-rss:700kB",
        "[ 0.9] Initramfs unpacking failed: write error",
        "[ 3.0] swapper/0: page allocation failure: order:9, mode:0x40dc0",
        "modprobe: cannot allocate memory",
    ],
)
def test_out_of_memory_is_told_by_its_line(line: str) -> None:
    for witness in (Witness(), THERE):
        got = judged("[ 0.1] Memory: 1000K/2000K available", line, witness=witness)
        assert (got.outcome, got.cause) == (Outcome.FALLS, Cause.MEMORY)
        assert line in got.evidence
        assert "Memory: 1000K/2000K" in got.evidence[0]


def test_memory_that_is_spoken_of_is_not_short() -> None:
    got = judged("[ 0.1] Memory: 1000K/2000K available", "[ 0.2] Freeing initrd memory: 8432K")
    assert got.outcome is Outcome.HOLDS


def test_the_first_cause_counts() -> None:
    got = judged(
        "[ 0.9] Initramfs unpacking failed: write error",
        PANIC + "VFS: Unable to mount root fs on unknown-block(0,0)",
        witness=Witness(),
    )
    assert got.cause is Cause.MEMORY


def test_no_initrd_is_told_apart_from_a_panic() -> None:
    line = PANIC + "VFS: Unable to mount root fs on unknown-block(0,0)"
    none = judged(line, witness=Witness(), initrd=False)
    assert (none.outcome, none.cause) == (Outcome.FALLS, Cause.INITRD)
    some = judged(PANIC + "Attempted to kill init!", witness=Witness())
    assert (some.outcome, some.cause) == (Outcome.FALLS, Cause.PANIC)


@pytest.mark.parametrize("flaw", ["invalid magic at start of compressed archive", "no cpio magic"])
def test_an_initrd_that_is_none_is_told_as_the_kernel_tells_it(flaw: str) -> None:
    line = f"[ 0.9] Initramfs unpacking failed: {flaw}"
    panic = PANIC + "VFS: Unable to mount root fs on unknown-block(0,0)"
    got = judged(line, panic, witness=Witness())
    assert (got.outcome, got.cause) == (Outcome.FALLS, Cause.INITRD)
    assert flaw in got.why


def test_a_module_is_told_apart_from_a_disk_that_is_not_here() -> None:
    alert = "ALERT!  UUID=1 does not exist.  Dropping to a shell!"
    missing = judged(alert, needed=("megaraid_sas",))
    assert (missing.outcome, missing.cause) == (Outcome.FALLS, Cause.MODULE)
    assert "megaraid_sas" in missing.why
    there = judged(alert, needed=("nvme",))
    assert (there.outcome, there.reached) == (Outcome.HOLDS, Reached.INIT)
    given_one = judged(alert, disk=True)
    assert (given_one.outcome, given_one.cause) == (Outcome.FALLS, Cause.ROOT)


def test_a_saved_dump_is_the_end() -> None:
    got = judged("kdump-tools: saved vmcore in /var/crash/1.", disk=True)
    assert (got.outcome, got.reached, got.cause) == (Outcome.HOLDS, Reached.SAVED, None)
    bad = judged("kdump-tools: failed to save vmcore in /var/crash/1.", disk=True)
    assert (bad.outcome, bad.cause) == (Outcome.FALLS, Cause.SAVING)


@pytest.mark.parametrize(
    "line",
    [
        "/usr/sbin/kdump-config: 603: makedumpfile: not found",
        "/lib/kdump/kdump.sh: line 88: makedumpfile: command not found",
    ],
)
def test_a_dump_that_nothing_read_is_not_saved_whatever_is_said(line: str) -> None:
    said = "kdump-tools: saved vmcore in /var/crash/1."
    got = judged(line, said, disk=True)
    assert (got.outcome, got.cause) == (Outcome.FALLS, Cause.SAVING)
    assert line in got.why
    twin = judged("kdump-tools: running makedumpfile --dump-dmesg", said, disk=True)
    assert twin.outcome is Outcome.HOLDS


def test_a_described_memory_that_cannot_be_filtered_is_no_fault_of_the_crash_kernel() -> None:
    """kdump-config pipes makedumpfile, and says that a dump is saved whatever becomes of it."""
    said = "kdump-tools: saved vmcore in /var/crash/1."
    got = judged("Starting kdump-tools:", "makedumpfile Failed.", said, disk=True)
    assert (got.outcome, got.reached, got.cause) == (Outcome.HOLDS, Reached.ROOT, None)
    assert "what it takes was not seen" in got.why
    short = "initialize_bitmap_memory: Can't allocate memory for the bitmap of file descriptors."
    lacks = judged("Starting kdump-tools:", short, "makedumpfile Failed.", said, disk=True)
    assert (lacks.outcome, lacks.cause) == (Outcome.FALLS, Cause.MEMORY)


def test_a_log_that_a_described_kernel_has_not_is_no_dump_that_was_not_filtered() -> None:
    """kdump-config asks makedumpfile for the log first, and goes on without it."""
    said = "kdump-tools: saved vmcore in /var/crash/1."
    log = (
        "makedumpfile Failed.",
        "kdump-tools: makedumpfile --dump-dmesg failed. dmesg content will be unavailable",
    )
    done = judged("Starting kdump-tools:", *log, "makedumpfile Completed.", said, disk=True)
    assert (done.outcome, done.reached) == (Outcome.HOLDS, Reached.SAVED)
    twice = judged("Starting kdump-tools:", *log, "makedumpfile Failed.", said, disk=True)
    assert (twice.outcome, twice.reached) == (Outcome.HOLDS, Reached.ROOT)


def test_a_collector_that_was_killed_has_saved_nothing() -> None:
    said = "kdump-tools: saved vmcore in /var/crash/1."
    oom = "[ 9.0] Out of memory: Killed process {} total-vm:9876kB, anon-rss:700kB"
    for name, cause in (("77 (makedumpfile)", Cause.MEMORY), ("70 (cron)", None)):
        assert judged("Starting kdump-tools:", oom.format(name), said, disk=True).cause is cause


def test_a_command_line_that_is_printed_is_no_root_that_was_reached() -> None:
    word = "systemd.unit=kdump-tools-dump.service"
    lines = (f"[ 0.0] Command line: ro {word}", f"[ 0.1] Kernel command line: ro {word}")
    assert judged(*lines, PANIC + "x", witness=Witness()).reached is Reached.KERNEL
    assert judged(*lines, "Starting kdump-tools-dump.service", disk=True).reached is Reached.ROOT


def test_a_full_disk_is_no_small_region() -> None:
    full = "cp: error writing '/var/crash/1/dump': No space left on device"
    behind = judged(
        "Starting kdump-tools:", full, "failed to save vmcore in /var/crash/1", disk=True
    )
    assert (behind.outcome, behind.cause) == (Outcome.FALLS, Cause.SAVING)
    assert "no room for the dump" in behind.why
    inside = judged(full, witness=Witness())
    assert (inside.outcome, inside.cause) == (Outcome.FALLS, Cause.MEMORY)


def test_no_vmcore_is_a_fall() -> None:
    got = judged(witness=Witness(there=True, vmcore=False, done=True))
    assert (got.outcome, got.cause) == (Outcome.FALLS, Cause.VMCORE)


def test_time_is_no_verdict() -> None:
    got = judged(witness=Witness(), ending=Ending.TIME)
    assert (got.outcome, got.cause) == (Outcome.UNKNOWN, Cause.TIME)
    fell = judged(witness=Witness(), ending=Ending.FELL)
    assert (fell.outcome, fell.cause, fell.reached) == (
        Outcome.FALLS,
        Cause.FELL,
        Reached.KERNEL,
    )


@given(st.lists(st.text(max_size=40), max_size=6), st.booleans(), st.booleans())
def test_any_lines_get_an_answer(lines: list[str], initrd: bool, disk: bool) -> None:
    got = judged(*lines, witness=Witness(), initrd=initrd, disk=disk)
    assert (got.cause is None) == (got.outcome is Outcome.HOLDS)


@pytest.mark.parametrize(
    ("line", "disk", "why"),
    [
        (PANIC + "x", True, "it panicked"),
        ("Begin: Running /scripts/local-block ... done.", False, "it waits for a disk"),
        ("Begin: Running /scripts/local-block ... done.", True, None),
        ("[ 1.0] reboot: Restarting system", True, "it was over"),
        ("kdump-tools: saved vmcore in /var/crash/1.", True, "a dump is saved"),
        ("Loading, please wait...", False, None),
    ],
)
def test_listening_ends_when_no_more_will_come(line: str, disk: bool, why: str | None) -> None:
    got = told.over([BANNER, line], THERE, disk=disk)
    assert (got or "").startswith(why or "")
    assert (got is None) == (why is None)


def test_the_line_is_made_to_be_heard() -> None:
    got = tried("root=/dev/sda1 quiet console=tty0 loglevel=3 nr_cpus=1 -- single", witnessed=True)
    assert got.init == "/init"
    assert got.line == (
        f"root=/dev/sda1 nr_cpus=1 console=ttyS0,115200 loglevel=7 rdinit={PATH} -- single"
    )
    other = tried("rdinit=/bin/sh", witnessed=True)
    assert other.init == "/bin/sh"
    assert "rdinit=/bin/sh" not in other.line
    assert "rdinit=" not in tried("ro", witnessed=False).line


@given(st.integers(1, 4000), st.one_of(st.none(), st.integers(1, 4000)), st.integers(1, 4000))
def test_the_smallest_that_works_is_found(least: int, known: int | None, guess: int) -> None:
    known = None if known is None else max(known, least)
    asked: list[int] = []

    def works(size: int) -> bool:
        asked.append(size)
        return size >= least

    got, tried_sizes = narrowed(works, known=known, guess=guess, step=8, most=4096)
    if got is None:
        assert known is None
        return
    assert got == align_up(least, 8) or (known is not None and got == align_up(known, 8))
    assert [size for size, _ in tried_sizes] == asked
    assert len(asked) == len(set(asked))
