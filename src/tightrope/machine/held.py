"""Signals held back while an engine runs our code from inside its own.

A Python signal handler runs between two instructions of the interpreter, in a callback of an engine
as anywhere else.  What it raises there passes through a C library: an exception is printed and
lost, and the walk goes on with a step that nobody has recorded.

Rules: a signal is only noted while it is held, the engine is told to stop, and what was to happen
happens once it has.  Outside the main thread Python delivers no signals, and nothing is done.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def held(stop: Callable[[], None]) -> Iterator[None]:
    """Hold back what would end the process; `stop` is called when one comes in.

    Afterwards the first one is handled as it would have been: KeyboardInterrupt for Ctrl-C.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _frame: object) -> None:
        came.append(number)
        stop()

    handlers = {each: signal.getsignal(each) for each in ENDING}
    # None: installed by somebody other than Python; ignored ones stay ignored.
    before = {
        each: handler for each, handler in handlers.items() if handler not in (None, signal.SIG_IGN)
    }
    try:
        for each in before:
            signal.signal(each, note)
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        if came:
            _handle(came[0], before[signal.Signals(came[0])])


def _handle(number: int, handler: object) -> None:
    if callable(handler):
        handler(number, None)
    else:
        os.kill(os.getpid(), number)
