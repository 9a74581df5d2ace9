"""What must be true between the fields of a host description.

Rules: each paging mode's demands are data (`model.modes`); the checks read them.  An error names
the field that is easiest to mend.  Sources: SDM 4.1.1 (the paging modes), 3.3.7.1 in volume 1
(canonicality).
"""

from __future__ import annotations

from tightrope.host import efi
from tightrope.host.schema import At
from tightrope.memory import PAGE_SIZE, Extent, covered
from tightrope.model import Confidential, CpuVendor, Host, Paging
from tightrope.model.modes import MODES, text_page_size
from tightrope.x86 import cpu as x86
from tightrope.x86.control import CR4, EFER, Vendor


def check(host: Host) -> None:
    """Raise HostError where two fields contradict each other."""
    at = At(host.source)
    _page_sizes(host, at)
    _places(host, at)
    _addresses(host, at)
    _relocation(host, at)
    _registers(host, at / "registers")


def _page_sizes(host: Host, top: At) -> None:
    """Text and direct map are mapped in pages that the mode and the CPU have."""
    if not host.memory.ram:
        (top / "memory").refuse("there is no RAM")
    large = text_page_size(host.paging, pse=host.cpu.pse)
    size = host.direct_map.page_size
    sizes = MODES[host.paging].format.page_sizes(gbpages=host.cpu.gbpages)
    if size not in sizes or (size > PAGE_SIZE and not host.cpu.pse):
        (top / "direct_map.page_size").refuse(f"{size:#x} is not a page size of this CPU")
    for field, value, multiple in (
        ("text.virt", host.text.virt, large),
        ("text.phys", host.text.phys, large),
        ("text.size", host.text.size, large),
        ("direct_map.virt", host.direct_map.virt, size),
    ):
        if value % multiple:
            (top / field).refuse(f"{value:#x} is not a multiple of {multiple:#x}")


def _places(host: Host, top: At) -> None:
    """Where things lie in physical memory."""
    ram = host.memory.ram
    text = Extent.sized(host.text.phys, host.text.size)
    for field, extent in (("text", text), ("private", host.private)):
        if not covered(extent, ram):
            (top / field).refuse(f"{extent} is not all RAM")
    if text.overlaps(host.private):
        (top / "private").refuse(f"{host.private} overlaps the kernel text {text}")
    mapped = Extent(0, host.direct_map.size)
    if not mapped.covers(host.private):
        (top / "private").refuse(
            f"{host.private} is not in the direct map, which ends at {mapped.end:#x}"
        )
    if host.crash_region is not None:
        if not covered(host.crash_region, ram):
            (top / "crash_region").refuse(f"{host.crash_region} is not all RAM")
        if host.crash_region.overlaps(text) or host.crash_region.overlaps(host.private):
            (top / "crash_region").refuse(f"{host.crash_region} overlaps the old kernel itself")
    taken = {"the kernel text": text, "private": host.private}
    if host.crash_region is not None:
        taken["the crash region"] = host.crash_region
    for number, note in enumerate(host.crash_notes):
        field = f"crash_note[{number}]"
        if not covered(note.extent, ram):
            (top / field).refuse(f"{note.extent} is not all RAM")
        for whose, extent in taken.items():
            if note.extent.overlaps(extent):
                (top / field).refuse(f"{note.extent} overlaps {whose} {extent}")
        taken[field] = note.extent
    for number, busy in enumerate(host.busy):
        if not covered(busy.extent, ram):
            (top / f"busy[{number}]").refuse(f"{busy.extent} is not all RAM")
    for number, low in enumerate(host.crash_memory):
        field = f"crash_memory[{number}]"
        if not covered(low.extent, ram):
            (top / field).refuse(f"{low.extent} is not all RAM")
        for whose, extent in taken.items():
            if low.extent.overlaps(extent):
                (top / field).refuse(f"{low.extent} overlaps {whose} {extent}")
    for number, kept in enumerate(host.firmware):
        for whose, extent in (("the kernel text", text), ("private", host.private)):
            if kept.extent.overlaps(extent):
                (top / f"firmware[{number}]").refuse(f"{kept.extent} overlaps {whose} {extent}")
    beyond = 1 << host.cpu.physical_bits
    for field, end in (
        *((f"preserved[{n}]", each.extent.end) for n, each in enumerate(host.preserved)),
        *((f"firmware[{n}]", each.extent.end) for n, each in enumerate(host.firmware)),
        *((f"mapping[{n}].phys", e.phys + e.size) for n, e in enumerate(host.low_mappings)),
        ("rsdp", 0 if host.rsdp is None else host.rsdp + 1),
        *(() if host.efi is None else efi.places(host.efi)),
    ):
        if end > beyond:
            (top / field).refuse(f"{end - 1:#x} is beyond cpu.physical_bits", limit=beyond)


