"""`tightrope.__all__`: every name is there, is documented, and costs nothing until it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tightrope
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("name", tightrope.__all__)
def test_a_stable_name_is_there_and_says_what_it_is(name: str) -> None:
    value = getattr(tightrope, name)
    assert name == "__version__" or value.__doc__
    assert name in dir(tightrope)


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'jump'"):
        tightrope.jump  # noqa: B018


def test_the_page_lists_exactly_the_stable_names() -> None:
    page = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    listed = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert listed == set(tightrope.__all__)


def test_importing_the_package_imports_no_room() -> None:
    program = (
        "import sys, tightrope\n"
        "print([each for each in sys.modules if each.startswith('tightrope.')])\n"
        "tightrope.TightropeError\n"
        "print([each for each in sys.modules if each.startswith('tightrope.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["[]", "['tightrope.errors']"]
