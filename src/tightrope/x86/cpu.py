"""Control registers, EFER, descriptors: their bits, and which writes the CPU refuses.

Rules: facts and predicates only.  A predicate returns the manual's reason for #GP as a sentence, or
None where the write is legal; it never raises and never changes anything.  Unicorn checks none of
these, so the emulator asks here before each such instruction.

Sources: SDM 2.5 (control registers), 2.2.1 (EFER), 3.4.5 (segment descriptors); volume 2B, MOV to
and from control registers; volume 4, IA32_EFER.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tightrope.x86.bits import bit

# CR0 (SDM 2.5)
CR0_PE, CR0_MP, CR0_EM, CR0_TS, CR0_ET, CR0_NE = (bit(n) for n in range(6))
CR0_WP, CR0_AM = bit(16), bit(18)
CR0_NW, CR0_CD, CR0_PG = bit(29), bit(30), bit(31)
CR0_NAMES = {
    "PE": CR0_PE, "MP": CR0_MP, "EM": CR0_EM, "TS": CR0_TS, "ET": CR0_ET, "NE": CR0_NE,
    "WP": CR0_WP, "AM": CR0_AM, "NW": CR0_NW, "CD": CR0_CD, "PG": CR0_PG,
}  # fmt: skip

CR0_DEFINED = sum(CR0_NAMES.values())
"""The other bits stay clear whatever is written (SDM volume 2B, MOV to control registers)."""

# CR4 (SDM 2.5)
CR4_PSE, CR4_PAE, CR4_MCE, CR4_PGE = bit(4), bit(5), bit(6), bit(7)
CR4_LA57, CR4_VMXE, CR4_PCIDE = bit(12), bit(13), bit(17)
CR4_SMEP, CR4_SMAP, CR4_CET = bit(20), bit(21), bit(23)
CR4_NAMES = {
    "VME": bit(0), "PVI": bit(1), "TSD": bit(2), "DE": bit(3), "PSE": CR4_PSE, "PAE": CR4_PAE,
    "MCE": CR4_MCE, "PGE": CR4_PGE, "PCE": bit(8), "OSFXSR": bit(9), "OSXMMEXCPT": bit(10),
    "UMIP": bit(11), "LA57": CR4_LA57, "VMXE": CR4_VMXE, "SMXE": bit(14), "FSGSBASE": bit(16),
    "PCIDE": CR4_PCIDE, "OSXSAVE": bit(18), "SMEP": CR4_SMEP, "SMAP": CR4_SMAP, "PKE": bit(22),
    "CET": CR4_CET, "PKS": bit(24),
}  # fmt: skip
CR4_DEFINED = sum(CR4_NAMES.values())

CR3_NO_FLUSH = bit(63)
"""With CR4.PCIDE: keep the translations of the new PCID (SDM 4.10.4.1)."""

# IA32_EFER, MSR 0xC0000080 (SDM 2.2.1)
MSR_EFER = 0xC000_0080
EFER_SCE, EFER_LME, EFER_LMA, EFER_NXE = bit(0), bit(8), bit(10), bit(11)
EFER_NAMES = {"SCE": EFER_SCE, "LME": EFER_LME, "LMA": EFER_LMA, "NXE": EFER_NXE}

# RFLAGS (SDM volume 1, 3.4.3)
RFLAGS_FIXED, RFLAGS_TF, RFLAGS_IF, RFLAGS_DF = bit(1), bit(8), bit(9), bit(10)
RFLAGS_NT, RFLAGS_AC = bit(14), bit(18)
RFLAGS_NAMES = {
    "CF": bit(0), "PF": bit(2), "AF": bit(4), "ZF": bit(6), "SF": bit(7), "TF": RFLAGS_TF,
    "IF": RFLAGS_IF, "DF": RFLAGS_DF, "OF": bit(11), "NT": RFLAGS_NT, "RF": bit(16),
    "VM": bit(17), "AC": RFLAGS_AC,
}  # fmt: skip

GENERAL = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
"""The general registers in the order of their encoding (SDM volume 2A, table 2-2)."""
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")

VECTORS = {
    0: "#DE", 1: "#DB", 2: "NMI", 3: "#BP", 4: "#OF", 5: "#BR", 6: "#UD", 7: "#NM", 8: "#DF",
    10: "#TS", 11: "#NP", 12: "#SS", 13: "#GP", 14: "#PF", 16: "#MF", 17: "#AC", 18: "#MC",
    19: "#XM", 21: "#CP",
}  # fmt: skip
"""Names of the exception vectors (SDM table 6-1)."""
WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17, 21})


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlState:
    """What the legality of a write depends on.  `code64` is CS.L; `physical_bits` is MAXPHYADDR."""

    cr0: int
    cr3: int
    cr4: int
    efer: int
    code64: bool
    physical_bits: int
    la57: bool


def cr0_refusal(now: ControlState, value: int) -> str | None:
    """Why MOV to CR0 raises #GP(0) (SDM volume 2B, MOV to CR0)."""
    if value >> 32:
        return "CR0 bits 63:32 must be zero"
    if value & CR0_PG and not value & CR0_PE:
        return "CR0.PG needs CR0.PE"
    if value & CR0_NW and not value & CR0_CD:
        return "CR0.NW needs CR0.CD"
    if not value & CR0_WP and now.cr4 & CR4_CET:
        return "CR0.WP cannot be cleared while CR4.CET is set"
    if now.cr0 & CR0_PG and not value & CR0_PG:
        if now.efer & EFER_LMA and now.code64:
            return "CR0.PG cannot be cleared in 64-bit code"
        if now.cr4 & CR4_PCIDE:
            return "CR0.PG cannot be cleared while CR4.PCIDE is set"
    if value & CR0_PG and not now.cr0 & CR0_PG and now.efer & EFER_LME:
        if not now.cr4 & CR4_PAE:
            return "entering long mode needs CR4.PAE"
        if now.code64:
            return "entering long mode needs CS.L = 0"
    return None


