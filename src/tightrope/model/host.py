"""The old kernel's world as a description: what a host file says.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tightrope.memory import Extent, MemoryMap, Phys, Virt
from tightrope.x86 import control
from tightrope.x86.walk import Mmu

if TYPE_CHECKING:
    from tightrope.choices import Paging
    from tightrope.model.efi import Efi
    from tightrope.model.entered import Entered
    from tightrope.model.xen import Xen

LASS = 1 << 27
"""CR4.LASS (SDM 2.5)."""
FOUR_FOUR = 0x0200_0000
"""PAGE_OFFSET of the 4G/4G patch (2003): kernel and user each have all 4 GiB, and what has to be
mapped in both lies in a fixmap.  V does here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Registers:
    """What a CPU holds.  `general` has rax..r15; segments are selectors; tables are (base,
    limit)."""

    general: Mapping[str, int]
    rip: int
    rflags: int
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    efer: int
    segments: Mapping[str, int]
    gdt: tuple[int, int]
    idt: tuple[int, int]

    def mmu(self, cpu: Cpu, *, root: int | None = None) -> Mmu:
        """The MMU of a CPU that holds these, under the tables at `root` or, without it, at CR3's.

        Other tables than those in use are asked what they map: that the kernel keeps off the lower
        half (LASS) is no matter of theirs.
        """
        return Mmu(
            cr0=self.cr0,
            cr3=self.cr3 if root is None else root,
            cr4=self.cr4 if root is None else self.cr4 & ~LASS,
            efer=self.efer,
            physical_bits=cpu.physical_bits,
            gbpages=cpu.gbpages,
            bit_8_reserved=cpu.vendor is CpuVendor.AMD,
        )


class CpuVendor(StrEnum):
    """Whose CPU it is, where that makes a difference (docs/machines.md); the value is the host
    file's."""

    INTEL = "intel"
    AMD = "amd"


class Confidential(StrEnum):
    """A guest whose memory its host cannot read; what its kexec needs besides is described by no
    file."""

    TDX = "TDX"
    SNP = "SEV-SNP"
    ES = "SEV-ES"
    SEV = "SEV"


FACTS: Mapping[StrEnum | None, int] = {
    CpuVendor.INTEL: control.IS_INTEL,
    CpuVendor.AMD: control.IS_AMD,
    Confidential.TDX: control.IN_TDX,
    Confidential.SNP: control.IN_SEV_ES,
    Confidential.ES: control.IN_SEV_ES,
}
"""What `x86.control` calls it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cpu:
    """What the old kernel's CPU can do.  `physical_bits` is MAXPHYADDR."""

    physical_bits: int
    nx: bool
    pse: bool
    pge: bool
    gbpages: bool
    la57: bool
    vendor: CpuVendor | None = None
    """None: nobody says, and what only one of them refuses is left to the rules."""
    guest: Confidential | None = None
    """The old kernel is such a guest."""

    @property
    def facts(self) -> int:
        """Vendor and guest as `x86.control` has them: a word of IS_INTEL to IN_SEV_ES."""
        return FACTS.get(self.vendor, 0) | FACTS.get(self.guest, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelText:
    """The old kernel's image: [virt, virt + size) is [phys, phys + size).

    It is mapped by large global pages, of 2 MiB, or of 4 MiB on i386.
    """

    virt: Virt
    phys: Phys
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectMap:
    """The old kernel maps RAM below `size` at `virt` + physical address, in pages of `page_size`
    bytes.

    On i386 `virt` is PAGE_OFFSET, the memory split, and `size` the end of lowmem.
    """

    virt: Virt
    page_size: int
    size: int = 1 << 52


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """An extent and the reason it is here; the reason is a noun phrase for reports."""

    extent: Extent
    what: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LowMapping:
    """Something the old kernel maps besides its text and direct map, such as EFI's 1:1
    leftovers."""

    virt: Virt
    phys: Phys
    size: int
    is_global: bool


class Basis(StrEnum):
    """What a fact of a host rests on."""

    READ = "read"
    """Some file of the machine says it, or whoever wrote the description does."""
    DERIVED = "derived"
    """It follows from what was read, by a rule that is named."""
    ASSUMED = "assumed"
    """Nothing says it.  A verdict that rests on it says so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """Where one field of a description comes from."""

    field: str
    """As the host file names it: `relocation`, `text.virt`, `busy`."""
    basis: Basis
    source: str
    """What was read, from what it was derived, or what is assumed: a phrase for reports."""
    settle: str = ""
    """What would tell it, of an assumed one; a phrase for reports."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """The old kernel's world as a description; `world` turns it into bytes."""

    source: str
    paging: Paging
    cpu: Cpu
    cr0: int
    cr4: int
    efer: int
    memory: MemoryMap
    text: KernelText
    relocation: Virt | None
    """V: where the old kernel has `relocate_new_kernel` mapped, page aligned, in its text or in one
    of `low_mappings`; None where it calls the control page itself, through its direct map."""
    direct_map: DirectMap
    private: Extent
    """RAM that holds the old kernel's page tables, gdt, idt and stack."""
    busy: tuple[Named, ...]
    """RAM that the old kernel cannot give away; text and `private` are busy without being listed.
    """
    crash_region: Extent | None
    firmware: tuple[Named, ...]
    """What new kernels read early outside plain RAM: EFI tables, setup_data."""
    rsdp: Phys | None
    low_mappings: tuple[LowMapping, ...]
    crash_notes: tuple[Named, ...] = ()
    """ELF notes in the old kernel's memory: one per CPU, and vmcoreinfo."""
    xen: Xen | None = None
    """The old kernel is a hypervisor: all of the above is its own, in machine addresses."""
    crash_memory: tuple[Named, ...] = ()
    """RAM that a crash kernel has besides the region that its image lies in: `crashkernel=,low` and CMA."""
    preserved: tuple[Named, ...] = ()
    """Memory that the old kernel keeps for the new one, as KHO does: nobody's destination."""
    screen: bytes = b""
    """struct screen_info, for the new kernel's boot_params; empty where nothing tells it."""
    efi: Efi | None = None
    """What EFI left; None without EFI, and where nothing tells all of it."""
    entered: Entered | None = None
    """What the old kernel was handed itself, where a hop before this one tells."""
    facts: tuple[Fact, ...] = ()
    """What is known of the fields above; one that is not named is as the description's writer knows
    it."""

    @property
    def confidential(self) -> Confidential | None:
        """What kind of guest the old kernel is, if any."""
        return self.cpu.guest

    def assumed(self) -> tuple[Fact, ...]:
        """The facts that nothing says."""
        return tuple(each for each in self.facts if each.basis is Basis.ASSUMED)
