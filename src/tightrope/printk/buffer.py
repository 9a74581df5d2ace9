"""The logs before the ring buffer: records in log_buf (Linux 3.5 to 5.9), and plain text before.

    log_first_idx -> | ts_nsec | len | text_len | dict_len | .. | text | dict | -> ... log_next_idx
    a length of 0: the next record is at the beginning

Source: Linux 5.4 kernel/printk/printk.c, struct printk_log (struct log until 3.10) and log_next();
3.4 kernel/printk.c for log_end and logged_chars.

Rules: a record that does not fit into the buffer ends the log.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.printk.records import Memory, NoLog, Record, visible

_MOST = 1 << 31
_LEVEL = 7


def _buffer(memory: Memory) -> tuple[int, int]:
    """Where it lies, and its bytes."""
    size = memory.number(memory.symbol("log_buf_len"), 4)
    if not 0 < size <= _MOST:
        raise NoLog(f"a log of {size:,} bytes: log_buf_len points astray")
    return memory.pointer(memory.symbol("log_buf")), size


def records(memory: Memory) -> Iterator[Record]:
    """The records, oldest first.  Raises NoLog."""
    start, size = _buffer(memory)
    at = memory.number(memory.symbol("log_first_idx"), 4)
    end = memory.number(memory.symbol("log_next_idx"), 4)
    name = "printk_log" if "SIZE(printk_log)" in memory.info else "log"
    head = memory.size(name)
    fields = {field: memory.offset(f"{name}.{field}") for field in ("ts_nsec", "len", "text_len")}
    sequence, wrapped = 0, end > at
    while (at != end or not wrapped) and at + head <= size:
        raw = memory.bytes(start + at, head)
        if raw is None:
            return
        number = {
            field: int.from_bytes(raw[where : where + (8 if field == "ts_nsec" else 2)], "little")
            for field, where in fields.items()
        }
        if not number["len"]:
            if wrapped:
                return
            at, wrapped = 0, True
            continue
        text = memory.bytes(start + at + head, number["text_len"])
        if text is None or number["len"] < head + number["text_len"]:
            return
        # struct printk_log: text_len, dict_len, facility, then flags and level in one byte.
        level = raw[fields["text_len"] + 5] >> 5 & _LEVEL if fields["text_len"] + 5 < head else None
        yield Record(
            sequence=sequence,
            nanoseconds=number["ts_nsec"],
            level=level,
            caller=None,
            text=visible(text),
        )
        at, sequence = at + number["len"], sequence + 1


def plain(memory: Memory) -> Iterator[Record]:
    """The text of a kernel before 3.5, a record a line; its times are in the text."""
    start, size = _buffer(memory)
    end = memory.number(memory.symbol("log_end"), 4)
    chars = min(memory.number(memory.symbol("logged_chars"), 4), size)
    raw = memory.bytes(start, size)
    if raw is None:
        raise NoLog(f"log_buf at {start:#x} is not in the dump")
    last = end % size
    text = (raw[last:] + raw[:last])[size - chars :]
    for sequence, line in enumerate(text.split(b"\n")):
        yield Record(sequence=sequence, nanoseconds=0, level=None, caller=None, text=visible(line))
