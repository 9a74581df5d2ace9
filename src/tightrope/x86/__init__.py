"""The CPU's vocabulary: bits, control registers and their legal writes, page tables, the walk.

No I/O and no machine here; every fact cites Intel's Software Developer's Manual ("SDM", volume 3A
unless it says otherwise).  `paging` builds tables, `walk` and `survey` read them; the two sides are
written apart and share no constant, so that a wrong shift in one is seen by the other.

May import: memory
"""
