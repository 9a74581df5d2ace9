"""What the firmware left, as a captured host says it: RSDP, EFI, what new kernels read early.

Rules: as `describe`; what is told in part is not told, and the note says what was missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tightrope.abi.efi import SETUP_EFI
from tightrope.host.capture import efi
from tightrope.host.capture.efi import hex_number
from tightrope.host.capture.origins import Origins
from tightrope.host.capture.sources import Sources
from tightrope.host.capture.tree import BOOT_PARAMS, SETUP_DATA
from tightrope.host.document import NamedTable
from tightrope.host.efi import DESCRIPTOR_BYTES, MOST_DESCRIPTOR, EfiTable, RuntimeTable
from tightrope.memory import PAGE_SIZE, Extent, subtract

BIOS_AREA = Extent(0xE_0000, 0x10_0000)
"""Where a kernel without a pointer looks for the RSDP (ACPI 6.5, 5.2.5.1)."""
SETUP_DATA_KINDS = {
    1: "more rows of the memory map, which come with it",
    2: "a device tree",
    3: "a PCI device's ROM",
    4: "EFI's tables",
    5: "Apple's device properties",
    6: "Jailhouse's",
    7: "a secrets page of SEV-SNP",
    8: "IMA's measurements",
    9: "a seed for random numbers",
    10: "what KHO keeps",
}
"""Types of a node of setup_data (asm/setup_data.h, Linux 7.3)."""


def setup_data(said: Sources, *, efi: bool) -> Iterator[str]:
    """Each node of the old kernel's loader that is not handed on; EFI's is where `efi` says so."""
    for path, text in sorted(said.texts().items()):
        if re.fullmatch(rf"{SETUP_DATA}/\d+/type", path) and (kind := hex_number(text)) is not None:
            if efi and kind == SETUP_EFI:
                continue
            yield f"{SETUP_DATA_KINDS.get(kind, 'of a kind not known here')} (type {kind:#x})"


def rsdp(said: Sources, origins: Origins) -> int | None:
    if said.params is not None and 0 < said.params.rsdp < 1 << 52:
        origins.read("rsdp", f"{BOOT_PARAMS} (acpi_rsdp_addr)")
        return said.params.rsdp
    found, name = efi.rsdp(said.word(efi.SYSTAB))
    if found:
        origins.read("rsdp", f"{efi.SYSTAB} ({name})")
        return found
    return None


def efi_table(said: Sources, beyond: int, origins: Origins) -> EfiTable | None:
    """What EFI left; None without EFI, or where something of it is not told."""
    info = said.params.efi if said.params else None
    if info is None:
        return None
    places = {
        efi.CONFIG_TABLE: efi.address(said.word(efi.CONFIG_TABLE)),
        efi.FW_VENDOR: efi.address(said.word(efi.FW_VENDOR)),
        f"{BOOT_PARAMS} (efi_systab)": info.system_table,
    }
    lacks = [path for path, at in places.items() if not 0 < at < beyond]
    rows = efi.runtime_map(said.texts())
    lacks += [] if rows and all(_ends(row) <= beyond for row in rows) else [efi.RUNTIME_MAP]
    size = info.descriptor_size
    if size % 8 or not DESCRIPTOR_BYTES <= size <= MOST_DESCRIPTOR:
        lacks.append(f"{BOOT_PARAMS} (efi_memdesc_size)")
    if lacks:
        origins.note(
            "EFI's runtime services are not handed on, and the new kernel comes up without them:"
            f" {' and '.join(lacks)} {'do' if len(lacks) > 1 else 'does'} not tell"
        )
        return None
    origins.read(
        "efi", f"{BOOT_PARAMS} (efi_info); {efi.CONFIG_TABLE}; {efi.FW_VENDOR}; {efi.RUNTIME_MAP}"
    )
    config_table, fw_vendor, system_table = places.values()
    smbios = efi.smbios(said.word(efi.SYSTAB))
    return EfiTable(
        loader=info.loader,
        system_table=system_table,
        descriptor_version=info.descriptor_version,
        descriptor_size=size,
        config_table=config_table,
        fw_vendor=fw_vendor,
        smbios=smbios if smbios and smbios < beyond else None,
        secure_boot=info.secure_boot,
        runtime=rows,
    )


def _ends(row: RuntimeTable) -> int:
    return row.phys + row.pages * PAGE_SIZE


def firmware(
    said: Sources, ram: tuple[Extent, ...], beyond: int, origins: Origins
) -> tuple[NamedTable, ...]:
    """[[firmware]]: what a new kernel reads early and the memory map does not call ACPI."""
    found = [(extent, "BIOS area, searched for the RSDP") for extent in subtract([BIOS_AREA], ram)]
    told = ["the BIOS area"]
    if said.params and said.params.efi:
        places = said.params.efi.places()
        found += [(Extent.sized(start, size), what) for start, size, what in places]
        told.append(f"{BOOT_PARAMS} (efi_info)")
    tables = efi.address(said.word(efi.CONFIG_TABLE))
    if tables:
        found.append((Extent.sized(tables, efi.TABLE_BYTES), "EFI configuration tables"))
        told.append(efi.CONFIG_TABLE)
    if runtime := list(efi.runtime(said.texts())):
        found += runtime
        told.append(efi.RUNTIME_MAP)
    origins.derived("firmware", "; ".join(told))
    return tuple(
        NamedTable(start=extent.start, size=extent.size, what=what)
        for extent, what in found
        if extent.end <= beyond
    )
