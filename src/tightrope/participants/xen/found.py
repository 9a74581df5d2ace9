"""Where a hypervisor has kexec_reloc, and what that code is handed, touches and promises.

    V, in the hypervisor's text ->  a page of its own: kexec_reloc, relocate_pages, the way to 32 bits,
                                    gdt, stack (128 bytes, whose end the second instruction names)

Whatever symbols there are, the code is known by its instructions up to the entry of a 64-bit
image, which begin a page in one place alone.  Debian's 4.17 and 4.20 have the same there.

What is weaker than this project's own: nothing drops the idt on the way to 64-bit code, and
CR4.PGE is on until after the jump to the identity address.  What its C code has done before:
interrupts off, CR4.CET clear (since 4.17).  Xen maps the code page, the list, the sources and the
segments, in pages of 4 KiB, and nothing else.

Sources: machine_kexec() and machine_kexec_add_page() in xen/arch/x86/machine_kexec.c, and
xen/arch/x86/x86_64/kexec_reloc.S, of 4.17 and 4.20; the instructions as they are in Debian's
images.

Rules: one place or none; nobody counts versions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tightrope.errors import ImageError
from tightrope.memory import PAGE_SIZE
from tightrope.model import (
    EVERY_PROMISE,
    Code,
    Contract,
    Done,
    Given,
    Kind,
    Old,
    Participant,
    Promise,
    Step,
    Trees,
)
from tightrope.model.vmlinux import LinkedSegment

AFTER_TABLES, IDENTITY = 0xD, 0x16
CALL = 5
"""Bytes of call rel32."""
SIGNATURE = re.compile(
    rb"\x48\x89\xcd\x48\x8d\xa7(..\0\0)"  # mov %rcx, %rbp; lea reloc_stack - kexec_reloc(%rdi), %rsp
    rb"\x0f\x22\xde\x48\x8d\x87\x16\0\0\0\xff\xe0"  # mov %rsi, %cr3; lea 0x16(%rdi), %rax; jmp *%rax
    rb"\x0f\x20\xc0\x25\xf3\xff\xfa\xff\x0d\x01\0\0\x80\x0f\x22\xc0"  # CR0: no AM, WP, TS, EM; PG, PE
    rb"\xb8\x20\0\0\0\x0f\x22\xe0"  # CR4 = PAE
    rb"\x48\x89\xd7(?P<call>\xe8....)\x49\xf7\xc0\x01\0\0\0\x75.",  # relocate_pages(rdx); test $1, %r8
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """kexec_reloc of one hypervisor: `code` ends with its stack."""

    source: str
    code: bytes
    page: bytes
    """What the hypervisor has at V: the whole page, of which `code` is the beginning."""
    copies: int
    """Where relocate_pages begins, an offset."""


def find(segments: Sequence[LinkedSegment], source: str) -> Found:
    """The code in a hypervisor's segments.  Raises ImageError where it is in no place, or in
    several."""
    found = [
        (segment, match, int.from_bytes(match[1], "little"))
        for segment in segments
        for match in SIGNATURE.finditer(segment.data)
        if (segment.virt + match.start()) % PAGE_SIZE == 0
    ]
    if len(found) != 1:
        where = "nowhere" if not found else f"in {len(found)} places"
        raise ImageError(
            f"the first instructions of a kexec_reloc that is known (Xen 4.17, 4.20) stand {where}",
            source=source,
            field="kexec_reloc",
        )
    [(segment, match, size)] = found
    at = match.start()
    page = bytes(segment.data[at : at + PAGE_SIZE])
    if not IDENTITY < size <= len(page):
        raise ImageError(
            f"its stack ends at {size:#x}, outside its page", source=source, field="kexec_reloc"
        )
    copies = match.start("call") - at + CALL + int.from_bytes(match["call"][1:CALL], "little")
    return Found(source=source, code=page[:size], page=page, copies=copies)


def participant(found: Found) -> Participant:
    """The relocation code of a hypervisor."""
    return Participant(
        name="Xen's own kexec_reloc",
        kind=Kind.RELOCATION,
        code=Code(
            name="kexec_reloc",
            data=found.page,
            symbols={
                "kexec_reloc": 0,
                "after_table_a": AFTER_TABLES,
                "identity_mapped": IDENTITY,
                "relocate_pages": found.copies,
            },
        ),
        contract=Contract(
            arguments={
                "rdi": Given.CONTROL_PAGE,
                "rsi": Given.TABLE_A,
                "rdx": Given.LIST_PAGE,
                "rcx": Given.ENTRY,
                "r8": Given.FLAGS,
            },
            trees=Trees.SMALL_PAGES,
            clears=True,
            old={Old.IDT: Step.COPY},
            promises=EVERY_PROMISE
            - {
                Promise.NOTHING_ELSE_MAPPED,
                Promise.GLOBALS_DROPPED,
                Promise.IDT_DROPPED,
                Promise.COPIES_ONCE,
            },
            same=len(found.code),
            done=frozenset({Done.INTERRUPTS_OFF, Done.CET_OFF}),
        ),
        landmarks={"after_table_a": Step.TABLE_A, "identity_mapped": Step.IDENTITY},
        image=found.source,
    )
