"""This project's relocation code as a confidential guest has to run it: two instructions changed.

    TDX               CR4.MCE stays as it was: to clear it is #VE (Linux commit de60613173df)
    SEV-ES, SEV-SNP   DR7 is not written: that is #VC (AMD APM volume 2, 15.35.5); Linux's C code has turned
                      breakpoints off before the call (hw_breakpoint_disable)

Linux does the same to its own code when it boots, since 6.10 (alternatives): four bytes of NOP
before CR4 is written become `or $0x40, %r13d` in a TDX guest.

Rules: nothing else is changed, and what is proved of the routine is proved of these as well, see
docs/proof.md; other code than the routine that has the labels is left as it is.
"""

from __future__ import annotations

from dataclasses import replace

from tightrope.model import Code, Confidential, Participant

MCE = 1 << 6
IMMEDIATE = 1
"""`and imm32, eax` has one byte before its word (SDM volume 2A, AND)."""
NO_OPERATION = b"\x0f\x1f\x00"
"""In place of the three bytes of MOV to DR7."""


LINUX = (
    bytes.fromhex("4181e52010000090909090410f22e5"),
    bytes.fromhex("4181e5201000004183cd40410f22e5"),
)
"""and $PAE|LA57, %r13d; the alternative; mov %r13, %cr4: as it is in the image, and in a TDX
guest."""


def in_guest(code: Participant, guest: Confidential | None) -> Participant:
    """The code as it runs in such a guest; itself elsewhere."""
    change = changed if code.image is None else booted
    return replace(code, code=change(code.code, guest))


def booted(code: Code, guest: Confidential | None) -> Code:
    """An old kernel's own code, patched as that kernel does when it boots in such a guest."""
    before, after = LINUX
    if guest is not Confidential.TDX or code.data.count(before) != 1:
        return code
    return replace(code, data=code.data.replace(before, after))


def changed(code: Code, guest: Confidential | None) -> Code:
    """The routine with what such a guest may not do left out."""
    data = bytearray(code.data)
    if guest is Confidential.TDX and "cr4_kept" in code.symbols:
        at = code.symbols["cr4_kept"] + IMMEDIATE
        data[at] |= MCE
    if guest in (Confidential.ES, Confidential.SNP) and "debug_off" in code.symbols:
        at = code.symbols["debug_off"]
        data[at : at + len(NO_OPERATION)] = NO_OPERATION
    return replace(code, data=bytes(data)) if bytes(data) != code.data else code