def _addresses(host: Host, top: At) -> None:
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
                (top / field).refuse(f"{virt:#x} + {size:#x} runs past 4 GiB{hint}", limit=1 << 32)
            continue
        if virt >> top_bit not in (0, (1 << (64 - top_bit)) - 1):
            levels = len(mode.format.levels)
            (top / field).refuse(f"{virt:#x} is not canonical with {levels} levels")
        if virt + size - 1 >> top_bit != virt >> top_bit:
            (top / field).refuse(f"{virt:#x} + {size:#x} runs out of the canonical addresses")


def _relocation(host: Host, top: At) -> None:
    """V is somewhere where the old kernel has it mapped."""
    if host.relocation is None:
        return
    page = Extent.sized(host.relocation, PAGE_SIZE)
    homes = [
        Extent.sized(host.text.virt, host.text.size),
        *(Extent.sized(each.virt, each.size) for each in host.low_mappings),
    ]
    if not any(home.covers(page) for home in homes):
        (top / "relocation").refuse(
            f"{host.relocation:#x} is not inside the kernel text {homes[0]}"
            + (" or a [[mapping]]" if len(homes) > 1 else ""),
        )


def _registers(host: Host, registers: At) -> None:
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
            (registers / field).refuse(
                f"{value:#x} lacks {' and '.join(lacks)}, which {name} paging needs"
            )
        if has:
            (registers / field).refuse(
                f"{value:#x} has {' and '.join(has)}, and paging says {name}"
            )
    if host.cr4 & x86.CR4_LA57 and not host.cpu.la57:
        (registers / "cr4").refuse("LA57 is set, and cpu.la57 is false")
    if host.cr4 & x86.CR4_VMXE:
        (registers / "cr4").refuse(
            "VMXE is set: leave VMX operation before kexec, or CR4 cannot be cleared"
        )
    for field, value, names in (
        ("cr4", host.cr4, x86.CR4_NAMES),
        ("efer", host.efer, x86.EFER_NAMES),
    ):
        unknown = value & ~sum(names.values())
        if unknown:
            (registers / field).refuse(f"bits {unknown:#x} are reserved")
    for vendor, whose in ((Vendor.INTEL, CpuVendor.INTEL), (Vendor.AMD, CpuVendor.AMD)):
        for field, value, bits in (("cr4", host.cr4, CR4), ("efer", host.efer, EFER)):
            alien = [e.name for e in bits if value & e.mask and not e.vendor & vendor]
            if alien and host.cpu.vendor is whose:
                (registers / field).refuse(
                    f"{value:#x} has {' and '.join(alien)}, which no CPU of {whose} has"
                )
    if host.cpu.guest is Confidential.TDX and not host.cr4 & x86.CR4_MCE:
        (registers / "cr4").refuse("lacks MCE, which is always set in a TDX guest")
    _together(host, registers)
    if host.efer & x86.EFER_NXE and not host.cpu.nx:
        (registers / "efer").refuse("NXE is set, and cpu.nx is false")
    for name, can, mask in (("PGE", host.cpu.pge, x86.CR4_PGE), ("PSE", host.cpu.pse, x86.CR4_PSE)):
        if host.cr4 & mask and not can:
            (registers / "cr4").refuse(f"{name} is set, and cpu.{name.lower()} is false")
    if host.paging is Paging.I386 and host.cpu.pse and not host.cr4 & x86.CR4_PSE:
        (registers / "cr4").refuse(f"{host.cr4:#x} lacks PSE, and cpu.pse is true")


def _together(host: Host, registers: At) -> None:
    """No CPU has one of them as it is while the others are as they are (SDM volume 2B, MOV to CR0
    and CR4)."""
    now = x86.ControlState(
        cr0=host.cr0,
        cr3=0,
        cr4=host.cr4,
        efer=host.efer,
        code64=bool(host.efer & x86.EFER_LMA),
        physical_bits=host.cpu.physical_bits,
        la57=host.cpu.la57,
        facts=host.cpu.facts,
    )
    wrong = x86.impossible(now)
    if wrong is not None:
        field, reason = wrong
        (registers / field).refuse(reason)
