"""Who calls V: the old kernel itself, or a hypervisor on behalf of its dom0.

    Bare       machine_kexec calls V
    XenV1      the hypervisor calls the fixmap that it gave to the control page; dom0's pages and tables
    XenCompat  the same for a 32-bit dom0 of a 64-bit hypervisor, which leaves long mode first
    XenV2      the hypervisor calls code of its own; dom0 hands over segments

Rules: frozen, keyword-only, slotted.  Whoever decides by them matches all four, and ends in
`assert_never`: there is no other way through.  Whoever has something to say of one alone asks for
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, assert_never

from tightrope.choices import XenInterface
from tightrope.memory import PAGE_SIZE, Phys, Virt

if TYPE_CHECKING:
    from tightrope.choices import XenCrash
    from tightrope.model.host import Host, Named
    from tightrope.model.xen import Xen, XenPage


@dataclass(frozen=True, kw_only=True, slots=True)
class Bare:
    """The old kernel jumps by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class XenV1:
    """The load hypercall of interface v1: `pages` is page_list."""

    interface: ClassVar[XenInterface] = XenInterface.V1
    xen: Xen
    crash: XenCrash | None
    pages: tuple[XenPage, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class XenCompat:
    """v1 for a 32-bit dom0 of a 64-bit hypervisor: the control page is called at its machine
    address."""

    interface: ClassVar[XenInterface] = XenInterface.V1
    xen: Xen
    crash: XenCrash | None
    pages: tuple[XenPage, ...]
    leaves: Virt
    """Where the hypervisor has the code that leaves long mode."""


@dataclass(frozen=True, kw_only=True, slots=True)
class XenV2:
    """The load hypercall of interface v2."""

    interface: ClassVar[XenInterface] = XenInterface.V2
    xen: Xen
    crash: XenCrash | None
    segments: tuple[Named, ...]
    """The destinations of what has a buffer."""
    mapped: tuple[Named, ...]
    """Segments without a buffer, which the image only wants to reach."""
    legacy_exit: bool
    """EM_386: the image is entered with paging off."""


PageList = XenV1 | XenCompat
"""Both ways by interface v1: dom0 hands over an array of pages, and its own code walks."""
UnderXen = XenV1 | XenCompat | XenV2
Through = Bare | XenV1 | XenCompat | XenV2


def called_at(through: Through, host: Host, control_page: Phys, *, stays: bool = False) -> Virt:
    """V: where the code is called.  With `stays` it stays in the old kernel's text.

    The host's own where it says one; else the text's last page, or the control page in the direct
    map.
    """
    match through:
        case XenV1():
            return through.xen.fixmap
        case XenCompat():
            return Virt(control_page)
        case Bare() | XenV2():
            if host.relocation is not None:
                return host.relocation
            if stays:
                return Virt(host.text.virt + host.text.size - PAGE_SIZE)
            return Virt(host.direct_map.virt + control_page)
        case _:
            assert_never(through)
