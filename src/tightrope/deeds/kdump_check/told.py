"""How far a crash kernel came and why no further, by its console and its witness.

Sources of the words: Linux mm/oom_kill.c ("Out of memory: Killed process", "System is deadlocked
on memory", "Out of memory and no killable processes"), mm/page_alloc.c ("page allocation failure"),
init/initramfs.c ("Initramfs unpacking failed: "), init/do_mounts.c ("VFS: Unable to mount root
fs", "VFS: Cannot open root device"), init/main.c ("No working init found", "Run /init as init
process"), kernel/reboot.c; initramfs-tools scripts/local and functions ("ALERT!", "Gave up
waiting for"), dracut's dracut-initqueue and emergency shell; kdump-config ("saved vmcore in",
"failed to save vmcore"), makedumpfile 1.7.2 ("makedumpfile Failed.", "Can't allocate memory"),
kdump-utils' kdump.sh ("saving vmcore complete", "saving vmcore failed").

Rules: pure functions of what was heard.  Lines decide; the first cause in time is the cause.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tightrope.kdump.witness import Witness
from tightrope.model import Console, Ending, Outcome
from tightrope.model.crash_boot import Cause, Reached
from tightrope.printk import PANIC

_MEMORY = re.compile(
    r"Out of memory|[Ss]ystem is deadlocked on memory|invoked oom-killer|page allocation failure"
    r"|Initramfs unpacking failed: (write error|junk)|[Cc]annot allocate memory|not enough memory"
    r"|Failed to allocate|Can't allocate memory"
)
_FULL = "No space left on device"
"""In an initramfs, which is memory, the region is too small; behind it, the disk is."""
_UNPACKING = "Initramfs unpacking failed"
_NO_ROOT = re.compile(
    r"ALERT!\s|Gave up waiting for (root|suspend)|dracut-initqueue.*time-?out|Could not boot"
    r"|Entering emergency mode|Dropping to a shell"
)
_VFS = re.compile(r"VFS: |/dev/root|Please append a correct|Kernel panic")
"""What a kernel says that looks for its root by itself; the panic comes last."""
_ROOT = re.compile(r"kdump-tools-dump|Starting kdump-tools|kdump: saving|Switching [Rr]oot")
_COMMAND_LINE = re.compile(r"[Cc]ommand line")
"""A kernel prints what it was given: `systemd.unit=kdump-tools-dump.service` is no root reached."""
_SAVED = re.compile(r"saved vmcore in|saving vmcore complete")
_UNSAVED = re.compile(r"failed to save vmcore|saving vmcore failed")
_NOTHING_READ_IT = re.compile(
    r"\b(makedumpfile|vmcore-dmesg|cp|dd|scp|ssh|rsync): (command )?not found"
)
"""kdump-config 1.8.1 asks the last command of a pipe how it went, and says that a dump is saved
where the first one, makedumpfile, was never there.
"""
_GAVE_UP = "makedumpfile Failed"
_NO_LOG = re.compile(r"makedumpfile --dump-dmesg failed")
"""What kdump-config says behind that where it was the log that makedumpfile looked for: a described
kernel has none, and a dump is saved without it.
"""
_MAKEDUMPFILE = re.compile(r"makedumpfile|Can't get|can't get")
_OVER = re.compile(r"reboot: (Restarting system|Power [Dd]own|machine restart|System halted)")
_WAITS = re.compile(r"Running /scripts/local-block|Begin: Waiting for root|dracut-initqueue")
_NUMBERS = re.compile(r"Memory: \d+K/\d+K available|Killed process|oom-kill:|Node 0 DMA32 free:")
_LINES = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """The answer, before the memory's figures."""

    outcome: Outcome
    reached: Reached
    cause: Cause | None
    why: str
    evidence: tuple[str, ...]


def over(lines: Sequence[str], witness: Witness, *, disk: bool) -> str | None:
    """Why nobody has to listen any longer; None while something may still come."""
    for line in lines:
        if PANIC in line:
            return "it panicked"
        if _NO_ROOT.search(line):
            return "it found no root"
        if _UNSAVED.search(line) or _OVER.search(line):
            return "it was over"
        if _SAVED.search(line):
            return "a dump is saved"
        if not disk and witness.done and _WAITS.search(line):
            return "it waits for a disk that this PC does not have"
    return None


