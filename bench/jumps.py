"""The jump that really happens: an old kernel's own code, another loader's purgatory, many hosts in one process.

    a pair       6.12's own code into 7.3 with a 30 MB initrd, beside our own design
    a walk       7.3's own code into 7.3: it copies pages that are in place onto themselves
    warm         a real kernel from one host after the other; BASE names a checkout of an older
                 build, which is then measured in turn with this one
    a purgatory  kexec-tools' own, which digests a small kernel

Rules: CPU seconds, the least of several: what waits for a loaded machine is no figure.
`[BASE=CHECKOUT] python -m bench.jumps` runs this alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.clock import show
from tests.conftest import debian_kernel
from tests.makers import cpio
from tests.makers.bzimage import bzimage
from tightrope import host, image
from tightrope.deeds import kexec_tools, old_kernel, segments
from tightrope.deeds.rehearse import rehearse
from tightrope.deeds.unpacking import Unpacking
from tightrope.errors import MissingPart
from tightrope.machine.unicorn import Emulator
from tightrope.model import Image, Outcome, Verdict
from tightrope.plan import Request

REPOSITORY = Path(__file__).resolve().parent.parent
INITRD = 30_000_000
KERNEL = 100_000
"""Bytes of a kernel whose digest takes kexec-tools' purgatory six million instructions."""
WARM = """
import sys, time
from dataclasses import replace
from pathlib import Path
from tightrope import host, image
try:
    from tightrope.deeds.machines import emulator
    from tightrope.deeds.rehearse import rehearse
    from tightrope.deeds.unpacking import Unpacking
except ImportError:
    from tightrope.machine.emulator import Emulator as emulator
    from tightrope.rehearse import rehearse
    Unpacking = None
from tightrope.plan import Request
kernel = image.read(Path(sys.argv[1]).read_bytes(), sys.argv[1])
words = {}
if Unpacking is not None:
    words["unpacking"] = Unpacking(kernel, None)
    words["unpacking"].contents()
machine, old, took = emulator(), host.read(host.example(), "example"), []
for n in range(12):
    other = replace(old, text=replace(old.text, phys=old.text.phys + n * 0x20_0000))
    began = time.process_time()
    assert rehearse(kernel, other, Request(), machine=machine, **words).outcome.value == "holds"
    took.append(time.process_time() - began)
print(min(took[1:]))
"""


def least(work: Callable[[], Verdict], *, runs: int = 5) -> tuple[float, Verdict]:
    """The least CPU seconds of a rehearsal that holds, after one that does not count."""
    verdict, taken = work(), []
    for _ in range(runs):
        began = time.process_time()
        verdict = work()
        taken.append(time.process_time() - began)
    if verdict.outcome is not Outcome.HOLDS:
        raise SystemExit(f"the benchmark's jump does not hold: {verdict.findings}")
    return min(taken), verdict


def _read(flavour: str) -> Image:
    path = debian_kernel(flavour)
    return image.read(path.read_bytes(), str(path))


def own_code(
    new: Image, request: Request, flavour: str, unpacking: Unpacking
) -> Callable[[], Verdict]:
    """A rehearsal out of an old kernel by its own code."""
    path, machine = debian_kernel(flavour), Emulator()
    code = old_kernel.read(path.read_bytes(), path.name)
    leaves, asked = code.host(host.read(host.example(), "example")), code.request(request)
    return lambda: rehearse(
        new, leaves, asked, design=code.participant, machine=machine, unpacking=unpacking
    )


def pair() -> None:
    """The old kernel's own code against ours, in turn."""
    new, machine = _read("amd64-7.3"), Emulator()
    request = Request(initrd=cpio.initrd(INITRD, os.urandom(1 << 20)))
    unpacking = Unpacking(new, request.initrd)
    unpacking.contents()
    old = host.read(host.example(), "example")
    ours, _ = least(lambda: rehearse(new, old, request, machine=machine, unpacking=unpacking))
    theirs, verdict = least(own_code(new, request, "amd64-6.12", unpacking))
    show(
        "a pair: 6.12's own code into 7.3, 30 MB initrd (aim 1.5)",
        f"{theirs / ours:.2f} times ours",
        f"{theirs:.3f} and {ours:.3f} CPU s, {verdict.run.instructions} instructions",
    )
    theirs, verdict = least(own_code(new, request, "amd64-7.3", unpacking))
    show(
        "  7.3's own code into 7.3, pages in place onto themselves",
        f"{theirs:.3f} CPU s",
        f"{verdict.run.instructions} instructions, {len(verdict.run.copies)} copies",
    )


def warm() -> None:
    """One process, another host each time."""
    kernel, base = str(debian_kernel("amd64-7.3")), os.environ.get("BASE")
    builds = [REPOSITORY, *([Path(base)] if base else [])]
    taken: dict[Path, list[float]] = {each: [] for each in builds}
    for _ in range(3):
        for build in builds:
            done = subprocess.run(
                [sys.executable, "-c", WARM, kernel], env={**os.environ, "PYTHONPATH": f"{build}/src"},
                capture_output=True, check=True, text=True,
            )  # fmt: skip
            taken[build].append(float(done.stdout))
    now, *before = (min(each) for each in taken.values())
    show("a real kernel from one host after the other, warm", f"{now:.3f} CPU s")
    for each in before:
        show("  against BASE (aim 5)", f"{each / now:.1f} times as fast", f"{each:.3f} CPU s")


def purgatory() -> None:
    """kexec-tools' digest of a small kernel, executed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel"
        path.write_bytes(bzimage(kernel_size=KERNEL, init_size=KERNEL))
        old = host.read(host.example(), "example")
        try:
            loaded = kexec_tools.load(str(path), None, "", old)
        except MissingPart as err:
            show("a purgatory of kexec-tools'", "not here", str(err))
            return
        new, machine = image.read(path.read_bytes(), str(path)), Emulator()
        request = segments.request(loaded, Request())
        took, verdict = least(lambda: rehearse(new, old, request, machine=machine))
    unseen = sum(each.instructions for each in verdict.run.stretches)
    show(
        "kexec-tools' purgatory digests a small kernel (aim 1.5 s)",
        f"{took:.2f} CPU s",
        f"{verdict.run.instructions + unseen:,} instructions",
    )


def jumps() -> None:
    """All of it."""
    pair()
    warm()
    purgatory()


if __name__ == "__main__":
    jumps()
