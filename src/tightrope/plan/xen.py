"""What differs when the jump is asked of a hypervisor: whose frames, which V, what is loaded.

                 v1                                          v2
    frames       dom0's own, as its p2m has them             the hypervisor's, none of them dom0's
    V            the fixmap of the control page              kexec_reloc in the hypervisor's text
    handed over  page_list: one pair of slots for a page     at most 15 segments, with and without buffer
    crash        all in the crash region                     all in the crash region

Sources: xen/include/public/kexec.h; kexec_load, kexec_load_v1 in xen/common/kexec.c;
do_kimage_alloc in xen/common/kimage.c; machine_kexec_setup_load_arg in
arch/x86_64/kernel/machine_kexec.c of Linux-Xen 2.6.16 (xen-project/xen commit 6fc8621b96).

Rules: frames are machine frames from here on; pseudo-physical ones are only kept beside them, for
reports.  A combination that no Xen ever took is refused here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tightrope.abi import xen as abi
from tightrope.errors import PlanError
from tightrope.memory import (
    PAGE_SHIFT,
    PAGE_SIZE,
    Extent,
    Machine,
    Phys,
    Virt,
    subtract,
    union,
)
from tightrope.model import (
    Host,
    Named,
    Paging,
    Segment,
    UnderXen,
    Xen,
    XenCompat,
    XenCrash,
    XenInterface,
    XenPage,
    XenV1,
    XenV2,
)
from tightrope.model.p2m import HOLE
from tightrope.plan.entering import Way
from tightrope.plan.placement import ram_for_new_kernel
from tightrope.routines import ENTER_32
from tightrope.x86.paging import FORMATS

SLOTS = {
    Paging.I386: abi.I386_SLOTS,
    Paging.PAE: abi.PAE_SLOTS,
    Paging.X86_64: abi.X86_64_SLOTS,
}
CHAINS = {
    Paging.I386: ("PGD", "PTE_0", "PTE_1"),
    Paging.PAE: ("PGD", "PMD_0", "PTE_0", "PMD_1", "PTE_1"),
    Paging.X86_64: ("PGD", "PUD_0", "PMD_0", "PTE_0", "PUD_1", "PMD_1", "PTE_1"),
}
"""The pages of page_table_a in the order in which its two chains are filled."""


def hypervisor(host: Host, interface: XenInterface) -> Xen:
    """The host's hypervisor.  Raises PlanError where it does not take the interface."""
    xen = host.xen
    if xen is None:
        raise PlanError("there is no hypervisor: no [xen]", source=host.source, field="xen")
    version = f"Xen {xen.version[0]}.{xen.version[1]}"
    problem = None
    if interface is XenInterface.V1:
        if xen.version >= abi.V1_DROPPED:
            problem = f"{version} has dropped interface v1 (4.23, commit 7702e782f3)"
        elif xen.version > abi.FIXMAP_UNTIL:
            problem = (
                f"{version} takes the page list of v1 and jumps with its own code and tables:"
                " rehearse v2"
            )
        elif xen.version < abi.COMPAT_SINCE and leaves_long_mode(host, interface):
            problem = f"{version} has no 32-bit dom0 on 64 bits: it came with 3.1"
    elif xen.version < abi.V2_SINCE:
        problem = f"{version} has no interface v2: it came with 4.4"
    elif not host.paging.long_mode:
        problem = f"v2 on a {host.paging.value} hypervisor never existed: the last was Xen 4.2"
    if problem:
        raise PlanError(problem, source=host.source, field="xen.version")
    return xen


def leaves_long_mode(host: Host, interface: XenInterface | None) -> bool:
    """Whether a 64-bit hypervisor calls a 32-bit dom0's own code: v1 does, of v2 the code is
    Xen's."""
    bits = host.xen.dom0.bits if host.xen else 64
    return interface is XenInterface.V1 and host.paging.long_mode and bits == 32


def as_walked(host: Host, interface: XenInterface | None) -> Host:
    """The host as the code sees it that walks: with the tables of dom0's width, which are PAE's."""
    return replace(host, paging=Paging.PAE) if leaves_long_mode(host, interface) else host


def exit_through(way: Way) -> Way:
    """v2: the hypervisor leaves long mode by itself when the image is entered in 32 bits."""
    return replace(way, stub=ENTER_32) if way.below_4g else way


