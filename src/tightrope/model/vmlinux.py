"""An old kernel's own image: its bytes by linked address, and its symbols.

    virt ->  +-----------+  text, data: where the kernel was linked to run (KASLR moves all of it alike)
             |  segment  |
             +-----------+
    symbols      name -> the linked addresses that bear it

Rules: frozen, keyword-only, slotted; nouns only, see the package.  Addresses are the linked ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tightrope.errors import ImageError
from tightrope.memory import Virt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkedSegment:
    """Bytes of the file that one PT_LOAD puts at the linear address `virt`; zeros behind them left
    out."""

    virt: Virt
    data: memoryview

    def __contains__(self, address: int) -> bool:
        return self.virt <= address < self.virt + len(self.data)


@dataclass(frozen=True, kw_only=True, slots=True)
class Symbols:
    """A kernel's symbols in the order of their addresses; names may stand several times.

    `names` is one line a symbol, a newline before each: a letter for the kind (as `nm` prints it),
    then the name.  `starts` has the offset of each line, `addresses` the address.
    """

    names: bytes
    starts: NDArray[np.int64]
    addresses: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.addresses)

    def addresses_of(self, name: str) -> tuple[Virt, ...]:
        """Every address that bears the name, lowest first; none when it is not there."""
        wanted = name.encode() + b"\n"
        found = []
        at = self.names.find(wanted)
        while at >= 0:
            if self.names[at - 2 : at - 1] == b"\n":
                line = int(self.starts.searchsorted(at - 1, "right")) - 1
                found.append(Virt(int(self.addresses[line])))
            at = self.names.find(wanted, at + 1)
        return tuple(sorted(found))

    def address(self, name: str) -> Virt | None:
        """The address of a name that stands once; None when it is not there, or several times."""
        found = set(self.addresses_of(name))
        return found.pop() if len(found) == 1 else None

    def room(self, name: str) -> int | None:
        """Bytes from a name that stands once to the next symbol behind it; None without either."""
        at = self.address(name)
        if at is None:
            return None
        behind = self.addresses[self.addresses > at]
        return int(behind.min()) - at if len(behind) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Vmlinux:
    """The uncompressed kernel inside an image.

    `version` is what its banner says behind "Linux version"; `symbols` is None where the image has
    none.
    """

    source: str
    bits: int
    version: str | None
    segments: tuple[LinkedSegment, ...]
    symbols: Symbols | None

    def at(self, address: int, size: int) -> bytes:
        """`size` bytes from a linked address.  Raises ImageError where the file has none of
        them."""
        for segment in self.segments:
            if address in segment and address + size <= segment.virt + len(segment.data):
                offset = address - segment.virt
                return bytes(segment.data[offset : offset + size])
        raise ImageError(
            f"{size:#x} bytes at {address:#x} are in no segment",
            source=self.source,
            field="PT_LOAD",
        )
