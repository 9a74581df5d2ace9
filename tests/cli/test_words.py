"""`glossary`, `rules RULE` and `doctor`: what a newcomer asks before anything is walked."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tightrope.check import RULES
from tightrope.cli import main
from tightrope.deeds.doctor import doctor
from tightrope.host import example
from tightrope.model.glossary import TERMS
from tightrope.sabotage import SABOTAGES


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_a_word_is_explained_alone_whatever_its_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "glossary", "ind_done").startswith("IND_DONE")
    assert len(said(capsys, "glossary", "V").splitlines()) == 2


def test_a_word_that_is_none_is_told_its_neighbours(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["glossary", "page_table_c"]) == 2
    assert "near it: page_table_b, page_table_a" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("inspect --shipped", "the shipped kernel: Linux bzImage, boot protocol 2.15"),
        (
            "rehearse --sabotage list",
            "39 sabotages: `tightrope rehearse --shipped --sabotage NAME`",
        ),
        ("tables --shipped", "3 trees for the shipped kernel on the default host"),
        ("doctor", "Rehearsals can be done here"),
    ],
)
def test_quietly_what_has_no_verdict_says_what_it_is(
    typed: str, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    [line] = said(capsys, *typed.split(), "-q").splitlines()
    assert line.startswith(answer)


def test_a_host_file_is_answered_in_one_line_and_as_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, page = tmp_path / "host.toml", tmp_path / "host.html"
    path.write_text(example())
    [line] = said(capsys, "host", "check", str(path), "-q", "--html", str(page)).splitlines()
    assert line.startswith(f"{path} is a host: x86_64, 4.0 GiB of RAM")
    assert line.endswith("; no field names a source")
    assert "no field names a source" in page.read_text()


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("rules moon", "'moon' is not a rule; `tightrope rules` lists all"),
        ("rules table-a-map", "near it: table-a-maps-v, table-a-maps-p"),
        ("glossary moon", "'moon' is not a word of the glossary; `tightrope glossary` lists all"),
        ("man xyzzy", "'xyzzy' is not a command; `tightrope --help` lists all"),
        ("man rehears", "near it: rehearse"),
        ("man host captur", "near it: host-capture"),
        ("schema reharse", "near it: rehearse"),
        ("rehearse --shipped --sabotage no-w", "near it: no-v"),
        ("host chek", "no command 'chek'; near it: check"),
        ("prove tabels", "no theorem 'tabels'; near it: tables"),
    ],
)
def test_a_name_that_is_none_is_one_line_with_what_to_type(
    typed: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed.split()) == 2
    told = capsys.readouterr()
    assert says in told.err.splitlines()[0]
    assert "near it" in says or "near it" not in told.err
    assert told.out == ""
    assert len(told.err) < 200  # not a list of all there are


def test_no_word_is_explained_by_one_that_stands_below_it() -> None:
    for number, term in enumerate(TERMS):
        for later in TERMS[number + 1 :]:
            if len(later.word) > 2:  # V and P are letters of other words
                assert not re.search(rf"\b{later.word}\b", term.means), (term.word, later.word)


def test_the_page_is_the_glossary() -> None:
    page = (REPOSITORY / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = [each for each in page.splitlines() if each.startswith("| ") and "---" not in each]
    assert rows[1:] == [f"| {each.word} | {each.means} | {each.source} |" for each in TERMS]


def test_a_rule_alone_says_how_to_see_it_broken(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "rules", "table-a-maps-v")
    assert "tightrope rehearse --shipped --sabotage no-v" in text
    document = json.loads(said(capsys, "rules", "table-a-maps-v", "--json"))
    assert document["schema"] == "tightrope/rule/1"
    assert document["mend"] == "map V to the control page in page_table_a"
    assert f"what mends it            {document['mend']}" in text
    assert all(SABOTAGES[name].rule == "table-a-maps-v" for name in document["sabotages"])


@pytest.mark.parametrize("rule", [each.id for each in RULES][::9])
def test_every_rule_can_be_asked_for(rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "rules", rule)
    assert text.startswith(rule)
    assert "what mends it" in text


def test_doctor_names_what_is_here_and_what_a_missing_part_costs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(capsys, "doctor").startswith("Rehearsals can be done here")
    parts = {each.name: each for each in doctor()}
    assert parts["unicorn"].found is not None
    monkeypatch.setattr("tightrope.deeds.doctor.PACKAGES", (("no-such", "rehearse", "all", True),))
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert text.startswith("No rehearsal here: no-such missing")
    assert "to get it: install tightrope[rehearse]" in text
