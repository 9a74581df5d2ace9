"""Control registers, EFER, descriptors: their bits, and which writes the CPU refuses.

Rules: facts and predicates only.  A predicate returns the manual's reason for #GP as a sentence, or
None where the write is legal; it never raises and never changes anything.  Unicorn checks none of
these, so the emulator asks here before each such instruction.  The bits of CR0, CR4 and EFER and
the rules about them are `control`'s tables, which are read here for numbers.

Sources: as there; SDM 3.4.5 (segment descriptors).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from functools import lru_cache

from tightrope.x86 import control
from tightrope.x86.bits import bit

# CR0 (SDM 2.5)
CR0_NAMES = control.names(control.CR0)
CR0_PE, CR0_MP, CR0_EM, CR0_TS, CR0_ET, CR0_NE, *_upper = CR0_NAMES.values()
CR0_WP, CR0_AM, CR0_NW, CR0_CD, CR0_PG = _upper
CR0_DEFINED = control.defined(control.CR0)
"""The other bits stay clear whatever is written (SDM volume 2B, MOV to control registers)."""

# CR4 (SDM 2.5)
CR4_NAMES = control.names(control.CR4)
CR4_PSE, CR4_PAE, CR4_MCE, CR4_PGE = (CR4_NAMES[name] for name in ("PSE", "PAE", "MCE", "PGE"))
CR4_LA57, CR4_VMXE, CR4_PCIDE = (CR4_NAMES[name] for name in ("LA57", "VMXE", "PCIDE"))
CR4_SMEP, CR4_SMAP, CR4_CET = (CR4_NAMES[name] for name in ("SMEP", "SMAP", "CET"))
CR4_LASS, CR4_FRED = CR4_NAMES["LASS"], CR4_NAMES["FRED"]
CR4_DEFINED = control.defined(control.CR4)

CR4_TRANSLATES = CR4_PSE | CR4_PAE | CR4_PGE | CR4_LA57
"""What a translation depends on; any other bit of CR4 only forbids what a walk does not do."""

CR3_NO_FLUSH = control.CR3_NO_FLUSH

# IA32_EFER, MSR 0xC0000080 (SDM 2.2.1)
MSR_EFER = 0xC000_0080
EFER_NAMES = control.names(control.EFER)
EFER_SCE, EFER_LME, EFER_LMA, EFER_NXE = (EFER_NAMES[n] for n in ("SCE", "LME", "LMA", "NXE"))

# RFLAGS (SDM volume 1, 3.4.3)
RFLAGS_FIXED, RFLAGS_TF, RFLAGS_IF, RFLAGS_DF = bit(1), bit(8), bit(9), bit(10)
RFLAGS_NT, RFLAGS_AC = bit(14), bit(18)
RFLAGS_VM = bit(17)
RFLAGS_RESERVED = (1 << 64) - (1 << 22) | bit(15) | bit(5) | bit(3)
"""Always 0; `RFLAGS_FIXED` is always 1."""
RFLAGS_NAMES = {
    "CF": bit(0), "PF": bit(2), "AF": bit(4), "ZF": bit(6), "SF": bit(7), "TF": RFLAGS_TF,
    "IF": RFLAGS_IF, "DF": RFLAGS_DF, "OF": bit(11), "NT": RFLAGS_NT, "RF": bit(16),
    "VM": RFLAGS_VM, "AC": RFLAGS_AC,
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
    19: "#XM", 20: "#VE", 21: "#CP", 29: "#VC",
}  # fmt: skip
"""Names of the exception vectors (SDM table 6-1)."""
WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17, 21, 29})


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
    facts: int = 0
    """Whose CPU it is and what guest runs on it: IS_INTEL to IN_SEV_ES of `control`."""


def refused(now: ControlState, register: str, value: int) -> tuple[int, str] | None:
    """The vector and the reason with which a write of cr0, cr3, cr4 or efer is refused."""
    before = {"cr0": now.cr0, "cr3": now.cr3, "cr4": now.cr4, "efer": now.efer}[register]
    found = _applies(now, register, before, value)
    return None if found is None else (found[0].vector, found[1])


def cr0_refusal(now: ControlState, value: int) -> str | None:
    """Why MOV to CR0 raises #GP(0) (SDM volume 2B, MOV to CR0)."""
    return _refusal(now, "cr0", now.cr0, value)


def cr3_refusal(now: ControlState, value: int) -> str | None:
    """Why MOV to CR3 raises #GP(0): reserved bits (SDM volume 2B; PDPTEs are `x86.walk`'s)."""
    return _refusal(now, "cr3", now.cr3, value)


def cr4_refusal(now: ControlState, value: int) -> str | None:
    """Why MOV to CR4 raises #GP(0) (SDM volume 2B, MOV to CR4)."""
    return _refusal(now, "cr4", now.cr4, value)


def efer_refusal(now: ControlState, value: int) -> str | None:
    """Why WRMSR to IA32_EFER raises #GP(0) (SDM volume 4)."""
    return _refusal(now, "efer", now.efer, value)


