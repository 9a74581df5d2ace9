"""SIGINT, SIGTERM and SIGHUP end a command at once, with 128 plus their number.

    signal -> handler       raises in the main thread as soon as Python runs there, and things are closed
           `-> a byte -> a thread that interrupts z3, wakes the main thread, waits GRACE, and then ends
                     the process by itself

Python runs no handler while a library is at work, z3 for minutes and an emulator for seconds; and
an exception in a callback from C is lost.  The thread needs neither: the byte is written by the C
half of Python's handler (signal.set_wakeup_fd), in whatever thread of a library the signal arrives;
so the main thread may still sit in a system call, which WAKE ends.

While a system call changes the machine (`sheltered`) a signal waits: neither half interrupts it.
A command that has to put something back outside this process says how long that may take
(`takes_leave`).

One that comes before the command begins, or while its end is told, raises nothing: `number` is
enough.

Rules: what a signal has interrupted is never reported as finished: `Signals.number` is asked before
anything is printed and before a status is given.  What was changed before it came is told.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

GRACE = 1.0
"""Seconds for closing machines and removing temporary files, all of them ours."""
WAKE, NUDGE = signal.SIGUSR2, 0.1
"""What our thread sends the main one, never the process; seconds between two."""
HEEDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAYS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}


class _Changes:
    """What the command in this process has done to the machine."""

    def __init__(self) -> None:
        self.over = threading.Event()
        """Nothing is being changed now."""
        self.begin()

    def begin(self) -> None:
        """A command begins."""
        self.done = "nothing was changed"
        self.grace = GRACE
        self.over.set()


_changes = _Changes()


@contextmanager
def sheltered(done: str) -> Iterator[None]:
    """A change of the machine that no signal interrupts; `done`, a clause, is what is so then."""
    _changes.over.clear()
    try:
        yield
        _changes.done = done
    except Exception as err:
        _changes.done = str(err)
        raise
    finally:
        _changes.over.set()


def takes_leave(seconds: float) -> None:
    """What this command puts back at its end may take as long; it is not cut off before then."""
    _changes.grace = seconds


def leaves(what: str) -> None:
    """A clause: what is so when a signal ends this command from here on."""
    _changes.done = what


def says(number: int) -> str:
    """What a command says that a signal has ended."""
    return f"{SAYS[signal.Signals(number)]}; {_changes.done}"


class Ended(KeyboardInterrupt):
    """A signal that ends the command; like Ctrl-C it is no Exception."""


class Signals:
    """The signals of one command.  Outside the main thread nothing is changed and nothing seen."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._raises = False
        self._over = threading.Event()
        self._unsaid = threading.Lock()
        self._before: dict[int, object] = {}
        self._wakeup = -1
        self._pipe: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None
        self._main = 0

    @property
    def seen(self) -> bool:
        """A signal has come."""
        return self.number is not None

    def claim(self) -> bool:
        """Whether the caller is the one to say what ended the command: the first that asks."""
        return self._unsaid.acquire(blocking=False)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """While the command runs a signal is raised where it is, one that has come already too."""
        self._raises = True
        unraisable, sys.unraisablehook = sys.unraisablehook, self._lost(sys.unraisablehook)
        try:
            if self.number is not None:
                self._raise(self.number, None)
            yield
        finally:
            self._raises = False
            sys.unraisablehook = unraisable

    def _lost(
        self, told: Callable[[UnraisableHookArgs], object]
    ) -> Callable[[UnraisableHookArgs], object]:
        """What says which exceptions nobody can catch, but not that a `__del__` met a signal."""

        def hook(lost: UnraisableHookArgs) -> None:
            if not (self.seen and isinstance(lost.exc_value, KeyboardInterrupt)):
                told(lost)

        return hook

    def __enter__(self) -> Signals:
        _changes.begin()
        if threading.current_thread() is not threading.main_thread():
            return self
        self._pipe = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._pipe[1], False)
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        for each in HEEDED:
            # A command that runs under nohup ignores SIGHUP, and goes on doing so.
            if signal.getsignal(each) is not signal.SIG_IGN:
                self._before[each] = signal.signal(each, self._raise)
        self._before[WAKE] = signal.signal(WAKE, lambda _number, _frame: None)
        self._main = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._pipe is None:
            return
        self._over.set()
        os.write(self._pipe[1], b"\0")
        assert self._thread is not None
        self._thread.join()  # before WAKE is again what it was, which may be the end of us
        for each, handler in self._before.items():
            signal.signal(each, handler)  # type: ignore[arg-type]  # what `signal` itself returned
        signal.set_wakeup_fd(self._wakeup)
        for descriptor in self._pipe:
            os.close(descriptor)

    def _raise(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        if not (self._raises and _changes.over.is_set()):
            return  # whoever changes the machine asks afterwards, and so does `main`
        raise KeyboardInterrupt if number == signal.SIGINT else Ended

    def _watch(self) -> None:
        """Wait for a byte that is one of ours, then for the command to end, and then no longer."""
        assert self._pipe is not None
        while (number := os.read(self._pipe[0], 1)[0]) != 0:
            if number not in HEEDED:
                continue
            self.number = number
            _changes.over.wait()
            # Only where somebody has loaded it; z3 gives up what it is at, and Python goes on.
            if solver := sys.modules.get("tightrope.prove.solver"):
                solver.interrupt()
            limit = time.monotonic() + _changes.grace
            while time.monotonic() < limit:
                signal.pthread_kill(self._main, WAKE)
                if self._over.wait(NUDGE):
                    return
            if self.claim():
                with suppress(OSError):  # nobody may be there to hear it
                    os.write(2, f"tightrope: {says(number)}\n".encode())
            elif self._over.wait(GRACE):
                return
            os._exit(128 + number)
