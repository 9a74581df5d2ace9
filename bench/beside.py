"""Every figure that two trees of this project both have, beside each other.

    python -m bench.beside DIR [PART ...] [--rounds N]

Rules: each part runs in a process of its own, and the trees take turns, so that a busy machine is
busy for both; of several rounds the better figure of each counts.  `DIR` is a checkout, and has
what this Python needs.  Figures are matched by their words: one that the other tree does not have,
or has other words for, is named and not compared.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from bench.clock import show

REPOSITORY = Path(__file__).resolve().parent.parent
PROGRAM = """
import importlib, sys
sys.path[:0] = [sys.argv[1] + "/src", sys.argv[1]]
part = importlib.import_module("bench.__main__")
try:
    for name in sys.argv[2].split("."):
        part = getattr(part, name)
except AttributeError:
    sys.exit(3)
part()
"""
NO_SUCH_PART = 3
_LINE = re.compile(r"(?P<words>.{58,}?) +(?P<number>\d[\d,]*(?:\.\d+)?) (?P<unit>[^\s,]+)")
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_RATES = ("/s", "MB/s", "GB/s")


class Figure(NamedTuple):
    """A number of `unit`, which may be a time, a rate or anything else."""

    number: float
    unit: str

    @property
    def taken(self) -> float | None:
        """What it says of the time that something takes, in whatever unit; None for another."""
        if self.unit in _SECONDS:
            return self.number * _SECONDS[self.unit]
        return 1 / self.number if self.unit in _RATES and self.number else None

    def better(self, other: Figure) -> Figure:
        """The one that takes less; this one where that is not to be told."""
        if self.taken is None or other.taken is None:
            return self
        return self if self.taken <= other.taken else other

    def __str__(self) -> str:
        return f"{self.number:g} {self.unit}"


def figures(tree: Path, part: str) -> dict[str, Figure] | None:
    """What one part prints in a tree, by its words; None where the tree has no such part."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tree, part],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": f"{tree / 'src'}{os.pathsep}{tree}"},
        check=False,
    )
    if done.returncode == NO_SUCH_PART:
        return None
    done.check_returncode()
    told = {}
    for line in done.stdout.splitlines():
        if read := _LINE.match(line):
            number = float(read["number"].replace(",", ""))
            told[read["words"].rstrip()] = Figure(number, read["unit"])
    return told


def compare(there: Path, part: str, rounds: int) -> None:
    """Print the figures of one part, of both trees."""
    best: list[dict[str, Figure]] = [{}, {}]
    for _ in range(rounds):
        for number, tree in enumerate((REPOSITORY, there)):
            told = figures(tree, part)
            if told is None:
                show(part, "is not there" if tree is there else "is not here")
                return
            for words, figure in told.items():
                known = best[number].get(words)
                best[number][words] = figure.better(known) if known else figure
    ours, theirs = best
    for words in [*ours, *(words for words in theirs if words not in ours)]:
        if words not in ours or words not in theirs:
            show(words, "only there" if words in theirs else "only here")
            continue
        here, other = ours[words], theirs[words]
        beside = f"there {other}"
        if here.taken and other.taken:
            beside += f", {here.taken / other.taken:.2f} times as long here"
        show(words, str(here), beside)


def main() -> None:
    """See the top of the file."""
    from bench.__main__ import named

    parser = argparse.ArgumentParser(prog="python -m bench.beside")
    parser.add_argument("there", type=Path, metavar="DIR", help="the other checkout")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help="only these: see python -m bench -h"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each part in each tree (3)")
    given = parser.parse_args()
    for part in given.parts or named():
        compare(given.there.resolve(), part, given.rounds)


if __name__ == "__main__":
    main()
