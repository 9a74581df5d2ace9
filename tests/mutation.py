"""Run the tests on changed functions: collected once, and for each change a fork in which only it differs.

    reached    a fork runs every test once and tells which functions each of them enters
    verdict    a fork puts the changed code into the live function and runs the tests that enter it,
               quickest first, until one fails

Rules: a plugin of pytest, used by scripts/mutants alone.  Nothing runs in the process that forks, so that
no test's cache holds what unchanged code has answered.  What is changed outside a function (a constant, a
default) or is entered by no test (perhaps while modules are imported) is not judged here.
"""

from __future__ import annotations

import functools
import gc
import os
import pickle
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FrameType, FunctionType
from typing import TypeVar

import pytest

FUNCTION = 0x1
"""CO_OPTIMIZED of the Python manual's inspect: a function's code, and not a module's or a class body's."""
LIMIT, SLOWER = 3, 3
"""CPU seconds, and times what the same tests take unchanged: a change that takes longer goes in circles."""

Place = tuple[str, int]
"""A function by its file and first line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A file as it becomes."""

    path: str
    text: str


def functions(code: CodeType) -> Iterator[CodeType]:
    """The functions of a module and of its classes; what is defined in a function belongs to it."""
    for each in code.co_consts:
        if isinstance(each, CodeType):
            if each.co_flags & FUNCTION and each.co_name != "<lambda>":
                yield each
            else:
                yield from functions(each)


def same(one: CodeType, other: CodeType) -> bool:
    """Whether two codes do the same by their instructions, whatever columns they stand in."""
    if (one.co_code, one.co_names, one.co_varnames) != (
        other.co_code,
        other.co_names,
        other.co_varnames,
    ) or len(one.co_consts) != len(other.co_consts):
        return False
    for a, b in zip(one.co_consts, other.co_consts, strict=True):
        if isinstance(a, CodeType) and isinstance(b, CodeType):
            if not same(a, b):
                return False
        elif (type(a), a) != (type(b), b):
            return False
    return True


def changed(change: Change) -> tuple[Place, CodeType] | None:
    """The one function that a change is in, with its new code; None where it is in none."""
    with open(change.path, encoding="utf-8") as file:
        before = compile(file.read(), change.path, "exec", dont_inherit=True)
    after = compile(change.text, change.path, "exec", dont_inherit=True)
    pairs = list(zip(functions(before), functions(after), strict=True))
    found = [(old, new) for old, new in pairs if not same(old, new)]
    if len(found) != 1:
        return None
    [(old, new)] = found
    return (change.path, old.co_firstlineno), new


T = TypeVar("T")


def forked(work: Callable[[], T]) -> T | None:
    """What `work` gives in a process of its own; None where that process does not come to its end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            with os.fdopen(writing, "wb") as out:
                pickle.dump(work(), out)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read()
    os.waitpid(child, 0)
    answer: T | None = pickle.loads(said) if said else None
    return answer


class Mutation:
    """The plugin: it takes the place of the loop over the tests."""

    def __init__(
        self, changes: list[Change], nearest: str, tell: Callable[[int, bool | None], None]
    ) -> None:
        """Of tests outside the folder `nearest` those of tests/slow.txt are left out.

        `tell` hears of each change, by its number: killed, survived, or None where it is not judged.
        """
        self.changes, self.nearest, self.tell = changes, nearest, tell
        self.failed: list[str] = []
        self.why: dict[str, str] = {}
        """Of each test that failed, the last line of what pytest says of it."""
        self.unchanged: dict[str, str] = {}
        """The same of those that fail without a change."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
            self.why[report.nodeid] = report.longreprtext.strip().rpartition("\n")[2]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [
            each
            for each in items
            if each.nodeid.startswith(self.nearest) or each.get_closest_marker("slow") is None
        ]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Failed("the tests cannot be collected")
        items = session.items
        told = forked(lambda: self.reached(items))
        assert told is not None, "the tests do not come to their end"
        by_test, seconds, self.unchanged = told
        if self.unchanged:
            raise session.Failed("some tests fail without a change")
        entered: dict[Place, list[int]] = defaultdict(list)
        for number, places in enumerate(by_test):
            for place in places:
                entered[place].append(number)
        for number, change in enumerate(self.changes):
            found = changed(change)
            if found is None or not entered[found[0]]:
                self.tell(number, None)
                continue
            chosen = sorted(entered[found[0]], key=seconds.__getitem__)
            limit = LIMIT + SLOWER * int(sum(seconds[each] for each in chosen))
            self.tell(number, self.survives(*found, [items[each] for each in chosen], limit))
        return True

    def reached(
        self, items: list[pytest.Item]
    ) -> tuple[list[set[Place]], list[float], dict[str, str]]:
        """Of each test what it enters by itself, and its seconds; and the tests that fail."""
        caches = [
            each for each in gc.get_objects() if isinstance(each, functools._lru_cache_wrapper)
        ]
        ours = [
            each
            for each in caches
            if str(each.__module__).partition(".")[0] in ("tests", "tightrope")
        ]
        found: list[set[Place]] = []
        seconds: list[float] = []

        def note(frame: FrameType, event: str, _argument: object) -> None:
            if event == "call" and "/tightrope/" in frame.f_code.co_filename:
                found[-1].add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

        for item in items:
            for cache in ours:
                cache.cache_clear()
            found.append(set())
            began = time.process_time()
            sys.setprofile(note)
            # Without a next one whatever tests share is ended, and made anew for each.
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            sys.setprofile(None)
            seconds.append(time.process_time() - began)
        return found, seconds, self.why

    def survives(self, place: Place, code: CodeType, items: list[pytest.Item], limit: int) -> bool:
        """Whether all of these tests pass, within so many CPU seconds, with the function's code changed."""

        def run() -> bool:
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
            for each in gc.get_objects():
                if isinstance(each, FunctionType):
                    old = each.__code__
                    if (
                        old.co_filename,
                        old.co_firstlineno,
                    ) == place and old.co_name == code.co_name:
                        each.__code__ = code
            for item, following in zip(items, [*items[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if self.failed:
                    return False
            return True

        return bool(forked(run))
