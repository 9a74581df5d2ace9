"""Differences that are explained: what a machine is known to get wrong, or to leave open.

Each entry says which machine it is about, when it applies and why.  It applies to what was seen in
the first machine's run, never to a case's number, so that it cannot hide anything else.

Rules: an explanation needs a test that shows it; those of Unicorn's are in
tests/agree/test_unicorns_faults.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tightrope.deeds.agree.difference import Told
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Handover, Paging, Run, Stop
from tightrope.x86.cpu import CR0_DEFINED
from tightrope.x86.walk import Access

ACCESSED_DIRTY = 0x60
MACHINE_CHECK = 18
PRESENT, WRITE, RESERVED = 1, 2, 8
"""Bits of a page fault's error code (SDM 4.7)."""
PAGE_SIZE_BIT = 1 << 7
"""Of an entry of a page directory: it maps a large page."""
LOW_MEMORY = 1 << 20
BIT_8 = 1 << 8
TCG_BITS = 40
"""TCG_PHYS_ADDR_BITS: the MAXPHYADDR of QEMU's TCG, and so of Unicorn, whatever CPU it plays."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What an explanation may look at."""

    handover: Handover
    one: Told
    other: Told
    what: str
    at: int | None


@dataclass(frozen=True, slots=True)
class Known:
    """`machine` None: any machine."""

    machine: str | None
    why: str
    applies: Callable[[Seen], bool]


def explained(seen: Seen, machine: str) -> str | None:
    """Why a difference is none, or None."""
    for known in KNOWN:
        if known.machine in (None, machine) and known.applies(seen):
            return known.why
    return None


def _refused(seen: Seen) -> bool:
    """The first machine's #GP came from a rule of `x86.cpu`, ahead of the instruction."""
    fault = seen.one.run.fault
    return fault is not None and fault.vector == 13 and fault.access is None


def _read_ahead(seen: Seen) -> bool:
    """Both could not fetch the same page: Unicorn at an instruction that comes earlier in the one
    before it."""
    one, other = seen.one.run.fault, seen.other.run.fault
    if one is None or other is None or seen.what != "fault":
        return False
    same = (one.vector, one.address, one.access) == (other.vector, other.address, other.access)
    page = one.rip & -PAGE_SIZE
    return (
        same
        and one.access is Access.FETCH
        and other.rip < one.rip
        and page == other.rip & -PAGE_SIZE
        and one.address == page + PAGE_SIZE
    )


def _reserved_by_width(seen: Seen) -> bool:
    """An entry has an address bit that the old kernel's CPU lacks and TCG's has, or the other
    way."""
    host = seen.handover.host
    told = {*seen.one.rules, *seen.other.rules}
    if not told & {"reserved-bits", "fault-reserved"}:
        return False
    width = host.cpu.physical_bits
    trees = [seen.handover.page_table_a, seen.handover.page_table_b]
    pages = [page for each in trees if each for page in each.pages.values()]
    if host.paging is Paging.I386:
        # PSE-36: bits 20:13 of a 4 MiB page's entry are address bits 39:32 (SDM table 4-4).
        large = [np.frombuffer(page, "<u4") & np.uint32(PRESENT | PAGE_SIZE_BIT) for page in pages]
        high = [np.frombuffer(page, "<u4") & np.uint32(0x1F_E000) for page in pages]
        both = np.uint32(PRESENT | PAGE_SIZE_BIT)
        return any(bool(((a == both) & (b != 0)).any()) for a, b in zip(large, high, strict=True))
    between = np.uint64((1 << max(width, TCG_BITS)) - (1 << min(width, TCG_BITS)))
    entries = [np.frombuffer(page, "<u8") for page in pages]
    present = np.uint64(PRESENT)
    return any(
        bool((((every & between) != 0) & ((every & present) != 0)).any()) for every in entries
    )


