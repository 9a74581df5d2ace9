"""Looking at the clock while the emulator runs.

Unicorn must not be stopped and started again at an arbitrary moment: with `emu_start`'s time-out
used as a slice, Debian's kernel finds its own XZ payload corrupt (measured, Unicorn 2.1.4).  So it
runs in one piece, and a thread beside it shows progress, ends it at the time limit, and passes
Ctrl-C on: a signal is handled by the main thread only, which is inside the engine.  It also ends a
run that shows no sign of getting on: a CPU that works touches new memory or a port every few
milliseconds.

Rules: the thread touches nothing of the machine but `stop`, and only to end a run for good.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

from tightrope.machine.port import Progress

PERIOD = 0.2
"""Seconds between two looks."""
IDLE_SECONDS = 8.0
"""Seconds of this process's CPU time without a sign, after which a run is taken to wait for ever.
"""


class Ticker:
    """A context: `stop` is called once when the limit is reached or a signal came in."""

    def __init__(
        self,
        *,
        seconds: float,
        progress: Progress,
        stop: Callable[[], None],
        signs: Callable[[], int] | None = None,
    ) -> None:
        """`signs` counts what shows that the run gets on; None does not look at that."""
        self.idle = False
        """There was no sign for `IDLE_SECONDS`."""
        self._signs = signs
        self.over = False
        """The time limit was reached."""
        self._seconds = seconds
        self._progress = progress
        self._stop = stop
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._here, self._there = socket.socketpair()
        self._before: int | None = None
        self._raised: BaseException | None = None
        self._thread = threading.Thread(target=self._look, name="console ticker", daemon=True)

    @property
    def passed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def __enter__(self) -> Ticker:
        self._here.setblocking(False)
        self._there.settimeout(PERIOD)
        if threading.current_thread() is threading.main_thread():
            # The interpreter's C handler writes the signal's number here at once.
            self._before = signal.set_wakeup_fd(self._here.fileno(), warn_on_full_buffer=False)
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._before is not None:
            signal.set_wakeup_fd(self._before)
        # Do not wait for the rest of a period; a full socket will wake the thread as well.
        with contextlib.suppress(BlockingIOError):
            self._here.send(b"\0")
        self._thread.join()
        self._here.close()
        self._there.close()
        if self._raised is not None and error is None:
            raise self._raised

    def _look(self) -> None:
        seen, since = -1, time.process_time()
        while not self._ended.is_set():
            try:
                signalled = bool(self._there.recv(16))
            except TimeoutError:
                signalled = False
            passed = self.passed
            self.over = passed >= self._seconds
            now = -1 if self._signs is None else self._signs()
            if self._signs is None or now != seen:
                seen, since = now, time.process_time()
            elif time.process_time() - since > IDLE_SECONDS:
                self.idle = True
            if self._ended.is_set():
                return
            try:
                self._progress("the new kernel runs", int(passed), int(self._seconds))
            except BaseException as err:
                # Nobody would look at the clock any more: end it, and raise it where it is seen.
                self._raised, self.over = err, True
                self._stop()
                return
            if signalled or self.over or self.idle:
                self._stop()
