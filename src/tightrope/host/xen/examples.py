"""Example hypervisors, derived from the example hosts: their addresses, and a [xen] table behind.

    Xen of the thread's days, 32 bits         Xen, 64 bits (xen/include/asm-x86/config.h)
    0xfffb_8000  fixmaps of kexec             0xffff_830...  direct map of all RAM
    0xffc0_0000  ioremap and fixmap area      0xffff_82d...  text (4.17; in the direct map in 3.0)
    0xff00_0000  direct map, 12 MiB           0xffff_828...  ioremap and fixmap area (3.0)
    0xfc00_0000  virt_start (PAE 0xf580_0000) 0xffff_800...  virt_start

Rules: as `examples`: values are replaced line by line in the one commented document.  A Xen of 2006
lies at 1 MiB; here it lies at 4 MiB, so that its text begins with a large page.
"""

from __future__ import annotations

import re

from tightrope.errors import HostError
from tightrope.host.examples import SOURCE, _set, example
from tightrope.memory import Extent
from tightrope.model import Paging, XenInterface

COMPAT = "3.1"
"""The first 64-bit Xen with a 32-bit dom0."""
VERSIONS = {XenInterface.V1: "3.0", XenInterface.V2: "4.17"}
"""3.0.4 was the first with kexec; 4.17 is Debian 12's."""
FIXMAP_64 = 0xFFFF_828B_FFF7_8000
"""fix_to_virt(FIX_KEXEC_BASE_0) of Xen 3.0.4 on x86_64: FIXADDR_TOP - 135 pages (fixmap.h)."""
FIXMAP_32, FIXMAP_PAE = 0xFFFB_8000, 0xFFF9_8000
"""The same on i386, with 64 I/O APICs instead of 128; PAE has 32 fixmaps of NR_CPUS before them."""
DOM0_64 = """text = 0xffff_ffff_8100_0000
text_start = 0x100_0000
text_size = 0x20_0000
relocation = 0xffff_ffff_8101_3000"""
DOM0_32 = """text = 0xc100_0000
text_start = 0x100_0000
text_size = 0x20_0000
relocation = 0xc101_3000"""
TABLE = """
[xen]                   # the old kernel is a hypervisor: everything above is its own, in machine addresses
version = "{version}"
virt_start = {virt_start:#x}  # from here on linear addresses are the hypervisor's
fixmap = {fixmap:#x}  # of the first page of interface v1's list; each further one is a page lower

[xen.dom0]              # the guest that asks for the jump; what it calls physical is pseudo-physical
bits = {bits}
{kernel}
pages = 0x1_0000        # of memory, scattered over the machine by the seed: no two neighbours adjacent
seed = 1
[xen.dom0.tables]       # pseudo-physical memory for its page tables
start = 0x200_0000
size = 0x4_0000
[[xen.dom0.hole]]       # pseudo-physical memory that is not there
start = 0xa_0000
size = 0x6_0000
[[xen.dom0.busy]]       # pseudo-physical memory that it cannot give away
start = 0x300_0000
size = 0x10_0000
what = "user processes"
"""


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
    long_mode = paging.long_mode
    bits = dom0_bits or (64 if long_mode else 32)
    if paging is Paging.LA57:
        raise HostError(
            "there has never been a Xen with 5-level paging", source=SOURCE, field="mode"
        )
    if not long_mode and interface is XenInterface.V2:
        raise HostError(
            "v2 came with Xen 4.4, and the last 32-bit Xen was 4.2: this never existed",
            source=SOURCE,
            field="mode",
        )
    if bits == 64 and not long_mode:
        raise HostError("a 32-bit Xen never had a 64-bit dom0", source=SOURCE, field="dom0")
    version = VERSIONS[interface]
    if interface is XenInterface.V1 and long_mode and bits == 32:
        version = COMPAT
    text = example(paging, None, crash)
    old = interface is XenInterface.V1
    if not long_mode:
        virt_start = 0xFC00_0000 if paging is Paging.I386 else 0xF580_0000
        fixmap = FIXMAP_32 if paging is Paging.I386 else FIXMAP_PAE
        direct, size, place = 0xFF00_0000, 0xC0_0000, 0xFF40_0000
    else:
        virt_start, fixmap, direct, size = (
            0xFFFF_8000_0000_0000,
            FIXMAP_64,
            0xFFFF_8300_0000_0000,
            0,
        )
        place = 0xFFFF_8300_0040_0000 if old else 0xFFFF_82D0_4000_0000
    for key, value, section in (
        ("relocation", f"{place + 0x1_6000:#x}", None),
        ("virt", f"{place:#x}", "text"),
        ("phys", "0x40_0000", "text"),
        ("size", "0x40_0000", "text"),
        ("virt", f"{direct:#x}", "direct_map"),
        ("start", "0x80_0000", "private"),
        ("size", "0x40_0000", "private"),
    ):
        text = _set(text, key, value, section=section)
    if size:
        text = re.sub(r"(?m)^size = 0x3[0-9a-f]+$", f"size = {size:#x}", text, count=1)
    text = re.sub(
        r"(?m)^# This file .*$|^# is a PC with a 32-bit kernel.*$",
        f"# This file is an example of Xen {version} with a {bits}-bit dom0.",
        text,
    )
    text = text.replace('what = "slab and page cache"', 'what = "xenheap"')
    text = text.replace('what = "user memory"', 'what = "another domain"')
    return text + TABLE.format(
        version=version,
        virt_start=virt_start,
        fixmap=fixmap,
        bits=bits,
        kernel=DOM0_64 if bits == 64 else DOM0_32,
    )
