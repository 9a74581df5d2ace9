"""Load, unload, jump on bare Linux, each after a look at what would go wrong.

    look (State)  ->  refuse  ->  load  ->  read back  ->  jump

Rules: the machine is reached through two ports, `SystemCalls` and `Files`.  A load that the kernel
would refuse is refused before it is asked; what it refuses all the same is told with its errno and
with what became of the image that was loaded before.

What became of it, as seen on 6.1, 6.12, 7.2 and 7.3: a plain load that fails keeps the old image,
a crash load that fails drops it, so that the machine is without kdump.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tightrope.abi.kexec import FileFlag, LoadFlag
from tightrope.errors import BadInput, PerformError, visible
from tightrope.perform.linux.calls import CallFailed, SystemCalls
from tightrope.perform.linux.kdump import Again, put_back
from tightrope.perform.linux.kept import Kept
from tightrope.perform.linux.readback import disagreements
from tightrope.perform.linux.refusals import UNSEEN, Refusal, Request, refusals
from tightrope.perform.linux.state import Files, State, read_state
from tightrope.perform.load_file import Load

if TYPE_CHECKING:
    from tightrope.perform.linux.signature import Signature

NO_DESCRIPTOR = -1
SYSTEMCTL = ("systemctl", "kexec")


@dataclass(frozen=True, kw_only=True, slots=True)
class FileLoad:
    """A load that the kernel places itself: open files, and the command line without its zero."""

    kernel: int
    initrd: int | None
    command_line: bytes
    crash: bool
    is_bzimage: bool
    signed: bool | None
    signature: Signature | None = None
    ima_signed: bool | None = None
    written: tuple[str, ...] = ()
    room: int = 0


class LinuxKexec:
    """Linux's kexec, asked through ports."""

    def __init__(self, calls: SystemCalls, files: Files) -> None:
        self._calls = calls
        self._files = files

    def state(self) -> State:
        """What the kernel says now."""
        return read_state(self._files)

    def refuse(self, load: Load | FileLoad, state: State | None = None) -> None:
        """Raise BadInput with every reason why this load would not be taken, or should not be."""
        found = reasons(self.state() if state is None else state, load)
        if found:
            raise BadInput("; ".join(map(str, found)), source="the load")

    def load(self, load: Load | FileLoad, again: Again | None = None) -> None:
        """Load it and see that the kernel has it.

        `again` is the crash image that is there, where it is known how it came there: a failed
        crash load drops it.  Raises BadInput for what would be refused, PerformError for what is.
        """
        before = self.state()
        self.refuse(load, before)
        try:
            with _undisturbed():
                try:
                    self.ask(load)
                except CallFailed as err:
                    why = f", {UNSEEN[err.number]}" if err.number in UNSEEN else ""
                    left = self._what_is_left(load.crash, before, again)
                    raise PerformError(f"{err}{why}; {left}", number=err.number) from err
                after = self.state()
        except KeyboardInterrupt as err:
            raise PerformError(
                "interrupted after it was loaded: `tightrope unload` forgets it"
            ) from err
        if wrong := disagreements(before, after, crash=load.crash):
            raise PerformError("loaded, but " + "; ".join(wrong))

    def ask(self, load: Load | FileLoad) -> None:
        """The system call by itself.  Raises CallFailed."""
        if isinstance(load, FileLoad):
            self._load_files(load)
        else:
            flags = LoadFlag.ON_CRASH if load.crash else 0
            self._calls.kexec_load(load.entry, load.segments, flags)

    def unload(self, *, crash: bool) -> None:
        """Forget the image of that kind; the kernel does not complain when there is none.

        By whichever of the two calls this kernel lets do it: under lockdown kexec_load is EPERM
        also where nothing is loaded by it, and each call that is asked counts as a load where
        those are limited.  Raises PerformError: EPERM where loading is disabled, or no load is
        left.
        """
        ways = [self._unload_by_segments, self._unload_by_files]
        if self.state().lockdown not in (None, "none"):
            ways.reverse()
        with _undisturbed():
            for way in ways:
                try:
                    way(crash)
                    return
                except CallFailed as err:
                    if way is ways[-1] or err.number not in (errno.ENOSYS, errno.EPERM):
                        raise self._not_unloaded(err, crash) from err

    def _unload_by_segments(self, crash: bool) -> None:
        self._calls.kexec_load(0, (), LoadFlag.ON_CRASH if crash else 0)

    def _unload_by_files(self, crash: bool) -> None:
        flags = FileFlag.UNLOAD | (FileFlag.ON_CRASH if crash else FileFlag(0))
        self._calls.kexec_file_load(NO_DESCRIPTOR, NO_DESCRIPTOR, b"", flags)

    @property
    def way(self) -> str:
        """How a jump is asked for: through systemd where it runs this machine, so that services
        end first.

        sd_booted(3) looks for /run/systemd/system; the name of process 1 says as much in a file.
        """
        runs = (self._files("/proc/1/comm") or b"").strip() == b"systemd"
        return " ".join(SYSTEMCTL) if runs else "reboot(2)"

    def cautions(self) -> tuple[str, ...]:
        """What may go wrong with a jump, at its very end too, when services have stopped; a
        sentence each."""
        found, state = [], self.state()
        if state.loaded is None:
            found.append(
                "whether anything is loaded is not known: where nothing is, the jump is refused"
                if self.way == "reboot(2)"
                else "whether anything is loaded is not known: where nothing is, systemctl loads"
                " the boot loader's default by itself, or refuses"
            )
        if state.live_update:
            found.append(
                "this kernel has a live update orchestrator: where a session cannot be saved it refuses"
                " the jump at its end, when services have stopped; the machine then reboots through its"
                " firmware, or stands still where nobody asks for that"
            )
        return tuple(found)

    @property
    def deed(self) -> str:
        """What `exec` does here, as far as it is known whether there is anything to jump into."""
        loaded = self.state().loaded is True
        return f"{'jump' if loaded else 'ask for the jump'}, by {self.way}"

    def refuse_jump(self) -> None:
        """Raise BadInput where nothing is loaded."""
        if self.state().loaded is False:
            raise BadInput("nothing is loaded: `tightrope load` first", source="this machine")

    def jump(self) -> None:
        """Write what is not on disk yet, and go.  Where it works it does not return.

        Raises BadInput where nothing is loaded, PerformError where the kernel came back.
        """
        self.refuse_jump()
        if self.way != "reboot(2)":
            self._calls.become(SYSTEMCTL)
        os.sync()
        try:
            self._calls.reboot_kexec()
        except CallFailed as err:
            raise PerformError(f"{err}: the old kernel runs on", number=err.number) from err
        raise PerformError("reboot returned without an error: the old kernel runs on")

    def _load_files(self, load: FileLoad) -> None:
        flags = FileFlag.ON_CRASH if load.crash else FileFlag(0)
        if load.initrd is None:
            flags |= FileFlag.NO_INITRAMFS
        initrd = NO_DESCRIPTOR if load.initrd is None else load.initrd
        self._calls.kexec_file_load(load.kernel, initrd, load.command_line, flags)

    def _what_is_left(self, crash: bool, before: State, again: Again | None) -> str:
        """A failed load's other half: what the kernel has now."""
        was = before.crash_loaded if crash else before.loaded
        now = self.state()
        has = now.crash_loaded if crash else now.loaded
        if was and has is False:
            return put_back(self._files, self._calls.run, lambda: self.state().crash_loaded, again)
        if was:
            return "the image that was loaded before is still there"
        return "nothing was loaded before, and nothing is"

    def _not_unloaded(self, err: CallFailed, crash: bool) -> PerformError:
        now = self.state()
        left = now.limits.crash if crash else now.limits.reboot
        why = ""
        if now.disabled:
            why = ": kernel.kexec_load_disabled forbids unloading as well"
        elif left == 0:
            why = ": no load is left, and without one nothing can be unloaded"
        elif now.lockdown not in (None, "none"):
            why = f": lockdown is {now.lockdown}, and kexec_file_load does not unload it either"
        return PerformError(f"{err}{why}; the image stays loaded", number=err.number)


