"""A page on paper, as Chromium prints it: every step unfolded, nothing cut, the answer on the first sheet."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.rehearse.runs import fallen
from tests.report.test_html import OVERLAPS, opened, page_of, shown

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

PAPER = (680, 1000)
"""Columns and lines of a sheet of A4 between its margins, in CSS pixels (96 an inch)."""
UNPRINTED = """
const out = [], shown = e => e.getClientRects().length > 0;
const step = e => e.previousElementSibling.innerText.split(/\\s/)[0];
document.querySelectorAll(".panel").forEach(e => {
  if (shown(e) !== e.childElementCount > 0) out.push("step " + step(e));
});
if ([...document.querySelectorAll(".keys")].some(shown)) out.push("keys that paper has not");
if (getComputedStyle(document.body).backgroundColor !== "rgb(255, 255, 255)") out.push("the paper's colour");
if (document.body.scrollWidth > window.innerWidth) out.push("cut at the right");
document.querySelectorAll(".wide").forEach(e => {
  if (e.scrollWidth > e.clientWidth && getComputedStyle(e).overflowX !== "visible") out.push("a table is cut");
});
return out;
"""
"""What of a page is not as it has to be on paper, where nobody scrolls, hovers or presses a key."""


@pytest.fixture
def paper(browser: Chrome) -> Iterator[Callable[[], list[str]]]:
    """Lays the open page out as it is printed by somebody whose screen is dark; what is amiss."""

    def printed() -> list[str]:
        emulate(media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        return list(browser.execute_script(UNPRINTED))

    def emulate(**how: object) -> None:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", how)

    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": PAPER[0], "height": PAPER[1], "deviceScaleFactor": 1, "mobile": False},
    )
    yield printed
    emulate(media="", features=[])
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_on_paper_a_fall_is_answered_on_the_first_sheet_and_every_step_is_unfolded(
    browser: Chrome, paper: Callable[[], list[str]], tmp_path: Path
) -> None:
    opened(browser, tmp_path, page_of(fallen("no-v")))
    assert paper() == []
    text = shown(browser)
    assert "RFLAGS 0x202" in text  # of step 1; on the screen step 2 is open
    assert text.count("not reached") == 4
    assert "Rules asked: " in text  # and no sheets full of them, unless they were unfolded before
    assert "table-a-maps-p" not in text
    low = {
        str(e.text): e.rect["y"] + e.rect["height"] for e in browser.find_elements("tag name", "dt")
    }
    assert max(low["mend"], low["rests on"]) < PAPER[1]
    assert browser.execute_script(OVERLAPS) == []


@pytest.mark.parametrize("rule", ["@media print", ".panel:empty", "background: #ffffff"])
def test_what_paper_cannot_do_would_be_seen(
    rule: str, browser: Chrome, paper: Callable[[], list[str]], tmp_path: Path
) -> None:
    page = page_of(fallen("no-v"))
    assert rule in page
    head, _, tail = page.rpartition(rule)
    opened(browser, tmp_path, f"{head}{'@media none' if rule.startswith('@') else '.none'}{tail}")
    assert paper() != []


def test_a_page_prints_on_few_sheets(browser: Chrome, tmp_path: Path) -> None:
    """What Chromium's own printing makes of it: PDF, ISO 32000-1 7.7.3, the root of its pages."""
    opened(browser, tmp_path, page_of(fallen("no-v")))
    pdf = base64.b64decode(browser.print_page())
    assert pdf.startswith(b"%PDF-")
    assert 3 <= max(map(int, re.findall(rb"/Count (\d+)", pdf))) <= 5
