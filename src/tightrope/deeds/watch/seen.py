"""What is wrong with what a guest has loaded, seen before any walk: told by what lies there twice.

    control page   against the kernel's own relocate_kernel
    page list      against the segments of struct kimage
    tables         against what has to be reached
    segments       against the digest that the loader put into its purgatory

Rules: what is compared is what two programs of the guest wrote apart from each other; a
difference is a finding with the place, and says what would come of it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence

from tightrope.deeds.watch.kernel import GuestKernel
from tightrope.deeds.watch.loaded import KImage
from tightrope.deeds.watch.xen import GuestXen
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Finding, Handover, Kind, Step
from tightrope.model.watched import Apart
from tightrope.x86.walk import Access, Refused, TableVisit, entries_in, walk

WORD, DIGEST = 8, 32
GATE = 16
MEMORY = "memory"
"""What `plan` calls all of it."""


def apart(page: bytes, kernel: GuestKernel | GuestXen, image: KImage) -> Apart:
    """The control page and the kernel's own code, the page list and the segments."""
    if isinstance(kernel, GuestXen):
        code = kernel.participant.code
        return Apart(
            kernels=kernel.code,
            laid=page,
            filled=(),
            labels=code.symbols,
            segments=tuple(extent for extent, _ in image.segments),
            destinations=image.destinations,
            sources=image.sources,
            broken=image.broken,
            routine=code.name,
        )
    found, contract = kernel.found, kernel.participant.contract
    filled = [Extent.sized(found.symbols[each], WORD) for each in contract.words]
    if contract.gates is not None:
        gates = contract.gates
        filled.append(Extent.sized(found.symbols[gates.idt], GATE * gates.count))
        debug = ("kexec_debug_8250_mmio32", "kexec_debug_8250_port", "kexec_debug_gdt")
        filled += [Extent.sized(found.symbols[e], GATE) for e in debug if e in found.symbols]
    return Apart(
        kernels=bytes(found.code),
        laid=page,
        filled=tuple(filled),
        labels=found.symbols,
        segments=tuple(extent for extent, _ in image.segments),
        destinations=image.destinations,
        sources=image.sources,
        broken=image.broken,
    )


def digest(image: KImage, datas: tuple[bytes, ...], handover: Handover) -> Iterator[Finding]:
    """What the purgatory will compute is what its loader left in it."""
    at = next((n for n, (e, _) in enumerate(image.segments) if image.start in e), None)
    if at is None:
        return
    program = datas[at]
    rows = _regions(image, at)
    made = hashlib.sha256()
    for number in range(len(image.segments)):
        if number != at:
            made.update(datas[number])
    if made.digest() in program:
        return
    names = [each.name for each in handover.intent.segments if each.destination.start in rows]
    listed = any(struct.pack("<QQ", start, size) in program for start, size in rows.items())
    if not listed:
        return  # it has no list of regions: nothing is digested
    purgatory = next((e.name for e in handover.chain if e.kind is Kind.PURGATORY), "the purgatory")
    yield Finding(
        rule="digest-agrees",
        step=Step.COPY,
        message=f"{purgatory} will not let the new kernel be entered: what is loaded is not what its loader"
        " made the digest of",
        evidence={
            "SHA-256": f"{made.hexdigest()[:16]}... is not in it",
            "digested": ", ".join(names) or "the other segments",
            "on a real machine": "nothing moves and nothing is said",
        },
        mend="a segment's byte, or a source of the page list, was changed after the load",
    )


def _regions(image: KImage, program: int) -> dict[int, int]:
    return {
        extent.start: extent.size
        for number, (extent, _) in enumerate(image.segments)
        if number != program
    }


def tables(built: Handover) -> Iterator[Finding]:
    """The tables that it goes on with lead V and P to the control page, and everything that is
    copied or entered to itself, where paging stays on."""
    intent, tree = built.intent, built.page_table_a
    mmu = built.registers.mmu(built.host.cpu, root=tree.root)
    read = entries_in(tree.pages)
    wanted = (
        ("V", int(intent.relocation), "table-a-maps-v", Step.TABLE_A),
        ("P", int(intent.control_page), "table-a-maps-p", Step.IDENTITY),
    )
    for name, virt, rule, step in wanted:
        got = walk(read, mmu, virt, Access.FETCH)
        if isinstance(got, Refused):
            yield _entry(name, virt, got.reason, got.visits, rule, step)
        elif got.phys & -PAGE_SIZE != intent.control_page:
            reason = f"it leads to {got.phys:#x}, not to the control page"
            yield _entry(name, virt, reason, got.visits, rule, step)
    for each in intent.identity if built.page_table_b is not None else ():
        if each.what == MEMORY:
            continue  # the walk has no use for the rest of it
        at = each.extent.start
        while at < each.extent.end:
            got = walk(read, mmu, at, Access.WRITE)
            if isinstance(got, Refused) or got.phys != at:
                reason = got.reason if isinstance(got, Refused) else f"it leads to {got.phys:#x}"
                yield _entry(each.what, at, reason, got.visits, "table-b-covers", Step.TABLE_B)
                return
            at += got.page_size - at % got.page_size


def _entry(
    what: str, virt: int, reason: str, visits: Sequence[TableVisit], rule: str, step: Step
) -> Finding:
    last = visits[-1] if visits else None
    return Finding(
        rule=rule,
        step=step,
        message=f"the tables of the walk do not lead {what} at {virt:#x} where it has to go: {reason}",
        evidence={} if last is None else {last.level: f"{last.entry:#x} at {last.at:#x}"},
        mend="load again, and find what has written there since the load",
    )
