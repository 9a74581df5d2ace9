"""What must hold on the walk: pure functions Run x Handover -> findings, one per rule.

    rule         what a rule is
    page_list    the list read back from memory, as a kernel would follow it
    tables       page_table_a and page_table_b, statically
    switching    the table switches, under the worst-case TLB
    pdptes       PAE's four top entries, which the CPU keeps
    copying      the page list and what the copies did
    changes      what of the old kernel is not what it was, and what wrote it
    ownership    who wrote and read what; the old kernel's memory
    entry        the state the new kernel is entered with
    information  what a Multiboot or PVH kernel is told, read back
    dump         what a crash kernel can still read of the old one
    faults       an exception, explained
    xen          what a jump through a hypervisor adds
    leaving      long mode left on the way to a 32-bit dom0's code

Rules: nothing here changes anything, runs anything or knows a machine.  A finding names the rule,
the step of the walk, what was seen, and what would mend it.

May import: abi, errors, memory, model, x86
"""

from tightrope.check.changes import changes
from tightrope.check.rules import RULES, asked, check, unasked

__all__ = ["RULES", "asked", "changes", "check", "unasked"]
