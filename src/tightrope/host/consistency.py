"""What must be true between the fields of a host description.

Rules: each paging mode's demands are data (`model.modes`); the checks read them.  An error names the
field that is easiest to mend.  Sources: SDM 4.1.1 (the paging modes), 3.3.7.1 in volume 1 (canonicality).
"""

from __future__ import annotations

from tightrope.host.toml import Reader
from tightrope.memory import PAGE_SIZE, Extent, covered
from tightrope.model import Host, Paging
from tightrope.model.modes import MODES
from tightrope.x86 import cpu as x86


def check(host: Host, top: Reader, registers: Reader) -> None:
    """Raise HostError where two fields contradict each other."""
    _places(host, top)
    _addresses(host, top)
    _relocation(host, top)
    _registers(host, top, registers)


def _places(host: Host, top: Reader) -> None:
    """Where things lie in physical memory."""
    ram = host.memory.ram
    text = Extent.sized(host.text.phys, host.text.size)
    for field, extent in (("text", text), ("private", host.private)):
        if not covered(extent, ram):
            top.refuse(field, f"{extent} is not all RAM")
    if text.overlaps(host.private):
        top.refuse("private", f"{host.private} overlaps the kernel text {text}")
    mapped = Extent(0, host.direct_map.size)
    if not mapped.covers(host.private):
        top.refuse(
            "private", f"{host.private} is not in the direct map, which ends at {mapped.end:#x}"
        )
    if host.crash_region is not None:
        if not covered(host.crash_region, ram):
            top.refuse("crash_region", f"{host.crash_region} is not all RAM")
        if host.crash_region.overlaps(text) or host.crash_region.overlaps(host.private):
            top.refuse("crash_region", f"{host.crash_region} overlaps the old kernel itself")
    taken = {"the kernel text": text, "private": host.private}
    if host.crash_region is not None:
        taken["the crash region"] = host.crash_region
    for number, note in enumerate(host.crash_notes):
        field = f"crash_note[{number}]"
        if not covered(note.extent, ram):
            top.refuse(field, f"{note.extent} is not all RAM")
        for whose, extent in taken.items():
            if note.extent.overlaps(extent):
                top.refuse(field, f"{note.extent} overlaps {whose} {extent}")
        taken[field] = note.extent
    for number, busy in enumerate(host.busy):
        if not covered(busy.extent, ram):
            top.refuse(f"busy[{number}]", f"{busy.extent} is not all RAM")
    beyond = 1 << host.cpu.physical_bits
    for field, end in (
        *((f"firmware[{n}]", each.extent.end) for n, each in enumerate(host.firmware)),
        *((f"mapping[{n}].phys", e.phys + e.size) for n, e in enumerate(host.low_mappings)),
        ("rsdp", 0 if host.rsdp is None else host.rsdp + 1),
    ):
        if end > beyond:
            top.refuse(field, f"{end - 1:#x} is beyond cpu.physical_bits", limit=beyond)


def _addresses(host: Host, top: Reader) -> None:
    """Linear addresses exist in the mode, and so do their ends."""
    mode = MODES[host.paging]
    long_mode = bool(mode.efer_on)
    top_bit = mode.format.virtual_bits - 1
    direct = min(host.memory.ram[-1].end, host.direct_map.size)
    ranges = [
        ("text.virt", host.text.virt, host.text.size),
        ("direct_map.virt", host.direct_map.virt, direct),
        *((f"mapping[{n}].virt", each.virt, each.size) for n, each in enumerate(host.low_mappings)),
    ]
    if host.relocation is not None:
        ranges.insert(0, ("relocation", host.relocation, PAGE_SIZE))
    for field, virt, size in ranges:
        if not long_mode:
            if virt + size > 1 << 32:
                hint = "; give direct_map.size, the end of lowmem" if field[0] == "d" else ""
                top.refuse(field, f"{virt:#x} + {size:#x} runs past 4 GiB{hint}", limit=1 << 32)
            continue
        if virt >> top_bit not in (0, (1 << (64 - top_bit)) - 1):
            levels = len(mode.format.levels)
            top.refuse(field, f"{virt:#x} is not canonical with {levels} levels")
        if virt + size - 1 >> top_bit != virt >> top_bit:
            top.refuse(field, f"{virt:#x} + {size:#x} runs out of the canonical addresses")


def _relocation(host: Host, top: Reader) -> None:
    """V is somewhere where the old kernel has it mapped."""
    if host.relocation is None:
        return
    page = Extent.sized(host.relocation, PAGE_SIZE)
    homes = [
        Extent.sized(host.text.virt, host.text.size),
        *(Extent.sized(each.virt, each.size) for each in host.low_mappings),
    ]
    if not any(home.covers(page) for home in homes):
        top.refuse(
            "relocation",
            f"{host.relocation:#x} is not inside the kernel text {homes[0]}"
            + (" or a [[mapping]]" if len(homes) > 1 else ""),
        )


def _registers(host: Host, top: Reader, registers: Reader) -> None:
    """The control registers are those of the mode, and of a kernel that can kexec."""
    mode, name = MODES[host.paging], host.paging.value
    for field, value, on, off, names in (
        ("cr0", host.cr0, x86.CR0_PG | x86.CR0_PE, 0, x86.CR0_NAMES),
        ("cr4", host.cr4, mode.cr4_on, mode.cr4_off, x86.CR4_NAMES),
        ("efer", host.efer, mode.efer_on, mode.efer_off, x86.EFER_NAMES),
    ):
        lacks = [bit for bit, mask in names.items() if on & mask and not value & mask]
        has = [bit for bit, mask in names.items() if off & value & mask]
        if lacks:
            registers.refuse(
                field, f"{value:#x} lacks {' and '.join(lacks)}, which {name} paging needs"
            )
        if has:
            registers.refuse(field, f"{value:#x} has {' and '.join(has)}, and paging says {name}")
    if host.cr4 & x86.CR4_LA57 and not host.cpu.la57:
        registers.refuse("cr4", "LA57 is set, and cpu.la57 is false")
    if host.cr4 & x86.CR4_VMXE:
        registers.refuse(
            "cr4", "VMXE is set: leave VMX operation before kexec, or CR4 cannot be cleared"
        )
    unknown = host.cr4 & ~x86.CR4_DEFINED
    if unknown:
        registers.refuse("cr4", f"bits {unknown:#x} are reserved")
    if host.efer & x86.EFER_NXE and not host.cpu.nx:
        registers.refuse("efer", "NXE is set, and cpu.nx is false")
    if host.paging is Paging.I386 and host.cpu.pse and not host.cr4 & x86.CR4_PSE:
        registers.refuse("cr4", f"{host.cr4:#x} lacks PSE, and cpu.pse is true")
