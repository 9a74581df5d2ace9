"""The rules that a table of verdicts rests on, folded away on its page: which, and of how many of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from tests.makers.bzimage import bzimage
from tests.pairs.test_pairs import old
from tests.rehearse.runs import sound
from tests.report.test_first_screen import crash_kernel
from tests.report.test_html import opened, shown
from tightrope import image
from tightrope.deeds.pairs import pairs, read
from tightrope.model import Criterion
from tightrope.model.crash_boot import Cause
from tightrope.model.sheet import Section, Table
from tightrope.model.sweep import Sweep
from tightrope.report.html import html
from tightrope.report.text import text
from tightrope.views import crash_boot, rules, sweep
from tightrope.views import pairs as pairs_view

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

EVERY = sound().asked


def folded(sections: Sequence[Section]) -> list[tuple[str, ...]]:
    """The rows of the one list that is folded away; none where there is no such list."""
    found = [each for each in sections if each.folded]
    if not found:
        return []
    [section] = found
    [table] = section.blocks
    assert isinstance(table, Table)
    assert section.title == f"rules asked: {len(table.rows)}"
    return list(table.rows)


@given(st.lists(st.sets(st.sampled_from(EVERY), max_size=4), max_size=5))
def test_each_rule_is_there_once_with_how_many_were_asked_it(asked: list[set[Criterion]]) -> None:
    rows = folded(list(rules.asked_of([tuple(each) for each in asked], "pair")))
    names = [name for name, *_ in rows]
    assert sorted(names) == sorted({rule.rule for each in asked for rule in each})
    verdicts = [each for each in asked if each]
    for name, *_, count in rows:
        times = sum(name in {rule.rule for rule in each} for each in verdicts)
        assert count == f"{times} of {len(verdicts)}"


def test_a_pair_that_cannot_be_told_was_asked_nothing_and_does_not_count() -> None:
    new = image.read(bzimage(), "made")
    found = pairs([read(b"nothing" * 1000, "none"), old("amd64-6.12")], [new])
    assert [bool(each.asked) for each in found] == [False, True, True]
    rows = folded(pairs_view.VIEW.sheet(found).sections)
    assert [name for name, *_ in rows] == [each.rule for each in found[1].asked]
    assert {row[-1] for row in rows} == {"2 of 2"}
    fewer = (*found[:2], replace(found[2], asked=found[2].asked[1:]))
    rows = folded(pairs_view.VIEW.sheet(fewer).sections)
    assert [row[-1] for row in rows] == ["1 of 2"] + ["2 of 2"] * (len(rows) - 1)
    assert folded(pairs_view.VIEW.sheet(found[:1]).sections) == []


def test_a_sweep_has_them_of_the_rehearsals_of_this_run() -> None:
    first, second, *_ = EVERY
    done = Sweep(rows=(), seconds=1.0, judged=1_200, asked={first: 1_200, second: 7})
    rows = folded(sweep.VIEW.sheet(done).sections)
    assert [(row[0], row[-1]) for row in rows] == [
        (first.rule, "1,200 of 1,200"),
        (second.rule, "7 of 1,200"),
    ]
    assert folded(sweep.VIEW.sheet(Sweep(rows=(), seconds=1.0)).sections) == []


def test_kdump_check_has_those_of_its_walk_and_none_where_nothing_was_walked() -> None:
    boot = crash_kernel(None)
    rows = folded(crash_boot.VIEW.sheet(boot).sections)
    assert [name for name, *_ in rows] == [each.rule for each in boot.asked]
    unplaced = replace(crash_kernel(Cause.MEMORY), asked=(), console=None)
    assert folded(crash_boot.VIEW.sheet(unplaced).sections) == []


def test_a_page_of_pairs_unfolds_them_by_keyboard_and_text_has_them_not(
    browser: Chrome, tmp_path: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    found = pairs([old("amd64-6.12")], [image.read(bzimage(), "made")])
    sheet = pairs_view.VIEW.sheet(found)
    rule = found[0].asked[0]
    assert rule.source not in text(sheet, width=10_000)
    page = html(sheet, title="tightrope pairs")
    assert len(page) < 200_000
    opened(browser, tmp_path, page)
    summary = browser.find_element("tag name", "summary")
    assert summary.text == f"Rules asked: {len(found[0].asked)}"
    assert rule.source not in shown(browser)
    summary.send_keys(Keys.ENTER)
    for each in (rule.rule, rule.says, rule.source, "2 of 2"):
        assert each in shown(browser)