def request_of(load: Load | FileLoad) -> Request:
    """A load in the words that the refusals ask in."""
    if isinstance(load, FileLoad):
        return Request(
            crash=load.crash,
            destinations=(),
            sizes=(),
            entry=0,
            files=True,
            command_line=load.command_line,
            is_bzimage=load.is_bzimage,
            signed=load.signed,
            signature=load.signature,
            ima_signed=load.ima_signed,
            written=load.written,
            room=load.room,
        )
    return Request(
        crash=load.crash,
        destinations=tuple(
            (each.name or f"segment {n}", each.destination) for n, each in enumerate(load.segments)
        ),
        sizes=tuple(len(each.data) for each in load.segments),
        entry=load.entry,
        files=False,
        command_line=b"",
        is_bzimage=False,
        signed=None,
    )


def told(state: State, last: Sequence[Kept] = ()) -> list[str]:
    """What `tightrope status` prints, a fact a line; `last` is what tightrope loaded here."""
    known = {True: "yes", False: "no", None: "not known"}
    region = " and ".join(map(str, state.crash_regions)) or "none"
    lines = [
        f"kernel          {state.release or 'not known'}",
        f"loaded          {known[state.loaded]}",
        f"crash loaded    {known[state.crash_loaded]}",
        f"crash region    {region}",
        *([] if state.crash_size is None else [f"crash size      {state.crash_size:#x}"]),
        f"lockdown        {state.lockdown or 'not known'}",
        f"secure boot     {known[state.secure_boot]}",
    ]
    if state.disabled:
        lines.append("kexec_load_disabled is 1: nothing is loaded or unloaded until the next boot")
    for name, left in (("kexec", state.limits.reboot), ("crash", state.limits.crash)):
        if left is not None:
            lines.append(f"{name} loads left  {left}")
    for each in last:
        there = state.crash_loaded if each.crash else state.loaded
        at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(each.at))
        kind = "crash image" if each.crash else "kexec image"
        gone = ": it is gone" if there is False else ""
        lines.append(
            f"tightrope loaded a {kind} by {visible(each.call)} at {at}, asked by uid {each.uid}{gone}"
        )
        lines += [f"  {visible(path)}: sha256 {visible(digest)}" for path, digest, _ in each.files]
    if last:
        lines.append("  whether somebody else has loaded another one since then no file says")
    return lines


