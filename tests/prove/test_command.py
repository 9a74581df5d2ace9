"""`tightrope prove`: a line per goal, honest answers, and what its exit status means."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tightrope.cli import main
from tightrope.model import Paging
from tightrope.model.proof import Answer, Fate, Judged, Killed, Result
from tightrope.prove import run
from tightrope.prove.goal import Goal, Limits, Mutant, Undecided
from tightrope.prove.says import SAYS
from tightrope.views import proofs


def goal(answer: Answer | Exception, expected: Answer = Answer.HOLDS, name: str = "it") -> Goal:
    """A goal with a known end."""

    def decide(_limits: Limits) -> Result:
        if isinstance(answer, Exception):
            raise answer
        example = {"V": "0x1000"} if answer is Answer.FAILS else None
        return Result(answer=answer, how="enumeration", cases=7, counterexample=example)

    return Goal(
        theorem="tables",
        name=name,
        statement="So it is.",
        mode=Paging.PAE,
        expected=expected,
        decide=decide,
    )


def with_goals(monkeypatch: pytest.MonkeyPatch, *goals: Goal) -> None:
    monkeypatch.setattr(run, "THEOREMS", {"tables": lambda: iter(goals)})


def test_the_words_of_the_command_are_the_theorems() -> None:
    assert set(SAYS) == set(run.THEOREMS)


def test_every_goal_has_a_name_of_its_own() -> None:
    names = [(g.theorem, g.name, g.mode, g.design) for g in run.goals()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("answer", "expected", "status", "words"),
    [
        (Answer.HOLDS, Answer.HOLDS, 0, "holds in all of 7 cases, by enumeration"),
        (Answer.FAILS, Answer.FAILS, 0, "fails, as the theorem says: V = 0x1000"),
        (Answer.FAILS, Answer.HOLDS, 1, "COUNTEREXAMPLE: V = 0x1000"),
        (Answer.HOLDS, Answer.FAILS, 1, "UNEXPECTED: holds"),
        (
            Undecided("z3 says: timeout"),
            Answer.HOLDS,
            2,
            "not decided: no answer within 5 s: z3 sa",
        ),
    ],
)
def test_the_answer_is_said_and_is_the_exit_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: Answer | Exception,
    expected: Answer,
    status: int,
    words: str,
) -> None:
    with_goals(monkeypatch, goal(Answer.HOLDS, name="other"), goal(answer, expected))
    assert main(["prove", "tables", "--limit", "5"]) == status
    out = capsys.readouterr().out
    assert words in out
    assert "tables  it: So it is." in out
    assert main(["prove", "--json", "tables"]) == status
    listed = json.loads(capsys.readouterr().out)["goals"]
    assert [each["name"] for each in listed] == ["other", "it"]


def test_a_finding_counts_more_than_what_is_not_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    with_goals(monkeypatch, goal(Undecided("slow")), goal(Answer.FAILS, name="b"))
    assert main(["prove"]) == 1


def test_without_z3_the_enumerations_run_and_the_rest_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "z3", None)
    assert main(["prove", "tables", "--mode", "i386"]) == 2
    out = capsys.readouterr().out
    assert "not decided: z3 is not installed: install tightrope[prove]" in out
    assert "holds in all of 804 cases, by enumeration" in out
    assert "3 not decided" in out


def test_time_that_runs_out_is_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "tables", "--mode", "la57", "--limit", "0.001"]) == 2
    assert "not decided: no answer within 0.001 s" in capsys.readouterr().out


def test_a_mode_and_a_design_choose_goals() -> None:
    for mode in Paging:
        chosen = run.goals(mode=mode)
        assert chosen
        assert {each.mode for each in chosen} <= {mode, None}
    assert {each.design for each in run.goals(design="two-tables")} <= {"two-tables", None}


def test_a_choice_without_a_goal_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_goals(monkeypatch, goal(Answer.HOLDS))
    assert main(["prove", "--mode", "i386"]) == 2
    assert "no theorem is about" in capsys.readouterr().err


def test_obligations_are_written_as_files_or_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, one = tmp_path / "smt", tmp_path / "all.smt2"
    for path in (folder, one):
        assert main(["prove", "tables", "--mode", "i386", "--smt", str(path)]) == 0
    files = {path.stem: path.read_text() for path in folder.iterdir()}
    assert set(files) == {"tables-i386-v", "tables-i386-p", "tables-i386-other"}
    in_one = one.read_text().split("(reset)\n")
    for text in (*files.values(), *in_one):
        assert text.endswith("(check-sat)\n")
    assert {text.splitlines()[0] for text in in_one} == {f"; {name}: unsat" for name in files}
    assert main(["prove", "tables", "--mode", "i386", "--smt", str(one / "x")]) == 2
    assert "all.smt2/x" in capsys.readouterr().err


# ------------------------------------------------------------------------------------- mutants


def mutant(fate: Fate) -> Mutant:
    def kill(_limits: Limits) -> Killed:
        return Killed(
            subject="builder",
            name="m",
            says="a step is left out",
            fate=fate,
            by="tables only-v-and-p i386" if fate is Fate.KILLED else "",
            evidence="V = 0x1000",
            seconds=0.0,
        )

    return Mutant(subject="builder", name="m", says="a step is left out", kill=kill)


@pytest.mark.parametrize(
    ("fate", "status"),
    [(Fate.KILLED, 0), (Fate.EQUIVALENT, 0), (Fate.SURVIVED, 1), (Fate.UNDECIDED, 2)],
)
def test_a_surviving_mutant_is_a_finding(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fate: Fate,
    status: int,
) -> None:
    monkeypatch.setattr(run, "MUTANTS", (lambda: iter([mutant(Fate.KILLED), mutant(fate)]),))
    assert main(["prove", "--mutants"]) == status
    out = capsys.readouterr().out
    assert f"{fate.value}" in out
    assert "a step is left out" in out
    assert "2 mutants" in out
    assert main(["prove", "--mutants", "--json"]) == status
    assert [m["fate"] for m in json.loads(capsys.readouterr().out)["mutants"]] == [
        "killed",
        fate.value,
    ]


def test_a_goal_for_all_values_says_so() -> None:
    judged = Judged(
        theorem="tables",
        name="it",
        statement="So it is.",
        mode=None,
        design=None,
        expected=Answer.HOLDS,
        result=Result(answer=Answer.HOLDS, how="z3", cases=None),
    )
    assert "every mode" in proofs.line(judged)
    assert "holds for all values, by z3" in proofs.line(judged)
    assert proofs.summary([judged]) == "1 of 1 goals are as the theorems say; 0.0 s"
