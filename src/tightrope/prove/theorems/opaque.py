"""Addresses that allow nothing but equality, so that a few cases stand for all of them.

    builder(V, P) --TokenTables--> entries --x86.walk--> where V, P and X lead

An address is known by the names of its table indices alone.  Whoever shifts and masks it gets such
a name; two names of one level can be compared and nothing else.  So builder and walker, unchanged,
cannot tell two addresses apart whose names coincide in the same way, and one case of each way is a
proof for all.  What the tokens take for granted about bits is proved beside them (`tables.bits`).

Rules: every use that is not foreseen raises TypeError: an unsound step is an error, never an
answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, product

from tightrope.prove.theorems.modes import Geometry

FLAGS = 0xFFF | 0x7FF << 52 | 1 << 63
"""The bits of an entry that are not an address (SDM tables 4-14 to 4-20)."""
OFFSET = 0xFFF


class Token:
    """Something that can be named in a message and has no truth, order or number."""

    def __bool__(self) -> bool:
        raise TypeError("a token was asked whether it is zero")

    def __format__(self, _spec: str) -> str:
        return str(self)


class Index(Token):
    """The slot of an address at one level."""

    def __init__(self, level: int, name: str) -> None:
        self.level, self.name = level, name

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Index) or other.level != self.level:
            raise TypeError("an index was compared with something else than an index of its level")
        return self.name == other.name

    def __hash__(self) -> int:
        return hash((self.level, self.name))

    def __rmul__(self, size: int) -> Slot:
        return Slot(self, size)


@dataclass(frozen=True, slots=True)
class Slot:
    """Bytes from a table's start to an entry."""

    index: Index
    size: int


@dataclass(frozen=True, slots=True)
class Place:
    """The physical address of an entry."""

    table: Frame
    slot: Slot

    def __format__(self, _spec: str) -> str:
        return f"entry {self.slot.index.name} of {self.table}"


@dataclass(frozen=True, slots=True)
class Offset:
    """The low twelve bits of an address."""

    of: Frame


@dataclass(frozen=True, slots=True)
class Located:
    """A byte: the same offset as the linear address, in a frame."""

    frame: Frame
    offset: Offset


class Frame(Token):
    """A page-aligned address below 2**`bits` (MAXPHYADDR), equal to itself and to nothing else."""

    def __init__(self, name: str, bits: int) -> None:
        self.name, self.bits = name, bits

    @property
    def field(self) -> int:
        """The bits that may be set in it."""
        return (1 << self.bits) - 1 & ~OFFSET

    def __or__(self, other: int | Offset) -> Entry | Located:
        if isinstance(other, Offset):
            return Located(self, other)
        return Entry(self, other)

    def __and__(self, mask: int) -> Frame | Offset:
        if mask & self.field == self.field:
            return self
        if mask == OFFSET:
            return Offset(self)
        raise TypeError(f"a frame address was cut with {mask:#x}")

    def __add__(self, slot: Slot) -> Place:
        if not isinstance(slot, Slot):
            raise TypeError("something else than a slot was added to a frame")
        return Place(self, slot)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(self, Address) or type(other) is not Frame:
            raise TypeError("a frame was compared with something else than a table's frame")
        return False

    def __hash__(self) -> int:
        return id(self)

    def __str__(self) -> str:
        return self.name


class Address(Frame):
    """A page-aligned, canonical linear address; P is also a frame."""

    def __init__(self, name: str, geometry: Geometry, names: tuple[str, ...], bits: int) -> None:
        super().__init__(name, bits)
        self.geometry, self.names = geometry, names

    def __rshift__(self, low: int) -> Shifted:
        return Shifted(self, low)

    def __lt__(self, limit: int) -> bool:
        if limit != 1 << 32 or self.geometry.linear_bits != 32:
            raise TypeError("an address was compared with something else than the end of all")
        return True


