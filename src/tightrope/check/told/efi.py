"""A rule about EFI: what a new kernel is told of it is what the firmware left.

    boot_params 0x1c0    signature, system table, size and version of a descriptor, the map, its size
    setup_data, type 4   vendor's name, configuration tables, SMBIOS: physical, as they were before
    the map              the runtime services' own descriptors, with the addresses they are called at

Rules: read by numbers written here once more, from struct efi_info (asm/bootparam.h), struct
efi_setup_data (asm/efi.h) and EFI_MEMORY_DESCRIPTOR (UEFI 2.10, 7.2).  A loader of somebody else's
that leaves all of it empty keeps its habit.  Empty is read so: without a signature EFI is off
(arch/x86/kernel/setup.c, EFI_BOOT); without the node a kernel takes itself for the first, and asks
for virtual addresses a second time (arch/x86/platform/efi/efi.c, efi_enter_virtual_mode()).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tightrope.check.case import Case
from tightrope.check.rule import Found, finding, rule
from tightrope.check.told.boot_params import ZeroPage
from tightrope.check.told.page import zero_page
from tightrope.errors import MachineError
from tightrope.memory import Extent
from tightrope.model import Efi, Memory, Step

NODE = 4
XLOADFLAGS, TAKES_EFI = 0x236, 1 << 4
USED = struct.Struct("<I4xQQQQ")
BODY = 96
Field = tuple[str, int, int]
"""What it is, what is told, what is right."""


def wanted(case: Case) -> Efi | None:
    """What this new kernel is to be told of EFI; None where nothing."""
    efi, header = case.host.efi, case.intent.image.setup_header
    at = XLOADFLAGS - 0x1F1
    flags = int.from_bytes(header[at : at + 2], "little")
    if efi is None or not flags & TAKES_EFI or efi.loader.value != "EL64" or not efi.runtime:
        return None
    return efi


def carried(page: ZeroPage) -> bool:
    """Something of EFI is there."""
    return any(page.page[0x1C0:0x1E0]) or any(kind == NODE for _, kind, _ in page.nodes)


@rule(
    "efi-told",
    Step.COPY,
    says="What the new kernel is told of EFI is what the firmware and the old kernel left of it.",
    source="Linux arch/x86/kernel/kexec-bzimage64.c, setup_efi_state(); arch/x86/platform/efi/efi.c",
    mend="hand on what /sys/firmware/efi and the old kernel's boot_params say",
)
def efi_told(case: Case) -> Iterator[Found]:
    """efi_info, the node and the map, field by field."""
    page, efi = zero_page(case), wanted(case)
    if not isinstance(page, ZeroPage) or efi is None:
        return
    if case.loaded is not None and not carried(page):
        return
    for what, got, right in _fields(page, efi, case.run.memory):
        if got != right and not _habit(case, what, got):
            yield finding(
                f"the new kernel is told that {what} is {got:#x}, not {right:#x}",
                evidence={"boot_params": f"{page.at:#x}"},
            )
            return


SECURE_BOOT, SMBIOS = "secure boot's state", "the SMBIOS entry point"
NO_TABLE = (1 << 64) - 1
"""EFI_INVALID_TABLE_ADDR, which Linux hands on for a table that is not there."""


def _habit(case: Case, what: str, got: int) -> bool:
    """Somebody else's loader does so: kexec-tools has no secure boot, Linux no empty SMBIOS."""
    if case.loaded is None:
        return False
    return (what == SECURE_BOOT and got == 0) or (what == SMBIOS and got == NO_TABLE)


def _fields(page: ZeroPage, efi: Efi, memory: Memory) -> Iterator[Field]:
    signature, table, each, version, low, size, table_high, high = struct.unpack(
        "<8I", page.page[0x1C0:0x1E0]
    )
    yield "EFI's signature", signature, int.from_bytes(b"EL64", "little")
    yield "EFI's system table", table | table_high << 32, efi.system_table
    yield "the version of EFI's descriptors", version, efi.descriptor_version
    yield SECURE_BOOT, page.field("secure_boot"), efi.secure_boot.number
    if (
        each != USED.size
    ):  # kexec-tools writes what it knows of a descriptor, Linux the firmware's own
        yield "the size of EFI's descriptors", each, efi.descriptor_size
    nodes = [data for _, kind, data in page.nodes if kind == NODE]
    yield "the number of EFI's nodes in setup_data", len(nodes), 1
    yield "the size of EFI's node", len(nodes[0]), BODY
    vendor, _, tables, smbios = struct.unpack_from("<4Q", nodes[0])
    yield "the firmware vendor's name", vendor, efi.fw_vendor
    yield "EFI's configuration table", tables, efi.config_table
    yield SMBIOS, smbios, efi.smbios or 0
    yield "the size of EFI's map", size, each * len(efi.runtime)
    try:
        rows = bytes(memory.read(Extent.sized(low | high << 32, size)))
    except (MachineError, ValueError):
        yield "the place of EFI's map, where there is no memory,", low | high << 32, 0
        return
    told = sorted(USED.unpack_from(rows, number * each) for number in range(len(efi.runtime)))
    facts = sorted((e.type, e.phys, e.virt, e.pages, e.attribute) for e in efi.runtime)
    names = ("type", "physical address", "virtual address", "number of pages", "attribute")
    # In any order: kexec-tools has that of a directory.
    for number, (row, right) in enumerate(zip(told, facts, strict=True)):
        for name, got, fact in zip(names, row, right, strict=True):
            yield f"the {name} of runtime range {number}", got, fact
