"""Rules about the memory that a Linux kernel has to live on, as its command line lets it.

    there   the RAM that is left of what it is told, and the kernel itself, which it always keeps
    least   what is known to be needed: the decompressor's room, the initrd packed and unpacked, and
            what a kernel takes until its init runs
    wanted  what has been seen to be needed on some machine

Rules: what mem= and memmap= say is worked out in `told.limits`; who is told less or more than there
is by the map itself is asked by `memory-told`.  Source: Linux
Documentation/admin-guide/kernel-parameters.txt, mem=, memmap=; arch/x86/kernel/setup.c.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tightrope.abi.boot import XLoadFlags
from tightrope.check.case import Case, owner
from tightrope.check.placed import runs_in
from tightrope.check.rule import Found, advice, finding, rule
from tightrope.check.told.limits import Limited, arguments, limited
from tightrope.check.told.memory_map import FIRST_MIB, kept_for_a_dump, usable
from tightrope.check.told.reading import AsLoaded, told_as_loaded
from tightrope.memory import PAGE_SIZE, TOP, Extent, align_down, align_up, subtract, union
from tightrope.model import SegmentRole, Step

MIB = 1 << 20
LEAST, ENOUGH = 8 * MIB, 24 * MIB
"""What a kernel takes besides until its init runs: no less than the first, and seldom more than
the second.

Seen in QEMU on a PC with one CPU and an initrd of 2 MiB that unpacks to as much, region by region
in steps of 2 MiB: above init_size and initrd Debian's kernels came to their init with 8 MiB and
more (6.12), with 15 (6.1 for 686-pae), 18 (7.3) and 19 (6.1 for amd64); with 2 MiB less they ran
out of memory.
"""
LOW = Extent(0x1_0000, 0x9_F000)
"""Where Linux puts its real-mode trampoline: it keeps the first 64 KiB for the BIOS, and what lies
from the EBDA on (arch/x86/kernel/setup.c, early_reserve_memory; kernel/ebda.c)."""
LEAST_LOW = {True: 28 << 10, False: 12 << 10}
"""What the trampoline takes in one piece, by whether the kernel is of 64 bits: without it the
kernel panics ("Real mode trampoline was not allocated", arch/x86/realmode/init.c).

Seen in QEMU with memmap= leaving so much of [64 KiB, 640 KiB): Debian's amd64 kernels of 6.1 and
7.3 panic with 24 KiB and go on with 28, 6.1 for 686-pae with 8 and 16.
"""
SPARE = 16 * MIB
"""The same where it is the root file system's limit that counts: between what surely fails and
what holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """Bytes until init runs."""

    init_size: int
    packed: int
    files: int
    """What the initrd unpacks to."""
    rooted: bool
    """The files lie in a ramfs, which takes all of the memory; in a tmpfs, which takes half of it,
    without."""

    @property
    def halved(self) -> int:
        """`files`, where they lie in a tmpfs."""
        return 0 if self.rooted else self.files

    @property
    def least(self) -> int:
        """Surely."""
        return self.init_size + self.packed + self.files + max(LEAST, self.halved)

    @property
    def wanted(self) -> int:
        """On some machines."""
        spare = max(ENOUGH, self.halved + SPARE if self.halved else 0)
        return self.init_size + self.packed + self.files + spare

    @property
    def evidence(self) -> dict[str, str]:
        """What they are made of, label to text."""
        half = ", in a tmpfs that takes half of the memory" if self.halved > LEAST else ""
        return {
            "decompressor": f"{mib(self.init_size)} (init_size)",
            "initrd": f"{mib(self.packed)} packed, {mib(self.files)} unpacked{half}",
            "to init": f"{mib(LEAST)} at least",
        }


@rule(
    "memory-limited",
    Step.PREPARE,
    says="What mem= and memmap= call RAM is RAM that the new kernel may use.",
    source="Linux arch/x86/kernel/e820.c, parse_memmap_one; admin-guide/kernel-parameters.txt, memmap=",
    mend="leave memmap= out, or name in it only what the new kernel may use",
)
def memory_limited(case: Case) -> Iterator[Found]:
    """What the command line adds to the map, against what is the new kernel's."""
    found = case.once(_limited)
    told = told_as_loaded(case)
    if found is None or told is None or not found.said:
        return
    # Linux keeps the first MiB to itself, whatever is said of it (setup.c, reserve_real_mode,
    # trim_bios_range).
    added = subtract(found.ram, [*told.ram, FIRST_MIB])
    memory = AsLoaded(case.handover)
    wrong = subtract(added, usable(case, told, memory) or added)
    for extent in wrong[:1]:
        kept = kept_for_a_dump(told, memory) if case.intent.crash else None
        if any(extent.start in each for each in kept or ()):
            what = "what the dump is found by: the core header, or what low memory was saved to"
        elif case.intent.crash and not _of_the_region(case, extent):
            what = f"not the crash kernel's: {owner(case, extent.start)}"
        else:
            what = owner(case, extent.start)
        yield finding(
            f"the command line calls {extent} RAM, and it is {what}",
            evidence=line_says(case),
        )


