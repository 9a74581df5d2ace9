"""What a user asks for besides image and host.

Rules: values only; what of it an entry can take is judged where it is placed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tightrope.model import Buffer, Loaded, Module, OnDamage, Protocol, XenCrash, XenInterface


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a user asks for besides image and host.

    `scatter` seeds a shuffle of the free frames; None takes them from the largest extent in order.
    """

    initrd: Buffer | None = None
    initrd_source: str = "initrd"
    modules: tuple[Module, ...] = ()
    command_line: str = ""
    scatter: int | None = None
    protocol: Protocol | None = None
    """The entry to take; None takes the best that the old kernel can reach."""
    crash: bool = False
    """For a crash: everything goes into the crash region, beforehand."""
    xen: XenInterface | None = None
    """The old kernel is dom0, and the host its hypervisor: ask for the jump in this way."""
    crashed: XenCrash = XenCrash.DOM0
    """With `crash` under Xen, who dies."""
    whole_memory: bool = False
    """The tables map all memory, as an old Linux fills them, and not what is needed alone."""
    from_top: bool = False
    """The kernel goes to the highest free place and not to pref_address, if it can be moved: there
    Linux hands out memory first, so that most pages are loaded in their place and need no copy."""
    verify: OnDamage | None = None
    """A purgatory looks at every segment before the new kernel is entered, and does this when one
    is damaged."""
    digest: Callable[[Buffer], bytes] | None = None
    """Who makes the digests that the purgatory compares, where something is faster than hashlib."""
    loaded: Loaded | None = None
    """Segments that have their places; without any they are placed here."""
    backup: bool | None = None
    """For a crash: whether low memory is saved; None saves it where the host says that the old
    kernel keeps something there."""
