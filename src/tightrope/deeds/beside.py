"""Work beside the caller's own: one thread, one answer.

Rules: what the work raises is raised where its answer is asked for, each time.  A process that has
its answer without this one need not wait for it.  `concurrent.futures` would do, and loads
`logging` and `traceback`, which is a tenth of the time before a kernel begins to be unpacked.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Beside(Generic[T]):
    """What `work` returns or raises, in a thread of its own, which begins at once."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._answer: tuple[T] | None = None
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="unpacking", daemon=True)
        self._thread.start()

    def result(self) -> T:
        """The answer, once it is there.  Raises what the work has raised."""
        self._thread.join()
        if self._answer is None:
            assert self._error is not None
            raise self._error
        return self._answer[0]

    def _run(self) -> None:
        try:
            self._answer = (self._work(),)
        except BaseException as err:
            self._error = err
