"""What each test costs in CPU seconds, in the JUnit file: its own, and what it shares with others.

    python -m pytest -p tests.costs --junitxml JUNIT.xml

A <testcase> gets the properties `cpu` (its own seconds), `uses NAME` for each fixture that outlives one
test, and `made NAME` (seconds) where it was the first to need it.  scripts/choose-slow reads them.

Rules: seconds of this process and of the children that it has waited for, so that a busy machine does
not change them.  A fixture's seconds are its own, without the fixtures that it needs in turn.
"""

from __future__ import annotations

import resource
from collections.abc import Generator
from dataclasses import dataclass, field

import pytest


@dataclass(slots=True)
class Costs:
    """What was spent until now on fixtures that outlive one test."""

    made: list[tuple[str, float]] = field(default_factory=list)
    """In the test that runs: the name of each such fixture, and its seconds."""
    inner: float = 0.0
    """Seconds of fixtures within the one that is being set up."""


COSTS = Costs()


def seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    spent = [resource.getrusage(each) for each in whose]
    return sum(each.ru_utime + each.ru_stime for each in spent)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
    """Time a set-up; of a fixture for one test alone it is the test's own."""
    before, outside = seconds(), COSTS.inner
    COSTS.inner = 0.0
    try:
        return (yield)
    finally:
        spent = seconds() - before
        if fixturedef.scope != "function":
            COSTS.made.append((fixturedef.argname, spent - COSTS.inner))
            COSTS.inner = outside + spent
        else:
            COSTS.inner += outside


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Begin anew for each test."""
    COSTS.made.clear()
    COSTS.inner = 0.0
    item.user_properties.append(("began", seconds()))
    return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Write down what the test has cost, its end included."""
    yield
    [began] = [each for name, each in item.user_properties if name == "began"]
    assert isinstance(began, float)
    item.user_properties.remove(("began", began))
    shared = sum(spent for _, spent in COSTS.made)
    item.user_properties.append(("cpu", f"{seconds() - began - shared:.3f}"))
    for name, spent in COSTS.made:
        item.user_properties.append((f"made {name}", f"{spent:.3f}"))
    for name in getattr(item, "fixturenames", ()):
        item.user_properties.append((f"uses {name}", ""))
