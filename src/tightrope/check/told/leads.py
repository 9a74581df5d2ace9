"""Words of a Linux command line that lead to memory which no loader filled for them.

    initrdmem=START,SIZE    the initrd, where boot_params name none; initrd=START,SIZE is the same word
    acpi_rsdp=ADDRESS       the RSDP, before boot_params and the firmware are asked
    elfcorehdr=ADDRESS      a core header: whoever has the word takes itself for a crash kernel

Such a word is right for one boot of one machine.  It is in /proc/cmdline afterwards, and whoever
reuses that line hands it to a kernel for which nothing lies there.

Rules: the line is read as Linux reads it, where the last word counts that says anything.  Memory
that is not RAM is what its firmware made of it, flash with an initrd for one (that is what
initrdmem= is for), and nothing is said of it; nor of what is kept for the new kernel.  Source: Linux
since 5.8, arch/x86/kernel/setup.c, get_ramdisk_image, and init/do_mounts_initrd.c, early_initrdmem;
drivers/acpi/osl.c, setup_acpi_rsdp; kernel/crash_dump.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tightrope.check.case import Case, owner
from tightrope.check.rule import Found, advice, finding, rule
from tightrope.check.told import core_header
from tightrope.check.told.limits import arguments, number
from tightrope.check.told.reading import told_as_loaded
from tightrope.memory import TOP, Extent, subtract
from tightrope.model import Step

INITRD = (b"initrdmem", b"initrd")
HEX = re.compile(rb"\+?(?:0x)?([0-9a-f]{1,16})\n?", re.IGNORECASE)
"""What kstrtoul() takes with base 16 (Linux lib/kstrtox.c)."""


@rule(
    "line-leads",
    Step.PREPARE,
    says="What the command line leads the new kernel to lies there: an initrd, the RSDP.",
    source="Linux arch/x86/kernel/setup.c, get_ramdisk_image; drivers/acpi/osl.c, setup_acpi_rsdp",
    mend="leave the word out: it was meant for another boot",
)
def line_leads(case: Case) -> Iterator[Found]:
    """Each word against what is loaded, and what the host has."""
    told = told_as_loaded(case) if case.boots_linux else None
    if told is None:
        return
    if not told.modules:
        yield from _initrd(case, told.line)
    yield from _rsdp(case, told.line)
    if not case.intent.crash and core_header.named(told.line) is not None:
        yield advice(
            "the command line has elfcorehdr=, and this is no crash kexec: the new kernel would take"
            " itself for a crash kernel, with fewer queues and devices than it has otherwise",
            mend="leave elfcorehdr= out: it is the last crash kernel's",
        )


def initrd_place(line: bytes) -> Extent | None:
    """Where a command line has Linux look for an initrd; None where it does not."""
    start = size = 0
    for name, value in arguments(line):
        if name in INITRD and value is not None:
            first, rest = number(value)
            if rest[:1] == b",":
                start, size = first, number(rest[1:])[0]
    return Extent(start, min(start + size, TOP)) if start and size and start < TOP else None


def _initrd(case: Case, line: bytes) -> Iterator[Found]:
    """An initrd in memory that is the old kernel's or this plan's."""
    place = initrd_place(line)
    if place is None:
        return
    kept = [each.extent for each in (*case.host.preserved, *case.host.firmware)]
    elsewhere = subtract([place], case.host.memory.ram)
    loaded = [each.destination for each in case.intent.segments if each.destination.overlaps(place)]
    nobodys = subtract([place], [*elsewhere, *kept])
    if not loaded and not nobodys:
        return
    at = max(place.start, loaded[0].start) if loaded else nobodys[0].start
    yield finding(
        f"the command line has the new kernel look for its initrd in {place}, where nobody puts one:"
        f" at {at:#x} is {owner(case, at)}",
        evidence={"linux says": "Initramfs unpacking failed, or nothing"},
        mend="give the initrd with --initrd, and leave initrdmem= and initrd= out",
    )


def _rsdp(case: Case, line: bytes) -> Iterator[Found]:
    """An RSDP that is not where the host's is."""
    at = 0
    for name, value in arguments(line):
        digits = HEX.fullmatch(value) if name == b"acpi_rsdp" and value is not None else None
        at = at if digits is None else int(digits[1], 16)
    known = case.host.rsdp or None
    if not at or at == known:
        return
    if known is None and not any(at in each.destination for each in case.intent.segments):
        return  # the firmware may well have it there
    lies = f"this machine's lies at {known:#x}" if known else f"there is {owner(case, at)}"
    yield finding(
        f"the command line has the new kernel look for the RSDP at {at:#x}, and {lies}: it would"
        " find no ACPI tables",
        evidence={"in boot_params": "acpi_rsdp_addr, which counts without the word"},
        mend="leave acpi_rsdp= out: boot_params have the RSDP",
    )
