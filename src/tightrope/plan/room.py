"""Room for the new kernel's segments: how high and how low each may lie, given out one after the
other.

    load, at pref_address when that is RAM     the kernel and all of its init_size
    below 4 GiB, from the top                  initrd, command line, boot_params, entry stub
    above 4 GiB                                only what did not fit, if the image allows it

Rules: nothing is given twice.  What the old kernel can give away comes first, then any RAM; a crash
kernel gets the crash region and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from tightrope.abi import boot
from tightrope.errors import PlanError
from tightrope.memory import PAGE_SIZE, Extent, align_up, subtract
from tightrope.model import Host, Image, Part
from tightrope.plan.placement import (
    FOUR_GIB,
    crash_ram,
    find_hole,
    free_ram,
    largest,
    low_ram,
    ram_for_new_kernel,
)


class Room:
    """What is still free for destinations.  Raises PlanError when something does not fit."""

    def __init__(
        self,
        host: Host,
        image: Image,
        *,
        below_4g: bool,
        crash: bool,
        fixed: bool = False,
        from_top: bool = False,
    ) -> None:
        """`fixed`: the kernel has to lie at pref_address, relocatable or not; `from_top`: it goes
        to the highest free place where it need not."""
        self._from_the_top = from_top
        self._image = image
        self._fixed = fixed or not image.relocatable
        self._above_4g = image.above_4g and not below_4g
        self._host = host
        self._crash = crash
        self._ram = crash_ram(host) if crash else ram_for_new_kernel(host)
        self._free = self._ram if crash else free_ram(host)

    @property
    def _whose(self) -> str:
        """What segments are placed in, for errors."""
        return f"the crash region {self._host.crash_region}" if self._crash else "RAM"

    def _take(self, extent: Extent) -> Extent:
        self._ram = subtract(self._ram, [extent])
        self._free = subtract(self._free, [extent])
        return extent

    def kernel(self) -> Extent:
        """Where the image goes: pref_address, or the lowest place that fits."""
        image = self._image
        size = align_up(image.init_size, PAGE_SIZE)
        wanted = Extent.sized(image.pref_address, image.init_size).page_aligned()
        movable = image.reach is None or image.payload is not None
        if self._from_the_top and not self._fixed and movable:
            align = max(image.alignment, PAGE_SIZE)
            low = max(boot.MIN_KERNEL_LOAD_ADDR, image.pref_address)
            high = min(FOUR_GIB, image.reach or FOUR_GIB)
            hole = find_hole(self._free, size, alignment=align, low=low, high=high, from_top=True)
            if hole:
                return self._take(hole)
        needed = [wanted] if image.solid else [self._part(each) for each in image.parts]
        linked = self._ram if self._crash else (*low_ram(self._host), *self._ram)
        if all(any(ram.covers(each) for ram in linked) for each in needed):
            for each in needed:
                self._take(each)
            return wanted
        if self._fixed:
            raise PlanError(
                f"the kernel has to be loaded at {wanted}, and not all of that is {self._whose}",
                source=image.source,
                field="pref_address",
            )
        high = 1 << 64 if self._above_4g else FOUR_GIB
        if image.reach is not None:
            high = min(high, image.reach)
        low = max(boot.MIN_KERNEL_LOAD_ADDR, image.pref_address)
        for extents in (self._free, self._ram):
            hole = find_hole(
                extents,
                size,
                alignment=max(image.alignment, PAGE_SIZE),
                low=low,
                high=high,
                from_top=False,
            )
            if hole:
                return self._take(hole)
        raise PlanError(
            f"needs {size:#x} bytes of {self._whose} in one piece from {low:#x} up"
            f"{', below 4 GiB' if high == FOUR_GIB else f', below {high:#x}' * (high < 1 << 64)};"
            f" the largest piece has {largest(self._ram):#x}",
            source=image.source,
            field="init_size",
            limit=largest(self._ram),
        )

    def _part(self, part: Part) -> Extent:
        """The whole pages of a part of an image that lies where it is linked."""
        return Extent.sized(self._image.pref_address + part.offset, part.size).page_aligned()

    def initrd(self, size: int, source: str) -> Extent:
        """The highest place that the image allows for `size` bytes."""
        limit = self._image.initrd_limit + 1
        tops = [min(limit, FOUR_GIB)] + ([1 << 64] if self._above_4g else [])
        whole = align_up(size, PAGE_SIZE)
        low = boot.MIN_INITRD_LOAD_ADDR
        hole = self._from_top(whole, tops, low)
        if hole is None:
            raise PlanError(
                f"no room for {size:#x} bytes of initrd between {low:#x} and its highest address",
                source=source,
                field="initrd_addr_max",
                limit=limit - 1 if not self._above_4g else None,
            )
        return hole

    def low(self, what: str, size: int) -> Extent:
        """The lowest place above the first MiB for something of a few pages."""
        whole = align_up(size, PAGE_SIZE)
        for extents in (self._free, self._ram):
            hole = find_hole(extents, whole, high=FOUR_GIB, from_top=False)
            if hole:
                return self._take(hole)
        raise self._no_room(what)

    def small(self, what: str, size: int) -> Extent:
        """The highest place for something of a few pages."""
        tops = [FOUR_GIB] + ([1 << 64] if self._above_4g else [])
        hole = self._from_top(align_up(size, PAGE_SIZE), tops)
        if hole is None:
            raise self._no_room(what)
        return hole

    def _no_room(self, what: str) -> PlanError:
        return PlanError(
            f"no room for the {what} in {self._whose}",
            source=self._host.source,
            field="crash_region" if self._crash else "memory",
        )

    def _from_top(self, size: int, tops: Sequence[int], low: int = 0) -> Extent | None:
        for extents in (self._free, self._ram):
            for top in tops:
                hole = find_hole(extents, size, low=low, high=top, from_top=True)
                if hole:
                    return self._take(hole)
        return None
