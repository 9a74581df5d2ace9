"""A dead kernel's own symbol table, read out of its memory by the names that VMCOREINFO has.

    kallsyms_num_syms       how many
    kallsyms_names          each: a length (one byte; two from 128 on), that many tokens
    kallsyms_token_table    256 strings, kallsyms_token_index where each begins in it
    kallsyms_offsets        i32 each, from kallsyms_relative_base; since 7.0 from their own place

Sources: Linux kernel/kallsyms.c (kallsyms_sym_address(), kallsyms_expand_symbol()); the names are
in VMCOREINFO since 6.0 (5fd8fea935a1).  The same tables are found in an image by `image.kallsyms`,
which no symbol leads to.

Rules: exact or nothing: names that run out of their table, or addresses that are not in order, are
no symbol table.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from tightrope.memory import PAGE_SIZE
from tightrope.printk import Memory, NoLog

_MOST = 1 << 21
"""Symbols: a kernel has 200,000."""
_TOKENS = 256
_LONGEST = 1 << 14
"""Bytes of the token table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Symbols:
    """Names by address; `addresses` are in order."""

    addresses: tuple[int, ...]
    names: tuple[str, ...]

    def place(self, virt: int) -> str | None:
        """`name+0x1a`, None where no symbol begins before it within 16 MiB."""
        at = bisect_right(self.addresses, virt) - 1
        if at < 0 or virt - self.addresses[at] > 1 << 24:
            return None
        into = virt - self.addresses[at]
        return f"{self.names[at]}+{into:#x}" if into else self.names[at]

    def address(self, name: str) -> int | None:
        """Where a name is, None where there is none."""
        try:
            return self.addresses[self.names.index(name)]
        except ValueError:
            return None


def symbols(memory: Memory) -> Symbols | None:
    """The symbol table, None where VMCOREINFO does not lead to one or it is not all in the dump."""
    try:
        count = memory.number(memory.symbol("kallsyms_num_syms"), 4)
        if not 0 < count <= _MOST:
            return None
        tokens = _tokens(memory)
        names = _names(memory, count, tokens)
        addresses = _addresses(memory, count)
    except (NoLog, LookupError, ValueError):
        return None
    if names is None or (addresses[1:] < addresses[:-1]).any():
        return None
    # Types come first in a name: one letter, as nm writes it.
    return Symbols(addresses=tuple(addresses.tolist()), names=tuple(each[1:] for each in names))


def _tokens(memory: Memory) -> list[bytes]:
    index_at, table_at = (
        memory.symbol("kallsyms_token_index"),
        memory.symbol("kallsyms_token_table"),
    )
    index = np.frombuffer(memory.read(index_at, 2 * _TOKENS), "<u2").tolist()
    size = min(max(index) + 64, _LONGEST)
    table = memory.read(table_at, size)
    return [table[at : table.index(b"\0", at)] for at in index]


def _names(memory: Memory, count: int, tokens: list[bytes]) -> list[str] | None:
    start = memory.symbol("kallsyms_names")
    out: list[str] = []
    data, at = b"", 0
    while len(out) < count:
        if len(data) - at < 600:  # more than a name takes
            reached = start + len(data)
            data += _pages(memory, reached, 64 if data else 1)
        length, at = data[at], at + 1
        if length & 0x80:
            length, at = (length & 0x7F) | data[at] << 7, at + 1
        if not length or at + length > len(data):
            return None
        out.append(b"".join([tokens[each] for each in data[at : at + length]]).decode("latin-1"))
        at += length
    return out


def _pages(memory: Memory, virt: int, most: int) -> bytes:
    """What lies from an address on, up to the end of a page; fewer pages where they end."""
    out = b""
    for _ in range(most):
        try:
            out += memory.read(virt + len(out), PAGE_SIZE - (virt + len(out)) % PAGE_SIZE)
        except LookupError:
            break
    return out


def _addresses(memory: Memory, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    start = memory.symbol("kallsyms_offsets")
    raw = np.frombuffer(memory.read(start, 4 * count), "<i4").astype(np.int64)
    top = np.uint64((1 << 8 * memory.word) - 1)
    if not memory.has("kallsyms_relative_base"):
        places = np.uint64(start) + np.arange(count, dtype=np.uint64) * np.uint64(4)
        return places + raw.astype(np.uint64) & top
    base = memory.pointer(memory.symbol("kallsyms_relative_base"))
    if memory.word == 8 and (raw < 0).any():
        # X86_64 with SMP until 6.14: not below 0 is per CPU, below 0 counts down from base - 1.
        below = np.uint64(base) - np.uint64(1) + (-raw).astype(np.uint64)
        return np.where(raw < 0, below, raw.astype(np.uint64))
    return np.uint64(base) + (raw & 0xFFFF_FFFF).astype(np.uint64) & top
