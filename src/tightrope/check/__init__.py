"""What must hold on the walk: pure functions Run x Handover -> findings, one per rule.

    rule         what a rule is
    case         what all rules look at
    page_list    the list read back from memory, as a kernel would follow it
    placed       where the image asks to lie, what may be written, what is free before the walk
    programs     the chain's own bytes
    call         the CPU at the call
    tables       page_table_a and page_table_b, statically
    switching    the table switches, under the worst-case TLB
    pdptes       PAE's four top entries, which the CPU keeps
    copying      the page list and what the copies did
    changes      what of the old kernel is not what it was, and what wrote it
    evidence     the current pgd, and all outside the crash region
    ownership    who wrote and read what; the old kernel's memory
    entry        the state the new kernel is entered with
    told         what the new kernel is told, read back; the dump of a crash
    faults       an exception, explained
    xen          what a jump through a hypervisor adds
    apart        what a guest that is watched has in memory twice
    rules        all rules, and asking them
    alike        whether two pieces of memory have the same bytes
    branches     what CET may refuse, and what two makers' CPUs read differently
    crash_region whose the crash region is, whether it is enough, where it lies
    digest       what a loader's purgatory takes in, and what that leaves out
    room         whether a Linux has memory to live on, as its command line lets it
    window       code that is nobody's, and a fault between two stacks

Rules: nothing here changes anything, runs anything or knows a machine.  A finding names the rule,
the step of the walk, what was seen, and what would mend it.

May import: abi, errors, memory, model, x86
"""

from tightrope.check.changes import changes
from tightrope.check.rules import (
    RULES,
    WATCHED,
    asked,
    broken,
    check,
    foretold,
    laid,
    read_back,
    told_apart,
    unasked,
)
from tightrope.check.told.handed_on import entered

__all__ = [
    "RULES",
    "WATCHED",
    "asked",
    "broken",
    "changes",
    "check",
    "entered",
    "foretold",
    "laid",
    "read_back",
    "told_apart",
    "unasked",
]
