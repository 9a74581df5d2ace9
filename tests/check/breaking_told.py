"""What the new kernel is told, planned wrong: plan, loaded segments and memory agree, and only whoever
asks the image, the files and the host can see it.

Rules: as in `breaking`; a change is of bytes, at offsets of bootparam.h and the System V ABI.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

from tests.check import efi_walk
from tests.check.breaking import Breach, Change, Walked
from tests.rehearse.runs import (
    backed_up,
    crash_host,
    crashed,
    shipped_kernel,
    shipped_request,
)
from tightrope.deeds.rehearse import rehearse
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent
from tightrope.model import Handover, Intent, Memory, Run, Segment, Step


class Overlaid:
    """Memory in which one extent holds other bytes."""

    def __init__(self, memory: Memory, start: int, data: bytes) -> None:
        self._memory, self._start, self._data = memory, start, data

    def read(self, extent: Extent) -> memoryview:
        there = self._memory.read(extent)
        if not extent.overlaps(Extent.sized(self._start, len(self._data))):
            return there
        out = bytearray(there)
        for at, byte in enumerate(self._data, self._start):
            if at in extent:
                out[at - extent.start] = byte
        return memoryview(bytes(out))

    def held(self, extent: Extent) -> tuple[Extent, ...]:
        return (extent,)

    def written(self) -> frozenset[int] | None:
        return self._memory.written()


def planned(name: str, change: Callable[[bytearray, Intent], None]) -> Change:
    """A segment planned, loaded and copied with other bytes."""

    def breach(handover: Handover, run: Run) -> Walked:
        segment = next(each for each in handover.intent.segments if each.name == name)
        data = bytearray(segment.data)
        change(data, handover.intent)

        def other(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
            return tuple(
                replace(each, data=bytes(data)) if each.name == name else each for each in segments
            )

        plan = replace(handover.intent, segments=other(handover.intent.segments))
        broken = replace(handover, intent=plan, segments=other(handover.segments))
        # In the kernel's 40 MiB only what differs is laid over the memory.
        at = next(n for n, (a, b) in enumerate(zip(segment.data, data, strict=True)) if a != b)
        end = max(n for n in range(at, min(at + 64, len(data))) if data[n] != segment.data[n]) + 1
        memory = Overlaid(run.memory, segment.destination.start + at, bytes(data[at:end]))
        return broken, replace(run, memory=memory)

    return breach


def put(name: str, at: int, value: int, size: int) -> Change:
    """A little-endian number in a segment."""

    def change(data: bytearray, _plan: Intent) -> None:
        data[at : at + size] = value.to_bytes(size, "little")

    return planned(name, change)


def flipped(name: str, at: int, bit: int = 0) -> Change:
    def change(data: bytearray, _plan: Intent) -> None:
        data[at] ^= 1 << bit

    return planned(name, change)


def in_a_crash(change: Change) -> Change:
    def breach(_handover: Handover, _run: Run) -> Walked:
        good = crashed()
        return change(good.handover, good.run)

    return breach


def without_notes(_handover: Handover, _run: Run) -> Walked:
    """A crash walk of a host whose notes nobody described."""
    good = rehearse(
        shipped_kernel(),
        replace(crash_host(), crash_notes=()),
        shipped_request(crash=True),
        machine=Emulator(),
    )
    return good.handover, good.run


def on_efi(change: Change) -> Change:
    def breach(_handover: Handover, _run: Run) -> Walked:
        return change(*efi_walk.sound())

    return breach


def on_a_backup(change: Change) -> Change:
    def breach(_handover: Handover, _run: Run) -> Walked:
        good = backed_up()
        return change(good.handover, good.run)

    return breach


def moved_initrd(data: bytearray, plan: Intent) -> None:
    """ramdisk_image one page further."""
    start = struct.unpack_from("<I", data, 0x218)[0]
    struct.pack_into("<I", data, 0x218, start + 0x1000)


def one_byte_less(data: bytearray, _plan: Intent) -> None:
    """ramdisk_size."""
    struct.pack_into("<I", data, 0x21C, struct.unpack_from("<I", data, 0x21C)[0] - 1)


def second_row_is_ram(data: bytearray, _plan: Intent) -> None:
    """The map's first row that is no RAM becomes RAM."""
    at = next(at for at in range(0x2D0, 0xCD0, 20) if data[at + 16] == 2)
    data[at + 16] = 1


def one_row_less(data: bytearray, _plan: Intent) -> None:
    data[0x1E8] -= 1


