"""Rules about several hops: what a kernel is told, against what the kernel before it was told
itself.

    hop 1    boot_params  --the old kernel's facts-->  hop 2    boot_params  -->  ...

One hop that loses a page, or hangs one node more on a list, is seen by nobody; the fiftieth machine
that comes up so is.  A loader that is asked again for the same kernel hands on the same: what
grows, goes or changes on the way does so at every hop.

Rules: asked where the host knows what it was handed itself (`Host.entered`), which a hop before
tells.  What is compared is what a kernel goes on with; where things lie may differ from hop to hop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tightrope.check.case import Case
from tightrope.check.rule import Found, finding, rule
from tightrope.check.told.boot_params import BY_NAME, MAP_ROWS, ZeroPage, read
from tightrope.check.told.memory import Garbled
from tightrope.check.told.reading import LINUX
from tightrope.errors import MachineError
from tightrope.memory import PAGE_SIZE, Extent, align_down, align_up, subtract, union
from tightrope.model import Handover, Memory, Run, Stop
from tightrope.model.entered import RAM, Entered
from tightrope.model.walk import Step

PAGE_0 = Extent(0, PAGE_SIZE)
"""No kernel uses it: whether a loader's map begins with it or behind it is the same
(setup_arch)."""
E820_EXT = 1
"""More rows of the memory map: they are compared as rows."""


def entered(handover: Handover, run: Run) -> Entered | None:
    """What the new kernel was handed; None where it was not entered, or cannot read it."""
    if run.stop is not Stop.ENTRY or handover.intent.protocol not in LINUX:
        return None
    memory = run.memory
    try:
        page = read(memory, handover.intent.boot_params)
        return _entered(page, memory)
    except (Garbled, MachineError):
        return None


def _entered(page: ZeroPage, memory: Memory) -> Entered:
    def part(name: str) -> bytes:
        place = BY_NAME[name]
        return page.page[place.at : place.at + place.size]

    return Entered(
        rows=tuple((row.extent, row.type) for row in page.rows),
        setup_data=tuple((kind, len(data)) for _, kind, data in page.nodes),
        rsdp=page.field("acpi_rsdp_addr"),
        screen=part("screen_info"),
        efi=part("efi_info"),
        command_line=page.told(memory).line,
    )


def _both(case: Case) -> tuple[Entered, Entered] | None:
    """What this kernel was handed and what it hands on; None where one of them is not known."""
    before = case.host.entered
    now = None if before is None else case.once(_now)
    return None if before is None or now is None else (before, now)


def _now(case: Case) -> Entered | None:
    return entered(case.handover, case.run)


@rule(
    "hop-keeps-memory",
    Step.COPY,
    says="From hop to hop the memory map keeps its RAM, and gains no row.",
    source="Linux commit 7fd817c90650: a seed was reserved at every kexec, until the map was full",
    mend="hand on the memory map that was handed over, with no row that this hop alone needs",
)
def hop_keeps_memory(case: Case) -> Iterator[Found]:
    """Whole pages of RAM, and the number of rows."""
    both = _both(case)
    if both is None:
        return
    before, now = both
    for lost in subtract(_pages(before), [*_pages(now), PAGE_0])[:1]:
        yield finding(
            f"{lost} was RAM to this kernel, and is not to the next: each hop loses some",
            mend="hand on the memory map that was handed over, not what is left of it",
        )
    more = len(now.rows) - len(before.rows)
    if more > 0:
        left = max(0, MAP_ROWS - len(now.rows))
        new = next(extent for extent, kind in now.rows if (extent, kind) not in before.rows)
        yield finding(
            f"the memory map grows from {len(before.rows)} rows to {len(now.rows)}, by {new}:"
            f" behind {left // more} more hops it has no room, and memory is lost",
            evidence={"room": f"{MAP_ROWS} rows"},
            mend="do not write into the map what this hop alone needs",
        )


@rule(
    "hop-keeps-setup-data",
    Step.COPY,
    says="From hop to hop setup_data keeps its nodes, and gains none.",
    source="Linux commit 7fd817c90650; struct setup_data (arch/x86/include/uapi/asm/setup_data.h)",
    mend="build the list anew at each load, from what this kernel was handed",
)
def hop_keeps_setup_data(case: Case) -> Iterator[Found]:
    """The nodes by their types, and the bytes of all of a type."""
    both = _both(case)
    if both is None:
        return
    before, now = both
    counts = [Counter(kind for kind, _ in each.setup_data) for each in (before, now)]
    sizes: list[Counter[int]] = [Counter(), Counter()]
    for of, each in zip(sizes, (before, now), strict=True):
        for kind, size in each.setup_data:
            of[kind] += size
    for kind in sorted({*counts[0], *counts[1]} - {E820_EXT}):
        was, is_now = (each[kind] for each in counts)
        grown = sizes[1][kind] - sizes[0][kind]
        if is_now < was:
            how = f"has {is_now} of {was} nodes of type {kind} left"
        elif is_now > was:
            how = f"grows: {is_now} nodes of type {kind}, where this kernel was handed {was}"
        elif grown > 0:
            how = f"grows by {grown} bytes in its nodes of type {kind}"
        else:
            continue
        yield finding(
            f"setup_data {how}",
            evidence={"types": "asm/setup_data.h: 1 e820, 4 EFI, 9 a seed, 10 KHO"},
        )
        return


@rule(
    "hop-keeps-fields",
    Step.COPY,
    says="From hop to hop boot_params keeps its RSDP, EFI and screen, and the command line its length.",
    source="Linux setup_boot_parameters() in arch/x86/kernel/kexec-bzimage64.c",
    mend="hand on what the firmware told the first kernel, and start from the line that was asked for",
)
def hop_keeps_fields(case: Case) -> Iterator[Found]:
    """What a kernel finds its firmware and its screen by."""
    both = _both(case)
    if both is None:
        return
    before, now = both
    for name, was, got in (
        ("acpi_rsdp_addr", before.rsdp, now.rsdp),
        # Its map is copied at each load, and lies somewhere else each time.
        ("efi_info", int(any(before.efi)), int(any(now.efi))),
        (
            "screen_info",
            int.from_bytes(before.screen, "little"),
            int.from_bytes(now.screen, "little"),
        ),
    ):
        if was == got:
            continue
        how = "is another" if was and got else "is lost" if was else "is new"
        yield finding(
            f"{name} of boot_params {how}, between what this kernel was handed and what it hands on",
            mend="hand on what the firmware told the first kernel",
        )
        return
    longer = len(now.command_line) - len(before.command_line)
    if longer > 0:
        yield finding(
            f"the command line grows by {longer} bytes at each hop",
            evidence={
                "was": before.command_line.decode("utf-8", "backslashreplace"),
                "is": now.command_line.decode("utf-8", "backslashreplace"),
            },
            mend="begin with the words that were asked for, not with those that were handed over",
        )


def _pages(told: Entered) -> tuple[Extent, ...]:
    """Its RAM in whole pages: what a kernel can use of it."""
    whole = []
    for extent in union(extent for extent, kind in told.rows if kind == RAM):
        start, end = align_up(extent.start, PAGE_SIZE), align_down(extent.end, PAGE_SIZE)
        if start < end:
            whole.append(Extent(start, end))
    return tuple(whole)
