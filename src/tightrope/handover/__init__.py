"""Plan + old kernel + relocation code -> Handover: control page, page_table_a, page_table_b, page list.

    designs      how page_table_a and page_table_b are filled
    apart        tables for code at V that stays where it is
    xen          tables through a hypervisor, in dom0's pages or the hypervisor's own
    trees        which of these a contract asks for
    build        puts tables, list and the registers of the call together
    call         what registers and memory hold when V is called
    laid         what the filling of tables gives to the composing

May import: errors, memory, model, x86
"""

from tightrope.handover.build import build, fitted

__all__ = ["build", "fitted"]