def program_header(number: int, field: int, value: Callable[[int], int]) -> Change:
    """One field of a 64-bit core header's row: 1 flags, 2 offset, 3 vaddr, 4 paddr, 5 filesz, 6 memsz."""

    def change(data: bytearray, _plan: Intent) -> None:
        row = struct.Struct("<IIQQQQQQ")
        fields = list(row.unpack_from(data, 64 + number * row.size))
        fields[field] = value(fields[field])
        row.pack_into(data, 64 + number * row.size, *fields)

    return in_a_crash(planned("core header", change))


def last_row_lost(data: bytearray, _plan: Intent) -> None:
    """e_phnum is one less."""
    data[0x38] -= 1


def to_another_copy(data: bytearray, _plan: Intent) -> None:
    """The row of low memory is read one page beside its copy."""
    row = struct.Struct("<IIQQQQQQ")
    for at in range(64, len(data), row.size):
        fields = list(row.unpack_from(data, at))
        if fields[0] == 1 and fields[2] != fields[4]:
            fields[2] -= 0x1000
            row.pack_into(data, at, *fields)
            return
    raise AssertionError("nothing was saved")


def a_note_up_there(handover: Handover, run: Run) -> Walked:
    """The first note lies at 64 GiB, and the kernel has no 64-bit entry."""
    good = crashed()
    plan = good.handover.plan
    narrow = tuple(replace(each, bits=32) for each in plan.image.entries)
    plan = replace(plan, image=replace(plan.image, entries=narrow))
    row = next(
        at
        for at in range(64, 64 + 56 * 8, 56)
        if core_header(good.handover)[at : at + 4] == b"\4\0\0\0"
    )
    change = planned("core header", moved_to(row + 8, 1 << 36))
    return change(replace(good.handover, intent=plan), good.run)


def core_header(handover: Handover) -> bytes:
    return bytes(next(e.data for e in handover.segments if e.name == "core header"))


def moved_to(at: int, value: int) -> Callable[[bytearray, Intent], None]:
    def change(data: bytearray, _plan: Intent) -> None:
        data[at : at + 8] = value.to_bytes(8, "little")

    return change


