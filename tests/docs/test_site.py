"""Every link of the docs leads somewhere; the site builds without a warning, and fetches nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

import tightrope
from tests.conftest import REPOSITORY

PAGES = [
    *sorted(REPOSITORY.glob("*.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    REPOSITORY / "contrib" / "README.md",
]
LINK = re.compile(r"(?<!\\)\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
HEADING = re.compile(r"^#{1,6} +(.*)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """What GitHub and myst make of the headings."""
    out = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        words = re.sub(r"[^\w\- ]", "", heading.lower())
        out.add(words.strip().replace(" ", "-"))
    return out


def dead(page: Path, text: str) -> list[str]:
    """Links of a page that lead nowhere."""
    out = []
    code = re.compile(r"`[^`\n]*`")
    for match in LINK.finditer(code.sub("", FENCE.sub("", text))):
        target = match.group(1) or match.group(2)
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / unquote(name)).resolve() if name else page
        if not path.exists() or (
            anchor and path.suffix == ".md" and anchor not in anchors(path.read_text())
        ):
            out.append(target)
    return out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert dead(page, page.read_text(encoding="utf-8")) == []


def test_a_link_that_leads_nowhere_would_be_seen() -> None:
    text = "[a](no.md) [b](api.md) [c](api.md#nothing) [d](api.md#from-python) `[e](no.md)`"
    assert dead(REPOSITORY / "docs" / "json.md", text) == ["no.md", "api.md#nothing"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", folder],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_the_site_fetches_nothing(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|link)\b[^>]*?(?:src|href)=\"([^\"]+)\"", text)
        assert fetched
        assert [each for each in fetched if re.match(r"(https?:)?//", each)] == [], page


def test_the_site_has_every_stable_name(site: Path) -> None:
    text = (site / "signatures.html").read_text(encoding="utf-8")
    for name in set(tightrope.__all__) - {"__version__"}:
        assert re.search(rf"\b{name}\b", text), name