def pages_with_data(segments: Sequence[Segment]) -> NDArray[np.bool_]:
    """One element for each page of the segments: whether it has a byte of data."""
    parts = [
        np.arange(len(each.destination.pages)) * PAGE_SIZE < len(each.data) for each in segments
    ]
    return np.concatenate(parts)


class ScatteredPool:
    """Single frames, each given once: dom0's for v1, the hypervisor's for v2."""

    def __init__(
        self,
        host: Host,
        interface: XenInterface,
        destinations: NDArray[np.int64],
        scatter: int | None,
    ) -> None:
        """A frame that is a destination is never given: a source is nobody's destination."""
        xen = hypervisor(host, interface)
        if interface is XenInterface.V1:
            frames, self._whose, self._reach = _of_dom0(host, xen), "dom0", 1 << 52
        else:
            # v2's code page has to be reached when paging is off.
            frames, self._whose, self._reach = _of_hypervisor(host, xen), "the hypervisor", 1 << 32
        self._source = host.source
        frames = frames[~np.isin(frames, destinations)]
        if scatter is not None:
            frames = np.random.default_rng(scatter).permutation(frames)
        self._frames = frames

    def control_page(self) -> Phys:
        """One page, where the code that walks can be.  Raises PlanError."""
        taken = self.take(1, "the control page", below=self._reach)
        return Phys(int(taken[0]) << PAGE_SHIFT)

    def take(self, count: int, what: str, *, below: int = 1 << 52) -> NDArray[np.int64]:
        """`count` machine frames whose addresses are below `below`.  Raises PlanError."""
        fit = np.nonzero(self._frames < below >> PAGE_SHIFT)[0][:count]
        if len(fit) < count:
            raise PlanError(
                f"{what} needs {count} free pages, and {self._whose} can give {len(fit)}",
                source=self._source,
                field="xen",
            )
        given: NDArray[np.int64] = self._frames[fit]
        self._frames = np.delete(self._frames, fit)
        return given


def _of_dom0(host: Host, xen: Xen) -> NDArray[np.int64]:
    """Machine frames that dom0 can give away, in its own order, as far as its list can name
    them."""
    dom0 = xen.dom0
    free = np.ones(len(dom0.p2m.frames), np.bool_)
    text = Extent.sized(dom0.text_start, dom0.text_size)
    for extent in (text, dom0.tables, *(each.extent for each in dom0.busy)):
        free[extent.pages.start : extent.pages.stop] = False
    frames = dom0.p2m.frames[free]
    reach = 1 << FORMATS[host.paging].identity_bits - PAGE_SHIFT
    out: NDArray[np.int64] = frames[(frames != HOLE) & (frames < reach)]
    return out


def _of_hypervisor(host: Host, xen: Xen) -> NDArray[np.int64]:
    """Machine frames that belong to nobody, the highest first, as Xen's allocator gives them."""
    text = Extent.sized(host.text.phys, host.text.size)
    named = (*host.busy, *host.crash_notes)
    taken = [text, host.private, *(each.extent.page_aligned() for each in named)]
    parts = [
        np.arange(each.pages.start, each.pages.stop, dtype=np.int64)
        for each in subtract(ram_for_new_kernel(host), taken)
    ]
    every = np.concatenate([*parts, np.zeros(0, np.int64)])
    return np.setdiff1d(every, xen.dom0.p2m.owned, assume_unique=True)[::-1]


def through(
    host: Host,
    interface: XenInterface,
    crash: XenCrash | None,
    *,
    control_page: Phys,
    tables: NDArray[np.int64],
    segments: Sequence[Segment],
    reach: Sequence[Named],
    legacy: bool,
) -> UnderXen:
    """What dom0 hands to the hypervisor, and so who calls V.

    `tables` are machine frames as they were given, page_table_a's chains first; `reach` is what the
    new kernel needs mapped besides the segments.  Raises PlanError for what the hypervisor would
    refuse, and where V is not known.
    """
    xen = hypervisor(host, interface)
    leaves = leaves_long_mode(host, interface)
    if (leaves or interface is XenInterface.V2) and host.relocation is None:
        raise PlanError(
            "Xen calls code in its own text first, and the host does not say where",
            source=host.source,
            field="relocation",
        )
    if interface is XenInterface.V2:
        return load_v2(xen, host, crash, segments, reach, legacy=legacy)
    pages = page_list(host, control_page, tables)
    if leaves and host.relocation is not None:
        return XenCompat(xen=xen, crash=crash, pages=pages, leaves=host.relocation)
    return XenV1(xen=xen, crash=crash, pages=pages)


