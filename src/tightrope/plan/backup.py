"""The backup of a crash kexec: what the old kernel keeps in low memory, saved before it is written
over.

    low memory   0 .. 640 KiB: the new kernel's RAM for trampolines, in its memory map since ever
    backup       its pages, kept in the crash region; the core header's PT_LOAD of low memory leads here
    entry stub   |stub          |..0x800  |back_up, rows  |...stack|   one page

Rules: the copy is the entry stub's, because the list of a crash image is just IND_DONE.  A new
kernel always writes low memory; what matters is whether the *old* one had anything there.  Linux
before 5.5 may have; since 6f599d84231f ("x86/kdump: Always reserve the low 1M when the crashkernel
option is specified") a kernel with a crash region keeps nothing of its own in the first MiB, and
7c321eb2b843 removed the backup from kexec_file_load().  kexec-tools copies still.
"""

from __future__ import annotations

from collections.abc import Sequence

from tightrope.errors import PlanError
from tightrope.memory import Extent, Phys, subtract, union
from tightrope.model import Backup, Host, Segment, SegmentRole
from tightrope.plan.placement import FIRST_MIB
from tightrope.plan.room import Room
from tightrope.routines import BACK_UP_I386, BACK_UP_X86_64, read

LOW_MEMORY = Extent(0, 640 << 10)
"""The decompressor reads the BIOS data area at 0x400 and puts its 5-level trampoline below 640 KiB
(Linux arch/x86/boot/compressed/pgtable_64.c, paging_prepare); kexec-tools' BACKUP_SRC_END."""
ROUTINE_AT = 0x800
"""Where the routine lies in the entry stub's page: behind every stub, below every stack."""
ROUTINE_END = 0xF00
ROW_SIZE = 24


def within(extent: Extent, extents: Sequence[Extent]) -> tuple[Extent, ...]:
    """What of `extents` lies in `extent`."""
    return subtract([extent], subtract([extent], extents))


def keeps_low_memory(host: Host) -> bool:
    """Whether the old kernel has anything in the first MiB, as far as the host says."""
    own = [Extent.sized(host.text.phys, host.text.size), host.private]
    own += [each.extent for each in (*host.busy, *host.crash_notes)]
    return any(FIRST_MIB.overlaps(each) for each in own)


def low_pages(host: Host) -> tuple[Extent, ...]:
    """Every page that has RAM below 640 KiB and is not the crash region's."""
    pages = union(each.page_aligned() for each in within(LOW_MEMORY, host.memory.ram))
    return subtract(pages, [host.crash_region] if host.crash_region else [])


def back_up(
    host: Host, wanted: bool | None, room: Room
) -> tuple[list[Segment], tuple[Backup, ...]]:
    """The segment that low memory is saved in and what goes where, or nothing where none is wanted.

    None wants it where the host says that there is something.  Raises PlanError without room.
    """
    if wanted is None:
        wanted = keeps_low_memory(host)
    pages = low_pages(host) if wanted else ()
    if not pages:
        return [], ()
    place = room.small(SegmentRole.BACKUP, sum(each.size for each in pages))
    why = "what the old kernel has below 640 KiB"
    out, at = [], place.start
    for each in pages:
        out.append(Backup(source=each, copy=Phys(at)))
        at += each.size
    return [Segment(role=SegmentRole.BACKUP, destination=place, data=b"", why=why)], tuple(out)


def with_routine(
    stub: bytes,
    bits: int,
    stub_at: Phys,
    backup: Sequence[Backup],
    kernel_entry: Phys,
    source: str,
) -> tuple[bytes, Phys]:
    """The stub's page with the routine in it, and where the stub has to jump in place of the
    kernel.

    `source` names the host.  Raises PlanError when low memory is in more pieces than the page has
    room for.
    """
    routine = read(BACK_UP_X86_64 if bits == 64 else BACK_UP_I386)
    assert len(stub) <= ROUTINE_AT
    data = bytearray(stub.ljust(ROUTINE_AT, b"\0") + routine.data)
    at = ROUTINE_AT + routine.symbols["kernel_entry"]
    data[at : at + 8] = kernel_entry.to_bytes(8, "little")
    for each in backup:
        for word in (each.source.start, each.copy, each.source.size // 4):
            data += word.to_bytes(8, "little")
    data += bytes(ROW_SIZE)
    if len(data) > ROUTINE_END:
        raise PlanError(
            f"low memory is in {len(backup)} pieces, more than a backup has room for",
            source=source,
            field="memory",
            limit=(ROUTINE_END - ROUTINE_AT - len(routine.data)) // ROW_SIZE - 1,
        )
    return bytes(data), Phys(stub_at + ROUTINE_AT)
