"""What scripts/watch-falls saw is what docs/watch.md says, all of it agrees, and its logs are explained."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.watch.sabotages import ON_THE_WALK, SABOTAGES, changes, ways
from tightrope.deeds.explain import explain
from tightrope.model.corpse import LogKind, Phase

WATCHED = REPOSITORY / "docs/reality/watched.jsonl"
OLD = ("amd64", "amd64-7.3", "xen-amd64", "686-pae")
CASES = [(old, how, change) for old in OLD for how in ways(old) for change in changes(old, how)]


@cache
def rows() -> dict[tuple[str, str, str | None], dict[str, str | None]]:
    found = [json.loads(line) for line in WATCHED.read_text(encoding="utf-8").splitlines()]
    return {(each["old"], each["how"], each["sabotage"]): each for each in found}


def joined(path: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts/join-watched"), path],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_every_way_of_each_kernel_is_there_sound_and_with_each_sabotage() -> None:
    assert set(rows()) == set(CASES)


def test_all_of_it_agrees_and_stands_in_the_docs() -> None:
    status, table = joined(WATCHED)
    assert status == 0, table
    assert table in (REPOSITORY / "docs/watch.md").read_text(encoding="utf-8")


def test_what_was_told_is_a_rule_for_it() -> None:
    for (_, _, sabotage), row in rows().items():
        assert row["told"] in (SABOTAGES[sabotage][1] if sabotage else (None,))


@pytest.mark.parametrize(
    "change",
    [
        {"told": None},
        {"told": "control-page-is-the-kernels"},
        {"ended": "it was followed for 180 s"},
        {"came_to": "the new kernel's entry"},
        {"said": "[    0.000000] Linux version 6.1.0"},
    ],
)
def test_a_row_that_disagrees_is_seen(change: dict[str, str | None], tmp_path: Path) -> None:
    made = tmp_path / "watched"
    made.write_text(json.dumps(rows()["amd64", "file", "a segment byte"] | change))
    status, table = joined(made)
    assert (status, table.count("**disagree**")) == (1, 1)


def phase(how: str, sabotage: str) -> Phase:
    """Who had the CPU by the log alone: what a purgatory says that was told a console."""
    spoken = how != "file" and sabotage not in ON_THE_WALK
    crashed = (how, sabotage) == ("panic", "a list entry")
    if spoken and not crashed:
        return Phase.PURGATORY
    return Phase.UNKNOWN if how == "panic" else Phase.OLD_KERNEL


@pytest.mark.parametrize(
    ("old", "how", "sabotage"), [each for each in CASES if each[2] is not None]
)
def test_what_the_guest_said_is_explained_no_further_than_it_goes(
    old: str, how: str, sabotage: str
) -> None:
    row = rows()[old, how, sabotage]
    said = row["said"] or ""
    found = explain(said.encode(), "serial")
    assert "Linux version" not in said
    if not said:  # a file load's purgatory is told no console, and a triple fault has none
        assert how != "panic"
        assert phase(how, sabotage) is Phase.OLD_KERNEL
        assert (found.last, found.fell) == (None, None)
        assert found.candidates[0].cause.startswith("it fell on the walk")
        return
    assert found.last is not None
    if found.last.kind is LogKind.HANDLER:
        assert old == "amd64-7.3"
        assert found.last.raised[0].rip is not None
        assert not found.last.cut
        assert (found.fell, found.phase) == (True, Phase.WALK)
    else:
        assert found.phase is phase(how, sabotage)