def page_list(host: Host, control_page: Phys, tables: NDArray[np.int64]) -> tuple[XenPage, ...]:
    """page_list: the control page, page_table_a's pages, and on x86_64 the root of page_table_b.

    `tables` are machine frames, page_table_a's chains first.  There are no fixmaps for 32-bit code
    of a 64-bit hypervisor: the odd slots hold the machine addresses again, which its PAE tables
    map.
    """
    xen = hypervisor(host, XenInterface.V1)
    leaves = leaves_long_mode(host, XenInterface.V1)
    paging = as_walked(host, XenInterface.V1).paging
    chains = CHAINS[paging]
    places = {"CONTROL_PAGE": int(control_page)}
    places |= {name: int(frame) << PAGE_SHIFT for name, frame in zip(chains, tables, strict=False)}
    pages = []
    for number, name in enumerate(SLOTS[paging]):
        machine = Machine(Phys(places[name]))
        pages.append(
            XenPage(
                name=name,
                slot=2 * number,
                machine=machine,
                pseudo=xen.dom0.p2m.pseudo(machine),
                fixmap=Virt(machine if leaves else xen.fixmap - number * PAGE_SIZE),
            )
        )
    if paging.long_mode:
        machine = Machine(Phys(int(tables[len(chains)]) << PAGE_SHIFT))
        pseudo = xen.dom0.p2m.pseudo(machine)
        root = XenPage(
            name="TABLE_PAGE", slot=abi.PA_TABLE_PAGE, machine=machine, pseudo=pseudo, fixmap=None
        )
        pages.append(root)
    return tuple(pages)


def load_v2(
    xen: Xen,
    host: Host,
    crash: XenCrash | None,
    segments: Sequence[Segment],
    wanted: Sequence[Named],
    *,
    legacy: bool,
) -> XenV2:
    """The segments: what is loaded, and what of `wanted` the image only needs to reach.

    Raises PlanError for what the hypervisor would refuse: see `refuse_segments`.
    """
    loaded = tuple(Named(extent=each.destination, what=each.name) for each in segments)
    holes = [each.extent for each in loaded]
    mapped = tuple(
        Named(extent=extent, what=_why(extent, wanted))
        for extent in subtract(union(each.extent for each in wanted), holes)
    )
    refuse_segments(host, loaded, mapped, crash=crash is not None)
    return XenV2(xen=xen, crash=crash, segments=loaded, mapped=mapped, legacy_exit=legacy)


def refuse_segments(
    host: Host, loaded: Sequence[Named], mapped: Sequence[Named], *, crash: bool
) -> None:
    """Raise PlanError for what a v2 load answers with an error, in the words of its reason.

    EINVAL for 16 segments or more and for an overlap, EADDRNOTAVAIL for a segment that is not whole
    pages or, in a crash load, has a buffer and lies outside KEXEC_RANGE_MA_CRASH.
    """
    count = len(loaded) + len(mapped)
    if count >= abi.SEGMENT_MAX:
        raise PlanError(
            f"{count} segments are more than a v2 load takes",
            source=host.source,
            field="segments",
            limit=abi.SEGMENT_MAX - 1,
        )
    ordered = sorted((*loaded, *mapped), key=lambda each: each.extent.start)
    for each in ordered:
        if each.extent.start % PAGE_SIZE or each.extent.end % PAGE_SIZE:
            raise PlanError(
                f"{each.what} at {each.extent} is not whole pages",
                source=host.source,
                field="segments",
            )
    for one, other in pairwise(ordered):
        if one.extent.overlaps(other.extent):
            raise PlanError(
                f"{one.what} at {one.extent} and {other.what} at {other.extent} overlap",
                source=host.source,
                field="segments",
            )
    region = host.crash_region
    for each in loaded if crash else ():
        if region is None or not region.covers(each.extent):
            raise PlanError(
                f"{each.what} at {each.extent} is outside the crash region that Xen reports,"
                f" {region or 'none'}",
                source=host.source,
                field="crash_region",
            )


def _why(extent: Extent, wanted: Sequence[Named]) -> str:
    reasons = (each.what for each in wanted if each.extent.overlaps(extent))
    return " and ".join(dict.fromkeys(reasons))
