"""Where kexec_file_load puts a bzImage: Linux's own placement on x86_64, worked out without asking
it.

    order          from            what
    core header    0 up            of a crash load: bottom up, with room for CPUs and memory to come
    purgatory      0x3000 up       top down
    boot_params    0x3000 up       the page, the command line, room for EFI's map, EFI and a seed
    kernel         1 MiB up        init_size, at kernel_alignment
    initrd         16 MiB up       below what is taken already

Each goes as high as it fits in one range of System RAM, in a crash load of the crash region alone.
Up to 6.7 ranges are looked through from the lowest up and the page below a range's end is lost;
from 6.8 on from the highest down (commit bf454ec31add, and "kexec_file: fix incorrect temp_start
value in locate_mem_hole_top_down()").

Sources: arch/x86/kernel/kexec-bzimage64.c; arch/x86/kernel/crash.c (crash_load_segments,
crash_setup_memmap_entries); kernel/kexec_file.c; measured on 7.3.4 (docs/loaders.md).

Rules: addresses and bytes; the purgatory's are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tightrope.abi import boot, elf
from tightrope.abi.efi import EFI_INFO, INFO
from tightrope.abi.kexec import ELFCOREHDR_ROOM
from tightrope.errors import PlanError, raw
from tightrope.memory import (
    PAGE_SIZE,
    Extent,
    MemoryMap,
    Region,
    RegionKind,
    align_down,
    align_up,
    subtract,
)
from tightrope.model import Buffer, Host, Image, Protocol
from tightrope.model.recording import HeldSegment
from tightrope.plan.backup import within
from tightrope.plan.boot_params import rows_of
from tightrope.plan.crash import core_header, with_core_header
from tightrope.plan.placement import FIRST_MIB
from tightrope.plan.setup_data import efi_info, node, runtime_map

PURGATORY_FROM = PARAMS_FROM = 0x3000
INITRD_FROM = 0x100_0000
SETUP_DATA_HEAD, EFI_SETUP_DATA, SEED = 16, 96, 32
"""sizeof(struct setup_data), sizeof(struct efi_setup_data), RNG_SEED_LENGTH."""
MEMORY_RANGES = 8192
"""CONFIG_CRASH_MAX_MEMORY_RANGES, whose default nobody changes (arch/x86/Kconfig)."""
FROM_THE_TOP = (6, 8)
"""The first Linux that begins with the highest range."""
MOST_EXTENDED = 0xFC00
"""KiB: what screen_info.ext_mem_k holds at the most."""
EXT_MEM_K, ALT_MEM_K = 0x002, 0x1E0
"""screen_info.ext_mem_k and alt_mem_k: KiB of RAM above 1 MiB
(Documentation/arch/x86/zero-page.rst)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """What Linux would hand to itself, in its order; the purgatory's words are filled in."""

    segments: tuple[HeldSegment, ...]
    entry: int


