"""Work that is out at workers which die: nothing is lost, and the task that kills is told apart."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.deeds.sweep.flight import Flight, Lost
from tightrope.deeds.sweep.work import Done, HostText, Sort, Task
from tightrope.errors import BadInput


def task(name: str) -> Sort:
    return Sort(hosts=(HostText(name=name, digest="", text=b""),))


def name_of(one: Task) -> str:
    assert isinstance(one, Sort)
    return one.hosts[0].name


class Workers:
    """A pool of `size` workers that goes down as a whole at a task that `kills`; it keeps the order."""

    def __init__(self, size: int, kills: Callable[[str], bool]) -> None:
        self.size = size
        self._kills = kills
        self._broken = False
        self._queue: list[tuple[Future[Done], Task]] = []
        self.deaths = 0

    def submit(self, one: Task) -> Future[Done]:
        if self._broken:
            raise BrokenProcessPool
        future: Future[Done] = Future()
        self._queue.append((future, one))
        self._work()
        return future

    def _work(self) -> None:
        if any(self._kills(name_of(one)) for _, one in self._queue):
            self._broken = True
            self.deaths += 1
            for future, _ in self._queue:
                future.set_exception(BrokenProcessPool())
        else:
            for future, _ in self._queue:
                future.set_result(())
        self._queue.clear()

    def revive(self) -> None:
        self._broken = False


@given(
    names=st.lists(st.integers(0, 50).map(str), max_size=20, unique=True),
    bad=st.sets(st.integers(0, 50).map(str), max_size=4),
    size=st.integers(1, 4),
)
def test_every_task_lands_once_and_only_those_that_kill_are_lost(
    names: list[str], bad: set[str], size: int
) -> None:
    flight = Flight(Workers(size, bad.__contains__))
    for name in names:
        flight.send(task(name))
    came: dict[str, object] = {}
    while len(flight):
        for one, result in flight.land():
            assert name_of(one) not in came
            came[name_of(one)] = result
    assert came == {each: Lost.LOST if each in bad else () for each in names}


def test_a_worker_that_dies_once_loses_nothing() -> None:
    died: list[str] = []

    def once(name: str) -> bool:
        if name == "b" and not died:
            died.append(name)
            return True
        return False

    workers = Workers(1, once)
    flight = Flight(workers)
    for name in "abc":
        flight.send(task(name))
    came: dict[str, object] = {}
    while len(flight):
        came |= {name_of(one): result for one, result in flight.land()}
    assert (came, workers.deaths) == ({"a": (), "b": (), "c": ()}, 1)


@pytest.mark.parametrize("name", ["CommClosedError", "CancelledError", "FutureCancelledError"])
def test_a_scheduler_that_goes_away_is_one_line(name: str) -> None:
    gone = type(name, (Exception,), {})

    class Away(Workers):
        def submit(self, one: Task) -> Future[Done]:
            future: Future[Done] = Future()
            future.set_exception(gone())
            return future

    flight = Flight(Away(1, lambda _name: False))
    flight.send(task("a"))
    with pytest.raises(BadInput, match=r"^--on: the scheduler has gone away$"):
        list(flight.land())
