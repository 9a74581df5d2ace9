"""Where every byte goes: what `plan.prepare` gives.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tightrope.memory import Extent, Phys, Virt
from tightrope.model.walk import Paging

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tightrope.model.host import Host, Named
    from tightrope.model.image import Buffer, Image, Protocol
    from tightrope.model.inputs import Inputs
    from tightrope.model.xen import XenLoad


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A piece of the new kernel: `data` first, zeros up to the end of `destination`."""

    name: str
    destination: Extent
    data: Buffer
    why: str


ZERO_FRAME = -1
"""The source of a page that has none: it is cleared (Xen's IND_ZERO)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backup:
    """Whole pages of the old kernel's low memory, and where in the crash region they are kept."""

    source: Extent
    copy: Phys


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Where every byte goes.  Arrays have one element per copied page, in the order of the copy."""

    image: Image
    host: Host
    segments: tuple[Segment, ...]
    destinations: NDArray[np.int64]
    """Frame numbers that the copy writes."""
    sources: NDArray[np.int64]
    """Frame numbers that the copy reads; equal to the destination where the page is in place."""
    head: int
    """The first word of the page list (`kimage->head`)."""
    list_pages: Mapping[int, NDArray[np.unsignedinteger]]
    """Frame address -> the words of each page of the list, as wide as the old kernel's."""
    control_page: Phys
    relocation: Virt
    """V: the host's, or where its direct map has the control page."""
    spare: tuple[Extent, ...]
    """Frames set aside for page_table_a and page_table_b."""
    identity: tuple[Named, ...]
    """What has to be reachable after step 5, each address as itself, and why."""
    entry: Phys
    """Where the relocation code jumps: the entry stub."""
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
    xen: XenLoad | None = None
    """What dom0 hands to the hypervisor; None where the old kernel jumps by itself."""
    backup: tuple[Backup, ...] = ()
    """What the entry stub of a crash kexec copies before the new kernel writes over it."""

    @property
    def paging(self) -> Paging:
        """The tables of the walk: the host's, but for 32-bit code that a 64-bit hypervisor calls."""
        leaves = self.xen is not None and self.xen.leaves is not None
        return Paging.PAE if leaves else self.host.paging

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
