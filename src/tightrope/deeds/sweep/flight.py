"""Work that is out at the workers; one that dies loses nothing.

    send(task) ... land() -> (task, what came of it), as they come

A pool of processes breaks as a whole when one dies, and does not say at which task.  So all that
was out is done again, one task at a time, until the one that kills is alone when it does.

Rules: what comes of a task is its result, or LOST for one that ended its worker twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from enum import Enum

from tightrope.deeds.sweep.pools import Pool
from tightrope.deeds.sweep.work import Done, Task
from tightrope.errors import BadInput


class Lost(Enum):
    """What comes of a task that ends its worker."""

    LOST = "ended its worker twice"


class Flight:
    """The tasks that are out."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._out: dict[Future[Done], Task] = {}
        self._suspects: deque[Task] = deque()
        """What was out when a worker died."""
        self._waiting: deque[Task] = deque()

    def __len__(self) -> int:
        return len(self._out) + len(self._suspects) + len(self._waiting)

    def send(self, task: Task) -> None:
        """Have it done."""
        self._waiting.append(task)

    def land(self) -> Iterator[tuple[Task, Done | Lost]]:
        """What has come of some of them; waits for at least one.

        Raises BadInput when no worker can be reached any more.
        """
        alone = bool(self._suspects)
        if alone and not self._out:
            self._go(self._suspects.popleft())
        while self._waiting and not alone:
            self._go(self._waiting.popleft())
        done, _ = wait(self._out, return_when=FIRST_COMPLETED)
        broken: list[Task] = []
        for future in done:
            task = self._out.pop(future)
            try:
                result = future.result()
            except BrokenExecutor:
                broken.append(task)
            except Exception as err:
                if not _killed(err):
                    raise
                yield task, Lost.LOST
            else:
                yield task, result
        if broken:
            yield from self._broken(broken, alone)

    def _go(self, task: Task) -> None:
        try:
            self._out[self._pool.submit(task)] = task
        except BrokenExecutor:
            future: Future[Done] = Future()
            future.set_exception(BrokenExecutor())
            self._out[future] = task

    def _broken(self, tasks: list[Task], alone: bool) -> Iterator[tuple[Task, Lost]]:
        """A worker has died."""
        self._pool.revive()
        if alone:
            yield tasks[0], Lost.LOST
            return
        self._suspects.extend([*tasks, *self._out.values()])
        self._out.clear()


def _killed(error: Exception) -> bool:
    """Whether a cluster says that a task ended its workers.  Raises BadInput for a lost one."""
    name = type(error).__name__  # Dask's own classes, without importing Dask
    if name in ("CommClosedError", "CancelledError", "FutureCancelledError"):
        raise BadInput("the scheduler has gone away", source="--on") from error
    return name == "KilledWorker"
