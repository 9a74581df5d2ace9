"""Linux's two kexec system calls, and what sysfs says of them: numbers only.

    struct kexec_segment, 64 bits       32 bits
    0x00  buf                           0x00     where the bytes are, in the caller's memory
    0x08  bufsz                         0x04     how many there are
    0x10  mem                           0x08     where they go: a physical address, page aligned
    0x18  memsz                         0x0c     whole pages; zeros behind the bytes

Sources: include/uapi/linux/{kexec,reboot,capability}.h;
arch/x86/entry/syscalls/syscall_{32,64}.tbl; kernel/kexec.c and kexec_file.c;
arch/x86/kernel/kexec-bzimage64.c; Documentation/ABI/testing/ sysfs-kernel-kexec-kdump.  What
differs between 6.1, 6.12, 7.2 and 7.3 was tried on each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntFlag
from types import MappingProxyType

KEXEC_LOAD: Mapping[str, int] = MappingProxyType({"x86_64": 246, "i686": 283})
"""Number of kexec_load(2) by what uname calls the machine that the process is built for."""
KEXEC_FILE_LOAD: Mapping[str, int] = MappingProxyType({"x86_64": 320})
"""i386 has none: a 32-bit process gets ENOSYS."""

SEGMENT_MAX = 16
"""KEXEC_SEGMENT_MAX: more are EINVAL."""


class LoadFlag(IntFlag):
    """Flags of kexec_load(2), without the architecture."""

    ON_CRASH = 1
    PRESERVE_CONTEXT = 2


ARCHITECTURE: Mapping[str, int] = MappingProxyType({"x86_64": 62 << 16, "i686": 3 << 16})
"""KEXEC_ARCH_X86_64 and KEXEC_ARCH_386: the running kernel's own, or 0 for it."""


class FileFlag(IntFlag):
    """Flags of kexec_file_load(2)."""

    UNLOAD = 1
    ON_CRASH = 2
    NO_INITRAMFS = 4
    DEBUG = 8
    """6.12 knows it, 6.1 answers EINVAL."""
    NO_CMA = 16
    """7.2 knows it, 6.12 answers EINVAL."""


REBOOT_MAGIC = (0xFEE1DEAD, 0x28121969)
REBOOT_KEXEC = 0x45584543
REBOOT: Mapping[str, int] = MappingProxyType({"x86_64": 169, "i686": 88})
CAP_SYS_BOOT = 22

COMMAND_LINE_LIMIT = 2047
"""Bytes with the zero at the end: the bzImage's cmdline_size as kexec_file_load reads it."""
ELFCOREHDR_ROOM = 30
"""MAX_ELFCOREHDR_STR_LEN: left free in every command line, also of a kexec that is no crash kexec.
"""
DMCRYPT_ROOM = 31
"""MAX_DMCRYPTKEYS_STR_LEN: left free as well where dm-crypt keys are handed to a crash kernel."""

LOADED = ("/sys/kernel/kexec/loaded", "/sys/kernel/kexec_loaded")
"""7.2 and newer, and older ones; in 7.2 the old names are links to the new."""
CRASH_LOADED = ("/sys/kernel/kexec/crash_loaded", "/sys/kernel/kexec_crash_loaded")
CRASH_SIZE = ("/sys/kernel/kexec/crash_size", "/sys/kernel/kexec_crash_size")
LOAD_DISABLED = "/proc/sys/kernel/kexec_load_disabled"
LIMIT_REBOOT = "/proc/sys/kernel/kexec_load_limit_reboot"
"""How many more loads are allowed, -1 for any number; 6.12 has it, 6.1 has not."""
LIMIT_PANIC = "/proc/sys/kernel/kexec_load_limit_panic"
LOCKDOWN = "/sys/kernel/security/lockdown"
IMA_POLICY = ("/sys/kernel/security/ima/policy", "/etc/ima/ima-policy")
"""The rules that IMA has, which only a kernel of CONFIG_IMA_READ_POLICY tells; and those that
systemd gives it at boot (src/core/ima-setup.c)."""
COMMAND_LINE = "/proc/cmdline"
SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
"""Four bytes of attributes, then the value."""


def handover(words: Iterable[str]) -> bool | None:
    """What kho= on a command line says of Kexec HandOver, None where it says nothing.

    The last that kstrtobool takes is the one; without any it is as the kernel was configured
    (kernel/liveupdate/kexec_handover.c, lib/kstrtox.c).
    """
    said: bool | None = None
    for word in words:
        name, _, value = word.partition("=")
        if name == "kho":
            said = _SWITCH.get(value[:1].lower(), _SWITCH.get(value[:2].lower(), said))
    return said


_SWITCH = dict.fromkeys(("1", "y", "t", "on"), True) | dict.fromkeys(("0", "n", "f", "of"), False)
