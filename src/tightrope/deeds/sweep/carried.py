"""The cargo on Dask's workers: a plugin that each has, also one that comes later.

Scattered data would be less than that, even with broadcast=True: the scheduler soon takes all copies
but one away, and with the worker that has the last one the tasks are cancelled that ask for it
(findings/dask-broadcast-is-soon-one-copy.sh).

Rules: this file alone imports Dask at its top; who asks for Dask imports it.
"""

from __future__ import annotations

from distributed import WorkerPlugin, get_worker

from tightrope.deeds.sweep.cargo import Cargo
from tightrope.deeds.sweep.work import Done, Task, do


class Carried(WorkerPlugin):
    """A cargo with all its bytes, by a name that is its digest's."""

    def __init__(self, cargo: Cargo) -> None:
        self.cargo = cargo
        self.name = f"tightrope-{cargo.digest()}"


def there(name: str, task: Task) -> Done:
    """On a worker: do it with the cargo of that name."""
    carried = get_worker().plugins[name]
    assert isinstance(carried, Carried), "the name is one of ours"
    return do(carried.cargo, task)
