"""Another machine's files in place of this one's, for a command that is recorded.

    open("/proc/iomem")            -> the machine's
    open("/sys/firmware/efi/...")  -> nothing there: the machine has none

kexec-tools works its plan out from what Linux says of memory (kexec/arch/i386/crashdump-x86.c,
kexec-x86-common.c, x86-linux-setup.c); with these files it is the plan for a described machine.

Rules: a path is replaced in the command's own memory, below what its stack may use (psABI: 128
bytes), and the register finds its value again at the end of the call.  Every path under /proc,
/sys and /dev that is not listed stays the real one's unless its beginning is among `HIDDEN`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping

from tightrope.record.tracer import Instead, Stop

PATHS: Mapping[str, Mapping[int, int]] = {
    "x86_64": {
        2: 0, 4: 0, 6: 0, 21: 0, 89: 0, 257: 1, 262: 1, 267: 1, 269: 1, 332: 1, 437: 1, 439: 1,
    },
    "i686": {
        5: 0, 33: 0, 85: 0, 106: 0, 107: 0, 195: 0, 196: 0,
        295: 1, 300: 1, 305: 1, 307: 1, 383: 1, 437: 1, 439: 1,
    },
}  # fmt: skip
"""Which argument of a call is a path: open, stat, lstat, access, readlink (i386 has stat64 and
lstat64 besides); openat, newfstatat (fstatat64), readlinkat, faccessat, statx, openat2, faccessat2
(arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl)."""
HIDDEN = (
    "/proc/iomem", "/proc/kcore", "/proc/kallsyms", "/proc/xen", "/proc/mounts",
    "/sys/firmware", "/sys/kernel/boot_params", "/sys/kernel/debug", "/sys/kernel/vmcoreinfo",
    "/sys/kernel/kexec_crash_size", "/sys/devices/system/cpu", "/sys/devices/system/node",
    "/dev/fb0", "/dev/dri", "/dev/xen",
)  # fmt: skip
"""What tells of the machine that the command runs on."""
_PAGE, _RED_ZONE, _LONGEST = 4096, 128, 4096
NOWHERE = "/proc/self/fd/-/"
"""A path that leads to nothing on any Linux."""


class Shown:
    """Another machine, as a folder with its files by their paths."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __call__(self, stop: Stop) -> Instead | None:
        """See `held.Holder.before`."""
        which = PATHS[stop.machine].get(stop.number)
        if which is None:
            return None
        path = _path(stop, stop.arguments[which])
        instead = self._instead(path)
        if instead is None:
            return None
        text = instead.encode() + b"\0"
        at = (stop.stack - _RED_ZONE - len(text)) & -16
        stop.write(at, text)
        return Instead(arguments=((which, at),))

    def _instead(self, path: str) -> str | None:
        real = os.path.normpath(path) if path.startswith("/") else path
        if not any(real == each or real.startswith(f"{each}/") for each in HIDDEN):
            return None
        there = self._folder + real
        return there if os.path.lexists(there) else f"{NOWHERE}{os.path.basename(real)}"


def _path(stop: Stop, at: int) -> str:
    """The text at an address, as far as it can be read."""
    out = b""
    while b"\0" not in out and len(out) < _LONGEST:
        size = _PAGE - (at + len(out)) % _PAGE
        try:
            out += stop.read(at + len(out), size)
        except (OSError, ValueError, struct.error):
            break
    return out.partition(b"\0")[0].decode("utf-8", "surrogateescape")
