"""Which of the logs a kernel has, and that one read.

Rules: VMCOREINFO's symbols decide, never a version.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.printk import buffer, ringbuffer
from tightrope.printk.records import Memory, NoLog, Record


def log(memory: Memory) -> Iterator[Record]:
    """The records, oldest first.  Raises NoLog at the first one where there is no log."""
    if memory.has("prb"):
        yield from ringbuffer.records(memory)
    elif memory.has("log_first_idx"):
        yield from buffer.records(memory)
    elif memory.has("log_end"):
        yield from buffer.plain(memory)
    else:
        raise NoLog(
            "VMCOREINFO names no log of Linux (prb, log_first_idx, log_end)"
            if memory.info
            else "no VMCOREINFO of Linux in the dump"
        )
