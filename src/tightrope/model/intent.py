"""What a handover is checked against: where everything has to go, and how the new kernel is
entered.

A plan is an intent, with what it was made from.  Watching a running machine gives one without a
plan: the page list's destinations and sources, the control page, the segments as the sources hold
them.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tightrope.memory import Extent, Phys, Virt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tightrope.choices import Paging, Protocol
    from tightrope.model.host import Named
    from tightrope.model.image import Buffer, Image
    from tightrope.model.inputs import Inputs
    from tightrope.model.through import Through


class SegmentRole(StrEnum):
    """What a segment is for; the value is its name where there is one of the kind."""

    KERNEL = "kernel"
    INITRD = "initrd"
    MODULE = "module"
    COMMAND_LINE = "command line"
    BOOT_PARAMS = "boot_params"
    SETUP_DATA = "setup_data"
    MULTIBOOT = "Multiboot information"
    MULTIBOOT2 = "Multiboot2 information"
    START_INFO = "start info"
    CORE_HEADER = "core header"
    BACKUP = "backup of low memory"
    PURGATORY = "purgatory"
    ENTRY_STUB = "entry stub"
    OTHER = "segment"
    """What somebody else's loader placed, and nothing says what it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A piece of the new kernel: `data` first, zeros up to the end of `destination`."""

    role: SegmentRole
    destination: Extent
    data: Buffer
    why: str
    number: int = 1
    """Which one, where there are several of the role."""

    @property
    def name(self) -> str:
        """What people call it: `initrd`, `kernel part 2`, `module 1`."""
        if self.role is SegmentRole.KERNEL:
            return self.role.value if self.number == 1 else f"{self.role} part {self.number}"
        if self.role in (SegmentRole.MODULE, SegmentRole.OTHER):
            return f"{self.role} {self.number}"
        return self.role.value


ZERO_FRAME = -1
"""The source of a page that has none: it is cleared (Xen's IND_ZERO)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backup:
    """What of the old kernel's low memory is saved, and where in the crash region it is kept.

    Whole pages in a plan of ours; kexec-tools saves what the memory map calls RAM, to the byte.
    """

    source: Extent
    copy: Phys


@dataclass(frozen=True, kw_only=True, slots=True)
class Intent:
    """Where every byte has to go.  Arrays have one element per copied page, in the order of the
    copy."""

    image: Image
    """The new kernel's, as it was read."""
    paging: Paging
    """The tables of the walk: the host's, but for 32-bit code that a 64-bit hypervisor calls."""
    through: Through
    """Who calls V."""
    control_page: Phys
    relocation: Virt
    """V: see `through.called_at`."""
    segments: tuple[Segment, ...]
    destinations: NDArray[np.int64]
    """Frame numbers that the copy writes."""
    sources: NDArray[np.int64]
    """Frame numbers that the copy reads; equal to the destination where the page is in place."""
    identity: tuple[Named, ...]
    """What has to be reachable after step 5, each address as itself, and why."""
    entry: Phys
    """Where the relocation code jumps: the entry stub, or somebody else's purgatory."""
    protocol: Protocol
    """What state the new kernel's entry expects."""
    kernel_entry: Phys
    """The new kernel's own first instruction."""
    entry_bits: int
    """The mode of that instruction, 32 or 64."""
    arguments: Mapping[str, int]
    """What the protocol puts into registers: those of `Registers.general` that are not zero."""
    command_line: str
    inputs: Inputs
    """What all of it was made from, besides image and host."""
    crash: bool = False
    """Everything lies in the crash region already: the list is just IND_DONE."""
    backup: tuple[Backup, ...] = ()
    """What the entry stub of a crash kexec copies before the new kernel writes over it."""

    @property
    def stub_at(self) -> Phys:
        """Where the entry stub lies: at the entry, unless a purgatory comes before it."""
        stubs = (each for each in self.segments if each.role is SegmentRole.ENTRY_STUB)
        stub = next(stubs, None)
        return self.entry if stub is None else Phys(stub.destination.start)

    @property
    def purgatory(self) -> Extent | None:
        """Where a purgatory lies, None where the entry stub is what is jumped to."""
        found = (each for each in self.segments if each.role is SegmentRole.PURGATORY)
        return next((each.destination for each in found), None)

    @property
    def word(self) -> int:
        """Bytes of a word of the code that walks: 8 in long mode, else 4."""
        return 8 if self.paging.long_mode else 4

    @property
    def boot_params(self) -> int:
        """The zero page's address.  Raises KeyError where the protocol has none."""
        return self.arguments["rsi"]

    @property
    def in_place(self) -> int:
        """Pages whose source frame is their destination: no copy needed."""
        return int((self.destinations == self.sources).sum())
