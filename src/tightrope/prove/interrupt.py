"""Signals that end a proof at once, also inside z3.

    SIGINT                  KeyboardInterrupt
    SIGTERM, SIGHUP         SystemExit(128 + number)

While a solver works, the main thread is inside C and Python's handlers wait.  But the interpreter's
own C handler writes the signal's number to a socket at once; a thread reads it there, interrupts z3,
and wakes the main thread until Python has run the handler and what it set off has cleaned up.  Where
that takes longer than GRACE, or at a second signal, the process ends there and then.  (z3 has a
handler for Ctrl-C too, which turns it into "unknown" and lets the program go on, 2 of 4 times to
status 0: `solver.solver_library` turns it off.)

Rules: whatever the signals did before is put back; a signal that was ignored stays ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WAKE = signal.SIGUSR2
"""Sent by our thread to the main one, and never to the process: end a system call."""
GRACE, NUDGE = 2.0, 0.1
"""Seconds for whatever has to be cleaned up, and between two wakings."""
DONE = 0
"""No signal has this number."""


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """A context in which the signals above end whatever runs, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = {each for each in ENDING if signal.getsignal(each) is not signal.SIG_IGN}
    handlers: dict[signal.Signals, Any] = {WAKE: signal.signal(WAKE, _woken)}
    for each in taken - {signal.SIGINT}:
        handlers[each] = signal.signal(each, _ended)
    here, there = socket.socketpair()
    here.setblocking(False)
    before = signal.set_wakeup_fd(here.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(
        target=_watch, args=(there, taken, threading.get_ident()), name="signals", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        here.send(bytes([DONE]))
        thread.join()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        here.close()
        there.close()


def _watch(there: socket.socket, taken: set[signal.Signals], main: int) -> None:
    """See the first signal through; a second, or no end in time, ends the process."""
    number = _next(there, taken, None)
    if number in (None, DONE):
        return
    z3 = sys.modules.get("z3")
    if z3 is not None:
        with contextlib.suppress(Exception):
            z3.main_ctx().interrupt()
    end = time.monotonic() + GRACE
    again = None
    while again is None and time.monotonic() < end:
        signal.pthread_kill(main, WAKE)
        again = _next(there, taken, NUDGE)
    if again != DONE:
        os._exit(128 + (number or 0))


def _next(there: socket.socket, taken: set[signal.Signals], seconds: float | None) -> int | None:
    """The next of the signals, or DONE; None when there is none in time."""
    end = None if seconds is None else time.monotonic() + seconds
    while end is None or time.monotonic() < end:
        there.settimeout(None if end is None else max(0.001, end - time.monotonic()))
        try:
            got = there.recv(1)
        except TimeoutError:
            return None
        if not got or got[0] == DONE or got[0] in taken:
            return got[0] if got else DONE
    return None


def _ended(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _woken(_number: int, _frame: FrameType | None) -> None:
    """A system call has been interrupted: Python now runs the handler that waits."""