class Shifted(Token):
    """An address after the shift of an accessor, waiting for its mask."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, address: Address, low: int) -> None:
        self.address, self.low = address, low

    def __and__(self, mask: int) -> Index:
        places = self.address.geometry.places
        try:
            level = places.index((self.low, mask.bit_length()))
        except ValueError:
            level = -1
        if level < 0 or mask + 1 != 1 << mask.bit_length():
            raise TypeError(f"(address >> {self.low}) & {mask:#x} is no table index of this mode")
        return Index(level, self.address.names[level])

    def __eq__(self, other: object) -> bool:
        """Asked by `x86.walk.canonical` alone: above the sign bit all is equal, by hypothesis."""
        shift = self.address.geometry.canonical_shift
        if self.low != shift or other not in (0, (1 << (64 - shift)) - 1):
            raise TypeError("the upper bits of an address were compared with a number")
        return True


class Entry(Token):
    """A frame and flags: flags are read by masks of flag bits, the frame by the address field."""

    def __init__(self, frame: Frame, flags: int) -> None:
        if flags & ~FLAGS:
            raise TypeError(f"flags {flags:#x} reach into the address field")
        self.frame, self.flags = frame, flags

    def __and__(self, mask: int) -> int | Frame:
        inside = mask & self.frame.field
        if not inside:
            return self.flags & mask
        if inside != self.frame.field or self.flags & mask:
            raise TypeError(f"an entry was cut with {mask:#x}")
        return self.frame

    def __eq__(self, _other: object) -> bool:
        raise TypeError("an entry was compared as a whole")

    __hash__ = None  # type: ignore[assignment]

    def same(self, other: Entry) -> bool:
        """The same bits."""
        return self.frame is other.frame and self.flags == other.flags


class TokenTables:
    """A `TableMemory` and a `ReadEntry` at once; `new_table` hands out zeroed frames,
    all distinct.
    """

    def __init__(self, geometry: Geometry, bits: int) -> None:
        self._geometry, self._bits = geometry, bits
        self._numbers = count()
        self._frames: set[int] = set()
        self.entries: dict[tuple[Frame, Index], Entry] = {}
        # CR3 holds 32 bits outside long mode (SDM 2.5): there the root lies below 4 GiB.
        self.root = self.new_table()
        self.root.bits = min(bits, 32) if geometry.linear_bits == 32 else bits

    def new_table(self) -> Frame:
        """A frame that is nobody's."""
        frame = Frame(f"table {next(self._numbers)}", self._bits)
        self._frames.add(id(frame))
        return frame

    def entry(self, table: Frame, index: Index) -> Entry | int:
        """See `x86.paging.TableMemory`."""
        self._check(table, index)
        return self.entries.get((table, index), 0)

    def set_entry(self, table: Frame, index: Index, value: object) -> None:
        """See `x86.paging.TableMemory`."""
        self._check(table, index)
        if not isinstance(value, Entry):
            raise TypeError("what was written is not a frame with flags")
        self.entries[table, index] = value

    def _check(self, table: object, index: object) -> None:
        if not isinstance(table, Frame) or not isinstance(index, Index):
            raise TypeError("an entry was named by something else than a frame and an index")
        if id(table) not in self._frames:
            raise TypeError(f"{table} is not a table")

    def read(self, place: Place, size: int) -> Entry | int | None:
        """See `x86.walk.ReadEntry`; None where the address is in no table:
        nothing is known of it.
        """
        if size != self._geometry.entry_size or place.slot.size != size:
            raise TypeError(f"an entry of {size} bytes was read")
        if id(place.table) not in self._frames:
            return None
        return self.entries.get((place.table, place.slot.index), 0)


def pairs(geometry: Geometry) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The names of V and of P for each way in which their indices coincide: 2**levels."""
    phys = ("p",) * len(geometry.places)
    for virt in product("pv", repeat=len(phys)):
        yield virt, phys


def others(virt: tuple[str, ...], phys: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The names of a third address, for each way in which its indices coincide with those two."""
    return product(*(sorted({v, p, "x"}) for v, p in zip(virt, phys, strict=True)))
