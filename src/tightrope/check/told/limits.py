"""Memory as the new kernel will use it: what its command line makes of the map that it is told.

    mem=SIZE, memmap=SIZE      RAM from there on goes
    memmap=exactmap            the map is emptied, and what is said behind it is all there is
    memmap=SIZE@START          RAM; with # ACPI tables, $ reserved, ! persistent memory
    memmap=SIZE%START-OLD+NEW  a type of the map's becomes another; without NEW it goes

Rules: words are split and numbers are read as Linux does it, what it passes over included; its
words end at `--`, where init's begin.  Where rows overlap the higher type counts, so RAM is what no
other row has.  Source: Linux arch/x86/kernel/e820.c, parse_memopt, parse_memmap_one,
e820__update_table; lib/cmdline.c, next_arg, memparse; kernel/params.c, parse_args.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tightrope.check.told.core_header import memparse
from tightrope.check.told.memory import RAM, Row, Told, of_type
from tightrope.memory import Extent, subtract, union

TOP = (1 << 64) - 1
SPACES = b" \t\n\v\f\r\xa0"
"""What isspace() of lib/ctype.c takes for a blank."""
TYPES: Mapping[bytes, int] = {b"@": RAM, b"#": 3, b"$": 2, b"!": 12}
"""E820's numbers behind the signs of memmap=."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited:
    """What the command line makes of the memory map."""

    ram: tuple[Extent, ...]
    """What is left, and what was added, sorted and merged."""
    said: str
    """What of the line does so: `mem=` with the least number, or `memmap=`; empty without."""


def limited(told: Told) -> Limited:
    """The RAM that a Linux kernel goes on with; that it adds itself to it is the caller's."""
    rows, ends, mapped = list(told.rows), [], False
    for name, value in arguments(told.line) if b"mem" in told.line else ():
        if name == b"mem" and value is not None:
            end = number(value)[0]
            if end:
                rows = _changed(rows, Extent(end, max(end, TOP)), RAM, None)
                ends.append(end)
        elif name == b"memmap" and value is not None:
            for one in value.split(b","):
                changed = _mapped(rows, one)
                mapped |= changed is not None
                rows = rows if changed is None else changed
    if mapped:
        return Limited(ram=_ram(rows), said="memmap=")
    if ends:
        return Limited(ram=_ram(rows), said=f"mem={min(ends):#x}")
    return Limited(ram=told.ram, said="")


def arguments(line: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    """The words of a command line up to `--`: name and value, None without `=`; a quoted blank is
    none."""
    at, size = 0, len(line)
    while True:
        while at < size and line[at] in SPACES:
            at += 1
        if at == size:
            return
        start, quoted = at, False
        while at < size and (quoted or line[at] not in SPACES):
            quoted ^= line[at : at + 1] == b'"'
            at += 1
        word = line[start:at]
        if word[:1] == b'"':
            word = word[1:].removesuffix(b'"')
        name, equals, value = word.partition(b"=")
        if not equals:
            if name == b"--":
                return
            yield name, None
            continue
        if value[:1] == b'"':
            value = value[1:].removesuffix(b'"')
        yield name, value


def number(text: bytes) -> tuple[int, bytes]:
    """A number and what is behind it; 0 where there is none, as memparse() has it."""
    return memparse(text) or (0, text)


def _mapped(rows: list[Row], one: bytes) -> list[Row] | None:
    """The rows behind one piece of memmap=; None for a piece that says nothing."""
    if one.startswith(b"exactmap"):
        return []
    if memparse(one) is None:
        return None
    size, rest = number(one)
    sign = rest[:1]
    if sign not in (*TYPES, b"%"):
        return _changed(rows, Extent(size, max(size, TOP)), RAM, None)
    start, rest = number(rest[1:])
    place = Extent(start, min(start + size, TOP))
    if sign in TYPES:
        return [*rows, Row(extent=place, type=TYPES[sign])]
    old = new = 0
    if rest[:1] == b"-":
        old, rest = _type(rest[1:])
    if rest[:1] == b"+":
        new, rest = _type(rest[1:])
    if rest:
        return None
    if new and not old:
        return [*rows, Row(extent=place, type=new)]
    return _changed(rows, place, old or None, new or None)


def _type(text: bytes) -> tuple[int, bytes]:
    """A number without a unit, as simple_strtoull() reads it."""
    digits = text[: len(text) - len(text.lstrip(b"0123456789abcdefxABCDEFX"))]
    value, rest = number(digits)
    return value, rest + text[len(digits) :]


def _changed(rows: list[Row], place: Extent, old: int | None, new: int | None) -> list[Row]:
    """The rows where what is `old`, or anything, becomes `new` in a place, or goes."""
    out = []
    for row in rows:
        if old not in (None, row.type) or not row.extent.overlaps(place):
            out.append(row)
            continue
        kept = subtract([row.extent], [place])
        out += [Row(extent=each, type=row.type) for each in kept]
        if new is not None:
            lost = subtract([row.extent], kept)
            out += [Row(extent=each, type=new) for each in lost]
    return out


def _ram(rows: list[Row]) -> tuple[Extent, ...]:
    others = union(row.extent for row in rows if row.type != RAM)
    return subtract(of_type(rows, RAM), others)
