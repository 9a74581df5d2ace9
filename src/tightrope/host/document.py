"""A host file as it is declared: every table and field, its bounds, and what the file says of it.

Rules: what one field alone has to keep is here; what must hold between fields is `consistency`'s.
Bounds that the CPU sets name their source.  Numbers are bytes unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from tightrope.host.efi import EfiTable
from tightrope.host.schema import At, Choice, Number, NumberOr, Says, Text, either, quoted
from tightrope.host.xen.document import XenTable
from tightrope.memory import PAGE_SIZE, Extent, RegionKind
from tightrope.model import Confidential, CpuVendor, Paging

LINEAR = Number(high=(1 << 64) - 1, multiple=PAGE_SIZE)
PAGES = Number(multiple=PAGE_SIZE)
REGISTER = Number(high=(1 << 64) - 1)
HANDED_OVER = "handed over"
TOP = 1 << 52
"""No CPU has more bits of physical address (SDM 4.1.4)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CpuTable:
    """[cpu]"""

    physical_bits: Annotated[
        int, Number(low=32, high=52, decimal=True), Says("MAXPHYADDR, 32 to 52")
    ]
    nx: Annotated[bool, Says("execute-disable")]
    pse: Annotated[bool, Says("large pages")]
    pge: Annotated[bool, Says("global pages")]
    gbpages: Annotated[bool, Says("1 GiB pages")]
    la57: Annotated[bool, Says("can run 5-level tables")]
    vendor: Annotated[
        CpuVendor | None, Choice(CpuVendor), Says("whose CPU it is; without it either's")
    ] = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistersTable:
    """[registers]"""

    cr0: Annotated[int, Number(high=(1 << 32) - 1)]
    cr4: Annotated[int, REGISTER]
    efer: Annotated[int, REGISTER]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextTable:
    """[text]"""

    virt: Annotated[int, LINEAR]
    phys: Annotated[int, PAGES]
    size: Annotated[int, Number(low=PAGE_SIZE, multiple=PAGE_SIZE)]


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectMapTable:
    """[direct_map]"""

    virt: Annotated[int, LINEAR]
    page_size: Annotated[int, Number(), Says("0x1000, 0x20_0000 or 0x4000_0000")]
    size: Annotated[int | None, Number(low=1, multiple=PAGE_SIZE)] = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceTable:
    """Whole pages of physical memory."""

    start: Annotated[int, PAGES]
    size: Annotated[int, Number(low=1, multiple=PAGE_SIZE)]

    def verify(self, at: At) -> None:
        _end(self.start, self.size, at)

    @property
    def extent(self) -> Extent:
        return Extent.sized(self.start, self.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedTable:
    """Physical memory and the reason why it is listed."""

    start: Annotated[int, Number()]
    size: Annotated[int, Number(low=1)]
    what: Annotated[str, Text()]

    def verify(self, at: At) -> None:
        _end(self.start, self.size, at)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryTable:
    """[[memory]]"""

    start: Annotated[int, Number()]
    size: Annotated[int, Number(low=1)]
    kind: Annotated[RegionKind, Choice(RegionKind)]

    def verify(self, at: At) -> None:
        _end(self.start, self.size, at)


@dataclass(frozen=True, kw_only=True, slots=True)
class MappingTable:
    """[[mapping]]"""

    virt: Annotated[int, LINEAR]
    phys: Annotated[int, PAGES]
    size: Annotated[int, Number(low=1, multiple=PAGE_SIZE)]
    global_: bool


def _end(start: int, size: int, at: At) -> None:
    if start + size > TOP:
        (at / "size").refuse(f"{start:#x} + {size:#x} is beyond any physical address", TOP)


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A host file, in the order in which it is written."""

    paging: Annotated[
        Paging,
        Choice(Paging),
        Says(above="The page-table format that the old kernel runs on."),
    ]
    relocation: Annotated[
        int | None,
        NumberOr(number=LINEAR, word="direct map", what="an address"),
        Says(
            above="V: where the old kernel has its relocation code mapped.  Page aligned, inside [text]"
            ' or a [[mapping]];\nor "direct map", where it calls the control page itself by the address'
            " that its direct map has for it."
        ),
    ]
    rsdp: Annotated[
        int | None,
        Number(),
        Says(
            above="Where the firmware's root pointer (RSDP) lies; leave it out when there is none."
        ),
    ] = None
    confidential: Annotated[
        Confidential | None,
        Choice(Confidential),
        Says(above="The old kernel is a guest whose memory its host cannot read."),
    ] = None
    screen_info: Annotated[
        str | None,
        Text(r"[0-9a-f]{128}", "the 64 bytes of struct screen_info in hexadecimal"),
        Says(above="The screen as the old kernel's loader described it: struct screen_info."),
    ] = None
    cpu: CpuTable
    registers: Annotated[RegistersTable, Says("as they are when machine_kexec calls V")]
    text: Annotated[TextTable, Says("the old kernel's image")]
    direct_map: Annotated[DirectMapTable, Says("all RAM at virt + physical address")]
    private: Annotated[PlaceTable, Says("RAM for the old kernel's page tables, gdt, idt and stack")]
    crash_region: Annotated[
        PlaceTable | None,
        Says("memory reserved at boot for a crash kernel: never used by a plain kexec"),
    ] = None
    crash_note: Annotated[
        tuple[NamedTable, ...],
        Says(
            above="What the old kernel leaves in its memory for a crash kernel when it dies: ELF notes,"
            ' one for each CPU,\nand one whose `what` begins with "vmcoreinfo".'
        ),
    ] = ()
    crash_memory: Annotated[
        tuple[NamedTable, ...],
        Says(
            above="RAM that a crash kernel has besides [crash_region], where its image lies:"
            " crashkernel=,low and CMA."
        ),
    ] = ()
    memory: Annotated[
        tuple[MemoryTable, ...],
        Says(
            above="The firmware's memory map (e820), sorted, without overlap.  What is listed nowhere is"
            f" a hole.\nkind = {either(map(quoted, RegionKind))}"
        ),
    ] = ()
    busy: Annotated[
        tuple[NamedTable, ...],
        Says(
            above="RAM that the old kernel cannot give away.  Its text and [private] are busy without"
            " being listed."
        ),
    ] = ()
    preserved: Annotated[
        tuple[NamedTable, ...],
        Says(
            above="Memory that the old kernel keeps for the new one, as KHO does: nothing is copied"
            f' there.\nA [[busy]] whose `what` begins with "{HANDED_OVER}" is kept as well.'
        ),
    ] = ()
    firmware: Annotated[
        tuple[NamedTable, ...],
        Says(
            above="What new kernels read early outside plain RAM: EFI tables, setup_data, the area with"
            " the RSDP."
        ),
    ] = ()
    mapping: Annotated[
        tuple[MappingTable, ...],
        Says(
            above="Anything else that the old kernel maps, such as a 1:1 mapping that EFI runtime"
            " services left."
        ),
    ] = ()
    efi: Annotated[
        EfiTable | None,
        Says("what EFI left for whichever kernel runs: handed on, so that its services go on"),
    ] = None
    xen: Annotated[
        XenTable | None,
        Says("the old kernel is a hypervisor: everything above is its own, in machine addresses"),
    ] = None
    facts: Annotated[
        Mapping[str, FactTable],
        Says(
            above="Where the fields above come from; one that is not named here is as whoever wrote this"
            " file knows it.\nWhoever knows what is assumed better puts it in and takes its line out."
        ),
    ] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class FactTable:
    """One of [facts]: exactly one of the first three, and what would settle an assumption."""

    read: Annotated[str | None, Text()] = None
    derived: Annotated[str | None, Text()] = None
    assumed: Annotated[str | None, Text()] = None
    settle: Annotated[str | None, Text()] = None

    def verify(self, at: At) -> None:
        given = [each for each in (self.read, self.derived, self.assumed) if each is not None]
        if len(given) != 1:
            at.refuse("has to say one of read, derived and assumed, and only one")
        if self.settle is not None and self.assumed is None:
            (at / "settle").refuse("goes with what is assumed")
