"""The files of the running machine that a capture reads; the only file here that opens any.

Rules: a fixed list, read once and never written.  What cannot be read is kept as the error it gave,
because the reason belongs into the captured file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tightrope.abi.xen import CAPABILITIES, GUEST_TYPE, HYPERVISOR_TYPE

Files = Mapping[str, "str | OSError"]
"""Absolute path -> contents, one character for each byte, or why there are none."""

MEMMAP = "/sys/firmware/memmap"
"""A directory: N/start, N/end, N/type for each entry (ABI/testing/sysfs-firmware-memmap)."""
BOOT_PARAMS = "/sys/kernel/boot_params/data"
PATHS = (
    "/proc/cmdline",
    "/proc/cpuinfo",
    "/proc/iomem",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/meminfo",
    "/proc/sys/kernel/kexec_load_disabled",
    BOOT_PARAMS,
    CAPABILITIES,
    GUEST_TYPE,
    HYPERVISOR_TYPE,
    "/sys/kernel/kexec_crash_loaded",
    "/sys/kernel/kexec_crash_size",
    "/sys/kernel/kexec_loaded",
    "/sys/kernel/security/lockdown",
)
LIMITS = {"/proc/kcore": 1 << 16, "/proc/kallsyms": 1 << 26}
"""Bytes that are read of a file; of the others 1 MiB."""


def read_tree(root: str = "/") -> dict[str, str | OSError]:
    """The files under `root`, which stands for /."""
    base = Path(root)
    files: dict[str, str | OSError] = {}
    paths = list(PATHS)
    try:
        entries = sorted(each.name for each in (base / MEMMAP[1:]).iterdir())
        paths += [f"{MEMMAP}/{n}/{key}" for n in entries for key in ("start", "end", "type")]
    except OSError as err:
        files[MEMMAP] = err
    for path in paths:
        try:
            with (base / path[1:]).open("rb") as file:
                files[path] = file.read(LIMITS.get(path, 1 << 20)).decode("latin-1")
        except OSError as err:
            files[path] = err
    return files
