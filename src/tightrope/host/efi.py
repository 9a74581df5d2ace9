"""The [efi] table of a host file: as it is declared, and as a value.

    [efi]              system table, configuration tables, vendor's name, secure boot
    [[efi.runtime]]    one descriptor of the map that runtime services were given

Rules: as `document`; standard library alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Annotated

from tightrope.host.schema import At, Choice, Number, Says
from tightrope.memory import PAGE_SIZE, Extent, Phys
from tightrope.model import Efi, EfiLoader, EfiRange, SecureBoot

TOP = 1 << 52
WORD = (1 << 64) - 1
DESCRIPTOR_BYTES = 40
"""What is used of a descriptor (UEFI 2.10, 7.2)."""
MOST_DESCRIPTOR = 1 << 12


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeTable:
    """[[efi.runtime]]"""

    type: Annotated[int, Number(high=(1 << 32) - 1), Says("EFI_MEMORY_TYPE")]
    phys: Annotated[int, Number(multiple=PAGE_SIZE)]
    virt: Annotated[
        int, Number(high=WORD, multiple=PAGE_SIZE), Says("where it is called, for good")
    ]
    pages: Annotated[int, Number(low=1), Says("of 4 KiB")]
    attribute: Annotated[int, Number(high=WORD)]

    def verify(self, at: At) -> None:
        if self.phys + self.pages * PAGE_SIZE > TOP:
            (at / "pages").refuse(f"{self.pages:#x} pages are beyond any physical address", TOP)


@dataclass(frozen=True, kw_only=True, slots=True)
class EfiTable:
    """[efi]"""

    loader: Annotated[EfiLoader, Choice(EfiLoader), Says("firmware of 64 or of 32 bits")]
    system_table: Annotated[int, Number(low=1)]
    descriptor_version: Annotated[int, Number(high=(1 << 32) - 1, decimal=True)]
    descriptor_size: Annotated[
        int,
        Number(low=DESCRIPTOR_BYTES, high=MOST_DESCRIPTOR, multiple=8, decimal=True),
        Says("bytes from one descriptor of the firmware's map to the next"),
    ]
    config_table: Annotated[int, Number(low=1), Says("the array of configuration tables")]
    fw_vendor: Annotated[int, Number(low=1), Says("the vendor's name")]
    smbios: Annotated[int | None, Number(low=1)] = None
    secure_boot: Annotated[SecureBoot, Choice(SecureBoot)]
    runtime: tuple[RuntimeTable, ...] = ()


def efi_of(table: EfiTable) -> Efi:
    """The value that a table describes."""
    return Efi(
        loader=table.loader,
        system_table=Phys(table.system_table),
        descriptor_version=table.descriptor_version,
        descriptor_size=table.descriptor_size,
        config_table=Phys(table.config_table),
        fw_vendor=Phys(table.fw_vendor),
        smbios=None if table.smbios is None else Phys(table.smbios),
        secure_boot=table.secure_boot,
        runtime=tuple(
            replace(EfiRange(**asdict(row)), phys=Phys(row.phys)) for row in table.runtime
        ),
    )


def table_of(efi: Efi) -> EfiTable:
    """The other way round."""
    rows = tuple(RuntimeTable(**asdict(each)) for each in efi.runtime)
    return EfiTable(**(asdict(efi) | {"runtime": rows}))


def places(efi: Efi) -> Iterator[tuple[str, int]]:
    """(field, end) of all that is physical, for whoever knows how many address bits there are."""
    for field in ("system_table", "config_table", "fw_vendor", "smbios"):
        start = getattr(efi, field)
        if start is not None:
            yield f"efi.{field}", start + 1
    for number, each in enumerate(efi.runtime):
        extent = Extent.sized(each.phys, each.pages * PAGE_SIZE)
        yield f"efi.runtime[{number}].pages", extent.end