def facts(state: State, last: Sequence[Kept] = ()) -> dict[str, object]:
    """The same as a JSON document; addresses are physical."""
    extents = {
        name: [{"start": each.start, "size": each.size} for each in rows]
        for name, rows in (("ram", state.ram), ("crash_regions", state.crash_regions))
    }
    plain = (
        "release",
        "architecture",
        "loaded",
        "crash_loaded",
        "disabled",
        "lockdown",
        "crash_size",
    )
    return {
        **{name: getattr(state, name) for name in (*plain, "secure_boot", "xen_pv")},
        "limits": {"reboot": state.limits.reboot, "crash": state.limits.crash},
        **extents,
        "last": [
            {
                "crash": each.crash,
                "call": each.call,
                "files": [
                    {"name": name, "sha256": digest, "bytes": size}
                    for name, digest, size in each.files
                ],
                "rehearsed": each.rehearsed,
                "uid": each.uid,
                "at": each.at,
            }
            for each in last
        ],
    }


def left_behind(state: State, load: Load | FileLoad) -> str | None:
    """What this load would not carry over, a sentence; None where nothing is known to be lost."""
    if state.handover and isinstance(load, Load) and not load.crash:
        return (
            "this kernel hands memory over to the next one (KHO), and kexec_load does not: what is"
            " preserved is lost, where anything is; kexec_file_load carries it"
        )
    return None


def reasons(state: State, load: Load | FileLoad) -> tuple[Refusal, ...]:
    """Every refusal that can be told without asking; see `refusals`."""
    return refusals(state, request_of(load))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold Ctrl-C and its like back until the call is over: a load is done or not done, never half
    told."""
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    old = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
