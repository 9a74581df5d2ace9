"""The CPU as Linux names it, and the control registers that follow: /proc/cpuinfo, /proc/meminfo.

Rules: as `iomem`.  Flags are those of the first CPU.  A flag that Linux turned off (no5lvl,
nosmap) is not in the file, so what is there is what the kernel runs with.

Sources: arch/x86/kernel/cpu/{common,proc,intel,amd,bugs}.c, CR0_STATE in asm/processor-flags.h,
secondary_startup_64; fs/proc/meminfo.c.
"""

from __future__ import annotations

import re

from tightrope.model import Confidential, CpuVendor
from tightrope.x86 import cpu as x86

CR0 = 0x8005_0033
"""PG AM WP NE ET MP PE."""
SCE = x86.EFER_NAMES["SCE"]
_ALWAYS_CR4 = ("PSE", "PAE", "MCE", "PGE", "OSFXSR", "OSXMMEXCPT")
_CR4_BY_FLAG = {
    "umip": "UMIP", "la57": "LA57", "fsgsbase": "FSGSBASE", "pcid": "PCIDE", "xsave": "OSXSAVE",
    "smep": "SMEP", "smap": "SMAP", "ospke": "PKE", "user_shstk": "CET", "ibt": "CET",
    "lass": "LASS", "fred": "FRED",
}  # fmt: skip
"""Bits that Linux sets where the flag is there; LAM is for user addresses, and those are CR3's
bits."""
_AUTOMATIC_IBRS = "Automatic IBRS"
"""What the file on Spectre v2 says of Intel's enhanced IBRS too, which is no bit of EFER."""
_TCE_SINCE = (6, 15)


_CONFIDENTIAL = {
    "sev_snp": Confidential.SNP,
    "sev_es": Confidential.ES,
    "sev": Confidential.SEV,
}


def cpu_flags(text: str) -> frozenset[str] | None:
    """The flags of the first CPU in /proc/cpuinfo, None when this is not an x86's."""
    found = re.search(r"^flags\s*: ([^\n]*)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else None


_VENDORS = {
    "GenuineIntel": CpuVendor.INTEL,
    "AuthenticAMD": CpuVendor.AMD,
    "HygonGenuine": CpuVendor.AMD,
}
"""vendor_id, CPUID leaf 0.  Hygon's are AMD's, bit for bit, as far as a walk goes."""


def vendor(text: str) -> CpuVendor | None:
    """Whose CPU /proc/cpuinfo is of; None for the others' (Zhaoxin), and for text that does not
    say."""
    found = re.search(r"^vendor_id\s*: (\w{1,40})$", text, re.MULTILINE)
    return _VENDORS.get(found[1]) if found else None


def confidential(flags: frozenset[str]) -> Confidential | None:
    """What kind of guest this is; a machine that could *run* such guests has the same flags of
    SEV."""
    if "tdx_guest" in flags:
        return Confidential.TDX
    if "hypervisor" not in flags:
        return None
    return next((kind for flag, kind in _CONFIDENTIAL.items() if flag in flags), None)


def control_registers(
    flags: frozenset[str],
    *,
    amd: bool = False,
    release: tuple[int, int] | None = None,
    spectre_v2: str = "",
) -> dict[str, int]:
    """cr0, cr4 and efer as a 64-bit Linux sets them on a CPU with these flags.

    `spectre_v2` is the line in /sys/devices/system/cpu/vulnerabilities: AMD's automatic IBRS is a
    bit of EFER, and its flag is not shown.  Translation caching (TCE) is set from 6.15 on.
    """
    cr4 = {*_ALWAYS_CR4, *(bit for flag, bit in _CR4_BY_FLAG.items() if flag in flags)}
    efer = {"NXE"} if "nx" in flags else set()
    if amd and _AUTOMATIC_IBRS in spectre_v2:
        efer.add("AIBRSE")
    if "tce" in flags and release is not None and release >= _TCE_SINCE:
        efer.add("TCE")
    return {
        "cr0": CR0,
        "cr4": sum(x86.CR4_NAMES[name] for name in cr4),
        "efer": x86.EFER_LMA | x86.EFER_LME | SCE | sum(x86.EFER_NAMES[name] for name in efer),
    }


def physical_bits(text: str) -> int | None:
    """MAXPHYADDR as /proc/cpuinfo prints it."""
    found = re.search(r"^address sizes\s*: (\d{1,2}) bits physical", text, re.MULTILINE)
    return int(found[1]) if found and 32 <= int(found[1]) <= 52 else None


def meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo in bytes, by name."""
    rows = re.finditer(r"^(\w{1,40}):\s+(\d{1,12}) kB$", text, re.MULTILINE)
    return {match[1]: int(match[2]) << 10 for match in rows}
