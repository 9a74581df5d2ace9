"""The CPU's vocabulary: bits, control registers and their legal writes, page tables, the walk.

No I/O and no machine here; every fact cites Intel's Software Developer's Manual ("SDM", volume 3A
unless it says otherwise).  `paging` builds tables, `walk` and `survey` read them; the two sides are
written apart and share no constant, so that a wrong shift in one is seen by the other.

    bits      how a field of a word is read and written
    control   which bits CR0, CR4 and EFER have, and which write of them is legal
    cpu       the numbers of control registers, EFER and descriptors
    flags     which flags arithmetic leaves
    paging    what an entry of each mode looks like to the builder
    tables    how page tables are built in memory of our own
    ladder    what an entry of each mode says to whoever reads it
    walk      where a linear address leads
    survey    all that a tree maps, as one list
    sweep     all pages under a root, a level after the other
    few       the same of a root that has few tables
    ranges    which mappings go on where the one before ends

May import: memory
"""
