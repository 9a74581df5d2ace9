"""A page opened by a browser from a file: no error, no network, by keyboard, the finding in its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPOSITORY
from tests.rehearse.runs import (
    crashed,
    example_host,
    fallen,
    shipped_kernel,
    shipped_request,
    sound,
)
from tightrope.check import RULES
from tightrope.cli import main
from tightrope.deeds.rehearse import prepare
from tightrope.model import Step, Verdict
from tightrope.model.sheet import Ink, Lane, Line, Map, Patch, Section, Sheet, Window
from tightrope.report.drawing import DIGIT, LETTER, WIDTH, Drawing, Note, drawing
from tightrope.report.html import html
from tightrope.views import plan as planned
from tightrope.views.pictures import memory_map
from tightrope.views.rehearsal import VIEW

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

SABOTAGES = ("no-v", "nx", "stale-global", "source-order", "initrd-byte", "overwrite-pgd")
HOSTILE = '</title><script>document.title="x"</script><img src=x onerror=alert(1)>&\x1b[31m'


def log(browser: Chrome, kind: str) -> list[object]:
    """What was logged since the last question."""
    return list(browser.get_log(kind))  # type: ignore[no-untyped-call]


def opened(browser: Chrome, tmp_path: Path, page: str) -> Any:
    """The page from a file, with nothing on its console and nothing asked of a network."""
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    log(browser, "performance")  # what the page before it did
    browser.get(path.as_uri())
    assert log(browser, "browser") == []
    asked = re.findall(r'"url\\?":\\?"([a-z]+)://', str(log(browser, "performance")))
    assert set(asked) <= {"file"}
    return browser


def shown(browser: Chrome) -> str:
    return str(browser.execute_script("return document.body.innerText"))


def answer(browser: Chrome) -> str:
    """The answer as it would be read aloud; the colon after its first words is not drawn."""
    return " ".join(
        str(browser.find_element("tag name", "h1").get_attribute("textContent")).split()
    )


def page_of(verdict: Verdict) -> str:
    return html(VIEW.sheet(verdict), title="tightrope rehearse")


def test_a_good_page_answers_the_five_questions_on_its_first_screen(
    browser: Chrome, tmp_path: Path
) -> None:
    opened(browser, tmp_path, page_of(sound()))
    said = answer(browser)
    assert said.startswith("It holds: the shipped kernel")
    assert "by Tightrope's own relocation code" in said
    assert f"{len(sound().rules)} rules asked" in said
    assert browser.find_element("tag name", "h1").rect["y"] < 200


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_fall_answers_the_five_questions_on_its_first_screen(
    name: str, browser: Chrome, tmp_path: Path
) -> None:
    """Did it hold, on whose code, resting on what, what would I change, where do I look."""
    verdict = fallen(name)
    opened(browser, tmp_path, page_of(verdict))
    assert "by Tightrope's own relocation code" in answer(browser)
    low: dict[str, float] = {}
    for each in browser.find_elements("css selector", "dt"):
        low.setdefault(str(each.text), each.rect["y"] + each.rect["height"])
    last = max(low["mend"], low["rests on"], *(low[each] for each in verdict.findings[0].evidence))
    assert last < 800  # of a window of 1000 columns


def test_the_rules_asked_are_folded_away_with_their_sources_and_unfold_by_keyboard(
    browser: Chrome, tmp_path: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, tmp_path, page_of(sound()))
    folded = browser.find_element("tag name", "summary")
    assert folded.text == f"Rules asked: {len(sound().rules)}"
    assert "table-a-maps-v" not in shown(browser)
    folded.send_keys(Keys.ENTER)
    rows = [
        [str(cell.get_attribute("textContent")) for cell in row.find_elements("tag name", "td")]
        for row in browser.find_elements("css selector", "details tbody tr")
    ]
    assert rows == [[each.id, f"{int(each.step)}", each.says, each.source] for each in RULES]
    assert "table-a-maps-v" in shown(browser)


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_finding_is_found_by_text_and_by_place(
    name: str, browser: Chrome, tmp_path: Path
) -> None:
    verdict = fallen(name)
    opened(browser, tmp_path, page_of(verdict))
    first = verdict.findings[0]
    assert first.message in answer(browser)
    assert first.rule in browser.find_element("tag name", "h2").text
    assert first.mend in shown(browser)
    chosen = browser.find_element("css selector", "input:checked + label")
    wrong = next(each for each in Step if any(f.step is each for f in verdict.findings))
    assert chosen.text.startswith(str(int(wrong)))
    assert chosen.text.split()[-1] in ("FELL", "wrong")


def test_the_arrow_keys_step_through_the_walk(browser: Chrome, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, tmp_path, page_of(sound()))

    def visible() -> list[str]:
        panels = browser.find_elements("css selector", ".panel")
        return [each.text for each in panels if each.is_displayed()]

    [before] = visible()
    assert "`cli`" in before
    browser.find_element("tag name", "body").send_keys(Keys.TAB)
    reached = browser.switch_to.active_element
    assert reached.get_attribute("type") == "radio"
    for _ in range(5):
        browser.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    [after] = visible()
    assert "copied 16 pages" in after


def test_the_memory_map_has_every_lane_and_says_what_each_bar_is(
    browser: Chrome, tmp_path: Path
) -> None:
    opened(browser, tmp_path, page_of(sound()))
    picture = browser.find_element("tag name", "svg")
    assert picture.get_attribute("role") == "img"
    names = {each.text for each in browser.find_elements("css selector", "svg text")}
    assert {"memory", "old kernel", "waiting", "walk", "new kernel"} <= names
    labels = [
        str(each.get_attribute("textContent"))
        for each in browser.find_elements("css selector", "svg title")
    ]
    control = sound().handover.intent.control_page
    assert any(each.startswith(f"P, the control page: {control:#x}") for each in labels)
    for bar in browser.find_elements("css selector", "svg rect:not(.lane)"):
        assert bar.rect["width"] >= 1


OVERLAPS = """
const texts = [...document.querySelectorAll("svg text")].map(e => [e.textContent, e.getBBox()]);
const out = [];
texts.forEach(([a, p], i) => {
  if (p.x < -0.5 || p.x + p.width > 960.5) out.push([a, "is cut"]);
  texts.slice(i + 1).forEach(([b, q]) => {
    const over = Math.min(p.x + p.width, q.x + q.width) - Math.max(p.x, q.x);
    if (over > 0.5 && Math.min(p.y + p.height, q.y + q.height) - Math.max(p.y, q.y) > 4) out.push([a, b]);
  });
});
return out;
"""
"""Texts of a picture that lie over one another, or beyond its edge, as the browser laid them out."""


@pytest.mark.parametrize("of", [sound, crashed, *(partial(fallen, name) for name in SABOTAGES)])
def test_no_two_texts_of_a_picture_touch(
    of: Callable[[], Verdict], browser: Chrome, tmp_path: Path
) -> None:
    opened(browser, tmp_path, page_of(of()))
    assert browser.execute_script(OVERLAPS) == []
    assert browser.execute_script("return document.body.scrollWidth <= window.innerWidth")


def test_texts_that_touch_would_be_seen(browser: Chrome, tmp_path: Path) -> None:
    two = (
        '<svg viewBox="0 0 960 20"><text x="0" y="14">one</text><text x="9" y="14">two</text></svg>'
    )
    opened(browser, tmp_path, f"<!doctype html>{two}")
    assert browser.execute_script(OVERLAPS) == [["one", "two"]]


def palettes() -> Iterator[dict[str, str]]:
    """Each colour by name, of the light and the dark page."""
    css = (REPOSITORY / "src/tightrope/report/sheet.css").read_text(encoding="utf-8")
    for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL):
        yield dict(re.findall(r"--(\w+): #([0-9a-f]{6});", block))


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two colours."""

    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        red, green, blue = (
            each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, bright = sorted((light(one), light(other)))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [*palettes()], ids=["light", "dark"])
