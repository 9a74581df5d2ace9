"""Plan + old kernel -> Handover: control page, page_table_a, page_table_b, page list.

    designs      the table designs by name; `two-tables` is the thread's
    apart        the designs whose code at V is not the control page's
    xen          the same through a hypervisor, by dom0's pages or with the hypervisor's own
    build        lays everything that machine_kexec needs out as pieces of memory

May import: errors, memory, model, routines, x86
"""

from tightrope.handover.apart import IN_PLACE, SPLIT_FUNCTION
from tightrope.handover.build import DESIGNS, build, codes, fitted
from tightrope.handover.designs import DAMM_V4, ONE_TABLE, TWO_TABLES
from tightrope.handover.xen import build_xen, code_xen

__all__ = [
    "DAMM_V4",
    "DESIGNS",
    "IN_PLACE",
    "ONE_TABLE",
    "SPLIT_FUNCTION",
    "TWO_TABLES",
    "build",
    "build_xen",
    "code_xen",
    "codes",
    "fitted",
]
