"""A progress bar on a terminal, nothing in a pipe.

Rules: the bar goes to stderr, so that stdout is the report alone; it disappears when it is done.
Work that takes less than a moment shows nothing.  A thread of its own draws, because most stages
report once, when they begin.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Never

if TYPE_CHECKING:
    from tqdm import tqdm

DELAY = 0.4
"""Seconds before a bar appears."""
TIMED = ("the new kernel runs", "the old kernel boots")
"""What is only waited for, so many seconds at most; other totals are how many there are."""
PERIOD = 0.2
"""Seconds between two drawings."""


class Bar:
    """Call it as a `machine.port.Progress`, from any thread; close it at the end, whatever
    happened."""

    def __init__(self) -> None:
        self._wanted = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._what, self._done, self._total = "", 0, 0
        self._since = 0.0
        self._bar: tqdm[Never] | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if not self._wanted or self._closed.is_set():
            return
        with self._lock:
            if what != self._what:
                self._clear()
                self._what, self._since = what, time.monotonic()
            self._done, self._total = done, total
            if self._thread is None:
                self._thread = threading.Thread(target=self._draw, name="progress", daemon=True)
                self._thread.start()

    def _draw(self) -> None:
        while not self._closed.wait(PERIOD):
            with self._lock:
                if time.monotonic() - self._since < DELAY:
                    continue
                if self._bar is None:
                    self._bar = self._new()
                if self._total:
                    self._bar.n = self._done
                self._bar.refresh()

    def _new(self) -> tqdm[Never]:
        from tqdm import tqdm

        end = "at most {total}s" if self._what in TIMED else "{n} of {total}"
        bar = tqdm(
            desc=self._what,
            total=self._total or None,
            initial=self._done if self._total else 0,
            leave=False,
            dynamic_ncols=True,
            bar_format="{desc}: {elapsed} |{bar}| " + end if self._total else "{desc}: {elapsed}",
        )
        # The work began before its bar did.
        bar.start_t -= time.monotonic() - self._since
        return bar

    def _clear(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def pause(self) -> None:
        """Take the bar off the screen until the next call, for a line that is to be printed."""
        with self._lock:
            self._what = ""
            self._since = float("inf")
            self._clear()

    def close(self) -> None:
        """Take the bar off the screen; it stays off."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._clear()
