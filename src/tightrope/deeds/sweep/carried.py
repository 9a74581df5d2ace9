"""The cargo on Dask's workers: a plugin that each has, also one that comes later.

Scattered data would be less than that, even with broadcast=True: the scheduler soon takes all copies
but one away, and with the worker that has the last one the tasks are cancelled that ask for it
(findings/dask-broadcast-is-soon-one-copy.sh).

Rules: this file alone imports Dask at its top; who asks for Dask imports it.
"""

from __future__ import annotations

from distributed import Worker, WorkerPlugin, get_worker

from tightrope.deeds.sweep.cargo import Cargo, hold
from tightrope.deeds.sweep.work import Done, Task, do
from tightrope.errors import BadInput, TightropeError


class Carried(WorkerPlugin):
    """A cargo with all its bytes, by a name that is its digest's."""

    def __init__(self, cargo: Cargo) -> None:
        self.cargo = cargo
        self.name = f"tightrope-{cargo.digest()}"
        self.trouble = ""
        """Why this worker cannot do it; empty where it can."""

    def setup(self, worker: Worker) -> None:
        """On a worker: unload, so that one which cannot is told of before it has any task.

        Nothing is raised: Dask would go on without the plugin.
        """
        try:
            hold(self.cargo).machine()
        except TightropeError as err:
            self.trouble = f"worker {worker.address}: {err}"


def trouble(name: str, dask_worker: Worker) -> str:
    """On a worker, which Dask gives: why it cannot do anything with the cargo of that name."""
    return _carried(name, dask_worker).trouble


def there(name: str, task: Task) -> Done:
    """On a worker: do it with the cargo of that name.

    Raises BadInput where it came later than the others and cannot.
    """
    carried = _carried(name, get_worker())
    if carried.trouble:
        raise BadInput(carried.trouble, source="--on")
    return do(carried.cargo, task)


def _carried(name: str, worker: Worker) -> Carried:
    carried = worker.plugins[name]
    assert isinstance(carried, Carried), "the name is one of ours"
    return carried
