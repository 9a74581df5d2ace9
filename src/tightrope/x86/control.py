"""CR0, CR4 and EFER bit by bit, and which writes the CPU refuses: two tables.

    CR0, CR4, EFER    name, number, whose CPUs have it, what it means for the walk
    RULES             register -> rules: the manual's reason for #GP(0), and what must all be so

A rule asks masks of words, so numbers (`x86.cpu`) and a solver's terms (`prove.isa`) read the same
rows.  The words are `new` (the value written), `change` (new ^ old), `beyond` (the bits of new at
and above MAXPHYADDR), the four registers before the write, and `cpu` (facts: CODE64, HAS_LA57,
whose CPU it is where a host says so, and what kind of guest runs on it).

Rules: data only.  A bit that some CPU has is known here, whether or not Linux sets it; what a CPU
lacks is refused only where a host says so (5 levels, its vendor).

Sources: Intel SDM (325462) 2.5 control registers, 2.2.1 EFER, volume 2B MOV to control registers,
volume 4 IA32_EFER; FRED (346446) for CR4.FRED; AMD APM volume 2 (24593) 3.1.3 CR4, 3.1.7 EFER.
TDX: Linux 5.19, "x86/boot: Avoid #VE during boot for TDX platforms" (EFER, CR4.MCE) and "Set CR0.NE
early and keep it set during the boot"; commit de60613173df (kexec).
Linux sets FRED since 6.9, EFER.AIBRSE since 6.3, EFER.TCE since 6.15, LASS since 6.19.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Flag, auto

ALL = (1 << 64) - 1


class Vendor(Flag):
    """Whose CPUs."""

    INTEL = auto()
    AMD = auto()
    BOTH = INTEL | AMD


@dataclass(frozen=True, slots=True)
class ControlBit:
    """One bit of a control register.
    `walk` is empty where the walk is the same with and without.
    """

    name: str
    number: int
    vendor: Vendor
    walk: str = ""

    @property
    def mask(self) -> int:
        """The word with only this bit set."""
        return 1 << self.number


INTEL, AMD, BOTH = Vendor.INTEL, Vendor.AMD, Vendor.BOTH

CR0 = (
    ControlBit("PE", 0, BOTH, "protected mode"),
    ControlBit("MP", 1, BOTH),
    ControlBit("EM", 2, BOTH),
    ControlBit("TS", 3, BOTH),
    ControlBit("ET", 4, BOTH),
    ControlBit("NE", 5, BOTH),
    ControlBit("WP", 16, BOTH, "read-only pages are so for the kernel too; CET needs it"),
    ControlBit("AM", 18, BOTH),
    ControlBit("NW", 29, BOTH, "only together with CD"),
    ControlBit("CD", 30, BOTH, "the PDPTEs are read again when it changes"),
    ControlBit("PG", 31, BOTH, "paging; cleared by step 5 of 32-bit modes"),
)
CR4 = (
    ControlBit("VME", 0, BOTH),
    ControlBit("PVI", 1, BOTH),
    ControlBit("TSD", 2, BOTH),
    ControlBit("DE", 3, BOTH),
    ControlBit("PSE", 4, BOTH, "4 MiB pages of i386"),
    ControlBit("PAE", 5, BOTH, "the format of the tables; long mode needs it"),
    ControlBit("MCE", 6, BOTH, "a machine check is an exception, not a shutdown; TDX keeps it set"),
    ControlBit("PGE", 7, BOTH, "global translations, which a load of CR3 leaves in the TLB"),
    ControlBit("PCE", 8, BOTH),
    ControlBit("OSFXSR", 9, BOTH),
    ControlBit("OSXMMEXCPT", 10, BOTH),
    ControlBit("UMIP", 11, BOTH),
    ControlBit("LA57", 12, BOTH, "5 levels; fixed while in long mode"),
    ControlBit("VMXE", 13, INTEL, "cannot be cleared in VMX operation"),
    ControlBit("SMXE", 14, INTEL),
    ControlBit("FSGSBASE", 16, BOTH),
    ControlBit("PCIDE", 17, BOTH, "translations are tagged; paging cannot be turned off with it"),
    ControlBit("OSXSAVE", 18, BOTH),
    ControlBit("KL", 19, INTEL),
    ControlBit("SMEP", 20, BOTH, "the kernel does not execute user pages"),
    ControlBit("SMAP", 21, BOTH, "the kernel does not touch user pages while RFLAGS.AC is 0"),
    ControlBit("PKE", 22, BOTH, "keys of user pages only"),
    ControlBit("CET", 23, BOTH, "an indirect jump or a return may raise #CP"),
    ControlBit("PKS", 24, INTEL, "bits 62:59 of an entry are a key of supervisor pages"),
    ControlBit("UINTR", 25, INTEL),
    ControlBit("LASS", 27, INTEL, "the kernel keeps off the lower half (data only with SMAP)"),
    ControlBit("LAM_SUP", 28, INTEL, "upper bits of the kernel's data addresses are ignored"),
    ControlBit("FRED", 32, BOTH, "events go to IA32_FRED_CONFIG's entry, whatever the idt says"),
)  # fmt: skip
EFER = (
    ControlBit("SCE", 0, BOTH),
    ControlBit("LME", 8, BOTH, "long mode once paging is on; fixed while it is"),
    ControlBit("LMA", 10, BOTH, "in long mode; the CPU's own, a write is ignored"),
    ControlBit("NXE", 11, BOTH, "bit 63 of an entry is NX and not reserved"),
    ControlBit("SVME", 12, AMD),
    ControlBit("LMSLE", 13, AMD),
    ControlBit("FFXSR", 14, AMD),
    ControlBit("TCE", 15, AMD, "INVLPG keeps upper table entries cached; a load of CR3 does not"),
    ControlBit("MCOMMIT", 17, AMD),
    ControlBit("INTWB", 18, AMD),
    ControlBit("UAIE", 20, AMD, "upper bits of data addresses are ignored"),
    ControlBit("AIBRSE", 21, AMD),
)


def names(bits: tuple[ControlBit, ...]) -> dict[str, int]:
    """Name -> mask, low to high."""
    return {each.name: each.mask for each in bits}


def defined(bits: tuple[ControlBit, ...], vendor: Vendor = BOTH) -> int:
    """The bits that some CPU of a vendor has; the others are reserved."""
    return sum(each.mask for each in bits if each.vendor & vendor)


# ------------------------------------------------------------------------------ the rules

NEW, CHANGE, BEYOND, CPU = "new", "change", "beyond", "cpu"
CODE64, HAS_LA57, IS_INTEL, IS_AMD, IN_TDX, IN_SEV_ES = 1, 2, 4, 8, 16, 32
"""Bits of the word `cpu`: CS.L is set in long mode; the CPU has 5 levels; whose it is, neither bit
where nobody says; a guest of TDX's; a guest of SEV-ES or SEV-SNP."""
GENERAL_PROTECTION, VIRTUALIZATION, VMM_COMMUNICATION = 13, 20, 29
"""#GP, and what a confidential guest meets instead: #VE under TDX, #VC under SEV-ES and SEV-SNP."""
CR3_NO_FLUSH = 1 << 63
"""With CR4.PCIDE: keep the translations of the new PCID (SDM 4.10.4.1); never kept itself."""
CR3_LAM = 3 << 61
"""LAM_U57 and LAM_U48 of Intel's CPUs (SDM volume 3, table 4-12): upper bits of a process's data
addresses are ignored, and no kernel's.  Linux sets them for a process that asks (6.4 on), so a
crash finds them; AMD's CPUs have these bits reserved (APM volume 2, 5.3.2)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """`word & mask == want`; `want` None: some bit of the mask is set."""

    word: str
    mask: int
    want: int | None


@dataclass(frozen=True, slots=True)
class Rule:
    """The write is refused where everything in `when` is so.

    `shown` says the same with a state's own numbers: {bits} are those of the first mask that are
    set, {top} is MAXPHYADDR.
    """

    says: str
    when: tuple[Asked, ...]
    shown: str = ""
    vector: int = GENERAL_PROTECTION


def on(word: str, *bits: ControlBit | int) -> Asked:
    """All of the bits are set."""
    mask = _mask(bits)
    return Asked(word, mask, mask)


def off(word: str, *bits: ControlBit | int) -> Asked:
    """None of the bits is set."""
    return Asked(word, _mask(bits), 0)


def some(word: str, mask: int) -> Asked:
    """Some bit of the mask is set."""
    return Asked(word, mask, None)


def _mask(bits: tuple[ControlBit | int, ...]) -> int:
    return sum(each if isinstance(each, int) else each.mask for each in bits)


def _rules() -> Iterator[tuple[str, tuple[Rule, ...]]]:
    cr0, cr4, efer = ({each.name: each for each in bits} for bits in (CR0, CR4, EFER))
    PG, LMA = cr0["PG"], efer["LMA"]
    leaving = on("cr0", PG), off(NEW, PG)
    entering = on(NEW, PG), off("cr0", PG), on("efer", efer["LME"])
    tagging = on(NEW, cr4["PCIDE"]), off("cr4", cr4["PCIDE"])
    yield (
        "cr0",
        (
            Rule("CR0 bits 63:32 must be zero", (some(NEW, ALL ^ 0xFFFF_FFFF),)),
            Rule("CR0.PG needs CR0.PE", (on(NEW, PG), off(NEW, cr0["PE"]))),
            Rule("CR0.NW needs CR0.CD", (on(NEW, cr0["NW"]), off(NEW, cr0["CD"]))),
            Rule("CR0.NE cannot be cleared in a TDX guest", (off(NEW, cr0["NE"]), on(CPU, IN_TDX))),
            Rule(
                "CR0.WP cannot be cleared while CR4.CET is set",
                (off(NEW, cr0["WP"]), on("cr4", cr4["CET"])),
            ),
            Rule(
                "CR0.PG cannot be cleared in 64-bit code",
                (*leaving, on("efer", LMA), on(CPU, CODE64)),
            ),
            Rule(
                "CR0.PG cannot be cleared while CR4.PCIDE is set",
                (*leaving, on("cr4", cr4["PCIDE"])),
            ),
            Rule("entering long mode needs CR4.PAE", (*entering, off("cr4", cr4["PAE"]))),
            Rule("entering long mode needs CS.L = 0", (*entering, on(CPU, CODE64))),
        ),
    )
    reserved = "CR3 has bits that are reserved on this CPU"
    shown = "CR3 bits 63:{top} are reserved on this CPU"
    # No host file says whether a CPU has LAM; one whose CR3 has such a bit already has it.
    lam = "CR3 bits 62:61 are reserved on a CPU without LAM, and nothing says that this one has it"
    yield (
        "cr3",
        (
            Rule(reserved, (some(BEYOND, ALL ^ CR3_NO_FLUSH ^ CR3_LAM),), shown),
            Rule(reserved, (some(BEYOND, CR3_LAM), on(CPU, IS_AMD)), shown),
            Rule(lam, (some(BEYOND, CR3_LAM), off("cr3", CR3_LAM))),
            Rule(reserved, (on(NEW, CR3_NO_FLUSH), off("cr4", cr4["PCIDE"])), shown),
        ),
    )
    yield (
        "cr4",
        (
            Rule(
                "CR4 bits that are reserved",
                (some(NEW, ALL ^ defined(CR4)),),
                "CR4 bits {bits:#x} are reserved",
            ),
            Rule(
                "CR4 bits that AMD's CPUs do not have",
                (some(NEW, defined(CR4) & ~defined(CR4, AMD)), on(CPU, IS_AMD)),
                "CR4 bits {bits:#x} are reserved on AMD's CPUs",
            ),
            Rule(
                "CR4.MCE cannot be cleared in a TDX guest",
                (off(NEW, cr4["MCE"]), on(CPU, IN_TDX)),
                vector=VIRTUALIZATION,
            ),
            Rule("CR4.LA57 is reserved on this CPU", (on(NEW, cr4["LA57"]), off(CPU, HAS_LA57))),
            Rule("CR4.CET needs CR0.WP", (on(NEW, cr4["CET"]), off("cr0", cr0["WP"]))),
            Rule("CR4.PAE cannot be cleared in long mode", (off(NEW, cr4["PAE"]), on("efer", LMA))),
            Rule(
                "CR4.LA57 cannot be changed in long mode",
                (on(CHANGE, cr4["LA57"]), on("efer", LMA)),
            ),
            Rule("CR4.PCIDE needs long mode", (*tagging, off("efer", LMA))),
            Rule(
                "CR4.PCIDE cannot be set while CR3 bits 11:0 are not zero",
                (*tagging, some("cr3", 0xFFF)),
            ),
        ),
    )
    yield (
        "efer",
        (
            Rule(
                "EFER bits that are reserved",
                (some(NEW, ALL ^ defined(EFER)),),
                "EFER bits {bits:#x} are reserved",
            ),
            Rule(
                "EFER cannot be written in a TDX guest",
                (on(CPU, IN_TDX),),
                vector=VIRTUALIZATION,
            ),
            Rule(
                "EFER bits that Intel's CPUs do not have",
                (some(NEW, defined(EFER) & ~defined(EFER, INTEL)), on(CPU, IS_INTEL)),
                "EFER bits {bits:#x} are reserved on Intel's CPUs",
            ),
            Rule(
                "EFER.LME cannot be changed while paging is on",
                (on(CHANGE, efer["LME"]), on("cr0", PG)),
            ),
        ),
    )


RULES: Mapping[str, tuple[Rule, ...]] = dict(_rules())
"""Why MOV to CR0, CR3, CR4 or WRMSR to EFER raises #GP(0), in the order in which it is looked."""


def _flushes() -> tuple[tuple[Asked, ...], ...]:
    bits = {each.name: each.mask for each in CR4}
    return (
        (some(CHANGE, bits["PGE"] | bits["PAE"] | bits["PSE"]),),
        (on("cr4", bits["PCIDE"]), off(NEW, bits["PCIDE"])),
        (off("cr4", bits["SMEP"]), on(NEW, bits["SMEP"])),
    )


FLUSHES = _flushes()
"""A CR4 write invalidates all TLB entries, global ones too, where one of these is so (SDM
4.10.4.1).

PGE changed, or PCIDE cleared, or SMEP set; PAE and PSE too, as AMD's manual (volume 2, 5.5.2) and
the SDM's "changes to paging mode" have it.
"""
