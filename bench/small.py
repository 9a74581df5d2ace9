"""One small handover on a reused machine, stage by stage, beside another tree of this project.

    python -m bench.small [--beside DIR] [--rounds N] [--design NAME]

Rules: CPU time of the process, the least of many; where two trees are measured each has a process of
its own and they take turns, so that a busy machine is busy for both.  `DIR` is a checkout, and has
what this Python needs; what is called there are the names that both have.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from bench.clock import show

REPOSITORY = Path(__file__).resolve().parent.parent
ROUNDS, EACH = 20, 20

WORKER = """
import sys, time
sys.path[:0] = [sys.argv[1] + "/src", sys.argv[1]]
from tests.makers.bzimage import bzimage
from tightrope import check, host, image, plan
from tightrope.plan import Request
try:
    from tightrope.deeds.rehearse import build
    from tightrope.machine.unicorn import Emulator
except ImportError:
    from tightrope.machine.emulator import Emulator
    from tightrope.rehearse import build

old = host.read(host.example(), "example")
tiny = image.read(bzimage(init_size=0x3000), "tiny")
machine = Emulator()
clock = time.process_time_ns

def once():
    t0 = clock()
    planned = plan.prepare(tiny, old, Request())
    t1 = clock()
    built = build(planned, design=sys.argv[2])
    t2 = clock()
    run = machine.run(built)
    t3 = clock()
    assert not [each for each in check.check(built, run) if not getattr(each, "advice", False)]
    t4 = clock()
    return t1 - t0, t2 - t1, t3 - t2, t4 - t3, t4 - t0

once()
for line in sys.stdin:
    print(*map(min, zip(*(once() for _ in range(int(line))))), flush=True)
"""

STAGES = ("plan", "build", "walk", "check", "all of it")


def least(trees: list[Path], design: str, rounds: int) -> list[list[float]]:
    """For each tree the least CPU milliseconds of each stage, and of all of them in one go."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, tree, design],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tree,
            env={"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        for tree in trees
    ]
    best = [[float("inf")] * len(STAGES) for _ in trees]
    try:
        for _ in range(rounds):
            for number, worker in enumerate(workers):
                assert worker.stdin is not None
                assert worker.stdout is not None
                print(EACH, file=worker.stdin, flush=True)
                figures = [int(each) / 1e6 for each in worker.stdout.readline().split()]
                best[number] = [min(pair) for pair in zip(best[number], figures, strict=True)]
    finally:
        for worker in workers:
            worker.communicate()
    return best


def handover() -> None:
    """The stages of a small handover in this tree alone."""
    report([REPOSITORY], "two-tables", ROUNDS)


def report(trees: list[Path], design: str, rounds: int) -> None:
    """One line a stage; with a second tree, its figure and how many times as long it takes."""
    ours, *others = least(trees, design, rounds)
    for number, stage in enumerate(STAGES):
        beside = "".join(
            f"there {other[number]:.3f} ms, {other[number] / ours[number]:.2f} times as long"
            for other in others
        )
        show(f"one small handover, {stage}", f"{ours[number]:.3f} ms of CPU", beside)


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(prog="python -m bench.small")
    parser.add_argument("--beside", type=Path, metavar="DIR", help="a checkout to measure as well")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of {EACH} handovers each")
    parser.add_argument("--design", default="two-tables")
    given = parser.parse_args()
    report([REPOSITORY, *([given.beside] if given.beside else [])], given.design, given.rounds)


if __name__ == "__main__":
    main()
