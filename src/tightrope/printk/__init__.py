"""A dead kernel's log, read out of its memory by the symbols and offsets that VMCOREINFO has.

    log         which of the logs a kernel has, and that one read
    records     what a record is, and how it is written as text
    ringbuffer  printk's ring buffer since Linux 5.10: descriptors, infos, a ring of text
    buffer      what was before: records one behind the other in log_buf, and before 3.5 plain text

    from tightrope import printk

    for record in printk.log(vmcoreinfo, read, word=8):
        print(*printk.lines(record), sep="\\n")

`read(virt, size)` gives bytes of the dead kernel's memory, or raises LookupError.

Rules: standard library alone, because a crash kernel's initramfs reads it too.  A kernel has died
in the middle of something: a record that is not whole is left away, never a reason to stop.

May import: errors
"""

from tightrope.printk.log import log
from tightrope.printk.records import Memory, NoLog, Record, lines

PANIC = "Kernel panic - not syncing"
"""How the line begins that says why a kernel is dead (Linux kernel/panic.c)."""

__all__ = ["PANIC", "Memory", "NoLog", "Record", "lines", "log"]