Laid = Callable[[Extent, int, int, Sequence[HeldSegment]], tuple[bytes, int]]
"""(where, boot_params, the kernel's entry, what is digested) -> the purgatory's bytes, its entry."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Headers:
    """How a kernel keeps the core header of a crash load."""

    cpus: int | None = None
    """With CONFIG_CRASH_HOTPLUG (6.6 and later) how many CPUs and as much memory may still come."""

    @property
    def room(self) -> int:
        """Bytes that it has at the least."""
        rows = 2 + (self.cpus or 0) + MEMORY_RANGES
        if not self.cpus or rows >= elf.PN_XNUM:
            return 0
        return elf.HEADER[64].size + rows * elf.PROGRAM_HEADER[64].size

    @property
    def digested(self) -> bool:
        """Whether the purgatory looks at it: not where it may change (commit f7cc804a9fd4)."""
        return self.cpus is None


def file_load(
    image: Image,
    host: Host,
    *,
    release: tuple[int, int],
    initrd: Buffer | None,
    command_line: str,
    size: int,
    purgatory: Laid,
    headers: Headers | None = None,
) -> Placed:
    """The segments of a load; `size` is the purgatory's, and with `headers` it is one for a crash.

    Raises PlanError for what Linux refuses.
    """
    line = _line(image, command_line)
    room = _Room(host, from_the_top=release >= FROM_THE_TOP, crash=headers is not None)
    first: list[HeldSegment] = []
    memory = host.memory
    if headers is not None:
        data = core_header(host)
        header = room.take_low(max(len(data), headers.room), what="core header")
        first.append(HeldSegment(destination=header, data=data))
        line = _line(image, with_core_header(command_line, header))
        memory = _crash_memory(host, header)
    where = room.take(size, PURGATORY_FROM, what="purgatory")
    # The length of the line that was asked for: what is put before it has a room of its own.
    asked = len(raw(command_line)) + 1
    map_from = align_up(boot.BOOT_PARAMS_SIZE + asked + ELFCOREHDR_ROOM, 16)
    efi = host.efi
    runtime = b"" if efi is None else runtime_map(efi)
    node_from = map_from + align_up(len(runtime), 16)
    seed_from = node_from + SETUP_DATA_HEAD + EFI_SETUP_DATA
    params_size = seed_from + SETUP_DATA_HEAD + SEED
    params_at = room.take(params_size, PARAMS_FROM, what="boot_params")
    low = max(boot.MIN_KERNEL_LOAD_ADDR, image.pref_address)
    kernel_at = room.take(image.init_size, low, image.alignment, what="kernel")
    initrd_at = None if initrd is None else room.take(len(initrd), INITRD_FROM, what="initrd")
    at = params_at.start
    page = _params(image, host, memory, initrd, initrd_at, line_at=at + boot.BOOT_PARAMS_SIZE)
    page += line.ljust(map_from - len(page), b"\0")
    nodes = 0
    if efi is not None and efi.runtime:
        page[EFI_INFO : EFI_INFO + INFO.size] = efi_info(efi, at + map_from)
        boot.field("secure_boot").write(page, efi.secure_boot.number)
        nodes = at + node_from
        page += runtime.ljust(node_from - map_from, b"\0") + node(efi, 0)
    # The seed is hung on last, and comes first.
    boot.field("setup_data").write(page, at + seed_from)
    seed = boot.SETUP_DATA.pack(nodes, boot.SETUP_RNG_SEED, SEED) + bytes(SEED)
    others = [
        HeldSegment(destination=params_at, data=bytes(page.ljust(seed_from, b"\0") + seed)),
        HeldSegment(destination=kernel_at, data=image.parts[0].data),
    ]
    if initrd is not None and initrd_at is not None:
        others.append(HeldSegment(destination=initrd_at, data=initrd))
    digested = [*first, *others] if headers is None or headers.digested else others
    entry = next(each for each in image.entries if each.protocol is Protocol.LINUX_64)
    data, enters = purgatory(where, params_at.start, kernel_at.start + entry.offset, digested)
    mine = HeldSegment(destination=where, data=data)
    return Placed(segments=(*first, mine, *others), entry=enters)


def _crash_memory(host: Host, header: Extent) -> MemoryMap:
    """The crash kernel's memory as crash_setup_memmap_entries() lists it: the header is in no
    row."""
    assert host.crash_region is not None
    low = subtract(within(FIRST_MIB, host.memory.ram), [Extent(0, PAGE_SIZE)])
    own = [host.crash_region, *(each.extent for each in host.crash_memory)]
    kept = (RegionKind.ACPI, RegionKind.NVS, RegionKind.RESERVED)
    regions = [region for region in host.memory if region.kind in kept]
    regions += [Region(each, RegionKind.RAM) for each in (*low, *subtract(own, [header]))]
    return MemoryMap(tuple(sorted(regions)))


def _line(image: Image, command_line: str) -> bytes:
    """The command line with its zero.  Raises PlanError as bzImage64_load() refuses."""
    try:
        line = raw(command_line) + b"\0"
    except UnicodeEncodeError as err:
        raise PlanError("is not UTF-8 text", source="command line", offset=err.start) from err
    wide = any(each.protocol is Protocol.LINUX_64 for each in image.entries)
    if not wide or not image.setup_header or not image.relocatable or not image.above_4g:
        raise PlanError(
            "kexec_file_load takes a relocatable 64-bit bzImage and nothing else (ENOEXEC)",
            source=image.source,
        )
    limit = image.cmdline_limit - ELFCOREHDR_ROOM
    if len(line) > limit:
        raise PlanError(
            f"{len(line)} bytes with the zero are more than kexec_file_load takes",
            source="command line",
            limit=limit,
        )
    return line


class _Room:
    """System RAM, given out as locate_mem_hole_top_down() does; for a crash the crash region."""

    def __init__(self, host: Host, *, from_the_top: bool, crash: bool) -> None:
        # The kernel keeps page 0 for itself (e820__update_range() in setup_arch()).
        ram = [Extent(max(each.start, PAGE_SIZE), each.end) for each in host.memory.ram]
        if crash:
            if host.crash_region is None:
                raise PlanError(
                    "there is no crash region", source=host.source, field="crash_region"
                )
            ram = [host.crash_region]
        self._ram = ram[::-1] if from_the_top else ram
        self._lost = 0 if from_the_top else 1
        self._taken: list[Extent] = []
        self._source = host.source

    def take_low(self, size: int, *, what: str) -> Extent:
        """The lowest place, as locate_mem_hole_bottom_up() finds it.  Raises PlanError."""
        size = align_up(size, PAGE_SIZE)
        for ram in sorted(self._ram):
            start = align_up(ram.start, PAGE_SIZE)
            if start + size + self._lost <= ram.end:
                place = Extent.sized(start, size)
                self._taken.append(place)
                return place
        raise self._none(size, what)

    def take(self, size: int, low: int, alignment: int = PAGE_SIZE, *, what: str) -> Extent:
        """The place for `size` bytes, whole pages.  Raises PlanError."""
        size, alignment = align_up(size, PAGE_SIZE), max(alignment, PAGE_SIZE)
        for ram in self._ram:
            start = align_down(ram.end - self._lost - size, alignment)
            while start >= max(ram.start, low):
                place = Extent.sized(start, size)
                if not any(each.overlaps(place) for each in self._taken):
                    self._taken.append(place)
                    return place
                start = align_down(start - PAGE_SIZE, alignment)
        raise self._none(size, what)

    def _none(self, size: int, what: str) -> PlanError:
        return PlanError(
            f"Linux finds no room for {size:#x} bytes of {what} (EADDRNOTAVAIL)",
            source=self._source,
            field="memory",
        )


def _params(
    image: Image,
    host: Host,
    memory: MemoryMap,
    initrd: Buffer | None,
    initrd_at: Extent | None,
    *,
    line_at: int,
) -> bytearray:
    """struct boot_params as setup_boot_parameters() fills it in, without what the host does not
    know of."""
    page = bytearray(boot.BOOT_PARAMS_SIZE)
    # The image's file up to what its jump says (setup_header_size), not the whole header.
    length = min(len(image.setup_header), 0x202 + image.setup_header[0x10] - boot.SETUP_HEADER)
    page[boot.SETUP_HEADER : boot.SETUP_HEADER + length] = image.setup_header[:length]

    def put(name: str, value: int) -> None:
        boot.field(name).write(page, value)

    def put_wide(low: str, high: str, value: int) -> None:
        put(low, value & 0xFFFF_FFFF)
        put(high, value >> 32)

    put("type_of_loader", boot.TYPE_OF_LOADER_KEXEC)
    put("loadflags", 0)
    put_wide("cmd_line_ptr", "ext_cmd_line_ptr", line_at)
    put_wide("ramdisk_image", "ext_ramdisk_image", initrd_at.start if initrd_at else 0)
    put_wide("ramdisk_size", "ext_ramdisk_size", len(initrd) if initrd is not None else 0)
    page[: len(host.screen)] = host.screen
    if host.rsdp is not None:
        put("acpi_rsdp_addr", host.rsdp)
    extended = 0
    for each in memory.of(RegionKind.RAM):
        if each.start <= 1 << 20 < each.end:
            extended = (each.end >> 10) - 1024
    page[EXT_MEM_K : EXT_MEM_K + 2] = min(extended, MOST_EXTENDED).to_bytes(2, "little")
    page[ALT_MEM_K : ALT_MEM_K + 4] = min(extended, 0xFFFF_FFFF).to_bytes(4, "little")
    rows = rows_of(memory.regions[: boot.E820_MAX_ENTRIES])
    put("e820_entries", len(rows) // boot.E820_ENTRY.size)
    page[boot.E820_TABLE : boot.E820_TABLE + len(rows)] = rows
    return page
