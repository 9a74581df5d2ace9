"""Figures of two trees are matched by their words, and compared where they are times or rates."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import beside
from bench.beside import Figure

CLOCK = (Path(beside.__file__).parent / "clock.py").read_text()
LONG = "a label that is longer than the fifty-eight columns that it has, by far"
LABELS = ("one walk", "  a part of it (aim 5 s)", LONG)


def tree(at: Path, figures: dict[str, str]) -> Path:
    """A checkout with one part, which prints `figures`."""
    (at / "bench").mkdir(parents=True)
    (at / "bench" / "__init__.py").touch()
    (at / "bench" / "clock.py").write_text(CLOCK)
    shown = "".join(f"    show({words!r}, {figure!r})\n" for words, figure in figures.items())
    text = f"from bench.clock import show\ndef part():\n{shown}"
    (at / "bench" / "__main__.py").write_text(text)
    return at


@pytest.mark.parametrize("words", LABELS)
@pytest.mark.parametrize(
    ("said", "figure"),
    [
        ("4.5 us", Figure(4.5, "us")),
        ("1,234 /s", Figure(1234, "/s")),
        ("0.05 s wall", Figure(0.05, "s")),
        ("2.5 times", Figure(2.5, "times")),
    ],
)
def test_a_line_is_read_as_it_was_shown(
    tmp_path: Path, words: str, said: str, figure: Figure
) -> None:
    assert beside.figures(tree(tmp_path, {words: said}), "part") == {words: figure}


def test_what_is_no_figure_is_passed_over(tmp_path: Path) -> None:
    assert beside.figures(tree(tmp_path, {"on kvm": "not here: no /dev/kvm"}), "part") == {}


def test_a_part_that_a_tree_does_not_have_is_none_and_one_that_fails_an_error(
    tmp_path: Path,
) -> None:
    there = tree(tmp_path, {"one walk": "4.5 us"})
    assert beside.figures(there, "cpus.large_dump") is None
    (there / "bench" / "__main__.py").write_text("def part():\n    raise SystemExit(1)\n")
    with pytest.raises(Exception, match="exit status 1"):
        beside.figures(there, "part")


def test_a_shorter_time_and_a_higher_rate_are_better() -> None:
    for worse, better in (
        ("2 s", "30 ms"),
        ("5 ms", "7 us"),
        ("10 /s", "11 /s"),
        ("1 MB/s", "2 MB/s"),
    ):
        slow, fast = (Figure(float(n), unit) for n, unit in (worse.split(), better.split()))
        assert slow.better(fast) == fast.better(slow) == fast
    assert Figure(1, "times").taken is None
    assert Figure(0, "/s").taken is None


def test_two_trees_are_shown_beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tree(
        tmp_path / "here", {"one walk": "6 us", "walks": "10 /s", "new": "1 s", "shares": "2 times"}
    )
    there = tree(
        tmp_path / "there",
        {"one walk": "3 us", "walks": "40 /s", "old": "1 s", "shares": "3 times"},
    )
    monkeypatch.setattr(beside, "REPOSITORY", here)
    beside.compare(there, "part", 1)
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "one walk 6 us there 3 us, 2.00 times as long here",
        "walks 10 /s there 40 /s, 4.00 times as long here",
        "new only here",
        "shares 2 times there 3 times",
        "old only there",
    ]
