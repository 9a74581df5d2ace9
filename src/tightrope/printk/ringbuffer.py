"""printk's ring buffer, since Linux 5.10.

    prb -> desc_ring   descs[id % count]: state_var, where its text lies      infos[id % count]: time ...
        -> text_data_ring   data[size]: a long with the id, then the text; positions never wrap

    id      tail_id -> head_id, each as many bits as a long has without its two highest
    state   the two highest bits of state_var: 1 committed, 2 finalized; others are being written or gone
    text    begin .. next; odd ones have none; a block that would wrap lies at the ring's beginning

Source: Linux kernel/printk/printk_ringbuffer.h and .c (the comment at its top; get_data(),
desc_state()), log_buf_vmcoreinfo_setup() in printk.c for the names.

Rules: as many descriptors are looked at as the ring has, whatever its ids say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tightrope.printk.records import Memory, NoLog, Record, visible

_MOST_BITS, _MOST_TEXT_BITS = 24, 31
"""CONFIG_LOG_BUF_SHIFT is 25 at the most, log_buf_len= 2 GiB; a descriptor has 32 bytes of text."""
_COMMITTED, _FINALIZED = 1, 2
_LEVEL = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ring:
    """The rings' places and sizes."""

    descs: int
    infos: int
    count: int
    first: int
    last: int
    """Ids."""
    data: int
    size: int


def records(memory: Memory) -> Iterator[Record]:
    """The records, oldest first.  Raises NoLog."""
    ring = _ring(memory)
    id_mask = (1 << 8 * memory.word - 2) - 1
    span = (ring.last - ring.first & id_mask) + 1
    for number in range(min(span, ring.count)):
        # A ring that says more than it has is read from its end, where the news are.
        which = (ring.last - min(span, ring.count) + 1 + number) & id_mask
        found = _record(memory, ring, which, id_mask)
        if found is not None:
            yield found


def _ring(memory: Memory) -> _Ring:
    prb = memory.pointer(memory.symbol("prb"))
    desc = prb + memory.offset("printk_ringbuffer.desc_ring")
    text = prb + memory.offset("printk_ringbuffer.text_data_ring")
    bits = memory.number(desc + memory.offset("prb_desc_ring.count_bits"), 4)
    text_bits = memory.number(text + memory.offset("prb_data_ring.size_bits"), 4)
    if bits > _MOST_BITS or text_bits > _MOST_TEXT_BITS:
        raise NoLog(f"a log of 2**{bits} records and 2**{text_bits} bytes: prb points astray")
    counter = memory.offset("atomic_long_t.counter")
    return _Ring(
        descs=memory.pointer(desc + memory.offset("prb_desc_ring.descs")),
        infos=memory.pointer(desc + memory.offset("prb_desc_ring.infos")),
        count=1 << bits,
        first=memory.pointer(desc + memory.offset("prb_desc_ring.tail_id") + counter),
        last=memory.pointer(desc + memory.offset("prb_desc_ring.head_id") + counter),
        data=memory.pointer(text + memory.offset("prb_data_ring.data")),
        size=1 << text_bits,
    )


def _record(memory: Memory, ring: _Ring, which: int, id_mask: int) -> Record | None:
    """One record; None for one that was being written, is gone, or is not in the dump."""
    word, at = memory.word, which % ring.count
    desc_size, info_size = memory.size("prb_desc"), memory.size("printk_info")
    desc = memory.bytes(ring.descs + at * desc_size, desc_size)
    info = memory.bytes(ring.infos + at * info_size, info_size)
    if desc is None or info is None:
        return None

    def number(data: bytes, where: int, size: int) -> int:
        return int.from_bytes(data[where : where + size], "little")

    state_at = memory.offset("prb_desc.state_var") + memory.offset("atomic_long_t.counter")
    state = number(desc, state_at, word)
    if state & id_mask != which or state >> 8 * word - 2 not in (_COMMITTED, _FINALIZED):
        return None
    block = memory.offset("prb_desc.text_blk_lpos")
    begin = number(desc, block + memory.offset("prb_data_blk_lpos.begin"), word)
    end = number(desc, block + memory.offset("prb_data_blk_lpos.next"), word)
    length_at = memory.offset("printk_info.text_len")
    length = number(info, length_at, 2)
    text = _text(memory, ring, begin, end, length)
    if text is None:
        return None
    return Record(
        sequence=number(info, memory.offset("printk_info.seq"), 8),
        nanoseconds=number(info, memory.offset("printk_info.ts_nsec"), 8),
        # struct printk_info: text_len, facility, then flags and level in one byte.
        level=number(info, length_at + 3, 1) >> 5 & _LEVEL,
        caller=number(info, memory.offset("printk_info.caller_id"), 4),
        text=text,
    )


def _text(memory: Memory, ring: _Ring, begin: int, end: int, length: int) -> str | None:
    """A block's text, "" where it has none; None where it is gone or not in the dump."""
    if begin & 1 and end & 1:  # NO_LPOS, FAILED_LPOS: lost, or an empty line
        return ""
    first, last = begin % ring.size, end % ring.size
    if begin // ring.size != end // ring.size and last:
        if end // ring.size - begin // ring.size != 1:
            return None
        first = 0  # it would have wrapped: its bytes are at the beginning
    room = (last or ring.size) - first - memory.word
    if room < 0:
        return None
    raw = memory.bytes(ring.data + first + memory.word, min(length, room))
    return None if raw is None else visible(raw)
