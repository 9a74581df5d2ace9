"""All figures.  Rules: needs what `make test` needs; prints, judges nothing."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench import (
    cases,
    cpus,
    crash_boots,
    dumps,
    fleet,
    flips,
    jumps,
    kexec,
    pcs,
    plain_unicorn,
    proofs,
    seen,
    small,
    watching,
)
from bench.clock import seconds, show
from tests.makers import cpio
from tests.makers.bzimage import bzimage
from tightrope import check, host, image, plan, routines, shipped
from tightrope import world as world_room
from tightrope.check.page_list import order
from tightrope.deeds import machines
from tightrope.deeds.compare import compare
from tightrope.deeds.rehearse import build
from tightrope.errors import MachineError, MissingPart
from tightrope.machine.port import Machine
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent, MemoryMap, Region, RegionKind
from tightrope.model import Handover, Host, Paging
from tightrope.participants import DESIGNS
from tightrope.plan import Request
from tightrope.x86.survey import survey
from tightrope.x86.walk import Access, Mmu, walk

REPOSITORY = Path(__file__).resolve().parent.parent
INITRD = 30 << 20


def whole_rehearsal() -> None:
    """`tightrope rehearse` of Debian's amd64 kernel with a 30 MiB initrd, as a process."""
    rows = (REPOSITORY / ".cache/kernels/kernels.txt").read_text().split()
    kernel = str(REPOSITORY / dict(zip(rows[::2], rows[1::2], strict=True))["amd64"])
    with tempfile.NamedTemporaryFile() as initrd:
        initrd.write(cpio.initrd(INITRD, os.urandom(1 << 20)))
        initrd.flush()
        command = [sys.executable, "-m", "tightrope", "rehearse", kernel, "--initrd", initrd.name]
        taken, last = [], {}
        for _ in range(5):
            started = time.perf_counter()
            done = subprocess.run([*command, "--json"], capture_output=True, check=True)
            taken.append(time.perf_counter() - started)
            last = json.loads(done.stdout)["stats"]
        wall = sorted(taken)[2]
        old = host.read(host.example(), "example")
        read = image.read(Path(kernel).read_bytes(), kernel)
        request = Request(initrd=Path(initrd.name).read_bytes())
        built = build(plan.prepare(read, old, request), design="two-tables")
        plain = seconds(lambda: plain_unicorn.walk(built), runs=3)
    inside = last["seconds"]
    show("whole rehearsal, Debian amd64 + 30 MiB initrd (aim 1.5 s)", f"{wall:.2f} s wall")
    show("  its memory (aim 400 MB)", f"{last['peak_memory'] / 1e6:.0f} MB")
    show(
        "  where the time goes",
        ", ".join(f"{name} {value:.3f}" for name, value in inside.items()),
    )
    show(
        "  the rest: starting Python, numpy, reading files", f"{wall - sum(inside.values()):.2f} s"
    )
    show(
        "  walk and check against plain Unicorn, unwatched",
        f"{(inside['walk'] + inside['check']) / plain:.2f} times",
        f"plain: {plain:.2f} s",
    )


def one_page() -> None:
    """Rehearsals of a tiny handover on one emulator, all checks, as a sweep would do them."""
    old = host.read(host.example(), "example")
    tiny = image.read(bzimage(init_size=0x3000), "tiny")
    built = build(plan.prepare(tiny, old, Request()), design="two-tables")
    machine = Emulator()

    def many() -> None:
        for _ in range(100):
            run = machine.run(built)
            if check.check(built, run):
                raise SystemExit("the benchmark's handover does not hold")

    ours = seconds(many, runs=3) / 100
    plain = seconds(lambda: plain_unicorn.walk(built), runs=20)
    show("one small handover, reused machine, all checks (aim 1000/s)", f"{1 / ours:.0f} /s")
    show("  against a fresh plain Unicorn without checks", f"{ours / plain:.2f} times the time")


def machines_beside() -> None:
    """The same small handover on every quick machine, all rules that it can be asked."""
    old = host.read(host.example(pc=256), "example")
    tiny = image.read(bzimage(init_size=0x3000), "tiny")
    built = build(plan.prepare(tiny, old, Request()), design="two-tables")
    for name in machines.MACHINES:
        try:
            with machines.opened(name) as machine:

                def some(machine: Machine = machine) -> None:
                    for _ in range(50):
                        check.check(built, machine.run(built))

                figure = f"{50 / seconds(some, runs=3):.0f} /s"
        except (MissingPart, MachineError) as err:
            figure = f"not here: {err}"
        show(f"small handovers with all checks, on {name}", figure)