def cr3_refusal(now: ControlState, value: int) -> str | None:
    """Why MOV to CR3 raises #GP(0): reserved bits (SDM volume 2B; PDPTEs are `x86.walk`'s)."""
    if now.cr4 & CR4_PCIDE:
        value &= ~CR3_NO_FLUSH
    if value >> now.physical_bits:
        return f"CR3 bits 63:{now.physical_bits} are reserved on this CPU"
    return None


def cr4_refusal(now: ControlState, value: int) -> str | None:
    """Why MOV to CR4 raises #GP(0) (SDM volume 2B, MOV to CR4)."""
    if value & ~CR4_DEFINED:
        return f"CR4 bits {value & ~CR4_DEFINED:#x} are reserved"
    if value & CR4_LA57 and not now.la57:
        return "CR4.LA57 is reserved on this CPU"
    if value & CR4_CET and not now.cr0 & CR0_WP:
        return "CR4.CET needs CR0.WP"
    if now.efer & EFER_LMA:
        if not value & CR4_PAE:
            return "CR4.PAE cannot be cleared in long mode"
        if (value ^ now.cr4) & CR4_LA57:
            return "CR4.LA57 cannot be changed in long mode"
    if value & CR4_PCIDE and not now.cr4 & CR4_PCIDE:
        if not now.efer & EFER_LMA:
            return "CR4.PCIDE needs long mode"
        if now.cr3 & 0xFFF:
            return "CR4.PCIDE cannot be set while CR3 bits 11:0 are not zero"
    return None


def efer_refusal(now: ControlState, value: int) -> str | None:
    """Why WRMSR to IA32_EFER raises #GP(0) (SDM volume 4)."""
    if value & ~sum(EFER_NAMES.values()):
        return "EFER bits other than SCE, LME, LMA, NXE are reserved"
    if now.cr0 & CR0_PG and (value ^ now.efer) & EFER_LME:
        return "EFER.LME cannot be changed while paging is on"
    return None


def flushes_everything(before: int, after: int) -> bool:
    """Whether a CR4 write invalidates all TLB entries, global ones too (SDM 4.10.4.1).

    PGE changed, or PCIDE cleared, or SMEP set; PAE and PSE too, as AMD's manual (volume 2, 5.5.2)
    and the SDM's "changes to paging mode" have it.
    """
    changed = before ^ after
    return bool(
        changed & (CR4_PGE | CR4_PAE | CR4_PSE)
        or (before & CR4_PCIDE and not after & CR4_PCIDE)
        or (after & CR4_SMEP and not before & CR4_SMEP)
    )


