"""What a newcomer asks of a verdict, each answered before anybody scrolls: 80 by 24, 1280 by 800.

Did it hold, on whose code, resting on what, what would I change, where do I look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.makers.bzimage import bzimage
from tests.pairs.test_pairs import broken, old
from tests.rehearse.runs import crashed, example_host, fallen, sound
from tests.report.test_html import opened
from tests.xen.runs import NEW_WAYS, walk
from tightrope import image
from tightrope.deeds.pairs import pairs
from tightrope.deeds.rehearse import rehearse
from tightrope.memory import Extent
from tightrope.model import Console, Ending, Outcome, Paging, Verdict
from tightrope.model.crash_boot import Cause, CrashBoot, Reached, Used
from tightrope.model.pairs import Pair
from tightrope.model.sheet import Line, Section, Sheet
from tightrope.plan import Request
from tightrope.report.html import html
from tightrope.report.text import text
from tightrope.sabotage import SABOTAGES
from tightrope.views import crash_boot, rehearsal
from tightrope.views import pairs as pairs_view

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

COLUMNS, LINES = 80, 24
WIDE, HIGH = 1280, 800
FIRST = """
const out = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node; node = walker.nextNode();) {
  const range = document.createRange();
  range.selectNodeContents(node);
  const box = range.getBoundingClientRect();
  if (box.height && box.bottom <= window.innerHeight) out.push(node.data);
}
return out.join(" ");
"""
"""All text of a page that lies above its fold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What has to be read on the first screen, for each of the questions."""

    held: str
    code: str
    rests: str
    change: str
    look: str

    @property
    def all(self) -> tuple[str, ...]:
        return self.held, self.code, self.rests, self.change, self.look


@cache
def small() -> bytes:
    return bzimage()


@cache
def from_linux() -> Verdict:
    """Out of Debian's kernel by its own code: with advice."""
    code = old("cloud-amd64").code
    assert code is not None
    asked = code.request(Request())
    new = image.read(small(), "/boot/vmlinuz-7.3.4+deb13-cloud-amd64")
    return rehearse(new, code.host(example_host()), asked, design=code.participant)


def through_xen(sabotage: str | None = None) -> Verdict:
    return walk(NEW_WAYS[0], sabotage=SABOTAGES[sabotage] if sabotage else None)


@cache
def walked(flavour: str) -> tuple[Pair, ...]:
    olds = [old("amd64-6.12"), *([broken("amd64-6.12")] if flavour == "broken" else [])]
    return pairs(olds, [image.read(small(), "vmlinuz-new")])


def crash_kernel(cause: Cause | None) -> CrashBoot:
    """As QEMU's tests have them, without QEMU."""
    lines = tuple(f"[    {at}.000000] a line of its console, {'x' * 60}" for at in range(6))
    return CrashBoot(
        outcome=Outcome.FALLS if cause else Outcome.HOLDS,
        reached=Reached.KERNEL if cause else Reached.INIT,
        cause=cause,
        why="it runs out of memory: Out of memory: Killed process 77 (systemd-udevd) total-vm:9876kB",
        evidence=lines,
        used=Used(region=(Extent.sized(0x1000_0000, 160 << 20),)),
        shown=None,
        findings=(),
        asked=sound().asked,
        console=Console(lines=lines, seconds=1, stopped="over", ending=Ending.HEARD),
        command_line="root=/dev/mapper/vg-root ro nr_cpus=1 reset_devices console=ttyS0",
        host=example_host(),
        kernel="/boot/vmlinuz-6.1.0-57-cloud-amd64",
        initrd="/var/lib/kdump/initrd.img-6.1.0-57-cloud-amd64",
        code="the code of /boot/vmlinuz-6.1.0-57-cloud-amd64",
        disk=False,
        seconds=8.8,
    )


OURS = "by Tightrope's own relocation code"
RESTS = "names no source for its fields"
HOLDS = Answers(
    held="It holds", code=OURS, rests=RESTS, change="--from FILE walks", look="6 copy the pages"
)


def of_a_fall(verdict: Verdict) -> Answers:
    first = verdict.findings[0]
    look = f"[{first.rule}]"
    return Answers(held="It falls", code=OURS, rests=RESTS, change=first.mend, look=look)


