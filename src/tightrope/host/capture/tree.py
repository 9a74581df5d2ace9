"""The files of a machine that a capture reads, from / or from a copy of its /proc and /sys; the
only file here that opens any.

Rules: a fixed list, read once and never written.  What cannot be read is kept as the error it gave,
because the reason belongs into the captured file.  A copy is what sosreport makes, or `cp` or
`tar`: it may lack anything, and what is not a regular file in it is not opened.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from tightrope.abi.xen import CAPABILITIES, GUEST_TYPE, HYPERVISOR_TYPE
from tightrope.errors import HostError
from tightrope.host.capture import efi, kexec

Files = Mapping[str, "str | OSError"]
"""Absolute path -> contents, one character for each byte, or why there are none."""

MEMMAP = "/sys/firmware/memmap"
"""A directory: N/start, N/end, N/type for each entry (ABI/testing/sysfs-firmware-memmap)."""
BOOT_PARAMS = "/sys/kernel/boot_params/data"
SETUP_DATA = "/sys/kernel/boot_params/setup_data"
"""A directory: N/type and N/data for each node that the loader left
(ABI/testing/sysfs-kernel-boot_params)."""
LOCKDOWN = "/sys/kernel/security/lockdown"
OSRELEASE = "/proc/sys/kernel/osrelease"
SPECTRE_V2 = "/sys/devices/system/cpu/vulnerabilities/spectre_v2"
PATHS = (
    "/proc/cmdline",
    "/proc/cpuinfo",
    "/proc/iomem",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/meminfo",
    "/proc/sys/kernel/kexec_load_disabled",
    OSRELEASE,
    BOOT_PARAMS,
    CAPABILITIES,
    GUEST_TYPE,
    HYPERVISOR_TYPE,
    LOCKDOWN,
    SPECTRE_V2,
    efi.CONFIG_TABLE,
    efi.FW_VENDOR,
    efi.SYSTAB,
    *kexec.paths(),
    kexec.VMCOREINFO,
)
LIMITS = {"/proc/kcore": 1 << 16, "/proc/kallsyms": 1 << 26}
"""Bytes that are read of a file; of the others 1 MiB."""
DIRECTORIES = (
    (MEMMAP, r"\d+", ("start", "end", "type")),
    (kexec.CPUS, r"cpu\d+", ("crash_notes", "crash_notes_size")),
    (efi.RUNTIME_MAP, r"\d+", efi.RUNTIME_KEYS),
    (SETUP_DATA, r"\d+", ("type",)),
)
"""(where, which entries, files in each of them)."""
MOST_ENTRIES = 1 << 13
"""Directories of a kind that are looked into: CPUs, and rows of the firmware's map."""


def read_tree(root: str = "/", *, symbols: bool = True) -> dict[str, str | OSError]:
    """The files under `root`, which stands for /.

    Without `symbols` two are left out, which say what only a walk asks and are long to read.
    """
    base = Path(root)
    files: dict[str, str | OSError] = {}
    paths = [each for each in PATHS if symbols or each not in LIMITS]
    for directory, pattern, keys in DIRECTORIES:
        try:
            entries = sorted(_entries(base / directory[1:], pattern))
            paths += [f"{directory}/{name}/{key}" for name in entries for key in keys]
        except OSError as err:
            files[directory] = err
    for path in paths:
        try:
            files[path] = _text(base / path[1:], LIMITS.get(path, 1 << 20))
        except OSError as err:
            files[path] = err
    return files


def read_copy(root: str) -> dict[str, str | OSError]:
    """The files of a copy of some machine's.  Raises HostError where it has neither proc nor
    sys."""
    if not any((Path(root) / name).is_dir() for name in ("proc", "sys")):
        raise HostError("has neither proc nor sys in it", source=root)
    return read_tree(root)


def _entries(directory: Path, pattern: str) -> Iterator[str]:
    with os.scandir(directory) as found:
        names = (each.name for each in found)
        for name in islice(names, MOST_ENTRIES):
            if re.fullmatch(pattern, name, re.ASCII):
                yield name


def _text(path: Path, limit: int) -> str:
    """A file's first bytes.  Raises OSError; a FIFO is not a file that would wait for a writer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file")
        return file.read(limit).decode("latin-1")