def impossible(now: ControlState) -> tuple[str, str] | None:
    """The register that holds what no write leaves there while the others are as they are, and why.

    Bit 63 of a write of CR3 is an order that CR3 does not keep (SDM 4.10.4.1), so it is asked as
    where that order is none.  A TDX guest's EFER is what the TDX module gave it: the guest cannot
    write it, which says nothing of what is there.
    """
    untagged = replace(now, cr4=now.cr4 & ~CR4_PCIDE)
    given = replace(now, facts=now.facts & ~control.IN_TDX)
    for register, state, value in (
        ("cr0", now, now.cr0),
        ("cr4", now, now.cr4),
        ("cr3", untagged, now.cr3),
        ("efer", given, now.efer),
    ):
        reason = _refusal(state, register, value, value)
        if reason is not None:
            return register, reason
    return None


RULED = frozenset(control.RULES)
"""Registers whose writes have rules."""
_WORDS = (control.NEW, control.CHANGE, control.BEYOND, control.CPU, "cr0", "cr3", "cr4", "efer")
_Numbered = tuple[tuple[int, int, int, bool], ...]
"""What a rule asks, words by number: (word, mask, wanted bits, whether other bits are wanted)."""


def _numbered(when: tuple[control.Asked, ...]) -> _Numbered:
    return tuple(
        (_WORDS.index(each.word), each.mask, each.want or 0, each.want is None) for each in when
    )


_RULES = {
    register: tuple((_numbered(rule.when), rule) for rule in rules)
    for register, rules in control.RULES.items()
}
_FLUSHES = tuple(map(_numbered, control.FLUSHES))


def _refusal(now: ControlState, register: str, old: int, value: int) -> str | None:
    """The reason of the first of the rules for a register that applies."""
    found = _applies(now, register, old, value)
    return None if found is None else found[1]


def _applies(
    now: ControlState, register: str, old: int, value: int
) -> tuple[control.Rule, str] | None:
    top = now.physical_bits
    facts = control.CODE64 * now.code64 | control.HAS_LA57 * now.la57 | now.facts
    words = (value, value ^ old, value >> top << top, facts, now.cr0, now.cr3, now.cr4, now.efer)
    for asked, rule in _RULES[register]:
        if _so(asked, words):
            return rule, rule.shown.format(bits=value & asked[0][1], top=top) or rule.says
    return None


def _so(asked: _Numbered, words: tuple[int, ...]) -> bool:
    for word, mask, want, other in asked:  # noqa: SIM110  (a generator is three times as slow)
        if (words[word] & mask == want) is other:
            return False
    return True


def flushes_everything(before: int, after: int) -> bool:
    """Whether a CR4 write invalidates all TLB entries, global ones too (`control.FLUSHES`)."""
    words = (after, before ^ after, 0, 0, 0, 0, before, 0)
    return any(_so(asked, words) for asked in _FLUSHES)


def table_refusal(base: int, *, code64: bool, la57: bool) -> str | None:
    """Why LGDT or LIDT raises #GP(0): `base` is not canonical (SDM volume 2A; 32-bit code has no
    such).

    `la57` is what the CPU has: where it can do 5 levels a base of 57 bits is taken whatever
    CR4.LA57 says (measured by KVM's authors, Linux 6.13: "model canonical checks more precisely").
    """
    top = base >> (56 if la57 else 47)
    if not code64 or top in (0, (1 << (8 if la57 else 17)) - 1):
        return None
    return f"the base {base:#x} is not canonical"


def loads_pdptes(cr0: int, cr4: int, *, was_cr0: int, was_cr4: int) -> bool:
    """Whether a write of CR0 or CR4 reads the four PDPTEs again, under PAE paging (SDM 4.4.1).

    It does when it changes CR0.CD, NW or PG, or CR4.PAE, PGE, PSE or SMEP.  A write of CR3 always
    does.
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


_GATE = struct.Struct("<HHBBHII")
"""Offset 15:0, selector, IST, access byte, offset 31:16;
in long mode offset 63:32 and a zero word.
"""
INTERRUPT_GATE = 0xE


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """A gate of an idt (SDM figures 6-2 and 6-8).  `type` is 0xE for an interrupt gate,
    0xF for a trap's.
    """

    handler: int
    selector: int
    type: int
    present: bool = True
    dpl: int = 0
    ist: int = 0

    @staticmethod
    def size(*, long_mode: bool) -> int:
        """Bytes of one gate."""
        return 16 if long_mode else 8

    @classmethod
    def decode(cls, raw: bytes) -> Gate:
        """From 8 bytes, or from the 16 of long mode."""
        low, selector, ist, access, middle, high, _zero = _GATE.unpack(raw.ljust(16, b"\0"))
        return cls(
            handler=low | middle << 16 | high << 32,
            selector=selector,
            type=access & 0xF,
            present=bool(access & 0x80),
            dpl=access >> 5 & 3,
            ist=ist & 7,
        )

    def encode(self, *, long_mode: bool) -> bytes:
        """The bytes that lie in the idt."""
        access = self.present << 7 | self.dpl << 5 | self.type
        at = self.handler
        raw = _GATE.pack(
            at & 0xFFFF, self.selector, self.ist, access, at >> 16 & 0xFFFF, at >> 32, 0
        )
        return raw[: self.size(long_mode=long_mode)]


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
