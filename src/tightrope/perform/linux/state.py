"""What the running Linux says of kexec: what is loaded, what it allows, and the memory it has.

    /sys/kernel/kexec/*, /proc/sys/kernel/kexec_load_*     what is loaded, how many loads are left
    /proc/iomem, /proc/meminfo                             where RAM and the crash region lie
    /sys/kernel/security/lockdown, /proc/self/status       who may
    /proc/config.gz, /boot/config-RELEASE                  what was built into this kernel

Rules: one door to the files, `Files`, so that a tree from another machine is read the same way.
What a file does not say is None, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tightrope.abi import kexec as abi
from tightrope.memory import Extent, union

Files = Callable[[str], bytes | None]
"""What a file of the machine holds, by its absolute path; None where it cannot be read."""

BLOCK = 1 << 16
"""Bytes of one read.  A sysctl file asked for 4 MiB or more at once answers ENOMEM
(proc_sys_call_handler in fs/proc/proc_sysctl.c), as if it could not be read."""
MOST = 1 << 24
"""Bytes of a file that are read at all; a configuration has 300 KB."""


def machine_file(path: str) -> bytes | None:
    """The running machine's own file, as `Files` wants it."""
    out = b""
    try:
        with open(path, "rb", buffering=0) as file:
            while len(out) < MOST and (block := file.read(BLOCK)):
                out += block
    except OSError:
        return None
    return out


