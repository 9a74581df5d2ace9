"""The words of this field that reports use, each explained in the fewest that are enough.

Rules: frozen; nouns only, see the package.  A word is here when a reader of a report meets it; what
it means is said without another word of this list, or with one that stands above it.

May import: nothing
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """A word as reports write it, what it means, and where it comes from."""

    word: str
    means: str
    source: str


TERMS = (
    Term(
        word="kexec",
        means="a running Linux puts another kernel into memory and jumps into it; no firmware runs between"
        " the two",
        source="kexec_load(2)",
    ),
    Term(
        word="kdump",
        means="a kexec out of a kernel that has crashed, into one that was loaded beforehand and saves the"
        " memory of the first",
        source="Linux Documentation/admin-guide/kdump/kdump.rst",
    ),
    Term(word="old kernel", means="the one that is left", source="this project"),
    Term(word="new kernel", means="the one that is entered", source="this project"),
    Term(
        word="frame",
        means="4096 bytes of physical memory at a multiple of 4096; a page is the same of linear addresses",
        source="SDM 4.2",
    ),
    Term(
        word="page table",
        means="entries from which the CPU learns which frame a linear address is; tables lead to tables, in"
        " two to five levels, the topmost is the root, which CR3 holds",
        source="SDM 4.2",
    ),
    Term(
        word="pgd",
        means="Linux's name for the root of a tree of page tables; the current pgd is the one in CR3",
        source="the thread of May 2006",
    ),
    Term(
        word="the thread",
        means="Magnus Damm's letters to the Linux kernel list of 25 and 26 May 2006, 'kexec: Avoid"
        " overwriting the current pgd', and the answers",
        source="LKML",
    ),
    Term(
        word="relocation code",
        means="the old kernel's last code: it changes page tables, copies the new kernel into place and"
        " jumps to it; Linux calls it relocate_kernel",
        source="Linux arch/x86/kernel/relocate_kernel_64.S",
    ),
    Term(
        word="control page",
        means="a frame of its own that holds a copy of the relocation code, and its stack: nothing that is"
        " copied may land on it",
        source="Linux kernel/kexec_core.c",
    ),
    Term(
        word="V",
        means="the linear address at which the old kernel calls the relocation code",
        source="the thread of May 2006",
    ),
    Term(
        word="P",
        means="the physical address of the control page",
        source="the thread of May 2006",
    ),
    Term(
        word="identity",
        means="a linear address that leads to the physical address of the same number",
        source="SDM 4.1",
    ),
    Term(
        word="page_table_a",
        means="tables that map the control page twice, at V and at P: under them the CPU leaves the old"
        " kernel's addresses",
        source="the thread of May 2006",
    ),
    Term(
        word="page_table_b",
        means="tables that map each address to itself, for the copy; on i386 paging is turned off instead",
        source="the thread of May 2006",
    ),
    Term(
        word="segment",
        means="a piece of the new kernel: bytes, and the physical addresses where they have to be at the jump",
        source="struct kexec_segment in linux/kexec.h",
    ),
    Term(
        word="destination",
        means="a frame that the new kernel wants filled",
        source="Linux kernel/kexec_core.c",
    ),
    Term(
        word="source",
        means="the frame in which a page of the new kernel waits until it is copied to its destination",
        source="Linux kernel/kexec_core.c",
    ),
    Term(
        word="page list",
        means="the words that the relocation code follows: where to copy to, what to copy, where the list goes"
        " on, and its end",
        source="struct kimage in linux/kexec.h",
    ),
    Term(
        word="IND_DONE",
        means="the word that ends the page list; a kdump's list has no other",
        source="linux/kexec.h",
    ),
    Term(
        word="purgatory",
        means="a small program between the relocation code and the new kernel: it may check a digest of what"
        " was loaded, and sets the registers",
        source="kexec-tools; Linux arch/x86/purgatory",
    ),
    Term(
        word="entry stub",
        means="our own purgatory without a digest: it only sets what the new kernel's entry asks for",
        source="this project",
    ),
    Term(
        word="boot_params",
        means="a page in which an x86 Linux finds what its loader knows: memory map, command line, initrd",
        source="Linux Documentation/arch/x86/boot.rst",
    ),
    Term(
        word="crash region",
        means="memory that crashkernel= keeps free, so that a kdump's kernel lies there before the crash",
        source="Linux Documentation/admin-guide/kdump/kdump.rst",
    ),
    Term(
        word="TLB",
        means="what the CPU remembers of page tables; until it is told otherwise it may go by an entry that has"
        " changed since",
        source="SDM 4.10",
    ),
    Term(
        word="stale",
        means="said of an entry that the CPU may still remember, though the tables say something else by now",
        source="SDM 4.10",
    ),
    Term(
        word="global",
        means="said of an entry that the CPU may remember even when CR3 is loaded; clearing CR4.PGE makes it"
        " forget",
        source="SDM 4.10.2.4",
    ),
    Term(
        word="triple fault",
        means="an exception while the CPU tries to report that it could not report an exception: the machine"
        " resets, and nothing is printed",
        source="SDM 6.15, interrupt 8",
    ),
    Term(
        word="finding",
        means="a rule that was broken, with what was seen; the machine falls by it",
        source="this project",
    ),
    Term(
        word="advice",
        means="a weakness of somebody else's code that does not make it fall",
        source="this project",
    ),
    Term(
        word="assumed",
        means="said of a fact of the old kernel that nothing told: the verdict is good if it is so",
        source="this project",
    ),
)