def _read_first(seen: Seen) -> bool:
    """The same page fault, but for the W bit, of an instruction that reads and writes in one."""
    one, other = seen.one.run.fault, seen.other.run.fault
    if seen.what != "fault" or one is None or other is None:
        return False
    same = (one.rip, one.address, one.vector) == (other.rip, other.address, other.vector)
    return same and (one.error_code or 0) ^ (other.error_code or 0) == WRITE


def _stack_fault(seen: Seen) -> bool:
    """#GP where the address went through SS."""
    one, other = seen.one.run.fault, seen.other.run.fault
    vectors = (one and one.vector, other and other.vector)
    return seen.what in ("verdict", "fault") and vectors == (12, 13)


def _read_before_falling(seen: Seen) -> bool:
    """The first machine saw the read of an instruction whose write faulted; a CPU does neither."""
    fault = seen.one.run.fault
    apart = set(seen.one.rules) ^ set(seen.other.rules)
    wrote = fault is not None and fault.access is Access.WRITE
    return seen.what == "verdict" and wrote and apart == {"loads-owned"}


def _reserved_cr0(seen: Seen) -> bool:
    """The registers differ in reserved bits of CR0 alone."""
    one, other = seen.one.run.registers, seen.other.run.registers
    if seen.what == "verdict":
        return (
            "known-state" in seen.other.rules
            and bool(other.cr0 & ~CR0_DEFINED)
            and one.cr0 == other.cr0 & CR0_DEFINED
        )
    return seen.what == "registers" and one == replace(
        other, cr0=other.cr0 & CR0_DEFINED, cr2=one.cr2
    )


def _overwritten(seen: Seen) -> bool:
    """The copies hit the page that the walk runs in."""
    return "control-page-kept" in seen.one.rules


def _table_bits(seen: Seen) -> bool:
    """Memory differs in a page table's accessed and dirty bits alone."""
    if seen.what != "memory" or seen.at is None:
        return False
    handover = seen.handover
    trees = [handover.world.tables, handover.page_table_a.pages]
    trees += [handover.page_table_b.pages] if handover.page_table_b else []
    frame = seen.at & -PAGE_SIZE
    if not any(frame in pages for pages in trees):
        return False
    one, other = (_page(each.run, frame) for each in (seen.one, seen.other))
    return all(not (a ^ b) & ~ACCESSED_DIRTY for a, b in zip(one, other, strict=True))


def _stale_pdpte(seen: Seen) -> bool:
    """The walk of the call, or the one that faulted, used a PDPTE that is not what lies in memory
    (SDM 4.4.1)."""
    run = seen.one.run
    if run.fault is None or seen.handover.host.paging is not Paging.PAE:
        return False
    walks = [run.fault.visits, *(each.visits for each in run.translations[:1])]
    for first in (each[0] for each in walks if each and each[0].level == "PDPT"):
        held = run.memory.read(Extent.sized(first.at, 8))
        if int.from_bytes(held, "little") != first.entry:
            return True
    return False


def _hole(seen: Seen) -> bool:
    """The first machine ends a walk where nothing answers; a PC's bus answers something."""
    fault = seen.one.run.fault
    return fault is not None and fault.vector == MACHINE_CHECK


def _amd_reserves(seen: Seen) -> bool:
    """An entry of the highest level has bit 8 set: ignored by Intel's CPUs, reserved on AMD's."""
    handover = seen.handover
    if not handover.host.paging.long_mode:
        return False
    roots = [handover.page_table_a]
    roots += [handover.page_table_b] if handover.page_table_b else []
    # The root of a design that goes on in the current pgd is none of the handover's own pages.
    own = [each.pages[each.root] for each in roots if each.root in each.pages]
    entries = [np.frombuffer(page, "<u8") for page in own]
    return any(
        bool((every & np.uint64(BIT_8 | PRESENT) == np.uint64(BIT_8 | PRESENT)).any())
        for every in entries
    )


def _astray(seen: Seen) -> bool:
    """The first machine gave the walk up: it had left its own memory, or took too long."""
    return seen.one.run.stop is Stop.LIMIT


