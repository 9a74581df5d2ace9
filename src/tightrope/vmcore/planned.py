"""The dump and the plan: what a crash may write, held against what the dump says was changed.

    a host file, from before the crash           the dump, from behind it
      the kernel's text at its place    <------>   what the dead tables map there
      all RAM at the direct map         <------>   what they map there
      V                                 <------>   is still mapped: a panic went through it
      RAM but what a crash may write    <------>   the memory that the dump has, both ways
      where VMCOREINFO is to be left    <------>   the same bytes there as in the dump's notes

What a crash may write is the region, `crashkernel=`'s other memory and the first MiB, which the
crash kernel has as RAM: rule `crash-region-only` holds a rehearsal to that, `dump-survives` the
core header.

Rules: what the host file only assumes is not held against the dump.  The text's place is another at
each boot with KASLR: a host file of another boot differs, and says nothing of the crash.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tightrope.memory import PAGE_SIZE, Extent, Phys, Virt, subtract, union
from tightrope.model.host import Host, Named
from tightrope.model.notes import EM_X86_64
from tightrope.model.pgd import Pgd, Sweep
from tightrope.model.planned import Planned
from tightrope.model.root import Anchor
from tightrope.vmcore.notes import read_notes
from tightrope.vmcore.other_tables import translate

FIRST_MIB = Extent(0, 1 << 20)
STEP = 2 << 20
"""The text's own pages: one address in each is asked."""


def planned(dead: Pgd, host: Host) -> Planned:
    """Hold a dump's tables and memory against a host file."""
    writes = may_write(host)
    agree: list[str] = []
    differ: list[str] = []
    assumed = {each.field.split(".")[0] for each in host.assumed()}
    for what, problem in _held(dead, host, writes, assumed):
        if problem:
            differ.append(f"{what}: {problem}")
        else:
            agree.append(what)
    return Planned(source=host.source, writes=writes, agree=tuple(agree), differ=tuple(differ))


def may_write(host: Host) -> tuple[Extent, ...]:
    """All that a crash kexec of this host and its kernel may write."""
    region = () if host.crash_region is None else (host.crash_region,)
    return union((FIRST_MIB, *region, *(each.extent for each in host.crash_memory)))


def _held(
    dead: Pgd, host: Host, writes: tuple[Extent, ...], assumed: set[str]
) -> Iterator[tuple[str, str]]:
    """(what, how it differs or ""); what the host file assumes is left out."""
    found, text = dead.found, host.text
    if host.crash_region is None:
        yield "the region", f"{host.source} has none, and a crash kernel ran"
    if "text" not in assumed:
        virts = [*range(text.virt, text.virt + text.size, STEP)]
        moved = (_moved(found, Virt(each), text.phys + each - text.virt) for each in virts)
        what = f"the kernel's text at {text.virt:#x} is {text.phys:#x}"
        yield what, next(filter(None, moved), "")
    if host.relocation is not None and not assumed & {"relocation", "text"}:
        where = translate(found, Anchor(name="V", virt=host.relocation, phys=Phys(0)))
        yield f"V {host.relocation:#x} is mapped", "it is not" if where is None else ""
    if "direct_map" not in assumed:
        yield f"RAM is mapped at {host.direct_map.virt:#x}", _direct(found, host)
    root = Extent.sized(dead.root.phys & -PAGE_SIZE, PAGE_SIZE)
    inside = next((each for each in writes if each.overlaps(root)), None)
    yield "the pgd lies where no crash writes", f"it is in {inside}" if inside else ""
    yield "nothing leads into the region at its own address", _identity(found, writes)
    yield from _memory(dead, host, writes)
    if "crash_note" not in assumed:
        yield from _vmcoreinfo(dead, host)


def _moved(found: Sweep, virt: Virt, phys: int) -> str:
    """How an address is mapped elsewhere; one that is not mapped was freed with the init code."""
    at = translate(found, Anchor(name="text", virt=virt, phys=Phys(0)))
    return "" if at in (None, phys) else f"{virt:#x} is {at:#x} in the dump"