def test_every_text_can_be_read_on_what_lies_behind_it(colours: dict[str, str]) -> None:
    for text in ("fg", "faint", "good", "bad"):
        for behind in ("bg", "card"):
            assert contrast(colours[text], colours[behind]) >= 4.5, (text, behind)
    for ink in (each.name.lower() for each in Ink if each is not Ink.RAM):
        assert contrast(colours["on"], colours[ink]) >= 4.5, ink
        assert contrast(colours[ink], colours["card"]) >= 3, ink
    assert contrast(colours["on"], colours["good"]) >= 4.5
    assert contrast(colours["on"], colours["bad"]) >= 4.5


def touching(drawn: Drawing) -> list[tuple[str, str]]:
    """Pairs of texts of one line that lie over each other: none, or the picture is at fault."""
    out = []
    for panel in drawn.panels:
        lines = [[(each, DIGIT) for each in panel.ticks]]
        lines += [[(each, LETTER) for each in row.notes] for row in panel.rows]
        for line in lines:
            spans = sorted((*_span(note, width), note.text) for note, width in line)
            out += [(one[2], two[2]) for one, two in pairwise(spans) if one[1] > two[0]]
    return out


def _span(note: Note, width: float) -> tuple[float, float]:
    size = len(note.text) * width
    return (note.x - size, note.x) if note.anchor == "end" else (note.x, note.x + size)