def every() -> Iterator[tuple[str, Callable[[], tuple[Sheet, Answers]]]]:
    """Each kind of verdict, holding and falling, and what answers."""
    view = rehearsal.VIEW
    yield "it holds", lambda: (view.sheet(sound()), HOLDS)
    yield "no-v", lambda: (view.sheet(fallen("no-v")), of_a_fall(fallen("no-v")))
    yield (
        "a real kernel",
        lambda: (
            view.sheet(from_linux()),
            replace(
                HOLDS,
                code="by the old kernel's own relocation code",
                change="tightrope host capture",
            ),
        ),
    )
    yield "a crash", lambda: (view.sheet(crashed(Paging.X86_64)), HOLDS)
    yield (
        "a crash that falls",
        lambda: (
            view.sheet(crashed(Paging.X86_64, "crash-outside")),
            of_a_fall(crashed(Paging.X86_64, "crash-outside")),
        ),
    )
    yield "Xen", lambda: (view.sheet(through_xen()), replace(HOLDS, look="1a dom0 asks"))
    yield (
        "Xen that falls",
        lambda: (view.sheet(through_xen("nx")), of_a_fall(through_xen("nx"))),
    )
    boots = "The crash kernel "
    answers = Answers(
        held=f"{boots}works",
        code="code the code of /boot/vmlinuz-6.1.0-57-cloud-amd64",
        rests=RESTS,
        change="tightrope host capture",
        look="its last words",
    )
    yield "kdump check", lambda: (crash_boot.VIEW.sheet(crash_kernel(None)), answers)
    yield (
        "kdump check that falls",
        lambda: (
            crash_boot.VIEW.sheet(crash_kernel(Cause.MEMORY)),
            replace(answers, held=f"{boots}does not work", change="--size finds", look="it said"),
        ),
    )
    answers_of_pairs = Answers(
        held="2 of 2 pairs hold",
        code="the old kernels' own relocation code",
        rests="the example host of each mode",
        change="--host",
        look="tightrope rehearse vmlinuz-new --from amd64-6.12",
    )
    yield "pairs", lambda: (pairs_view.VIEW.sheet(walked("sound")), answers_of_pairs)
    yield (
        "pairs that fall",
        lambda: (
            pairs_view.VIEW.sheet(walked("broken")),
            replace(
                answers_of_pairs,
                held="2 of 4 pairs hold",
                change=next(each.mend for each in walked("broken") if each.mend),
                look="tightrope rehearse vmlinuz-new --from broken",
            ),
        ),
    )


KINDS = dict(every())


@pytest.mark.parametrize("kind", KINDS)
def test_the_five_questions_are_answered_on_a_terminal_of_80_by_24(kind: str) -> None:
    sheet, answers = KINDS[kind]()
    lines = text(sheet, width=COLUMNS, detail=False).splitlines()
    said = " ".join(" ".join(lines[:LINES]).split())
    assert [each for each in answers.all if each not in said] == [], "\n".join(lines[:LINES])


@pytest.fixture
def window(browser: Chrome) -> Iterator[Chrome]:
    """The browser with a window of a small laptop's."""
    size = {"width": WIDE, "height": HIGH, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield browser
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def above_the_fold(window: Chrome, tmp_path: Path, sheet: Sheet) -> str:
    page: Any = opened(window, tmp_path, html(sheet, title="tightrope"))
    return " ".join(str(page.execute_script(FIRST)).replace(" .", ".").split())


@pytest.mark.parametrize("kind", KINDS)
def test_the_five_questions_are_answered_in_a_window_of_1280_by_800(
    kind: str, window: Chrome, tmp_path: Path
) -> None:
    sheet, answers = KINDS[kind]()
    said = _joined(above_the_fold(window, tmp_path, sheet)).lower()
    assert [each for each in answers.all if _joined(each).lower() not in said] == [], said


def _joined(said: str) -> str:
    """Without what parts the pieces of a page."""
    return "".join(said.split())


def test_what_lies_below_would_be_missed(window: Chrome, tmp_path: Path) -> None:
    sheet, answers = KINDS["it holds"]()
    long = Section(None, tuple(Line(f"line {at}") for at in range(60)))
    low = replace(sheet, sections=(long, *sheet.sections))
    assert answers.rests not in above_the_fold(window, tmp_path, low)
    lines = text(low, width=COLUMNS, detail=False).splitlines()[:LINES]
    assert answers.rests not in "\n".join(lines)
