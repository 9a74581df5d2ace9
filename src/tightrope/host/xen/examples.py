"""Example hypervisors, as values: the example hosts with a hypervisor's addresses and a [xen]
table.

    Xen of the thread's days, 32 bits         Xen, 64 bits (xen/include/asm-x86/config.h)
    0xfffb_8000  fixmaps of kexec             0xffff_830...  direct map of all RAM
    0xffc0_0000  ioremap and fixmap area      0xffff_82d...  text (4.17; in the direct map in 3.0)
    0xff00_0000  direct map, 12 MiB           0xffff_828...  ioremap and fixmap area (3.0)
    0xfc00_0000  virt_start (PAE 0xf580_0000) 0xffff_800...  virt_start

Rules: as `examples`.  A Xen of 2006 lies at 1 MiB; here it lies at 4 MiB, so that its text begins
with a large page.
"""

from __future__ import annotations

from dataclasses import replace

from tightrope.errors import HostError
from tightrope.host.document import DirectMapTable, Document, PlaceTable, TextTable
from tightrope.host.examples import SOURCE, described, shown
from tightrope.host.profile import read
from tightrope.host.xen.document import Dom0Table, PseudoNamedTable, PseudoTable, XenTable
from tightrope.memory import Extent
from tightrope.model import Paging, XenInterface
from tightrope.model.modes import MODES

COMPAT = "3.1"
"""The first 64-bit Xen with a 32-bit dom0."""
VERSIONS = {XenInterface.V1: "3.0", XenInterface.V2: "4.17"}
"""3.0.4 was the first with kexec; 4.17 is Debian 12's."""
VIRT_START = {
    Paging.I386: 0xFC00_0000,
    Paging.PAE: 0xF580_0000,
    Paging.X86_64: 0xFFFF_8000_0000_0000,
}
FIXMAP = {
    Paging.I386: 0xFFFB_8000,
    Paging.PAE: 0xFFF9_8000,
    Paging.X86_64: 0xFFFF_828B_FFF7_8000,
}
"""fix_to_virt(FIX_KEXEC_BASE_0) of Xen 3.0.4: on x86_64 FIXADDR_TOP - 135 pages (fixmap.h), on
i386 with 64 I/O APICs instead of 128; PAE has 32 fixmaps of NR_CPUS before them."""
DIRECT_MAP = 0xFFFF_8300_0000_0000
DOM0_TEXT = {64: 0xFFFF_FFFF_8100_0000, 32: 0xC100_0000}


def dom0(bits: int, pages: int = 0x1_0000) -> Dom0Table:
    """A dom0 of so many pages, with its kernel where Linux is linked to."""
    text = DOM0_TEXT[bits]
    return Dom0Table(
        bits=bits,
        text=text,
        text_start=0x100_0000,
        text_size=0x20_0000,
        relocation=text + 0x1_3000,
        pages=pages,
        seed=1,
        tables=PseudoTable(start=0x200_0000, size=0x4_0000),
    )


def xen_example(
    paging: Paging = Paging.X86_64,
    interface: XenInterface = XenInterface.V2,
    *,
    dom0_bits: int | None = None,
    crash: Extent | None = None,
) -> str:
    """A hypervisor and its dom0 as a TOML document that `read` takes.

    `dom0_bits` is the hypervisor's own width when None.  Raises HostError for what never existed.
    """
    document = _described(paging, interface, dom0_bits, crash)
    assert document.xen is not None
    version, bits = document.xen.version, document.xen.dom0.bits
    text = shown(document, f"This file is an example of Xen {version} with a {bits}-bit dom0.")
    if crash is not None:
        read(text, SOURCE)  # a region that cannot be one
    return text


def _described(
    paging: Paging, interface: XenInterface, dom0_bits: int | None, crash: Extent | None
) -> Document:
    long_mode = paging.long_mode
    bits = dom0_bits or (64 if long_mode else 32)
    if not MODES[paging].under_xen:
        raise HostError(
            "there has never been a Xen with 5-level paging", source=SOURCE, field="mode"
        )
    if not long_mode and interface is XenInterface.V2:
        raise HostError(
            "v2 came with Xen 4.4, and the last 32-bit Xen was 4.2: there was never such a Xen",
            source=SOURCE,
            field="mode",
        )
    if bits == 64 and not long_mode:
        raise HostError("a 32-bit Xen never had a 64-bit dom0", source=SOURCE, field="dom0")
    old = interface is XenInterface.V1
    version = COMPAT if old and long_mode and bits == 32 else VERSIONS[interface]
    plain = described(paging, None, crash)
    direct = DirectMapTable(virt=DIRECT_MAP, page_size=plain.direct_map.page_size)
    place = DIRECT_MAP + 0x40_0000 if old else 0xFFFF_82D0_4000_0000
    if not long_mode:
        direct = replace(plain.direct_map, virt=0xFF00_0000, size=0xC0_0000)
        place = 0xFF40_0000
    guest = dom0(bits)
    return replace(
        plain,
        relocation=place + 0x1_6000,
        text=TextTable(virt=place, phys=0x40_0000, size=0x40_0000),
        direct_map=direct,
        private=PlaceTable(start=0x80_0000, size=0x40_0000),
        busy=tuple(
            replace(each, what=what)
            for each, what in zip(plain.busy, ("xenheap", "another domain"), strict=True)
        ),
        xen=XenTable(
            version=version,
            virt_start=VIRT_START[paging],
            fixmap=FIXMAP[paging],
            dom0=replace(
                guest,
                hole=(PseudoTable(start=0xA_0000, size=0x6_0000),),
                busy=(PseudoNamedTable(start=0x300_0000, size=0x10_0000, what="user processes"),),
            ),
        ),
    )
