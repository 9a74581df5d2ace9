"""What the theorems take for granted: it holds on real plans, each can be broken,
and docs say who keeps it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.makers.designs import TWO_TABLES
from tests.rehearse.runs import crash_host, mode_host, shipped_kernel, shipped_request
from tightrope.check import RULES
from tightrope.cli import main
from tightrope.deeds.rehearse import build, prepare
from tightrope.memory import PAGE_SIZE, Phys, Virt
from tightrope.model import Handover, Paging, Piece, PieceRole, Tables, with_code
from tightrope.prove.goal import Limits
from tightrope.prove.run import judge
from tightrope.prove.theorems.hypotheses import HYPOTHESES, goals


@cache
def built(mode: Paging = Paging.X86_64, *, crash: bool = False) -> Handover:
    """The shipped kernel on the example host, in scattered frames."""
    old = crash_host(mode) if crash else mode_host(mode)
    request = shipped_request(None if crash else 5, crash=crash)
    return build(prepare(shipped_kernel(), old, request), design=TWO_TABLES)


def broken(handover: Handover) -> set[str]:
    """The names of the hypotheses that do not hold."""
    judged = [judge(goal, Limits()) for goal in goals(handover)]
    assert [each.name for each in judged] == [each.name for each in HYPOTHESES]
    return {each.name for each in judged if not each.as_stated}


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("mode", Paging)
def test_every_hypothesis_holds_on_what_the_planner_makes(mode: Paging, crash: bool) -> None:
    assert broken(built(mode, crash=crash)) == set()


# ------------------------------------------------------------------------------- breaking them

P = int(built().intent.control_page)


def plan_with(handover: Handover, **changes: Any) -> Handover:
    return replace(handover, intent=replace(handover.intent, **changes))


def list_with(handover: Handover, change: Callable[[np.ndarray], None]) -> Handover:
    """The words of the first page of the list, changed in memory."""
    first = handover.registers.general["rdi"] & ~0xFFF
    words = np.frombuffer(handover.page_list[first], "<u8").copy()
    change(words)
    return replace(handover, page_list={**handover.page_list, first: words.tobytes()})


def first_source(word: int) -> Callable[[np.ndarray], None]:
    def change(words: np.ndarray) -> None:
        words[np.nonzero(words & 8)[0][0]] = word | 8

    return change


def first_destination(word: int) -> Callable[[np.ndarray], None]:
    def change(words: np.ndarray) -> None:
        words[np.nonzero(words & 1)[0][0]] = word | 1

    return change


def twice(words: np.ndarray) -> None:
    where = np.nonzero(words & 1)[0]
    words[where[1]] = words[where[0]]


def endless(words: np.ndarray) -> None:
    words[(words & 6) != 0] = 0


def a_destination(handover: Handover) -> int:
    plan = handover.intent
    return int(plan.destinations[plan.destinations != plan.sources][1]) << 12


def rooted(handover: Handover, root: int) -> Handover:
    return replace(
        handover, page_table_a=Tables(root=Phys(root), pages=handover.page_table_a.pages)
    )


def shared_frame(handover: Handover) -> Handover:
    table_b = handover.page_table_b
    assert table_b is not None
    first = next(iter(table_b.pages))
    pages = {**handover.page_table_a.pages, first: table_b.pages[first]}
    return replace(handover, page_table_a=replace(handover.page_table_a, pages=pages))


def other_bytes(handover: Handover) -> Handover:
    code = replace(handover.code, data=b"\xcc" * PAGE_SIZE)
    return replace(handover, chain=with_code(handover.chain, code))


def unmapped(handover: Handover) -> Handover:
    table_b = handover.page_table_b
    assert table_b is not None
    pages = {**table_b.pages, int(table_b.root): memoryview(bytes(PAGE_SIZE))}
    return replace(handover, page_table_b=replace(table_b, pages=pages))


def registers_with(handover: Handover, **changes: Any) -> Handover:
    return replace(handover, registers=replace(handover.registers, **changes))


def over_the_pgd(handover: Handover) -> Handover:
    piece = Piece(
        phys=handover.world.pgd, data=bytes(PAGE_SIZE), role=PieceRole.OTHER, which="too much"
    )
    return replace(handover, extra=(*handover.extra, piece))


def under_lass() -> Handover:
    return registers_with(built(), cr4=built().registers.cr4 | 1 << 27)


def test_lass_is_no_matter_for_code_in_the_upper_half() -> None:
    assert broken(under_lass()) == set()


BREAKS: list[tuple[str, Callable[[], Handover]]] = [
    ("v-canonical", lambda: plan_with(built(), relocation=Virt(1 << 47))),
    ("v-canonical", lambda: plan_with(built(), relocation=Virt(built().intent.relocation + 8))),
    ("p-identity", lambda: plan_with(built(), control_page=Phys(1 << 47))),
    ("frames-distinct", lambda: shared_frame(built())),
    ("root-in-cr3", lambda: rooted(built(Paging.PAE), 1 << 32)),
    ("same-bytes", lambda: other_bytes(built())),
    ("v-mapped", lambda: plan_with(built(), relocation=Virt(built().intent.relocation + 0x1000))),
    ("v-mapped", lambda: registers_with(built(), cr3=0x1000)),
    ("list-ends", lambda: list_with(built(), endless)),
    ("unique", lambda: list_with(built(), twice)),
    ("source-rule", lambda: list_with(built(), first_source(a_destination(built())))),
    ("control-page-kept", lambda: list_with(built(), first_destination(P))),
    (
        "tables-kept",
        lambda: list_with(built(), first_destination(int(built().page_table_a.root))),
    ),
    (
        "list-kept",
        lambda: list_with(built(), first_destination(int(next(iter(built().page_list))))),
    ),
    ("reachable", lambda: unmapped(built())),
    ("old-state", lambda: registers_with(built(), cr0=1)),
    ("old-state", lambda: registers_with(built(), rflags=0x102)),
    ("old-state", lambda: plan_with(under_lass(), relocation=Virt(0x1000))),
    ("pgd-kept", lambda: over_the_pgd(built(crash=True))),
]


@pytest.mark.parametrize(
    ("name", "make"), BREAKS, ids=[f"{name}-{number}" for number, (name, _) in enumerate(BREAKS)]
)
def test_a_hypothesis_that_is_broken_is_found(name: str, make: Callable[[], Handover]) -> None:
    assert name in broken(make())


def test_every_hypothesis_is_broken_by_something() -> None:
    assert {name for name, _ in BREAKS} == {each.name for each in HYPOTHESES}


# ------------------------------------------------------------------------------------ the docs


def exists(dotted: str) -> bool:
    """A check rule's id, or something below tightrope by its dotted name."""
    if dotted in {rule.id for rule in RULES}:
        return True
    module, _, name = f"tightrope.{dotted}".rpartition(".")
    try:
        found: object = importlib.import_module(module)
    except ModuleNotFoundError:
        module, _, outer = module.rpartition(".")
        found = getattr(importlib.import_module(module), outer)
    return hasattr(found, name)


def test_whoever_is_said_to_keep_a_hypothesis_exists() -> None:
    for each in HYPOTHESES:
        assert each.kept_by
        for name in each.kept_by:
            assert exists(name), name
    assert not exists("plan.frames.NoSuchPool")


def test_the_table_in_the_docs_is_the_list_of_hypotheses() -> None:
    text = (REPOSITORY / "docs" / "proof.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.+?) \| ([\d, ]+) \| (.+?) \|$", text, re.MULTILINE)
    assert len(rows) == len(HYPOTHESES)
    for (name, says, theorems, kept_by), each in zip(rows, HYPOTHESES, strict=True):
        assert (name, says) == (each.name, each.says)
        assert theorems == ", ".join(map(str, each.theorems))
        assert tuple(re.findall(r"`([^`]+)`", kept_by)) == each.kept_by


def test_the_command_says_each_hypothesis_of_one_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "plan", "--shipped"]) == 0
    out = capsys.readouterr().out
    assert f"{len(HYPOTHESES)} of {len(HYPOTHESES)} hypotheses hold on this plan" in out
    assert main(["prove", "plan", "--shipped", "--design", "in-place"]) == 1
    assert "does not hold: plan = " in capsys.readouterr().out