LINE = "reads the command line '"
TOLD = (
    Breach(
        rule="efi-told",
        name="a runtime service's virtual address",
        change=on_efi(put("setup_data", 112 + 16, 0x1000, 8)),
        step=Step.COPY,
        says="the virtual address of runtime range 0 is 0x1000, not 0x",
    ),
    Breach(
        rule="dump-in-reach",
        name="a note above 64 GiB, for a 32-bit kernel",
        change=a_note_up_there,
        step=Step.PREPARE,
        says="the core header has a note at [0x1000000000, 0x",
        also=frozenset({"core-header-told", "memory-told"}),
    ),
    Breach(
        rule="kernel-as-given",
        name="one bit of the kernel",
        change=flipped("kernel", 0x234),
        step=Step.COPY,
        says="part 1 of the kernel is not the image's: byte 0x234, at 0x1000234",
    ),
    Breach(
        rule="kernel-as-given",
        name="a kernel of zeros",
        change=put("kernel", 0x200, 0, 16),
        step=Step.COPY,
        says="part 1 of the kernel is not the image's: byte 0x200",
    ),
    Breach(
        rule="initrd-as-given",
        name="one bit of the initrd",
        change=flipped("initrd", 7, 3),
        step=Step.COPY,
        says="the initrd is not what was given: byte 0x7, at",
    ),
    Breach(
        rule="initrd-as-given",
        name="ramdisk_size 0",
        change=put("boot_params", 0x21C, 0, 4),
        step=Step.COPY,
        says="the new kernel is told of 0 of 1 initrd",
    ),
    Breach(
        rule="initrd-as-given",
        name="ramdisk_size one less",
        change=planned("boot_params", one_byte_less),
        step=Step.COPY,
        says="the initrd is not what was given: it is told to have 0x",
    ),
    Breach(
        rule="initrd-as-given",
        name="ramdisk_image a page further",
        change=planned("boot_params", moved_initrd),
        step=Step.COPY,
        says="the initrd is not what was given: byte 0x",
    ),
    Breach(
        rule="initrd-as-given",
        name="ext_ramdisk_image in a hole",
        change=put("boot_params", 0x0C0, 0x8000, 4),
        step=Step.COPY,
        says="is not memory of this machine",
    ),
    Breach(
        rule="command-line-as-given",
        name="one bit of the command line",
        change=flipped("command line", 0),
        step=Step.COPY,
        says=LINE,
    ),
    Breach(
        rule="command-line-as-given",
        name="a wiped pointer",
        change=put("boot_params", 0x228, 0, 4),
        step=Step.COPY,
        says=LINE + "'",
    ),
    Breach(
        rule="boot-params-told",
        name="the sentinel",
        change=put("boot_params", 0x1EF, 0xFF, 1),
        step=Step.COPY,
        says="sentinel of boot_params is 0xff, not empty",
    ),
    Breach(
        rule="boot-params-told",
        name="a stale screen_info",
        change=put("boot_params", 0x00F, 0x70, 1),
        step=Step.COPY,
        says="screen_info of boot_params is",
    ),
    Breach(
        rule="boot-params-told",
        name="another rsdp",
        change=flipped("boot_params", 0x070),
        step=Step.COPY,
        says="acpi_rsdp_addr of boot_params is",
    ),
    Breach(
        rule="boot-params-told",
        name="no loader",
        change=put("boot_params", 0x210, 0, 1),
        step=Step.COPY,
        says="type_of_loader of boot_params is empty, not 0xd0",
    ),
    Breach(
        rule="boot-params-told",
        name="another pref_address than the image's",
        change=flipped("boot_params", 0x25B),
        step=Step.COPY,
        says="pref_address of boot_params is",
    ),
    Breach(
        rule="boot-params-told",
        name="setup_data that ends nowhere",
        change=put("boot_params", 0x250, 0xFFFF_0000_0000, 8),
        step=Step.COPY,
        says="boot_params cannot be read: [0xffff00000000, 0xffff00000010) is not memory",
    ),
    Breach(
        rule="boot-params-told",
        name="a row behind the last",
        change=put("boot_params", 0x2D0 + 100 * 20, 0x1000, 8),
        step=Step.COPY,
        says="rows of e820_table stands another",
    ),
    Breach(
        rule="command-line-as-given",
        name="a command line where no memory is",
        change=put("boot_params", 0x228, 0xE000_0000, 4),
        step=Step.COPY,
        says="the command line at 0xe0000000 cannot be read: [0xe0000000, 0xe0001000) is not memory",
    ),
    Breach(
        rule="boot-params-told",
        name="e820_entries 200",
        change=put("boot_params", 0x1E8, 200, 1),
        step=Step.COPY,
        says="boot_params cannot be read: e820_entries is 200, and the table has 128 rows",
    ),
    Breach(
        rule="memory-told",
        name="e820_entries 0",
        change=put("boot_params", 0x1E8, 0, 1),
        step=Step.COPY,
        says="is ram, and is not said to be",
        also=frozenset({"boot-params-told"}),
    ),
    Breach(
        rule="memory-told",
        name="one row less",
        change=planned("boot_params", one_row_less),
        step=Step.COPY,
        says="is ram, and is not said to be",
        also=frozenset({"boot-params-told"}),
    ),
    Breach(
        rule="memory-told",
        name="reserved memory as RAM",
        change=planned("boot_params", second_row_is_ram),
        step=Step.COPY,
        says="is said to be ram, and is reserved",
    ),
    Breach(
        rule="dump-has-notes",
        name="a host without notes",
        change=without_notes,
        step=Step.PREPARE,
        says="a crash kernel without notes has no /proc/vmcore",
    ),
    Breach(
        rule="core-header-told",
        name="another machine",
        change=in_a_crash(put("core header", 0x12, 3, 2)),
        step=Step.COPY,
        says="e_machine is 3, and the old kernel's is 62",
    ),
    Breach(
        rule="core-header-told",
        name="another PAGE_OFFSET",
        change=program_header(-1 + 4, 3, lambda virt: virt ^ 1 << 40),
        step=Step.COPY,
        says="is said to be mapped at 0x",
    ),
    Breach(
        rule="core-header-told",
        name="a row lost",
        change=in_a_crash(planned("core header", last_row_lost)),
        step=Step.COPY,
        says="it leaves out [0x",
    ),
    Breach(
        rule="core-header-told",
        name="no ELF header",
        change=in_a_crash(put("core header", 0, 0, 4)),
        step=Step.COPY,
        says="there is no ELF header at 0x",
    ),
    Breach(
        rule="core-header-told",
        name="low memory read beside its copy",
        change=on_a_backup(planned("core header", to_another_copy)),
        step=Step.COPY,
        says="where other bytes lie",
        also=frozenset({"memory-told"}),
    ),
)
