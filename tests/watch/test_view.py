"""What is shown of a watch: findings whole, what is weak in the kernel's own code as one line."""

from __future__ import annotations

from dataclasses import replace

from tests.rehearse.runs import sound
from tightrope.check import laid
from tightrope.memory import Virt
from tightrope.model import Finding, Outcome, Step
from tightrope.model.watched import Watched
from tightrope.report import text
from tightrope.report.html import html
from tightrope.views.watched import VIEW, facts


def weak(rule: str, *, advice: bool = True) -> Finding:
    return Finding(
        rule=rule,
        step=Step.STATE,
        message=f"what {rule} has to say",
        evidence={"seen": "a lot"},
        mend="another kernel",
        advice=advice,
    )


def shown(*advice: Finding, findings: tuple[Finding, ...] = ()) -> tuple[str, Watched]:
    outcome = Outcome.FALLS if findings else Outcome.HOLDS
    verdict = replace(sound(), advice=advice, findings=findings, outcome=outcome)
    value = Watched(
        verdict=verdict, kernel="Linux", version="6.1.0 (somebody)", text=Virt(0), passed=(), ended=None,
        heard=None, standing=True,
    )  # fmt: skip
    return text.text(VIEW.sheet(value)), value


def test_advice_on_the_kernels_own_code_is_one_line_of_names() -> None:
    said, value = shown(weak("rule-a"), weak("rule-b"), weak("rule-a"))
    (line,) = [each for each in said.splitlines() if "weak in this kernel's own code" in each]
    assert line.endswith(": rule-a, rule-b")
    assert "has to say" not in said
    assert [each["rule"] for each in facts(value)["rehearsal"]["advice"]] == [
        "rule-a", "rule-b", "rule-a",
    ]  # fmt: skip


def test_what_is_wrong_is_shown_whole_and_no_advice_is_no_line() -> None:
    said, _ = shown(findings=(weak("rule-c", advice=False),))
    assert "what rule-c has to say" in said
    assert "weak in this kernel" not in said


def test_a_verdict_without_a_walk_says_so() -> None:
    said, value = shown()
    assert "not walked" not in said
    run, _ = laid(value.verdict.handover)
    unwalked = replace(value, verdict=replace(value.verdict, run=run))
    assert "not walked on the emulator" in text.text(VIEW.sheet(unwalked))


def test_the_page_has_the_rules_asked_with_their_sources_and_text_has_not() -> None:
    said, value = shown()
    page = html(VIEW.sheet(value), title="watch")
    folded = page[page.index("<details>") : page.index("</details>")]
    assert f"Rules asked: {len(value.verdict.asked)}" in folded
    assert [
        each.rule for each in value.verdict.asked if f"<td>{each.rule}</td>" not in folded
    ] == []
    assert "boot.rst, 64-bit Boot Protocol" in folded
    assert "Rules asked" not in said
    assert "boot.rst" not in said
