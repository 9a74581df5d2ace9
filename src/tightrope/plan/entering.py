"""Which entry of an image an old kernel can reach, and the stub that makes its state.

    old kernel        entry of the image     stub
    x86_64            64-bit                 enter_bzimage_x86_64
    LA57              64-bit, if the image accepts 5 levels (XLF_5LEVEL)
    x86_64, LA57      32-bit                 enter_bzimage_i386_from_x86_64: long mode is left
    i386, PAE         32-bit                 enter_bzimage_i386: paging is off already

Rules: this file knows modes and protocols, and no address.  A 32-bit entry needs everything below
4 GiB.  Leaving 5 levels for 4 is only legal outside long mode (SDM 2.5, CR4.LA57), which is what the
32-bit entry does.
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.abi import boot
from tightrope.errors import PlanError
from tightrope.model import EntryPoint, Host, Image, Paging, Protocol
from tightrope.routines import (
    ENTER_BZIMAGE_I386,
    ENTER_BZIMAGE_I386_FROM_X86_64,
    ENTER_BZIMAGE_X86_64,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The entry that is taken and the routine that the entry stub is made from."""

    entry: EntryPoint
    stub: str

    @property
    def below_4g(self) -> bool:
        """Everything that the new kernel is handed has to lie below 4 GiB."""
        return self.entry.bits == 32


def way_in(image: Image, host: Host, wanted: Protocol | None) -> Way:
    """The way in that was asked for, or the best there is.  Raises PlanError with the reason."""
    entries = {each.protocol: each for each in image.entries}
    problems = []
    for protocol in [wanted] if wanted else [Protocol.LINUX_64, Protocol.LINUX_32]:
        problem = _problem(image, host, protocol)
        if problem is None:
            stub = ENTER_BZIMAGE_X86_64
            if protocol is Protocol.LINUX_32:
                stub = (
                    ENTER_BZIMAGE_I386_FROM_X86_64 if host.paging.long_mode else ENTER_BZIMAGE_I386
                )
            return Way(entry=entries[protocol], stub=stub)
        problems.append(problem)
    raise PlanError("; ".join(problems), source=image.source, field="entries")


def _problem(image: Image, host: Host, protocol: Protocol) -> str | None:
    """Why this old kernel cannot enter this image in this way, or None."""
    if protocol not in (Protocol.LINUX_64, Protocol.LINUX_32):
        return f"no entry stub for {protocol.value} yet"
    if all(each.protocol is not protocol for each in image.entries):
        offered = ", ".join(each.protocol for each in image.entries)
        bits = 64 if protocol is Protocol.LINUX_64 else 32
        return f"the image has no {bits}-bit entry of the Linux boot protocol, only {offered}"
    if protocol is Protocol.LINUX_64:
        if not host.paging.long_mode:
            return "a 32-bit old kernel cannot take the 64-bit entry"
        if host.paging is Paging.LA57 and not image.xloadflags & boot.XLoadFlags.XLF_5LEVEL:
            return "the 64-bit entry does not accept 5-level tables (no XLF_5LEVEL)"
    return None
