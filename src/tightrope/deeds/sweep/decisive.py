"""The facts of a host that its verdict depends on, as a key: equal keys, equal verdicts.

    host file --read--> Host --plan--> Plan --decisive--> key
                          |
                          `- what KASLR draws anew at each boot is left out, and what of it
                             matters is asked of each host: the shape below

A fact is decisive unless it is left out here by name, so a field that somebody adds is decisive.
Left out, in long mode on bare Linux:

    where the old kernel's text lies, virtually and physically (by a multiple of 2 MiB), and so V
    where its direct map begins
    where its page tables, gdt, idt and stack lie, and its crash notes: somewhere in RAM
    the file's name, and where its facts come from

What remains of them is what they could change: by how many page-table entries text and direct map
are mapped, how many levels V and P have in common, whether V is text or direct map and where in it,
and which part of the plan lies on which of them.  docs/proof.md states why that is enough.  A
32-bit kernel draws nothing but its text, and a hypervisor has more than one map: of those all facts
are decisive.

Rules: pure; nothing is rehearsed here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from tightrope.memory import PAGE_SIZE, Extent, Phys, Virt
from tightrope.model import DirectMap, Host, KernelText, Plan
from tightrope.model.modes import MODES

LARGE = 2 << 20
"""What text slides by: CONFIG_PHYSICAL_ALIGN is a multiple of it (arch/x86/Kconfig)."""
HUGE = 1 << 30
"""What the direct map slides by: kernel_randomize_memory() (arch/x86/mm/kaslr.c) keeps PUD_MASK."""


def key(plan: Plan) -> str:
    """The class of a plan's host among hosts that are asked for the same, in hex."""
    told = hashlib.sha256()
    for part in (*_placed(plan), *_facts(plan)):
        told.update(part if isinstance(part, bytes) else repr(part).encode())
        told.update(b"\n")
    return told.hexdigest()[:16]


def _placed(plan: Plan) -> Iterator[object]:
    """Where everything goes.  What the segments hold follows from image, request and host."""
    yield plan.destinations.tobytes()
    yield plan.sources.tobytes()
    yield plan.control_page, plan.head, plan.entry, plan.kernel_entry, plan.protocol, plan.crash
    yield plan.spare, plan.identity, plan.backup, sorted(plan.list_pages), plan.through
    yield [(each.role, each.destination, len(each.data)) for each in plan.segments]


def _facts(plan: Plan) -> Iterator[object]:
    host = plan.host
    bare = replace(host, source="", facts=())
    if not host.paging.long_mode or host.xen is not None:
        yield plan.relocation
        yield bare
        return
    yield replace(
        bare,
        text=KernelText(virt=Virt(0), phys=Phys(0), size=host.text.size),
        relocation=None,
        direct_map=DirectMap(
            virt=Virt(0), page_size=host.direct_map.page_size, size=host.direct_map.size
        ),
        private=Extent.sized(0, host.private.size),
        crash_notes=(),
    )
    yield _shape(plan)


def _shape(plan: Plan) -> tuple[object, ...]:
    """What text, direct map, V and the rest can change, wherever they lie."""
    host, v = plan.host, plan.relocation
    text, direct = host.text, host.direct_map
    ram = host.memory.ram[-1].end
    return (
        (text.virt % LARGE, text.phys % LARGE, host.private.start % LARGE, direct.virt % HUGE),
        _entries(host, text.virt, text.size),
        _entries(host, direct.virt, min(ram, direct.size)),
        host.relocation is None,
        v - text.virt if 0 <= v - text.virt < text.size else None,
        v - direct.virt if 0 <= v - direct.virt < ram else None,
        _in_common(host, v, plan.control_page),
        [(each.what, each.extent.size, each.extent.start % PAGE_SIZE) for each in host.crash_notes],
        tuple(_lies_on(plan)),
    )


def _entries(host: Host, virt: int, size: int) -> tuple[int, ...]:
    """How many entries of each level, from 2 MiB up, lead to [virt, virt + size)."""
    above = MODES[host.paging].format.levels[:-1]
    last = virt + size - 1
    shifts = [each.index.lo for each in above]
    return tuple((last >> shift) - (virt >> shift) + 1 for shift in shifts)


def _in_common(host: Host, v: int, p: int) -> int:
    """Levels of page_table_a that V and P share."""
    common = 0
    for level in MODES[host.paging].format.levels:
        if level.index.get(v) != level.index.get(p):
            break
        common += 1
    return common


def _lies_on(plan: Plan) -> Iterator[tuple[int, ...]]:
    """Which parts of the plan lie on the old kernel's text, private memory and each note."""
    host = plan.host
    parts = [each.destination for each in plan.segments]
    parts += [Extent.sized(plan.control_page, PAGE_SIZE), *plan.spare]
    parts += [Extent.sized(frame, PAGE_SIZE) for frame in plan.list_pages]
    text = Extent.sized(host.text.phys, host.text.size)
    for whose in (text, host.private, *(note.extent for note in host.crash_notes)):
        yield tuple(number for number, part in enumerate(parts) if part.overlaps(whose))
