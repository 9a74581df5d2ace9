"""A kernel's symbols, recovered from its own image: the tables that /proc/kallsyms prints.

The build compresses names with a dictionary of 256 tokens and writes everything into .rodata
(Linux scripts/kallsyms.c); kernel/kallsyms.c reads it.  No symbol says where: the layout itself
does.

    6.1 to 6.8                      6.9 and later                7.x (what is read here: 7.2, 7.3)

    offsets, relative base          number of symbols            the same as 6.9, but
    number of symbols               names                        offsets count from their own place,
    names                           markers                      and there is no relative base
    markers                         token table
    (6.2: sequence numbers)         token index
    token table                     offsets, relative base
    token index                     sequence numbers

    names      a symbol: its length (one byte; two from 128 on, since 6.1), then that many tokens
    markers    u32: offset into names of every 256th symbol
    tokens     256 strings that end in 0; the index has the offset (u16) of each
    offsets    i32 a symbol.  X86_64 with SMP up to 6.14: not below 0, the address itself (per-CPU);
               below 0, relative base - 1 - offset.  Others: relative base + offset, unsigned.

It is exact or nothing: the token index has to fit its table at all 256 places, the markers the
names at every 256th symbol, and of the layouts only that one is taken under which the addresses
are in order and `_text` is where the ELF file has its first byte.

Rules: numpy does what is done a million times; nothing here knows what a symbol means.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tightrope.memory import align_up
from tightrope.model.vmlinux import LinkedSegment, Symbols

TOKENS = 256
DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
"""A token for each character that is used as it is, at its ASCII code
(insert_real_symbols_in_table())."""
GROUP = 256
"""Symbols a marker."""
LONGEST_NAME = 512 + 2
"""Bytes that a name takes at most: KSYM_NAME_LEN, each token a character or more, and its
length."""
BEFORE_TOKENS = 4 << 20
"""Bytes before the token table in which markers (and 6.2's sequence numbers) lie: 3 a symbol, and a
million."""
MOST_RUNS = 8
"""Runs of rising numbers that are tried as markers, longest first."""
ALIGNMENTS = (8, 4)
"""ALGN in the assembly that scripts/kallsyms.c writes: 8 on x86_64 (4 in 7.3, whose tables have no
word), 4 on i386."""

Numbers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tokens:
    """Where the token table begins and the index ends, the tokens' bytes, and where each begins in
    them."""

    start: int
    end: int
    table: bytes
    index: Numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class _Names:
    """Where the number of symbols stands; the names, one line each, and where each line begins."""

    number_at: int
    lines: bytes
    starts: Numbers


def recover(segments: Sequence[LinkedSegment], bits: int) -> Symbols | None:
    """The symbols of a kernel with these segments, whose addresses have `bits` bits.

    None when there are no such tables (CONFIG_KALLSYMS is off), or when they do not fit together.
    """
    first = min((each.virt for each in segments if each.virt), default=0)
    for segment in segments:
        for tokens in _token_tables(segment.data):
            for names in _names(segment.data, tokens):
                for addresses in _addresses(segment, tokens, names, bits):
                    symbols = Symbols(names=names.lines, starts=names.starts, addresses=addresses)
                    in_order = bool((addresses[1:] >= addresses[:-1]).all())
                    if in_order and symbols.address("_text") == first:
                        return symbols
    return None


def of_hypervisor(data: memoryview) -> tuple[Symbols, int] | None:
    """Xen's symbols, each address an offset from XEN_VIRT_START; where its `_start` is, of them.

    The same tables in 6.1's order, without a base (xen/tools/symbols.c, xen/common/symbols.c).
    None where there are none, or they do not fit together.
    """
    for tokens in _token_tables(data):
        for names in _names(data, tokens):
            count = len(names.starts)
            offsets = _array(data, names.number_at - 4 * count, count)
            if offsets is None:
                continue
            addresses = _wrapped(offsets, 32)
            symbols = Symbols(names=names.lines, starts=names.starts, addresses=addresses)
            start = symbols.address("_start")
            if start is not None and bool((addresses[1:] >= addresses[:-1]).all()):
                return symbols, int(start)
    return None


def _token_tables(data: memoryview) -> Iterator[_Tokens]:
    """Every place where 256 strings lie with an index that fits them behind them."""
    whole = bytes(data)
    zero = ord("0")
    at = whole.find(DIGITS)
    while at >= 0:
        end = _behind_strings(whole, at, TOKENS - zero)
        for alignment in ALIGNMENTS:
            index_at = align_up(end, alignment)
            raw = whole[index_at : index_at + 2 * TOKENS]
            if len(raw) < 2 * TOKENS:
                continue
            index = np.frombuffer(raw, "<u2").astype(np.int64)
            start = at - int(index[zero])
            table = whole[start:end]
            # Each token begins where the one before has ended with its zero, and nowhere else.
            zeros = np.nonzero(np.frombuffer(table, np.uint8) == 0)[0] if start >= 0 else index
            if len(zeros) == TOKENS and index[0] == 0 and (index[1:] == zeros[:-1] + 1).all():
                yield _Tokens(start=start, end=index_at + 2 * TOKENS, table=table, index=index)
                break
        at = whole.find(DIGITS, at + 1)


def _behind_strings(data: bytes, at: int, count: int) -> int:
    """Where `count` strings that end in 0 have ended; the end of the data when they do not."""
    for _ in range(count):
        at = data.find(b"\0", at) + 1
        if not at:
            return len(data)
    return at


def _names(data: memoryview, tokens: _Tokens) -> Iterator[_Names]:
    """The names whose markers lie before a token table, for each number of symbols that fits
    them."""
    low = align_up(max(tokens.start - BEFORE_TOKENS, 0), 4)
    words = np.frombuffer(data[low : tokens.start - (tokens.start - low) % 4], "<u4")
    steps = np.diff(words.astype(np.int64))
    rising = (steps >= 2 * GROUP) & (steps <= LONGEST_NAME * GROUP)
    falls = np.append(np.nonzero(~rising)[0], len(rising))
    zeros = np.nonzero((words[:-1] == 0) & rising)[0]
    if not len(zeros):
        return
    lengths = falls[np.searchsorted(falls, zeros)] - zeros
    # Per-CPU addresses rise as markers do; there are as many markers as symbols in 256.
    for run in np.argsort(-lengths, kind="stable")[:MOST_RUNS]:
        first, groups = int(zeros[run]), int(lengths[run]) + 1
        # What follows the last marker may happen to look like one more.
        for count in (groups, groups - 1):
            markers = words[first : first + count].astype(np.int64)
            yield from _before(data, tokens, low + 4 * first, markers)


def _before(
    data: memoryview, tokens: _Tokens, markers_at: int, markers: Numbers
) -> Iterator[_Names]:
    """The names before these markers, for each number of symbols that fits them."""
    latest = markers_at - int(markers[-1])
    numbers_at = align_up(max(latest - LONGEST_NAME * GROUP - 16, 0), 4)
    size = (latest - numbers_at) // 4 * 4
    if size <= 0:
        return
    numbers = np.frombuffer(data[numbers_at : numbers_at + size], "<u4").astype(np.int64)
    fits = (numbers > (len(markers) - 1) * GROUP) & (numbers <= len(markers) * GROUP)
    for at in np.nonzero(fits)[0]:
        number_at = numbers_at + 4 * int(at)
        for names_at in {align_up(number_at + 4, alignment) for alignment in ALIGNMENTS}:
            found = _walked(data[names_at:markers_at], markers, int(numbers[at]))
            if found is not None and markers_at - names_at - found[2] < max(ALIGNMENTS):
                lines, starts = _expanded(data[names_at:markers_at], tokens, *found)
                yield _Names(number_at=number_at, lines=lines, starts=starts)


def _walked(data: memoryview, markers: Numbers, count: int) -> tuple[Numbers, Numbers, int] | None:
    """Offset of each name's tokens, how many they are, and where the last ends; None when markers
    disagree.

    All groups are walked at once, a symbol of each in one step.
    """
    padded = np.zeros(len(data) + 2 * GROUP * LONGEST_NAME, np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    at = markers.copy()
    starts = np.empty((GROUP, len(markers)), np.int64)
    lengths = np.empty((GROUP, len(markers)), np.int64)
    for step in range(GROUP):
        at = np.minimum(at, len(padded) - LONGEST_NAME)
        head = padded[at].astype(np.int64)
        long = head >= 0x80
        length = np.where(long, head & 0x7F | padded[at + 1].astype(np.int64) << 7, head)
        starts[step] = at + 1 + long
        lengths[step] = length
        at = starts[step] + length
    if (at[:-1] != markers[1:]).any():
        return None
    starts, lengths = starts.T.ravel()[:count], lengths.T.ravel()[:count]
    end = int(starts[-1] + lengths[-1])
    return (starts, lengths, end) if end <= len(data) and lengths.min() > 0 else None


def _expanded(
    data: memoryview, tokens: _Tokens, starts: Numbers, lengths: Numbers, end: int
) -> tuple[bytes, Numbers]:
    """The names as lines, a newline before each and behind the last, and where each line begins."""
    newline = TOKENS
    codes = np.frombuffer(data[:end], np.uint8).astype(np.uint16)
    # The byte before a name's tokens is its length, or the second one of it: it becomes the
    # newline.
    codes[starts - 1] = newline
    second = starts[lengths >= 0x80] - 2
    codes = np.append(np.delete(codes, second) if len(second) else codes, np.uint16(newline))
    # 32 bits are enough for the text, and halve the time that arrays of five million elements take.
    table = np.frombuffer(tokens.table + b"\n", np.uint8)
    begins = np.append(tokens.index, len(tokens.table)).astype(np.int32)
    sizes = np.diff(begins, append=np.int32(len(tokens.table) + 2)) - 1
    size = sizes[codes]
    ends = np.cumsum(size, dtype=np.int32)
    letters = np.repeat(begins[codes] - (ends - size), size)
    letters += np.arange(ends[-1], dtype=np.int32)
    lines = (ends - size)[codes == newline][:-1].astype(np.int64)
    return table[letters].tobytes(), lines


def _addresses(
    segment: LinkedSegment, tokens: _Tokens, names: _Names, bits: int
) -> Iterator[NDArray[np.uint64]]:
    """The addresses under each layout that there has been."""
    count, word = len(names.starts), bits // 8
    # The alignment is a word's where there is a word among the tables; a table that began 4 bytes
    # away would give each symbol its neighbour's address.
    table = align_up(count * 4, word)
    before = names.number_at - word
    for offsets_at, base_at in ((before - table, before), (tokens.end, tokens.end + table)):
        offsets = _array(segment.data, offsets_at, count)
        if offsets is not None:
            base = _signed(int.from_bytes(segment.data[base_at : base_at + word], "little"))
            yield _wrapped(base + (offsets & 0xFFFF_FFFF), bits)
            yield _wrapped(np.where(offsets < 0, base - 1 - offsets, offsets), bits)
    offsets = _array(segment.data, tokens.end, count)
    if offsets is not None:
        places = tokens.end + 4 * np.arange(count) + _signed(segment.virt)
        yield _wrapped(places + offsets, bits)


def _array(data: memoryview, at: int, count: int) -> Numbers | None:
    """`count` signed words of 32 bits; None where the segment has not so many."""
    if at < 0 or at + 4 * count > len(data):
        return None
    return np.frombuffer(data[at : at + 4 * count], "<i4").astype(np.int64)


def _signed(address: int) -> int:
    """An address of 64 bits as numpy's signed ones have it."""
    return address - (1 << 64) if address >> 63 else address


def _wrapped(addresses: Numbers, bits: int) -> NDArray[np.uint64]:
    """Addresses as a CPU of `bits` bits has them."""
    return addresses.astype(np.uint64) & np.uint64((1 << bits) - 1)