def judge(
    console: Console,
    witness: Witness,
    *,
    initrd: bool,
    disk: bool,
    root: str,
    needed: frozenset[str] = frozenset(),
) -> Told:
    """What it comes to.

    `root` is the value of root=; `needed` are the modules without which this host's root is not
    there, where that is known.
    """
    lines = console.lines
    reached = _reached(lines, witness)

    def told(outcome: Outcome, cause: Cause | None, why: str, *marks: re.Pattern[str]) -> Told:
        return Told(
            outcome=outcome,
            reached=reached,
            cause=cause,
            why=why,
            evidence=_evidence(lines, marks),
        )

    behind = reached >= Reached.ROOT
    short = next(
        (line for line in lines if _MEMORY.search(line) or (_FULL in line and not behind)), None
    )
    filtered = _filtered(lines)
    killed = any("(makedumpfile)" in line for line in lines if _MEMORY.search(line))
    if short is not None and (reached < Reached.SAVED or killed or not filtered):
        why = f"it runs out of memory: {_bare(short)}"
        return told(Outcome.FALLS, Cause.MEMORY, why, _NUMBERS, _MEMORY)
    if (flaw := next((line for line in lines if _UNPACKING in line), None)) is not None:
        return told(Outcome.FALLS, Cause.INITRD, f"its initrd is not unpacked: {_bare(flaw)}")
    panic = next((line for line in lines if PANIC in line), None)
    if reached >= Reached.INIT and witness.vmcore is False:
        return told(
            Outcome.FALLS,
            Cause.VMCORE,
            "it has no /proc/vmcore: it was not told of a core header, or its header is damaged",
        )
    unread = next((line for line in lines if _NOTHING_READ_IT.search(line)), None)
    if reached is Reached.SAVED and unread is not None:
        why = f"it says that a dump was saved, and nothing read it: {_bare(unread)}"
        return told(Outcome.FALLS, Cause.SAVING, why, _NOTHING_READ_IT, _SAVED)
    if behind and not filtered:
        reached = Reached.ROOT
        # Not for want of memory, which is told above: its old kernel is a described one, and one
        # whose tables are far from its text has no `struct page`.
        why = "it ran makedumpfile on its root; that finds no pages to filter by in a described memory"
        return told(Outcome.HOLDS, None, f"{why}, and what it takes was not seen", _MAKEDUMPFILE)
    if reached is Reached.SAVED:
        return told(Outcome.HOLDS, None, "a dump was saved", _SAVED)
    full = next((line for line in lines if _FULL in line), None)
    if behind and full is not None:
        why = f"there is no room for the dump: {_bare(full)}"
        return told(Outcome.FALLS, Cause.SAVING, why, _UNSAVED)
    if any(_UNSAVED.search(line) for line in lines):
        return told(Outcome.FALLS, Cause.SAVING, "it did not save the dump", _UNSAVED)
    if panic is not None and not initrd:
        why = f"it has no initrd, and no driver of its own for {root or 'its root'}: {_bare(panic)}"
        return told(Outcome.FALLS, Cause.INITRD, why, _VFS)
    if panic is not None:
        return told(Outcome.FALLS, Cause.PANIC, f"it panics: {_bare(panic)}")
    return _without_saving(
        console, witness, reached, told_by=told, disk=disk, root=root, needed=needed
    )


def _without_saving(
    console: Console,
    witness: Witness,
    reached: Reached,
    *,
    told_by: Callable[..., Told],
    disk: bool,
    root: str,
    needed: frozenset[str],
) -> Told:
    """Nothing was saved, and nothing went wrong with memory or kernel."""
    missing = sorted(needed - witness.modules) if witness.modules else []
    if missing:
        why = f"its initrd has no {', '.join(missing)}, which {root or 'its root'} needs here"
        return told_by(Outcome.FALLS, Cause.MODULE, why, _NO_ROOT)
    if disk and any(_NO_ROOT.search(line) for line in console.lines):
        why = f"it does not find {root or 'its root'} on the disk that it was given"
        return told_by(Outcome.FALLS, Cause.ROOT, why, _NO_ROOT)
    if reached >= Reached.INIT and not disk:
        where = f"; {root or 'its root'} is this host's, and was not looked for (--disk gives one)"
        return told_by(Outcome.HOLDS, None, f"it reached its init, with /proc/vmcore{where}")
    if console.ending is Ending.TIME:
        return told_by(Outcome.UNKNOWN, Cause.TIME, f"it was still under way: {console.stopped}")
    if reached >= Reached.INIT:
        return told_by(Outcome.FALLS, Cause.SAVING, "it ended without saving a dump")
    return told_by(Outcome.FALLS, Cause.FELL, f"it did not reach its init: {console.stopped}")


def _reached(lines: Sequence[str], witness: Witness) -> Reached:
    if any(_SAVED.search(line) for line in lines):
        return Reached.SAVED
    if any(_ROOT.search(line) and not _COMMAND_LINE.search(line) for line in lines):
        return Reached.ROOT
    if witness.there:
        return Reached.INIT
    return Reached.KERNEL if any("Linux version " in line for line in lines) else Reached.ENTRY


def _filtered(lines: Sequence[str]) -> bool:
    """Whether makedumpfile did not give up, but for the log."""
    gave_up = sum(_GAVE_UP in line for line in lines)
    return gave_up <= sum(bool(_NO_LOG.search(line)) for line in lines)


def _evidence(lines: Sequence[str], marks: Sequence[re.Pattern[str]]) -> tuple[str, ...]:
    """The lines that say it, or the last ones."""
    found = [line for line in lines if any(each.search(line) for each in marks)]
    shown = found or [line for line in lines if line.strip()]
    # The first says how much there was, the last what came of it.
    return tuple(shown if len(shown) <= _LINES else [shown[0], *shown[1 - _LINES :]])


def _bare(line: str) -> str:
    """A line of the kernel's without its time."""
    return re.sub(r"^\[\s*\d+\.\d+\]\s*", "", line).strip()