def modes() -> None:
    """Rehearsals per second of a small handover for each paging mode, and the compare table."""
    tiny = image.read(bzimage(init_size=0x3000), "tiny")
    for paging in Paging:
        old = host.read(host.example(paging), paging.value)
        built = build(plan.prepare(tiny, old, Request()), design="two-tables")
        machine = Emulator()

        def some(built: Handover = built, machine: Emulator = machine) -> None:
            for _ in range(50):
                check.check(built, machine.run(built))

        show(
            f"small handovers with all checks, {paging.value}",
            f"{50 / seconds(some, runs=3):.0f} /s",
        )
    old = host.read(host.example(), "example")
    whole = seconds(lambda: compare(tiny, old, Request()), runs=3)
    show(f"the compare table, {len(DESIGNS)} designs", f"{whole:.3f} s")


def large_host() -> None:
    """A 6 TiB machine: the plan and all tables."""
    old = host.read(host.example(), "example")
    ram = Region(Extent.sized(1 << 32, 6 << 40), RegionKind.RAM)
    regions = tuple(r for r in old.memory if r.extent.start < 1 << 32)
    big: Host = replace(
        old,
        memory=MemoryMap((*regions, ram)),
        direct_map=replace(old.direct_map, page_size=1 << 30),
    )
    read = image.read(shipped.read(), "shipped")
    request = Request(initrd=bytes(INITRD))
    whole = seconds(lambda: build(plan.prepare(read, big, request), design="two-tables"))
    show("6 TiB host: plan, old kernel's tables, handover (aim 0.3 s)", f"{whole:.3f} s")


def ten_million_pages() -> None:
    """The exact check of a list of ten million copies, against a loop over a hundredth of it."""
    count = 10_000_000
    destinations = np.arange(1000, 1000 + count, dtype=np.int64)
    sources = destinations + count + 5000
    sources[::2] = destinations[::2]
    whole = seconds(lambda: order(destinations, sources), runs=3)

    def loop() -> int:
        written: set[int] = set()
        late = 0
        part = count // 100
        for to, of in zip(destinations[:part].tolist(), sources[:part].tolist(), strict=True):
            late += of in written
            written.add(to)
        return late

    plain = seconds(loop, runs=3) * 100
    show("check a plan of ten million pages (aim about 1 s)", f"{whole:.2f} s")
    show(
        "  a Python loop over the same list (scaled from 1 %)", f"{plain / whole:.1f} times as long"
    )


def walker() -> None:
    """Single walks, and all mappings of an old kernel at once."""
    old = host.read(host.example(), "example")
    world = world_room.lay(old, routines.read(routines.RELOCATE_X86_64))
    mmu = Mmu(cr0=old.cr0, cr3=world.pgd, cr4=old.cr4, efer=old.efer, physical_bits=46)

    def read(phys: int, size: int) -> int | None:
        page = world.tables.get(phys & ~0xFFF)
        at = phys & 0xFFF
        return None if page is None else int.from_bytes(page[at : at + size], "little")

    def thousand() -> None:
        for _ in range(1000):
            walk(read, mmu, world.registers.rip, Access.FETCH)

    one = seconds(thousand) / 1000
    mappings = survey(world.tables.get, mmu)
    count = len(mappings.virt)
    whole = seconds(lambda: survey(world.tables.get, mmu))
    show("one walk", f"{one * 1e6:.1f} us")
    show(
        f"all {count} mappings of the default old kernel",
        f"{whole * 1e3:.2f} ms",
        f"walking each would take {one * count / whole:.0f} times as long",
    )


PARTS: tuple[Callable[[], object], ...] = (
    whole_rehearsal,
    one_page,
    small.handover,
    machines_beside,
    cases.agreement,
    flips.flips,
    modes,
    large_host,
    ten_million_pages,
    walker,
    cpus.large_dump,
    dumps.sparse,
    dumps.capture,
    cpus.agreement,
    pcs.walks,
    pcs.boots,
    crash_boots.beside_bare_boot,
    kexec.loads_and_jumps,
    jumps.jumps,
    fleet.fleet,
    proofs.theorems,
    proofs.mutants,
    seen.answers,
    seen.page,
    watching.first_line,
    seen.plan_page,
)


def named() -> dict[str, Callable[[], object]]:
    """Every part by its name."""
    names = {f"{part.__module__}.{part.__name__}".removeprefix("bench."): part for part in PARTS}
    return {name.removeprefix("__main__."): part for name, part in names.items()}


def main() -> None:
    """Print every figure, or those of the parts that are named."""
    names = named()
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Figures, each beside what one would use instead where there is such a thing.",
        epilog="parts: " + ", ".join(names),
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help="only these, in this order (see below)"
    )
    wanted = parser.parse_args().parts
    for name in wanted:
        if name not in names:
            parser.error(f"no part is {name!r}: {', '.join(names)}")
    for name in wanted or names:
        names[name]()


if __name__ == "__main__":
    main()
