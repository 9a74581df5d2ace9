"""Makers of a dead kernel's log and symbols, in the memory of a `Crashed`.

    ring      printk's ring buffer, as Linux 5.10 and later lay it
    records   log_buf of 3.5 to 5.9, and text of 3.4
    named     kallsyms, by tests/makers/kallsyms

Structs have gaps that no kernel has, so that a reader which does not ask VMCOREINFO goes wrong.  Written from
kernel/printk/printk_ringbuffer.h and printk.c; it shares nothing with the reader.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from tests.makers.kallsyms import Layout, Symbol, laid
from tests.vmcore.cores import BASE, MIB, Crashed

PLACE = BASE + 9 * MIB
"""Where the log lies: in the direct map."""
SYMBOLS = BASE + 1 * MIB
OFFSETS = {
    "printk_ringbuffer.desc_ring": 24,
    "printk_ringbuffer.text_data_ring": 160,
    "prb_desc_ring.count_bits": 8,
    "prb_desc_ring.descs": 16,
    "prb_desc_ring.infos": 32,
    "prb_desc_ring.head_id": 40,
    "prb_desc_ring.tail_id": 56,
    "prb_data_ring.size_bits": 4,
    "prb_data_ring.data": 16,
    "atomic_long_t.counter": 0,
    "prb_desc.state_var": 8,
    "prb_desc.text_blk_lpos": 24,
    "prb_data_blk_lpos.begin": 0,
    "prb_data_blk_lpos.next": 8,
    "printk_info.seq": 0,
    "printk_info.ts_nsec": 8,
    "printk_info.text_len": 16,
    "printk_info.caller_id": 20,
}
DESC, INFO = 48, 96
COMMITTED, FINALIZED, RESERVED, REUSABLE = 1, 2, 0, 3


@dataclass(frozen=True)
class Said:
    """One printk; `lost` is the state of a descriptor whose writer died."""

    text: str
    nanoseconds: int = 0
    level: int = 6
    caller: int = 1
    state: int = FINALIZED


def direct(dead: Crashed, phys: int) -> int:
    """Where the direct map has it."""
    if dead.bits == 32:
        return 0xC000_0000 + phys
    return (0xFFFF_8880_0000_0000 if dead.mode == "x86_64" else 0xFF11_0000_0000_0000) + phys


def ring(
    dead: Crashed, said: Sequence[Said], *, bits: int = 4, text_bits: int = 10, first: int = 0
) -> None:
    """A ring of 2**bits records and 2**text_bits bytes after all this was said, from id `first` on."""
    word = dead.bits // 8
    shape = "<Q" if word == 8 else "<I"
    count, size = 1 << bits, 1 << text_bits
    prb, descs, infos, data = PLACE + 64, PLACE + 4096, PLACE + 65536, PLACE + 2 * 65536
    position = 0

    def put(at: int, value: int, width: int) -> None:
        dead.put(at, value & (1 << 8 * width) - 1, width)

    for number, each in enumerate(said):
        which, slot = first + number, (first + number) % count
        raw = each.text.encode()
        need = -(-(word + len(raw)) // word) * word
        begin = position
        if not raw:
            begin = end = 3  # EMPTY_LINE_LPOS
        elif begin // size == (begin + need) // size:
            position = end = begin + need
            at = begin % size
        else:  # it would wrap: what is left stays empty, and the block lies at the beginning
            position = end = (begin // size + 1) * size + need
            at = 0
        if raw:
            block = struct.pack(shape, which) + raw
            dead.memory[data - BASE + at : data - BASE + at + len(block)] = block
        desc, info = descs + slot * DESC, infos + slot * INFO
        put(desc + 8, each.state << 8 * word - 2 | which, word)
        put(desc + 24, begin, word)
        put(desc + 24 + 8, end, word)
        put(info, number, 8)
        put(info + 8, each.nanoseconds, 8)
        put(info + 16, len(raw), 2)
        put(info + 19, each.level << 5, 1)
        put(info + 20, each.caller, 4)
    last = first + len(said) - 1
    ring_at, text_at = (
        prb + OFFSETS["printk_ringbuffer.desc_ring"],
        prb + OFFSETS["printk_ringbuffer.text_data_ring"],
    )
    put(ring_at + 8, bits, 4)
    put(ring_at + 16, direct(dead, descs), word)
    put(ring_at + 32, direct(dead, infos), word)
    put(ring_at + 40, last, word)
    put(ring_at + 56, max(first, last - count + 1), word)
    put(text_at + 4, text_bits, 4)
    put(text_at + 16, direct(dead, data), word)
    put(PLACE, direct(dead, prb), word)
    dead.info["SYMBOL(prb)"] = f"{direct(dead, PLACE):x}"
    dead.info["SIZE(prb_desc)"], dead.info["SIZE(printk_info)"] = str(DESC), str(INFO)
    dead.info.update({f"OFFSET({name})": str(value) for name, value in OFFSETS.items()})


def records(
    dead: Crashed, said: Sequence[Said], *, size: int = 1024, name: str = "printk_log"
) -> None:
    """log_buf as 3.5 to 5.9 have it: the oldest go when there is no room, as log_make_free_space() has it."""
    word, head, buffer = dead.bits // 8, 24, PLACE + 4096
    kept: list[tuple[int, Said, int]] = []
    at = 0
    for each in said:
        length = -(-(head + len(each.text)) // 8) * 8
        if at + length + head > size:
            dead.memory[buffer + at - BASE : buffer + at - BASE + head] = bytes(head)
            kept = [row for row in kept if row[0] < at]
            at = 0
        kept = [row for row in kept if not at <= row[0] < at + length]
        row = struct.pack(
            "<4xQHHHBB", each.nanoseconds, length, len(each.text), 0, 0, each.level << 5
        )
        where = buffer + at - BASE
        dead.memory[where : where + length] = (row.ljust(head, b"\0") + each.text.encode()).ljust(
            length, b"\0"
        )
        kept.append((at, each, length))
        at += length
    _words(dead, {"log_buf": (direct(dead, buffer), word), "log_buf_len": (size, 4),
                  "log_first_idx": (kept[0][0], 4), "log_next_idx": (at, 4)})  # fmt: skip
    dead.info[f"SIZE({name})"] = str(head)
    for field, offset in (("ts_nsec", 4), ("len", 12), ("text_len", 14)):
        dead.info[f"OFFSET({name}.{field})"] = str(offset)


def plain(dead: Crashed, text: bytes, *, size: int = 256) -> None:
    """log_buf as 3.4 has it: characters, of which the last `size` are kept."""
    buffer = PLACE + 4096
    for number, each in enumerate(text):
        dead.memory[buffer - BASE + number % size] = each
    _words(dead, {"log_buf": (direct(dead, buffer), dead.bits // 8), "log_buf_len": (size, 4),
                  "log_end": (len(text), 4), "logged_chars": (min(len(text), size), 4)})  # fmt: skip


def _words(dead: Crashed, words: dict[str, tuple[int, int]]) -> None:
    for number, (name, (value, width)) in enumerate(words.items()):
        dead.put(PLACE + 8 * number, value, width)
        dead.info[f"SYMBOL({name})"] = f"{direct(dead, PLACE + 8 * number):x}"


def named(
    dead: Crashed, symbols: Sequence[Symbol], layout: Layout, *, per_cpu: bool = False
) -> None:
    """The kernel's own symbol table, and VMCOREINFO's way to it."""
    # In the kernel's image, as Linux has it: offsets from their own place reach no further than 2 GiB.
    virt = (0xFFFF_FFFF_8000_0000 if dead.bits == 64 else 0xC000_0000) + SYMBOLS
    text = min(each.address for each in symbols if each.address > 1 << 20)
    begins = virt if layout is Layout.BY_PLACE else text
    data = laid(symbols, virt=begins, layout=layout, bits=dead.bits, absolute_per_cpu=per_cpu)
    at = SYMBOLS - BASE
    dead.memory[at : at + len(data)] = data
    for name, offset in places(data, len(symbols), dead.bits, layout).items():
        dead.info[f"SYMBOL({name})"] = f"{virt + offset:x}"


def places(data: bytes, count: int, bits: int, layout: Layout) -> dict[str, int]:
    """Where each table lies, told by what stands in it."""
    word = bits // 8

    def up(at: int) -> int:
        return at + -at % 8

    offsets = 0
    start = up(up(4 * count) + word) if layout is Layout.OFFSETS_FIRST else 0
    names = up(start + 4)
    at = names
    for _ in range(count):
        length = data[at]
        at += 1
        if length & 0x80:
            length, at = length & 0x7F | data[at] << 7, at + 1
        at += length
    table = up(up(at) + 4 * -(-count // 256))
    strings = table
    for _ in range(256):
        strings = data.index(b"\0", strings) + 1
    index = up(strings)
    if layout is not Layout.OFFSETS_FIRST:
        offsets = up(index + 512)
    found = {
        "kallsyms_num_syms": start,
        "kallsyms_names": names,
        "kallsyms_token_table": table,
        "kallsyms_token_index": index,
        "kallsyms_offsets": offsets,
    }
    if layout is not Layout.BY_PLACE:
        found["kallsyms_relative_base"] = up(offsets + 4 * count)
    return found