def _direct(found: Sweep, host: Host) -> str:
    """The first address of the direct map that leads elsewhere than it should."""
    first = host.direct_map.virt
    top = min(max((each.end for each in host.memory.ram), default=0), host.direct_map.size)
    last = np.uint64(first + max(top, PAGE_SIZE) - 1)
    there = (found.virt >= np.uint64(first)) & (found.virt <= last)
    if not there.any():
        return "nothing is mapped there"
    bad = np.nonzero(there & (found.virt - np.uint64(first) != found.phys))[0]
    if not len(bad):
        return ""
    virt, phys = int(found.virt[bad[0]]), int(found.phys[bad[0]])
    return f"{virt:#x} is {phys:#x} in the dump"


def _identity(found: Sweep, writes: tuple[Extent, ...]) -> str:
    """What an identity map in the old kernel's own tables maps of the region: a walk made it."""
    same = np.nonzero(found.virt == found.phys)[0]
    for at in same.tolist():
        mapped = Extent.sized(int(found.phys[at]), int(found.size[at]))
        if any(each.overlaps(mapped) for each in subtract(writes, (FIRST_MIB,))):
            return f"{mapped.start:#x} is itself, for {mapped.size:#x} bytes"
    return ""


def _memory(dead: Pgd, host: Host, writes: tuple[Extent, ...]) -> Iterator[tuple[str, str]]:
    """The dump's memory and the plan's, each without the other's."""
    has = dead.core.described.extents
    ram = _pages(host.memory.ram, inward=True)
    kept = _pages((*host.memory.ram, *(e.extent for e in host.firmware)), inward=False)
    crossed = subtract(writes, (FIRST_MIB,))
    written = next((a for a in crossed for b in has if a.overlaps(b)), None)
    yield (
        "the dump has nothing that a crash writes",
        f"it has memory of {written}" if written else "",
    )
    beyond = subtract(has, kept)
    yield "all that it has is the host's RAM", f"{beyond[0]} is none" if beyond else ""
    lost = subtract(ram, (*writes, *has))
    yield (
        "it has all RAM that no crash writes",
        f"{lost[0]} is not in it, and the plan leaves it alone" if lost else "",
    )


def _vmcoreinfo(dead: Pgd, host: Host) -> Iterator[tuple[str, str]]:
    """Linux lays VMCOREINFO as it dies, and its core header led the crash kernel there.

    Of a host that nobody has a picture of from before, this is memory whose bytes are known.  A
    dump that leaves its pages out, or has no VMCOREINFO of Linux, says nothing.
    """
    core = dead.core
    noted = [dict(each) for each in (core.notes.vmcoreinfo, *core.notes.others) if each]
    word = 8 if core.machine == EM_X86_64 else 4
    for place in (each.extent for each in host.crash_notes if _is_vmcoreinfo(each)):
        pages = [core.page(frame * PAGE_SIZE) for frame in place.pages]
        if not noted or None in pages:
            return
        first = place.start % PAGE_SIZE
        data = b"".join(filter(None, pages))[first : first + place.size]
        left = read_notes([memoryview(data)], word=word)
        same = any(dict(each) in noted for each in (left.vmcoreinfo, *left.others))
        problem = "" if same else "it has other bytes there, of another boot or written over"
        yield f"VMCOREINFO lies at {place.start:#x}", problem


def _is_vmcoreinfo(note: Named) -> bool:
    return note.what.lower().startswith("vmcoreinfo")


def _pages(extents: tuple[Extent, ...], *, inward: bool) -> tuple[Extent, ...]:
    """Whole pages within extents, or all pages that they touch."""
    if inward:
        rounded = ((-(-e.start // PAGE_SIZE), e.end // PAGE_SIZE) for e in extents)
    else:
        rounded = ((e.start // PAGE_SIZE, -(-e.end // PAGE_SIZE)) for e in extents)
    return tuple(Extent(a * PAGE_SIZE, b * PAGE_SIZE) for a, b in rounded if a < b)
