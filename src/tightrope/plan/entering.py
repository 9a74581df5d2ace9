"""Which entry of an image an old kernel can reach, and the stub that makes its state.

    old kernel        entry of the image     stub
    x86_64            64-bit                 enter_64
    LA57              64-bit, if the image accepts 5 levels (XLF_5LEVEL)
    x86_64, LA57      32-bit                 enter_32_from_64: long mode is left
    i386, PAE         32-bit                 enter_32: paging is off already

Every protocol but Linux's 64-bit one and a 64-bit flat binary has a 32-bit entry.

Rules: this file knows modes and protocols, and no address.  A 32-bit entry needs everything below 4
GiB.  Leaving 5 levels for 4 is only legal outside long mode (SDM 2.5, CR4.LA57), which is what the
32-bit entry does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tightrope.abi import boot
from tightrope.errors import PlanError
from tightrope.model import EntryPoint, Host, Image, Protocol
from tightrope.model.modes import MODES
from tightrope.routines import ENTER_32, ENTER_32_FROM_64, ENTER_64
from tightrope.routines import read as read_routine
from tightrope.x86.cpu import CR0_ET, CR0_MP, CR0_NE, CR0_PE

LINUX = (Protocol.LINUX_64, Protocol.LINUX_32)
KNOWN_CR0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE
PVH_CR0 = CR0_PE | CR0_ET
"""All writable bits but PE are clear (Xen docs/misc/pvh.pandoc); ET cannot be written."""
STUB_WORDS = {"word_eax": "rax", "word_ebx": "rbx", "word_esi": "rsi", "word_rsi": "rsi"}
"""A stub's word for a register, by its symbol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The entry that is taken and the routine that the entry stub is made from."""

    entry: EntryPoint
    stub: str

    @property
    def below_4g(self) -> bool:
        """Everything that the new kernel is handed has to lie below 4 GiB."""
        return self.entry.bits == 32

    @property
    def fixed(self) -> bool:
        """The kernel has to lie where it is linked, even if it could be moved for another entry."""
        return self.entry.protocol not in LINUX


def way_in(image: Image, host: Host, wanted: Protocol | None) -> Way:
    """The way in that was asked for, or the best there is.  Raises PlanError with the reason."""
    if wanted is None and image.doubt is not None:
        bits = image.entries[0].bits
        raise PlanError(
            f"{image.doubt}: --entry flat enters it all the same, at e_entry in {bits}-bit mode",
            source=image.source,
            field="entries",
        )
    entries = {each.protocol: each for each in image.entries}
    problems = []
    for protocol in [wanted] if wanted else entries:
        problem = _problem(image, host, protocol)
        if problem is None:
            entry = entries[protocol]
            stub = ENTER_64
            if entry.bits == 32:
                stub = ENTER_32_FROM_64 if host.paging.long_mode else ENTER_32
            return Way(entry=entry, stub=stub)
        problems.append(problem)
    raise PlanError("; ".join(problems), source=image.source, field="entries")


def laid_for(image: Image, wanted: Protocol | None) -> Image:
    """The image as the entry that was asked for wants it laid: itself, or one of its
    alternatives."""
    laid = (image, *image.alternatives)
    offers = (each for each in laid if any(entry.protocol is wanted for entry in each.entries))
    return next(offers, image)


def filled(way: Way, page: bytes, leads_to: int, registers: Mapping[str, int]) -> bytes:
    """A page that begins with the stub, with its words: where it jumps, and what registers hold."""
    stub = read_routine(way.stub)
    words = {symbol: registers.get(name, 0) for symbol, name in STUB_WORDS.items()}
    words["kernel_entry"] = leads_to
    words["known_cr0"] = PVH_CR0 if way.entry.protocol is Protocol.PVH else KNOWN_CR0
    data = bytearray(page)
    for symbol, value in words.items():
        if symbol in stub.symbols:
            at = stub.symbols[symbol]
            data[at : at + 8] = value.to_bytes(8, "little")
    return bytes(data)


def _problem(image: Image, host: Host, protocol: Protocol) -> str | None:
    """Why this old kernel cannot enter this image in this way, or None."""
    found = next((each for each in image.entries if each.protocol is protocol), None)
    if found is None:
        laid = (image, *image.alternatives)
        offered = ", ".join(entry.protocol for each in laid for entry in each.entries)
        return f"the image has no {_NAMES[protocol]}, only {offered}"
    if found.bits == 64:
        if not host.paging.long_mode:
            return "a 32-bit old kernel cannot take the 64-bit entry"
        if (
            protocol is Protocol.LINUX_64
            and MODES[host.paging].levels == 5
            and not image.xloadflags & boot.XLoadFlags.XLF_5LEVEL
        ):
            return "the 64-bit entry does not accept 5-level tables (no XLF_5LEVEL)"
    return None


_NAMES = {
    Protocol.LINUX_64: "64-bit entry of the Linux boot protocol",
    Protocol.LINUX_32: "32-bit entry of the Linux boot protocol",
    Protocol.PVH: "PVH entry",
    Protocol.MULTIBOOT: "Multiboot entry",
    Protocol.MULTIBOOT2: "Multiboot2 entry",
    Protocol.FLAT: "entry without arguments",
}
