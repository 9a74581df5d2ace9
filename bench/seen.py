"""What is seen: how soon a command answers, how long a page takes, how large it is.

Rules: CPU seconds of a process of its own, the least of several: what waits for a loaded machine is no
figure.  Bytecode is cached, as it is where a wheel was installed.
"""

from __future__ import annotations

import mmap
import os
import resource
import subprocess
import sys
import time

from bench.clock import show
from tightrope import image, shipped
from tightrope.cli.commands import known
from tightrope.deeds.rehearse import prepare
from tightrope.host import example, read
from tightrope.model.sheet import Ink, Lane, Map, Patch, Section, Sheet, Window
from tightrope.plan import Request
from tightrope.report.html import html
from tightrope.views.plan import VIEW as PLAN

BARE = "import argparse; argparse.ArgumentParser(prog='x').parse_args(['--help'])"
TIGHTROPE = (sys.executable, "-m", "tightrope")
PAGES = tuple(each.name for each in known())
"""Every command has a page of help."""
PIECES = 1_000_000


def cpu(*command: str, runs: int = 7) -> float:
    """The least CPU seconds of a process."""
    cached = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    taken = []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, env=cached, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)


def answers() -> None:
    """Each `--help` and `--version` beside a bare interpreter, `tables` beside `plan`."""
    bare = cpu(sys.executable, "-c", BARE, runs=15)
    for word in ("--version", "--help"):
        took = cpu(*TIGHTROPE, word)
        show(f"tightrope {word} (aim 2 times argparse alone)", f"{took / bare:.2f} times")
    slow = {each: cpu(*TIGHTROPE, *each.split(), "--help") / bare for each in PAGES}
    most = max(slow, key=lambda word: slow[word])
    show(
        f"tightrope {most} --help, the slowest of {len(slow)} (aim 2 times argparse alone)",
        f"{slow[most]:.2f} times",
        f"rehearse --help: {slow['rehearse']:.2f}",
    )
    plan = cpu(*TIGHTROPE, "plan", "--shipped")
    tables = cpu(*TIGHTROPE, "tables", "--shipped")
    show("tightrope tables (aim 2 times plan)", f"{tables / plan:.2f} times", f"plan: {plan:.2f} s")


def page() -> None:
    """A map of a million pieces as a page."""
    step = (1 << 40) // PIECES
    patches = tuple(
        Patch(at * step, at * step + 0x1000, Ink.SOURCE, "a page") for at in range(PIECES)
    )
    sheet = Sheet(
        (Section(None, (Map(lanes=(Lane("waiting", patches),), whole=Window(0, 1 << 40)),)),)
    )
    started = time.process_time()
    size = len(html(sheet, title="many"))
    taken = time.process_time() - started
    show("a page of 1,000,000 pieces (aim 2 s, 5 MB)", f"{taken:.2f} s", f"{size / 1e6:.2f} MB")


def plan_page() -> None:
    """The page of a real plan: an initrd of a million pages on a PC of 19 GiB."""
    large = example().replace("size = 0x4000_0000\nkind", "size = 0x4_0000_0000\nkind")
    initrd = memoryview(mmap.mmap(-1, PIECES << 12))
    request = Request(initrd=initrd, initrd_source="an initrd of 4 GB")
    plan = prepare(image.read(shipped.read(), "shipped"), read(large, "a large PC"), request)
    rows = sum(len(words) for words in plan.list_pages.values())
    started = time.process_time()
    size = len(html(PLAN.sheet(plan), title="many"))
    taken = time.process_time() - started
    show(
        f"the page of a plan of {rows:,} list words (aim 2 s, 5 MB)",
        f"{taken:.2f} s",
        f"{size / 1e6:.2f} MB",
    )


if __name__ == "__main__":
    answers()
    page()
    plan_page()
