"""A capture from its beginning to its end: what is dearest first.

    room on the disk -> the log as text -> the memory -> its digest beside it -> the pgd's verdict

Rules: the log is saved before the memory, because it is small and says most.  What a step cannot do
is told in the result, and the next one is done: only a disk that takes no memory ends it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tightrope.errors import BadInput, CoreError, MissingPart, PerformError, TightropeError
from tightrope.kdump.core import Vmcore
from tightrope.kdump.ring import Digest
from tightrope.kdump.saving import Copied, Progress, copy, sync_folder, told
from tightrope.printk import PANIC, NoLog, lines, log
from tightrope.vmcore.dead import memory_of
from tightrope.vmcore.root import find_root

if TYPE_CHECKING:
    from tightrope.kdump.compressed import Packing

NAME = "vmcore"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What is asked for.  `level` is makedumpfile's dump level, None: every byte."""

    vmcore: str
    folder: str
    level: int | None = None
    packing: Packing | None = None
    """What pages are packed with, None: they are as they are.  Without a `level`."""
    digest: Digest = Digest.SHA256
    anyway: bool = False
    """Begin also where the disk has less room than the dump has bytes: zeros take none."""
    force: bool = False
    """Replace a dump that is there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Captured:
    """What is on the disk now."""

    copied: Copied
    taken: int
    """Bytes of the disk: less than the dump has, where it has holes."""
    seconds: float
    log: Path | None
    log_lines: int
    no_log: str
    """Why there is no log, "" where there is one."""
    panic: str | None
    whole: bool | None
    verdict: str
    """The pgd's, in words; why there is none."""


def nothing(done: int, whole: int, seconds: float) -> None:
    """Progress that nobody looks at."""


def idle() -> None:
    """Nothing else to do."""


def capture(
    wanted: Wanted, *, progress: Progress = nothing, meanwhile: Callable[[], None] = idle
) -> Captured:
    """Save a core; what an end of any kind leaves is kept for the next try.

    `meanwhile` is done on a thread of its own while memory is copied, and waited for.
    Raises CoreError, PerformError, BadInput, MissingPart.
    """
    started = time.monotonic()
    core = Vmcore(wanted.vmcore)
    try:
        folder = Path(wanted.folder)
        final = folder / NAME
        with told(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if final.exists() and not wanted.force:
            raise BadInput("exists: say --force to replace it", source=str(final))
        save = _way(core, folder, wanted, progress)
        path, count, no_log, panic = _log(core, folder)
        with _beside_the_disk(meanwhile):
            copied = save()
    finally:
        core.close()
    _digest(folder / f"{NAME}.sha256", copied.sha256)
    whole, verdict = _verdict(copied.path)
    return Captured(
        copied=copied,
        taken=os.stat(copied.path).st_blocks * 512,
        seconds=time.monotonic() - started,
        log=path,
        log_lines=count,
        no_log=no_log,
        panic=panic,
        whole=whole,
        verdict=verdict,
    )


def _way(core: Vmcore, folder: Path, wanted: Wanted, progress: Progress) -> Callable[[], Copied]:
    """How it is saved, where that can be: as asked by whoever calls."""
    final = folder / NAME
    # Of three ways one is taken, and a crash kernel starts each thing from a slow disk.
    if wanted.level is not None:
        from tightrope.kdump import filtering

        filtering.check(core)
        return partial(filtering.filtered, core, final, wanted.level, wanted.digest)
    if wanted.packing is not None:
        from tightrope.kdump.compressed import packed, packer

        packer(wanted.packing)
        _room(core, folder, wanted)
        return partial(packed, core, final, wanted.packing, progress, wanted.digest)
    _room(core, folder, wanted)
    return partial(copy, core, final, progress, wanted.digest)


def _room(core: Vmcore, folder: Path, wanted: Wanted) -> None:
    """Raise PerformError where the disk has less room than all of the dump may take."""
    with told(folder):
        there = os.statvfs(folder)
        free = there.f_bavail * there.f_frsize
        part = folder / f"{NAME}.part"
        free += part.stat().st_blocks * 512 if part.exists() else 0
    if free < core.size and not wanted.anyway:
        raise PerformError(
            f"{folder} has {free >> 20:,} MiB left, and {core.source} has {core.size >> 20:,} MiB:"
            " say --anyway to try (pages of zeros take no room), --compress zlib, or --filter 31"
        )


def _log(core: Vmcore, folder: Path) -> tuple[Path | None, int, str, str | None]:
    """The dead kernel's log as a file; how many lines, why none, and the line of the panic."""
    try:
        records = list(log(memory_of(core, find_root(core))))
    except NoLog as err:
        return None, 0, str(err), None
    except CoreError as err:
        return None, 0, err.problem, None
    said = [line for each in records for line in lines(each)]
    path = folder / f"{NAME}-dmesg.txt"
    _beside(path, "".join(f"{each}\n" for each in said))
    why = (each for each in reversed(records) if each.text.startswith(PANIC))
    panic = next((line for each in why for line in lines(each)), None)
    return path, len(said), "", panic


def _digest(path: Path, sha256: str | None) -> None:
    """The digest beside the dump; without one, none of a dump that was there before."""
    if sha256 is not None:
        _beside(path, f"{sha256}  {NAME}\n")
        return
    with told(path):
        path.unlink(missing_ok=True)


def _beside(path: Path, text: str) -> None:
    """A small file, whole or not at all, and its owner's alone.

    A kernel's log is no less secret than its memory (kdump-utils and makedumpfile: 0600 for both).
    """
    part = path.with_name(f"{path.name}.part")
    with told(path):
        with open(part, "w", encoding="utf-8", opener=_for_its_owner) as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.rename(part, path)
        sync_folder(path.parent)


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


@contextmanager
def _beside_the_disk(meanwhile: Callable[[], None]) -> Iterator[None]:
    """What the verdict takes is imported while the disk and the digest are busy, numpy above all.

    It is waited for, whatever happens: a thread that an exit of Python cuts off inside an extension
    module's start may take the process down with it.
    """

    def ready() -> None:
        with suppress(ImportError):
            from tightrope import vmcore
            from tightrope.model import pgd

            del vmcore, pgd
        meanwhile()

    thread = threading.Thread(target=ready, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _verdict(path: Path) -> tuple[bool | None, str]:
    """What `pgd` says of what was saved, where numpy is there to say it."""
    try:
        from tightrope import vmcore
        from tightrope.model.pgd import Wholeness

        found = vmcore.pgd(vmcore.read(str(path)))
    except ImportError:
        return None, "not judged here: numpy is not installed; ask `tightrope pgd` elsewhere"
    except (TightropeError, MissingPart, PerformError) as err:
        return None, f"cannot be told: {err}"
    why = next(iter((*found.faults, *found.doubts)), "")
    whole = None if found.answer is Wholeness.UNTOLD else found.answer is Wholeness.WHOLE
    return whole, found.answer.value + (f": {why}" if why else "")