RAM_NAME = "System RAM"
CRASH_NAME = "Crash kernel"
TEXT_NAMES = ("Kernel code", "Kernel rodata", "Kernel data", "Kernel bss")
_IOMEM = re.compile(r"^( *)([0-9a-f]+)-([0-9a-f]+) : (.*)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Loads that are left, by the kind of load; None where this kernel has no such limit, or any
    number."""

    reboot: int | None
    crash: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """Linux's own view.  Addresses are physical, sizes bytes; None: it does not say."""

    release: str | None
    architecture: str | None
    """What uname calls it: x86_64, i686."""
    loaded: bool | None
    crash_loaded: bool | None
    disabled: bool | None
    """kernel.kexec_load_disabled, which lasts until the next boot."""
    limits: Limits
    lockdown: str | None
    """"none", "integrity" or "confidentiality"; None without the security module."""
    secure_boot: bool | None
    foreign_keys: bool | None
    """Whether this kernel has a key besides its own build's: the firmware's, a machine owner's.
    None where /proc/keys does not show the keyrings, which are root's to see."""
    keys: frozenset[str] | None
    """Identifiers of the keys that this kernel verifies with, of whatever keyring, in hexadecimal;
    None where /proc/keys does not show the keyrings."""
    appraised: bool | None
    """Whether an IMA policy appraises the kernels that kexec loads; None where that is not
    known."""
    handover: bool | None
    """Whether this kernel hands memory over to the next one (KHO)."""
    may_boot: bool | None
    """Whether this process has CAP_SYS_BOOT."""
    ram: tuple[Extent, ...]
    """System RAM, sorted, merged; empty where /proc/iomem hides it."""
    text: Extent | None
    """This kernel's image."""
    crash_size: int | None
    """Bytes of crash memory that the kernel keeps, its low part with it."""
    live_update: bool | None
    """Whether this kernel has a live update orchestrator, which may refuse a jump at its end."""
    crash_regions: tuple[Extent, ...]
    """Lowest first; a kexec on crash is loaded into the highest."""
    total_ram: int | None
    """MemTotal: totalram_pages() in bytes."""
    options: frozenset[str] | None
    """CONFIG_* that are y, None where no configuration is found."""
    cpu_flags: frozenset[str]
    cpu_bugs: frozenset[str]
    xen_pv: bool
    """A PV guest of Xen's, dom0 too: its physical addresses are not the machine's."""

    @property
    def crash_region(self) -> Extent | None:
        """Where a crash image goes: crashk_res, the highest region."""
        return self.crash_regions[-1] if self.crash_regions else None

    def built(self, option: str) -> bool | None:
        """Whether CONFIG_<option> is in this kernel, None where that is not known."""
        return None if self.options is None else option in self.options


def read_state(files: Files) -> State:
    """All of it, by whatever door `files` is."""
    release = _text(files("/proc/sys/kernel/osrelease"))
    rows = list(_iomem(_text(files("/proc/iomem")) or ""))
    cpu = _text(files("/proc/cpuinfo")) or ""
    options = _options(files, release)
    keys = _text(files("/proc/keys"))
    words = (_text(files(abi.COMMAND_LINE)) or "").split()
    return State(
        release=release,
        architecture=_text(files("/proc/sys/kernel/arch")),
        loaded=_flag(_first(files, abi.LOADED)),
        crash_loaded=_flag(_first(files, abi.CRASH_LOADED)),
        disabled=_flag(files(abi.LOAD_DISABLED)),
        limits=Limits(reboot=_limit(files(abi.LIMIT_REBOOT)), crash=_limit(files(abi.LIMIT_PANIC))),
        lockdown=_chosen(_text(files(abi.LOCKDOWN))),
        secure_boot=_secure_boot(files(abi.SECURE_BOOT)),
        foreign_keys=_foreign_keys(keys),
        keys=_keys(keys),
        appraised=_appraised([_text(files(each)) for each in abi.IMA_POLICY], words, options),
        handover=_handover(words, options),
        may_boot=_capable(_text(files("/proc/self/status")), abi.CAP_SYS_BOOT),
        crash_size=_decimal(_first(files, abi.CRASH_SIZE)),
        live_update=None if options is None else "LIVEUPDATE" in options,
        ram=union(extent for name, extent in rows if name == RAM_NAME),
        text=_text_of(rows),
        crash_regions=tuple(sorted(extent for name, extent in rows if name == CRASH_NAME)),
        total_ram=_mem_total(_text(files("/proc/meminfo"))),
        options=options,
        cpu_flags=_cpu_words(cpu, "flags"),
        cpu_bugs=_cpu_words(cpu, "bugs"),
        xen_pv=_xen_pv(files),
    )


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("latin-1").strip()


def _first(files: Files, paths: Iterable[str]) -> bytes | None:
    return next((data for data in map(files, paths) if data is not None), None)


def _flag(data: bytes | None) -> bool | None:
    text = _text(data)
    return text == "1" if text in ("0", "1") else None


def _decimal(data: bytes | None) -> int | None:
    text = _text(data)
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 20 else None


def _limit(data: bytes | None) -> int | None:
    """Loads left; -1, any number, is None."""
    return _decimal(data)


def _chosen(text: str | None) -> str | None:
    """The word in brackets: `none [integrity] confidentiality`."""
    found = re.search(r"\[([a-z]+)\]", text or "")
    return found[1] if found else None


def _secure_boot(data: bytes | None) -> bool | None:
    return None if data is None or len(data) < 5 else data[4] == 1


def _foreign_keys(text: str | None) -> bool | None:
    """Of security/keys/proc.c: a keyring's row ends in its name and `empty` or how many keys it
    holds."""
    found = re.findall(
        r" keyring   \.(platform|machine): (empty|\d{1,6})$", text or "", re.MULTILINE
    )
    return any(number != "empty" for _, number in found) if found else None


def _keys(text: str | None) -> frozenset[str] | None:
    """`SUBJECT: KEY: X509.`, by crypto/asymmetric_keys/asymmetric_type.c's describe function."""
    if " keyring   .builtin_trusted_keys" not in (text or ""):
        return None
    return frozenset(re.findall(r" asymmetri .*: ([0-9a-f]+): X509\.", text or ""))


def _appraised(
    policies: Iterable[str | None], words: Iterable[str], options: frozenset[str] | None
) -> bool | None:
    """Of security/integrity/ima/ima_policy.c: a rule `appraise func=KEXEC_KERNEL_CHECK ...`, or the
    built-in policy secure_boot, which has it; ima_appraise= of another mode lets through what
    fails."""
    if options is not None and "IMA_APPRAISE" not in options:
        return False
    said = dict(each.split("=", 1) for each in words if each.startswith("ima_") and "=" in each)
    if said.get("ima_appraise", "enforce") in ("off", "log", "fix"):
        return False
    if "secure_boot" in said.get("ima_policy", "").split("|"):
        return True
    for text in policies:
        if text is not None:
            rules = (line.split() for line in text.splitlines())
            return any(
                rule[:1] == ["appraise"] and "func=KEXEC_KERNEL_CHECK" in rule for rule in rules
            )
    return None


def _handover(words: Iterable[str], options: frozenset[str] | None) -> bool | None:
    """Whether memory is handed over; CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT says it without kho=."""
    if options is not None and "KEXEC_HANDOVER" not in options:
        return False
    said = abi.handover(words)
    if said is not None:
        return said
    return None if options is None else "KEXEC_HANDOVER_ENABLE_DEFAULT" in options


def _capable(status: str | None, capability: int) -> bool | None:
    found = re.search(r"^CapEff:\s*([0-9a-f]{1,16})$", status or "", re.MULTILINE)
    return bool(int(found[1], 16) >> capability & 1) if found else None


def _iomem(text: str) -> Iterable[tuple[str, Extent]]:
    """(name, extent) of each row; a row of zeros is hidden from who may not see it."""
    for line in text.splitlines():
        found = _IOMEM.match(line)
        if found and (int(found[2], 16) or int(found[3], 16)):
            start, last = int(found[2], 16), int(found[3], 16)
            if start <= last:
                yield found[4], Extent(start, last + 1)


def _text_of(rows: Iterable[tuple[str, Extent]]) -> Extent | None:
    pieces = [extent for name, extent in rows if name in TEXT_NAMES]
    if not pieces:
        return None
    return Extent(min(each.start for each in pieces), max(each.end for each in pieces))


def _mem_total(text: str | None) -> int | None:
    found = re.search(r"^MemTotal:\s*(\d{1,15}) kB$", text or "", re.MULTILINE)
    return int(found[1]) << 10 if found else None


def _options(files: Files, release: str | None) -> frozenset[str] | None:
    """The configuration of the running kernel, from itself or from beside its image."""
    packed = files("/proc/config.gz")
    text: bytes | None = None
    if packed is not None:
        import gzip
        import zlib

        try:
            text = gzip.decompress(packed)
        except (OSError, EOFError, zlib.error):
            text = None
    if text is None and release and "/" not in release:
        text = _first(files, (f"/boot/config-{release}", f"/usr/lib/modules/{release}/config"))
    if text is None:
        return None
    return frozenset(re.findall(r"^CONFIG_(\w+)=y$", text.decode("latin-1"), re.MULTILINE))


def _cpu_words(text: str, name: str) -> frozenset[str]:
    found = re.search(rf"^{name}\s*: (.*)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def _xen_pv(files: Files) -> bool:
    if _text(files("/sys/hypervisor/type")) != "xen":
        return False
    return (_text(files("/sys/hypervisor/guest_type")) or "PV") == "PV"