def loads_pdptes(cr0: int, cr4: int, *, was_cr0: int, was_cr4: int) -> bool:
    """Whether a write of CR0 or CR4 reads the four PDPTEs again, under PAE paging (SDM 4.4.1).

    It does when it changes CR0.CD, NW or PG, or CR4.PAE, PGE, PSE or SMEP.  A write of CR3 always does.
    """
    return bool(
        (cr0 ^ was_cr0) & (CR0_CD | CR0_NW | CR0_PG)
        or (cr4 ^ was_cr4) & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)
    )


# Segment descriptors (SDM 3.4.5, figure 3-8; type field, table 3-1)
CODE_READABLE, DATA_WRITABLE = 0xA, 0x2
TYPE_ACCESSED = 0x1


@dataclass(frozen=True, kw_only=True, slots=True)
class Descriptor:
    """A code or data segment descriptor, decoded.  `limit` is in bytes, the last valid offset."""

    base: int
    limit: int
    type: int
    system: bool
    dpl: int
    present: bool
    long: bool
    big: bool

    @classmethod
    @lru_cache(maxsize=256)
    def decode(cls, word: int) -> Descriptor:
        """From the eight bytes of a gdt slot."""
        limit = word & 0xFFFF | (word >> 48 & 0xF) << 16
        if word >> 55 & 1:
            limit = limit << 12 | 0xFFF
        return cls(
            base=word >> 16 & 0xFF_FFFF | (word >> 56 & 0xFF) << 24,
            limit=limit,
            type=word >> 40 & 0xF,
            system=not word >> 44 & 1,
            dpl=word >> 45 & 3,
            present=bool(word >> 47 & 1),
            long=bool(word >> 53 & 1),
            big=bool(word >> 54 & 1),
        )

    @property
    def code(self) -> bool:
        """A code segment."""
        return not self.system and bool(self.type & 8)

    @property
    def flat(self) -> bool:
        """Base 0, limit 4 GiB - 1, ring 0, present."""
        return self.base == 0 and self.limit == 0xFFFF_FFFF and self.dpl == 0 and self.present


def flat_descriptor(*, code: bool, bits: int) -> int:
    """The eight bytes of a flat ring-0 segment: `bits` 64 or 32, accessed preset, 4 GiB limit."""
    kind = (CODE_READABLE if code else DATA_WRITABLE) | TYPE_ACCESSED
    long = code and bits == 64
    return (
        0xFFFF
        | (kind | 1 << 4 | 1 << 7) << 40
        | (0xF | (1 << 5 if long else 1 << 6) | 1 << 7) << 48
    )


def segment_refusal(register: str, selector: int, descriptor: int | None) -> str | None:
    """Why loading a segment register at CPL 0 in long mode faults (SDM volume 2B MOV; 2A RET far).

    `descriptor` is the gdt slot that `selector` names, None when it is beyond the gdt's limit.
    """
    if selector & ~3 == 0:
        # A null selector is fine in data registers, and in SS in 64-bit mode when its RPL is CPL.
        if register == "cs":
            return "a null selector in CS"
        if register == "ss" and selector:
            return f"null selector {selector:#x} in SS is not of ring 0"
        return None
    if selector & 4:
        return "the selector is in the LDT"
    if descriptor is None:
        return f"selector {selector:#x} is beyond the gdt's limit"
    seg = Descriptor.decode(descriptor)
    if seg.system:
        return f"selector {selector:#x} names a system descriptor"
    if register == "cs":
        if not seg.code:
            return f"selector {selector:#x} is not a code segment"
        if seg.long and seg.big:
            return f"selector {selector:#x} has both L and D set"
    elif register == "ss":
        if seg.code or not seg.type & 2:
            return f"selector {selector:#x} is not a writable data segment"
    elif seg.code and not seg.type & 2:
        return f"selector {selector:#x} is not readable"
    # A conforming code segment may be read whatever the RPL.
    conforming = register not in ("cs", "ss") and seg.code and seg.type & 4
    if (register in ("cs", "ss") and seg.dpl != 0) or (selector & 3 > seg.dpl and not conforming):
        return f"selector {selector:#x} is not of ring 0"
    if not seg.present:
        return f"selector {selector:#x} is not present"
    return None