def _done_already(seen: Seen) -> bool:
    """Both end where nothing answers, and the CPU at full speed stands behind the instruction."""
    one, other = seen.one.run.fault, seen.other.run.fault
    if seen.what != "fault" or one is None or other is None:
        return False
    return (one.vector, other.vector) == (MACHINE_CHECK,) * 2 and one.reason == other.reason


def _firmware(seen: Seen) -> bool:
    """Memory below 1 MiB that the handover has nothing in."""
    if seen.what != "memory" or seen.at is None or seen.at >= LOW_MEMORY:
        return False
    one, other = (_page(each.run, seen.at & -PAGE_SIZE) for each in (seen.one, seen.other))
    return not any(a for a, b in zip(one, other, strict=True) if a != b)


def _reserved_not_present(seen: Seen) -> bool:
    """The same page fault with the RSVD bit, but for the P bit that has to come with it."""
    one, other = seen.one.run.fault, seen.other.run.fault
    if seen.what != "fault" or one is None or other is None:
        return False
    same = (one.rip, one.address, one.vector) == (other.rip, other.address, other.vector)
    reserved = bool((one.error_code or 0) & RESERVED)
    return same and reserved and (one.error_code or 0) ^ (other.error_code or 0) == PRESENT


def _page(run: Run, frame: int) -> bytes:

    return bytes(run.memory.read(Extent.sized(frame, PAGE_SIZE)))


KNOWN = (
    Known(
        "unicorn",
        "Unicorn checks no write of a control register, EFER, PDPTE or segment",
        _refused,
    ),
    Known(
        "unicorn",
        "Unicorn's CPU has 40 address bits, whatever the old kernel's has",
        _reserved_by_width,
    ),
    Known("unicorn", "Unicorn reads PDPTEs at each walk, a CPU when CR3 is written", _stale_pdpte),
    Known("unicorn", "Unicorn reads before it writes, and faults on the read", _read_first),
    Known(None, "the emulator reads before it writes, and has seen the read", _read_before_falling),
    Known("unicorn", "Unicorn raises #GP for the stack, not #SS", _stack_fault),
    Known("unicorn", "Unicorn keeps reserved bits of CR0", _reserved_cr0),
    Known(
        "unicorn",
        "Unicorn reads a block of instructions ahead, and faults before the first of it has run",
        _read_ahead,
    ),
    Known(
        None,
        "the running code was copied over, and a CPU fetches again when it likes",
        _overwritten,
    ),
    Known(
        "qemu",
        "QEMU checks no write of a control register, PDPTE or segment but LA57's",
        _refused,
    ),
    Known(
        "qemu", "QEMU's CPU has 40 address bits, whatever the old kernel's has", _reserved_by_width
    ),
    Known("qemu", "QEMU keeps reserved bits of CR0", _reserved_cr0),
    Known("qemu", "QEMU reads PDPTEs at each walk, a CPU when CR3 is written", _stale_pdpte),
    Known("qemu", "QEMU reads before it writes, and faults on the read", _read_first),
    Known("qemu", "what a hole answers is the bus's own affair", _hole),
    Known("qemu", "QEMU's page fault for a reserved bit has no P bit", _reserved_not_present),
    *(
        Known(name, "AMD's CPUs reserve bit 8 of an entry of the highest level", _amd_reserves)
        for name in ("kvm", "kvm-free", "qemu-kvm")
    ),
    Known("qemu-kvm", "what a hole answers is the bus's own affair", _hole),
    Known("qemu-kvm", "a PC's firmware has left something in low memory", _firmware),
    Known(None, "the emulator gives up a walk that has gone astray", _astray),
    Known("kvm-free", "KVM tells of a write to a hole once it is done", _done_already),
    Known("qemu", "a PC's firmware has left something in low memory", _firmware),
    Known(None, "our walker notes accessed and dirty bits and sets none", _table_bits),
)
