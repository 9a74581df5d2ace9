"""The time limit of a virtual CPU's run.

KVM_RUN returns when its thread gets a signal that is open inside it.  The signal used here is
blocked everywhere else (KVM_SET_SIGNAL_MASK opens it), so that no handler is needed and nothing
else in the process ever sees it.

Rules: no thread is left behind after `close`; the calling thread's signal mask is put back.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

KICK = signal.SIGRTMAX


class Watchdog:
    """Kicks the thread that is inside `limit` once its time is over; `over` says that it did."""

    def __init__(self) -> None:
        self.over = False
        self._deadline: float | None = None
        self._target = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    def close(self) -> None:
        """End the thread, if there ever was one."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """What is inside is kicked after so many seconds."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {KICK})
        try:
            with self._changed:
                self.over = False
                self._target = threading.get_ident()
                self._deadline = time.monotonic() + seconds
                if self._thread is None:
                    self._thread = threading.Thread(target=self._watch, daemon=True)
                    self._thread.start()
                self._changed.notify()
            yield
        finally:
            with self._changed:
                self._deadline = None
            # A kick that came too late would end the next run.
            while signal.sigtimedwait({KICK}, 0) is not None:
                pass
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _watch(self) -> None:
        with self._changed:
            while not self._closing:
                if self._deadline is None:
                    self._changed.wait()
                    continue
                left = self._deadline - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                self.over = True
                self._deadline = None
                signal.pthread_kill(self._target, KICK)
