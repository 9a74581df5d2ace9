"""A kernel's symbol tables as Linux's build lays them, in each of the layouts that there have been.

    symbols --compressed with tokens--> names, markers, token table, token index, offsets

Rules: written from scripts/kallsyms.c and from what Debian's kernels hold; it shares nothing with the reader.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple


class Layout(Enum):
    """The layouts, by the first version that had them."""

    OFFSETS_FIRST = "6.1"
    """Offsets and their base before the names."""
    OFFSETS_LAST = "6.9"
    """Offsets and their base behind the token index."""
    BY_PLACE = "7.2"
    """Behind the token index, each counted from its own place; no base."""


class Symbol(NamedTuple):
    address: int
    kind: str
    name: str


PRINTED = {code: chr(code) for code in range(0x21, 0x7F)}
TOKENS = PRINTED | {1: "kexec_", 2: "__", 3: "relocate_", 0xF0: "kernel", 0xF1: "pfx_"}


def laid(
    symbols: Sequence[Symbol],
    *,
    virt: int,
    bits: int = 64,
    layout: Layout = Layout.BY_PLACE,
    absolute_per_cpu: bool = False,
    alignment: int = 8,
    before: bytes = b"",
) -> bytes:
    """The tables, behind `before`, of a segment that begins at `virt`."""
    out = bytearray(before)
    word = bits // 8
    base = min(symbol.address for symbol in symbols if symbol.address >= virt)

    def align(to: int = alignment) -> None:
        out.extend(bytes(-len(out) % to))

    def offsets() -> None:
        align()
        for symbol in symbols:
            if layout is Layout.BY_PLACE:
                offset = symbol.address - (virt + len(out))
            elif absolute_per_cpu:
                offset = symbol.address if symbol.address < base else base - 1 - symbol.address
            else:
                offset = symbol.address - base
            out.extend((offset & 0xFFFF_FFFF).to_bytes(4, "little"))
        align()
        if layout is not Layout.BY_PLACE:
            out.extend(base.to_bytes(word, "little"))
        align()

    if layout is Layout.OFFSETS_FIRST:
        offsets()
    align()
    out.extend(struct.pack("<I", len(symbols)))
    align()
    names, markers = bytearray(), []
    for number, symbol in enumerate(symbols):
        if number % 256 == 0:
            markers.append(len(names))
        packed = compressed(symbol.kind + symbol.name)
        if len(packed) < 0x80:
            names.append(len(packed))
        else:
            names += bytes([0x80 | len(packed) & 0x7F, len(packed) >> 7])
        names += packed
    out.extend(names)
    align()
    for marker in markers:
        out.extend(struct.pack("<I", marker))
    align()
    index, table = [], bytearray()
    for code in range(256):
        index.append(len(table))
        table += TOKENS.get(code, "").encode() + b"\0"
    out.extend(table)
    align()
    out.extend(struct.pack("<256H", *index))
    if layout is not Layout.OFFSETS_FIRST:
        offsets()
    return bytes(out) + b"what follows in .rodata"


LONGEST_FIRST = re.compile(
    "|".join(re.escape(t) for t in sorted(TOKENS.values(), key=len, reverse=True))
)
CODES = {token: code for code, token in TOKENS.items()}


def compressed(text: str) -> bytes:
    """A name as tokens, longest first."""
    return bytes(CODES[token] for token in LONGEST_FIRST.findall(text))
