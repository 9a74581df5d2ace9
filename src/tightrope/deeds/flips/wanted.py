"""Why a rule tells what changes nothing that anybody was promised.

A rule forbids a state, not the harm that it does this time: the oracles are one CPU each, with one
TLB, no interrupt and memory that was zeros, and what saves a walk there saves no other.

Rules: one sentence a rule, by its id; a rule that is not here has to see a change.  A test tries
it.
"""

from __future__ import annotations

from collections.abc import Mapping

ON_ANOTHER_CPU = (
    "an oracle is one CPU: with other address bits, or of the other vendor, it is a fault"
)
OTHER_TLB = "an oracle has one TLB, and a CPU may still hold what the manual lets it hold"
OTHERS_MEMORY = (
    "what was read or written there is somebody else's: in a bare base it is free by chance"
)

WANTED: Mapping[str, str] = {
    "same-bytes": "bytes that this walk does not use are copied with the rest: a page that differs from the one"
    " at V is a page that something wrote to",
    "call-state": "this walk replaces the register before it counts; the old kernel did not have that in it,"
    " so something else made the call",
    "table-a-nothing-else": "what is mapped besides is not touched by this walk, and would be by a stray one",
    "table-a-rights": "the oracle runs with WP, SMEP and NX as this old kernel has them",
    "table-a-maps-v": "a translation that a TLB kept may carry the walk across, and another does not",
    "table-a-maps-p": "P was used as the old tables had it, which a TLB need not keep",
    "table-b-identity": "a page that nothing used this time is mapped to another",
    "table-b-covers": "what this new kernel did not touch before its entry it touches after it",
    "table-b-nothing-else": "a CPU reads ahead into what is mapped; an oracle does not",
    "table-b-top": "a new kernel reads the table after its entry, where no oracle looks",
    "reserved-bits": ON_ANOTHER_CPU,
    "fault-reserved": ON_ANOTHER_CPU,
    "tlb-agreement": OTHER_TLB,
    "code-stays": OTHER_TLB,
    "pge-before-identity": OTHER_TLB,
    "pdptes-current": "Unicorn reads PDPTEs at each walk, a CPU when CR3 is written",
    "accessed-dirty-preset": "the CPU writes into the table, which a dump of the old kernel then shows",
    "fault-window": "no oracle has an interrupt or a machine check at the wrong moment",
    "interrupts-off": "no oracle has an interrupt at the wrong moment",
    "idt-gone": "no oracle has an exception at the wrong moment",
    "stack-inside": "what lies where the stack went was free by chance",
    "stores-owned": OTHERS_MEMORY,
    "loads-owned": "the word that was read was what it had to be by chance",
    "copies-owned": OTHERS_MEMORY,
    "fetch-owned": "the bytes there were instructions that did no harm by chance",
    "crash-region-only": "outside the crash region everything is evidence, whoever looks at it",
    "current-pgd-kept": "the table was written and put back, or with what it had",
    "old-kernel-kept": "it was written over with what it held",
    "copies-follow-list": "a page was copied twice, or a page in place onto itself: the bytes are the same",
    "source-intact": "a source is written over after it was copied: another order of the same list loses it",
    "destinations-complete": "an accessed bit in the stub's own gdt, which the CPU sets in any case",
    "stub-as-known": "an accessed bit in the stub's own gdt, which the CPU sets in any case",
    "list-covers": "a page that is all zeros may be left out where memory is zeros already",
    "list-ends": "the walk took the word in the register for what it was not, and found its end by chance",
    "list-kept": "the page of the list was written over once it had been read",
    "tables-kept": "the table was written over once it was not needed any more",
    "control-page-kept": "it was written over with what it held",
    "laid-free": "whoever owns that frame loses it; in these bases nobody misses it",
    "placed-in-ram": "whoever owns that memory loses it; in these bases nobody misses it",
    "legal-writes": "Unicorn lets every illegal write of a control register, EFER or a segment pass",
    "fetch-mapped": "no oracle has LASS, by which a CPU refuses the lower half of addresses to a supervisor",
    "no-exception": "an exception that Unicorn does not raise (SDM 6.15)",
    "entry-jump": "what was jumped over, at the beginning of the entry stub, did no more than was so already",
    "arrived": "the walk takes so many instructions more that our machine tires of it",
    "entry-flags": "an interrupt or a trap after the entry, where no oracle looks",
    "entry-mapped": "the new kernel uses it after its entry, where no oracle looks",
    "entry-stack": "a purgatory reads its stack after the entry, where no oracle looks",
    "xen-list-machine": "the word is no machine address of dom0's; that something lay there is chance",
    "xen-entries-machine": "the entry is no machine address of dom0's or the hypervisor's",
    "xen-calls-fixmap": "the hypervisor hands over its whole array, and this walk used a part of it",
    "xen-fixmap-maps": "the hypervisor's mapping is asked for as a whole, and this walk used a part of it",
    "xen-small-pages": "Xen never maps a large page here: something else made the table",
    "xen-overwritten": "the hypervisor fills the tables before each jump, whatever this walk used of them",
    "xen-way-out-maps": "the way out is asked for as a whole, and this walk used a part of it",
}
"""Rule id -> why it is right although nothing changes here."""
