"""A load for kexec_load(2) whose places are found here and which nobody walks: in an initramfs too.

    boot_params, /proc/iomem --known--> Host, as far as segments ask ─┐
    the whole survey, where that does not tell all ───────────────────┴─▶ destinations ─▶ Load

Rules: only the standard library is imported, and of the house what finding places takes: the rest
of a survey (symbols, tables, registers) is for a walk.  The places are those that the whole survey
leads to.  No file is opened but through the port.
"""

from __future__ import annotations

from dataclasses import replace

from tightrope import image
from tightrope.abi import boot, efi
from tightrope.deeds.loading import Files
from tightrope.memory import Extent, MemoryMap, Phys, RegionKind, Virt, regions, subtract
from tightrope.model import Image, OnDamage, Paging
from tightrope.model.host import Basis, Cpu, DirectMap, Fact, Host, KernelText, Named
from tightrope.perform.linux.digest import eight_at_once
from tightrope.perform.linux.state import Files as Door
from tightrope.perform.linux.state import State
from tightrope.perform.load_file import Load, Taker, ordered
from tightrope.plan.destinations import destinations
from tightrope.plan.request import Request

BOOT_PARAMS = "/sys/kernel/boot_params/data"
"""The zero page that this kernel was started with (ABI/testing/sysfs-kernel-boot_params)."""
SCREEN_INFO = slice(0, 0x40)
NOWHERE = Extent(0, 0)
UNASKED = "nobody walks this plan"


def load(
    files: Files,
    state: State,
    read: Door,
    *,
    unpack: bool,
    verify: OnDamage | None,
) -> Load:
    """The load that a plan for this machine gives, without a rehearsal.  Raises TightropeError."""
    new, request = asked(files, unpack=unpack)
    old = None if files.crash else known(state, read)
    if old is None:
        from tightrope import host

        captured = host.capture(host.read_tree(symbols=False))
        old = host.read(captured.toml, "this machine")
    request = replace(request, verify=verify, digest=eight_at_once(state.cpu_flags))
    placed = destinations(new, old, request).placed
    return Load(
        segments=ordered(placed.segments),
        entry=int(placed.entry),
        legacy=False,
        crash=files.crash,
        rehearsed="",
        taker=Taker.LINUX,
    )


def asked(files: Files, *, unpack: bool) -> tuple[Image, Request]:
    """The new kernel, and what is asked of a plan for it.  Raises TightropeError."""
    new = image.read(files.kernel, files.kernel_name)
    if unpack:
        new = image.unpacked(new)
    request = Request(
        initrd=files.initrd,
        initrd_source=files.initrd_name,
        command_line=files.command_line,
        crash=files.crash,
        from_top=True,
    )
    return new, request


def known(state: State, read: Door) -> Host | None:
    """This machine as far as the places of a plain load depend on it; None where the two files do
    not tell all of that: EFI, a memory map that goes on elsewhere, addresses that are hidden.
    """
    page = read(BOOT_PARAMS) or b""
    if len(page) < boot.BOOT_PARAMS_SIZE or not state.ram:
        return None
    signature = page[efi.EFI_INFO : efi.EFI_INFO + 4]
    count = boot.field("e820_entries").read(page)
    if any(signature) or not 0 < count < boot.E820_MAX_ENTRIES:
        return None
    rows = boot.e820_rows(page)
    memory = MemoryMap(
        regions((Extent.sized(at, size), RegionKind[kind]) for at, size, kind in rows)
    )
    unused = subtract(
        memory.ram, [*(each.page_aligned() for each in state.ram), Extent(0, 1 << 20)]
    )
    text = state.text or NOWHERE
    return Host(
        source="this machine",
        paging=Paging.LA57 if "la57" in state.cpu_flags else Paging.X86_64,
        cpu=Cpu(physical_bits=52, nx=True, pse=True, pge=True, gbpages=False, la57=False),
        cr0=0,
        cr4=0,
        efer=0,
        memory=memory,
        text=KernelText(virt=Virt(0), phys=Phys(text.start), size=text.size),
        relocation=None,
        direct_map=DirectMap(virt=Virt(0), page_size=4096),
        private=NOWHERE,
        busy=tuple(Named(extent=each, what="not this kernel's") for each in unused),
        crash_region=state.crash_region,
        crash_memory=tuple(
            Named(extent=each, what="the low part of the crash region")
            for each in state.crash_regions[:-1]
        ),
        firmware=(),
        rsdp=Phys(rsdp) if (rsdp := boot.field("acpi_rsdp_addr").read(page)) else None,
        low_mappings=(),
        screen=page[SCREEN_INFO] if any(page[SCREEN_INFO]) else b"",
        facts=tuple(
            Fact(field=name, basis=Basis.ASSUMED, source=UNASKED)
            for name in ("registers", "relocation", "direct_map", "private", "cpu")
        ),
    )