@rule(
    "memory-room",
    Step.PREPARE,
    says="With what its command line leaves it, the new kernel has enough memory to reach its init.",
    source="Linux arch/x86/kernel/e820.c, parse_memopt; Documentation/arch/x86/boot.rst, init_size",
    mend="leave mem= and memmap= out, or give the machine more memory",
)
def memory_room(case: Case) -> Iterator[Found]:
    """Low memory for any kernel, and all of it for a plain kexec: whether a crash kernel has enough
    is asked of its region."""
    if not case.boots_linux:
        return
    low = list(_low_room(case))
    yield from low
    if low or case.intent.crash:
        return
    there, said = there_is(case, case.host.memory.ram)
    if case.intent.image.payload is None and not said:
        return
    needed = needed_by(case)
    if needed.wanted <= there:
        return
    evidence = {**needed.evidence, **line_says(case)}
    left = f"that {said} leaves" if said else "of this machine"
    mend = (
        f"leave {said.partition('=')[0]}= out, or leave {mib(needed.wanted)} with it"
        if said
        else f"this kernel takes a machine with {mib(needed.wanted)}"
    )
    if needed.least > there:
        yield finding(
            f"the new kernel has the {mib(there)} of memory {left}, and needs at least"
            f" {mib(needed.least)} until its init runs",
            evidence=evidence,
            mend=mend,
        )
    else:
        yield advice(
            f"the new kernel has the {mib(there)} of memory {left}, which may be too little:"
            f" kernels have been seen to want {mib(needed.wanted)} until their init runs",
            evidence=evidence,
            mend=mend,
        )


def _low_room(case: Case) -> Iterator[Found]:
    """Memory below 640 KiB, of what the new kernel is told and its command line leaves."""
    found = case.once(_limited)
    image = case.intent.image
    if found is None or (image.payload is None and not found.said):
        return
    pieces = subtract(found.ram, [Extent(0, LOW.start), Extent(LOW.end, TOP)])
    sizes = [align_down(each.end, PAGE_SIZE) - align_up(each.start, PAGE_SIZE) for each in pieces]
    least = LEAST_LOW[bool(image.xloadflags & XLoadFlags.XLF_KERNEL_64)]
    if max(sizes, default=0) < least:
        left = f" that {found.said} leaves" if found.said else ""
        yield finding(
            f"of the memory below 640 KiB{left} the new kernel has no {least >> 10} KiB in one piece"
            f" between {LOW.start:#x} and {LOW.end:#x}, and panics without: its trampoline lies there",
            evidence=line_says(case),
            mend="leave it some of the memory below 640 KiB",
        )


def there_is(case: Case, memory: Sequence[Extent]) -> tuple[int, str]:
    """Bytes of some memory that the new kernel may use, and what of its command line takes away
    others.

    What the kernel itself lies in Linux adds where it was taken away (arch/x86/kernel/setup.c,
    e820_add_kernel_range): no more than the room that its header asks for.
    """
    found = case.once(_limited)
    if found is None or not found.said:
        return sum(each.size for each in memory), ""
    itself = Extent.sized(
        runs_in(case).end - case.intent.image.init_size, case.intent.image.init_size
    )
    used = union([*subtract(found.ram, [FIRST_MIB]), itself])
    return sum(each.size for each in subtract(memory, subtract(memory, used))), found.said


def needed_by(case: Case) -> Needed:
    """What this kernel needs with its initrd and its command line."""
    image = case.intent.image
    packed = sum(len(each.data) for each in case.intent.segments if each.role is SegmentRole.INITRD)
    files = (packed if case.unpacked is None else case.unpacked) if packed else 0
    # A root file system of tmpfs takes half of the memory that is there (mm/shmem.c); root= makes
    # it ramfs (init/do_mounts.c, init_rootfs), which takes all.  6.12 says "write error" to one
    # that is larger.
    told = told_as_loaded(case)
    rooted = told is not None and any(name == b"root" for name, _ in arguments(told.line))
    return Needed(init_size=image.init_size, packed=packed, files=files, rooted=rooted)


def mib(size: int) -> str:
    """A size as text."""
    return f"{size / MIB:.1f} MiB ({size:#x})"


def _limited(case: Case) -> Limited | None:
    told = told_as_loaded(case)
    return limited(told) if told is not None and case.boots_linux else None


def _of_the_region(case: Case, extent: Extent) -> bool:
    region = case.host.crash_region
    own = [] if region is None else [region]
    return any(
        each.covers(extent) for each in (*own, *(one.extent for one in case.host.crash_memory))
    )


def line_says(case: Case) -> dict[str, str]:
    """What the command line says of memory, as the new kernel reads it: evidence, or nothing."""
    told = told_as_loaded(case)
    if told is None:
        return {}
    said = [(name, value) for name, value in arguments(told.line) if name in (b"mem", b"memmap")]
    text = b" ".join(name + b"=" + (value or b"") for name, value in said)
    return {"command line": text.decode("utf-8", "backslashreplace")} if text else {}
