"""Physical memory as terms: what was there, and what has been stored or copied over it since.

    layers, newest last:   stores at one base (P + 4088, P + 4080, ...)   |   one page copied

Rules: values only; a store gives a new memory.  Two addresses with the same symbolic base are told
apart by their constant offsets, with no help from a solver; different bases make a case, unless
both are known to begin a page and the offsets lie at different places in it. Bytes of the image
that lies on the control page are read as the numbers that they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import z3

from tightrope.memory import PAGE_SIZE
from tightrope.prove.isa.terms import Array, Truth, Word


def split(address: Word) -> tuple[Word | None, int]:
    """A simplified address as (what it is relative to, constant)."""
    if z3.is_bv_value(address):
        return None, int(address.as_long())
    if z3.is_app(address) and address.decl().kind() == z3.Z3_OP_BADD:
        first = address.arg(0)
        if z3.is_bv_value(first):
            rest = address.arg(1)
            for number in range(2, address.num_args()):
                rest = rest + address.arg(number)
            width = address.size()
            number = int(first.as_long())
            return rest, number - (1 << width) if number >> (width - 1) else number
    return address, 0


@dataclass(frozen=True, slots=True)
class Stores:
    """Bytes at constant offsets from one base."""

    base: Word | None
    data: Mapping[int, Word]


@dataclass(frozen=True, slots=True)
class Copied:
    """A page: `into` and `out_of` are page-aligned addresses."""

    into: Word
    out_of: Word


@dataclass(frozen=True, slots=True)
class Memory:
    """`first` is what lay there; `image` the bytes at `home`, the control page's address."""

    first: Array
    home: Word
    image: bytes
    layers: tuple[Stores | Copied, ...] = ()
    aligned: tuple[Word, ...] = ()
    """Bases that begin a page: that they do is a hypothesis of whoever says so."""
    words: dict[tuple[int, int], tuple[Word, Word]] = field(
        init=False, default_factory=dict, compare=False, repr=False
    )
    """What was loaded already, by the address's identity and the width, with the address: held, so
    that it stays the only one of that identity."""

    def store(self, address: Word, value: Word, width: int) -> Memory:
        """Memory after `value` was written, little-endian."""
        base, at = split(address)
        data = {at + n: _part(value, n) for n in range(width // 8)}
        last = self.layers[-1] if self.layers else None
        if isinstance(last, Stores) and same(last.base, base):
            return replace(self, layers=(*self.layers[:-1], Stores(base, {**last.data, **data})))
        return replace(self, layers=(*self.layers, Stores(base, data)))

    def copied(self, into: Word, out_of: Word) -> Memory:
        """Memory after a page was copied."""
        return replace(self, layers=(*self.layers, Copied(into, out_of)))

    def byte(self, address: Word, depth: int | None = None) -> Word:
        """The byte at an address."""
        depth = len(self.layers) if depth is None else depth
        base, at = split(address)
        plain = self._without_cases(base, at, depth)
        if plain is not None:
            return plain
        cases: list[tuple[Truth, Word]] = []
        while depth:
            layer = self.layers[depth - 1]
            depth -= 1
            if isinstance(layer, Stores):
                if same(layer.base, base):
                    if at in layer.data:
                        return _cased(cases, layer.data[at])
                    continue
                start = z3.BitVecVal(0, address.size()) if layer.base is None else layer.base
                pages = self._begins_a_page(layer.base) and self._begins_a_page(base)
                cases += [
                    (address == start + n, value)
                    for n, value in layer.data.items()
                    if not (pages and (n - at) % PAGE_SIZE)
                ]
            else:
                off = z3.simplify(address - layer.into)
                inside = z3.simplify(z3.ULT(off, PAGE_SIZE))
                if z3.is_false(inside):
                    continue
                moved = self.byte(z3.simplify(layer.out_of + off), depth)
                if z3.is_true(inside):
                    return _cased(cases, moved)
                cases.append((inside, moved))
        if same(self.home, base) and 0 <= at < len(self.image):
            return _cased(cases, z3.BitVecVal(self.image[at], 8))
        last: Word = z3.Select(self.first, address)
        return _cased(cases, last)

    def load(self, address: Word, width: int) -> Word:
        """A little-endian word."""
        key = (address.get_id(), width)
        if key not in self.words:
            self.words[key] = (address, self._loaded(address, width // 8))
        return self.words[key][1]

    def _loaded(self, address: Word, size: int) -> Word:
        base, at = split(address)
        found = [self._without_cases(base, at + n, len(self.layers)) for n in range(size)]
        parts = [
            self.byte(z3.simplify(address + n)) if plain is None else plain
            for n, plain in enumerate(found)
        ]
        if size == 1:
            return z3.simplify(parts[0])
        whole = _whole(parts)
        return z3.simplify(z3.Concat(*reversed(parts))) if whole is None else whole

    def _without_cases(self, base: Word | None, at: int, depth: int) -> Word | None:
        """The byte where the constant offset alone says which it is; None where a solver has to."""
        for layer in reversed(self.layers[:depth]):
            if not isinstance(layer, Stores) or not same(layer.base, base):
                return None
            if at in layer.data:
                return layer.data[at]
        if same(self.home, base) and 0 <= at < len(self.image):
            return z3.BitVecVal(self.image[at], 8)
        return None

    def _begins_a_page(self, base: Word | None) -> bool:
        return any(same(base, each) for each in self.aligned)

    def kept(self) -> Mapping[int, Word]:
        """The bytes stored on the control page so far, by offset from its address."""
        out: dict[int, Word] = {}
        for layer in self.layers:
            if isinstance(layer, Stores) and same(layer.base, self.home):
                out |= layer.data
        return out


def _part(value: Word, number: int) -> Word:
    """A byte of a word, not simplified: `_whole` knows it again."""
    part = z3.Extract(8 * number + 7, 8 * number, value)
    return z3.simplify(part) if z3.is_bv_value(value) else part


def _whole(parts: list[Word]) -> Word | None:
    """The word that was stored, where these are all its bytes."""
    for number, part in enumerate(parts):
        if not (z3.is_app(part) and part.decl().kind() == z3.Z3_OP_EXTRACT):
            return None
        high, low = part.params()
        if (high, low) != (8 * number + 7, 8 * number) or not z3.eq(part.arg(0), parts[0].arg(0)):
            return None
    word = parts[0].arg(0)
    return word if word.size() == 8 * len(parts) else None


def same(one: Word | None, other: Word | None) -> bool:
    """The same term; None is a number."""
    if one is None or other is None:
        return one is other
    return bool(z3.eq(one, other))


def _cased(cases: list[tuple[Truth, Word]], last: Word) -> Word:
    for condition, value in reversed(cases):
        last = z3.If(condition, value, last)
    return last