def test_the_walk_itself_has_a_lens_in_which_its_pages_can_be_told_apart() -> None:
    built = crashed().handover
    drawn = drawing(memory_map(built.host, built.intent, built))
    wide = {
        bar.ink: bar.width
        for panel in drawn.panels
        for row in panel.rows
        for bar in row.bars
        if row.name == "walk"
    }
    assert wide["control"] > 20
    assert min(wide["table_a"], wide["table_b"]) > 60
    assert touching(drawn) == []


@given(
    st.lists(
        st.tuples(st.integers(0, 1 << 46), st.integers(1, 1 << 40), st.text(max_size=30)),
        min_size=1,
        max_size=12,
    )
)
def test_no_labels_touch_whatever_is_drawn(things: list[tuple[int, int, str]]) -> None:
    inks = list(Ink)
    patches = [
        Patch(start, start + size, inks[at % len(inks)], label)
        for at, (start, size, label) in enumerate(sorted(things))
    ]
    end = max(each.end for each in patches)
    lens = Window(patches[0].start, patches[0].end)
    drawn = drawing(
        Map(lanes=(Lane("lane", tuple(patches)),), whole=Window(0, end), lenses=(lens,))
    )
    assert touching(drawn) == []
    for panel in drawn.panels:
        assert all(0 <= each.letter.x <= WIDTH for each in panel.brackets)


def test_markup_in_a_name_is_text(browser: Chrome, tmp_path: Path) -> None:
    sheet = Sheet(
        (
            Section(HOSTILE, (Line(HOSTILE),)),
            Section(
                None,
                (
                    Map(
                        lanes=(Lane(HOSTILE, (Patch(0, 1 << 20, Ink.NEW, HOSTILE),)),),
                        whole=Window(0, 1 << 21),
                    ),
                ),
            ),
        ),
        headline=HOSTILE,
    )
    opened(browser, tmp_path, html(sheet, title=HOSTILE))
    seen = HOSTILE.replace("\x1b", "\\x1b")
    assert browser.title == seen
    assert browser.find_element("tag name", "h1").text == seen
    assert browser.find_elements("css selector", "script, img") == []
    label = browser.find_element("css selector", "svg rect.new title")
    assert str(label.get_attribute("textContent")).startswith(seen)


def test_a_crash_a_host_and_a_plan_have_pages_too(browser: Chrome, tmp_path: Path) -> None:
    opened(browser, tmp_path, page_of(crashed()))
    assert "the crash region" in shown(browser)
    plan = prepare(shipped_kernel(), example_host(), shipped_request())
    opened(browser, tmp_path, html(planned.VIEW.sheet(plan), title="plan"))
    assert answer(browser).startswith("It fits: the shipped kernel")


def test_a_picture_of_a_million_pieces_is_as_small_as_one_of_a_hundred() -> None:
    def page(count: int) -> int:
        step = (1 << 40) // count
        patches = tuple(
            Patch(at * step, at * step + 0x1000, Ink.SOURCE, "a page") for at in range(count)
        )
        drawn = Map(lanes=(Lane("waiting", patches),), whole=Window(0, 1 << 40))
        return len(html(Sheet((Section(None, (drawn,)),)), title="many"))

    large = page(1_000_000)
    assert large < 5_000_000
    assert large < 10 * page(100)


# ------------------------------------------------------------------------------------ as a command


def test_the_command_writes_the_page_beside_its_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "verdict.html"
    assert main(["rehearse", "--shipped", "--sabotage", "no-v", "--html", str(path), "-q"]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert main(["plan", "--shipped", "--html", str(path)]) == 2
    assert "exists: say --force to replace it" in capsys.readouterr().err
    assert main(["plan", "--shipped", "--html", str(path), "--force", "--json"]) == 0
    assert "It fits" in path.read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_is_said_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rehearse", "--shipped", "--html", str(tmp_path / "no" / "page.html")]) == 2
    assert capsys.readouterr().out == ""


def test_a_page_is_the_same_every_time() -> None:
    verdict = replace(sound(), seconds={})
    assert page_of(verdict) == page_of(verdict)
