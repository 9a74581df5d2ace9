"""Plan + old kernel -> Handover: control page, page_table_a, page_table_b, page list.

    designs      the table designs by name; `two-tables` is the thread's
    build        lays everything that machine_kexec needs out as pieces of memory

May import: errors, memory, model, routines, x86
"""

from tightrope.handover.build import build
from tightrope.handover.designs import DAMM_V4, DESIGNS, ONE_TABLE, TWO_TABLES

__all__ = ["DAMM_V4", "DESIGNS", "ONE_TABLE", "TWO_TABLES", "build"]
