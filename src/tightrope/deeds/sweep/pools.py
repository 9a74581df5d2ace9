"""Where the workers are: processes of this computer, or an engine that exists, Dask.

    with opened("dask://10.0.0.1:8786", cargo, workers=None) as pool:
        pool.submit(task).result()

Both are executors of `concurrent.futures`; what differs is how the cargo comes to a worker, and
what a worker that dies takes with it: of processes all that is out (the pool is broken, and is made
anew), of Dask's nothing.

A signal of a terminal goes to all processes there.  Workers, and the process that minds their
semaphores, begin with it blocked: it is the business of who started them.  One that comes to us
while a worker is being started waits until that worker has been told what it needs.

Rules: no worker of ours outlives us, however we end: each holds one end of a pipe whose other end
only we have, and ends when that is closed.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Protocol

from tightrope.deeds.sweep.cargo import Cargo, hold
from tightrope.deeds.sweep.work import Done, Task, do
from tightrope.errors import BadInput, MissingPart, reason
from tightrope.machine.held import ENDING, held

PROCESSES, DASK = "processes", "dask"


class Pool(Protocol):
    """Workers that have the cargo."""

    size: int
    """How many there are, about."""

    def submit(self, task: Task) -> Future[Done]:
        """Have it done."""

    def revive(self) -> None:
        """New workers in place of a broken pool; what was out is lost."""


class Processes:
    """Worker processes on this computer."""

    def __init__(self, cargo: Cargo, size: int) -> None:
        self.size = size
        self._cargo = cargo
        self._context = get_context("spawn")
        self._lifeline, self._line = self._context.Pipe(duplex=False)
        self._executor: Executor = self._new()

    def _new(self) -> Executor:
        with _blocked():
            return ProcessPoolExecutor(
                self.size, self._context, _begin, (self._cargo, self._lifeline)
            )

    def submit(self, task: Task) -> Future[Done]:
        with _blocked():
            return self._executor.submit(_here, task)

    def revive(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = self._new()

    def close(self) -> None:
        """End the workers, whatever they are at."""
        self._line.close()
        self._lifeline.close()
        self._executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _blocked() -> Iterator[None]:
    """What begins here begins without the signals that end us; other threads hear them for us."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        with held(lambda: None):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_cargo: Cargo | None = None
"""In a worker process: what it was started with."""


def _begin(cargo: Cargo, lifeline: Connection) -> None:
    """In a worker process: unload, and end when the one who started us does."""
    global _cargo
    for each in (signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    _cargo = cargo


def _end_with(lifeline: Connection) -> None:
    with suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(0)


def _here(task: Task) -> Done:
    assert _cargo is not None, "_begin comes first"
    return do(_cargo, task)


class Dask:
    """Workers of a Dask cluster: one that is there, or one of processes on this computer."""

    def __init__(self, cargo: Cargo, address: str | None, size: int) -> None:
        distributed, carried = _dask()
        plugin = carried.Carried(cargo.with_data())
        self._name: str | None = None
        self._cluster = None
        if address is None:
            self._cluster = distributed.LocalCluster(
                n_workers=size, threads_per_worker=1, processes=True, dashboard_address=None
            )
        on = f"--on {DASK}" + (f"://{address}" if address else "")
        where = self._cluster or f"tcp://{address}"
        try:
            self._client = distributed.Client(where, timeout=CONNECT)
        except OSError as err:
            raise BadInput(f"no scheduler answers: {err}", source=on) from err
        self.size = sum(self._client.nthreads().values())
        if not self.size:
            self.close()
            raise BadInput("the scheduler has no workers", source=on)
        self._executor = self._client.get_executor(pure=False, retries=0)
        try:
            self._name = plugin.name
            self._client.register_plugin(plugin)
            told = self._client.run(carried.trouble, plugin.name)
        except Exception as err:  # whatever a worker raises that cannot even unpickle ours
            self.close()
            raise BadInput(
                f"a worker has no tightrope like this one: {reason(err)}",
                source=on,
            ) from err
        if trouble := next(filter(None, told.values()), None):
            self.close()
            raise BadInput(trouble, source=on)
        self._there = carried.there

    def submit(self, task: Task) -> Future[Done]:
        future: Future[Done] = self._executor.submit(self._there, self._name, task)
        return future

    def revive(self) -> None:
        """Dask replaces workers itself."""

    def close(self) -> None:
        """Leave the cluster with nothing of ours in it; end it where it is ours."""
        if self._name is not None:
            with suppress(Exception):  # a scheduler that is gone has nothing of ours
                self._client.unregister_worker_plugin(self._name)
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


CONNECT = 10
"""Seconds to wait for a scheduler."""


def _dask() -> Any:
    """Dask, and what our half on its workers is."""
    try:
        import distributed

        from tightrope.deeds.sweep import carried
    except ImportError as err:
        raise MissingPart("--on dask needs Dask: pip install 'tightrope[fleet]'") from err
    return distributed, carried


@contextmanager
def opened(where: str, cargo: Cargo, workers: int | None) -> Iterator[Pool]:
    """The pool that is named: `processes`, `dask` for a cluster here, `dask://HOST:PORT`.

    The cargo is unloaded here once before any worker does it, so that what is wrong with it is told
    at once.  Raises BadInput, MissingPart.
    """
    hold(cargo)
    size = workers or len(os.sched_getaffinity(0))
    pool: Processes | Dask
    if where == PROCESSES:
        pool = Processes(cargo, size)
    elif where == DASK:
        pool = Dask(cargo, None, size)
    elif where.startswith(f"{DASK}://"):
        pool = Dask(cargo, where.removeprefix(f"{DASK}://"), size)
    else:
        raise BadInput(
            f"{where!r} is none of {PROCESSES}, {DASK}, {DASK}://HOST:PORT", source="--on"
        )
    try:
        yield pool
    finally:
        pool.close()
