"""Which crash kernel a machine would load: kdump-tools' configuration, or kdump-utils'.

    /etc/default/kdump-tools      Debian, Ubuntu: KDUMP_KERNEL, KDUMP_INITRD, KDUMP_CMDLINE{,_APPEND}
    /etc/sysconfig/kdump          Fedora, RHEL: KDUMP_KERNELVER, KDUMP_BOOTDIR, KDUMP_IMG, KDUMP_IMG_EXT,
                                  KDUMP_COMMANDLINE{,_REMOVE,_APPEND}
    /etc/kdump.conf               Fedora, RHEL: where the dump goes, and what the initrd has for that

Sources: kdump-config(8) and its script in kdump-tools 1.8.1 (kdump_load, locate_kdump_kernel);
kdumpctl and kdump-lib.sh in kdump-utils 1.0.5x (prepare_kdump_kernel, prepare_cmdline); their
defaults where a file says nothing.

Rules: files come through a function, so that another machine's tree will do; shell is read as a
list of assignments and never run.  Without either file there is no configuration, and a reason.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tightrope.errors import BadInput
from tightrope.kdump import target
from tightrope.kdump.target import Place, Target

Read = Callable[[str], str | None]
"""A file's text by its path, None where there is none."""
Exists = Callable[[str], bool]
TOOLS, UTILS = "/etc/default/kdump-tools", "/etc/sysconfig/kdump"
TOOLS_APPEND = "reset_devices systemd.unit=kdump-tools-dump.service nr_cpus=1 irqpoll usbcore.nousb"
_TOOLS_REMOVED = ("crashkernel", "hugepages", "hugepagesz", "abm")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)
_UTILS_REMOVED = ("hugepages", "hugepagesz", "slub_debug", "quiet", "log_buf_len", "swiotlb")


@dataclass(frozen=True, kw_only=True, slots=True)
class Configured:
    """What would be loaded; paths are the machine's."""

    source: str
    kernel: str
    initrd: str | None
    command_line: str
    target: Target


def configured(read: Read, exists: Exists) -> Configured:
    """What this machine's kdump would load.  Raises BadInput where nothing says it."""
    release = (read("/proc/sys/kernel/osrelease") or "").strip()
    line = (read("/proc/cmdline") or "").strip()
    if (text := read(TOOLS)) is not None:
        return _tools(assignments(text), release, line, exists)
    text, conf = read(UTILS), read(target.UTILS_CONF)
    if text is not None or conf is not None:
        saves = target.of_utils(conf)
        return _utils(assignments(text or ""), release, line, exists, saves)
    raise BadInput(
        f"neither {TOOLS} nor {UTILS} is there: name --kernel, --initrd and --append",
        source="kdump's configuration",
    )


def assignments(text: str) -> Mapping[str, str]:
    """NAME=VALUE lines of a shell file, quotes taken off; what is no assignment is passed over.

    What an earlier line has assigned is put in for $NAME; other words of a shell stay, see `_said`.
    """
    found: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        for word in words[:1]:
            name, equals, value = word.partition("=")
            if equals and name.replace("_", "a").isalnum() and not name[0].isdigit():
                found[name] = _VARIABLE.sub(lambda m: found.get(m[1] or m[2], m[0]), value)
    return found


def _said(said: Mapping[str, str], name: str, source: str) -> str:
    """A value, "" where there is none.  Raises BadInput where only a shell can tell what it is."""
    value = said.get(name, "")
    if "$" in value or "`" in value:
        raise BadInput(
            f"{value!r} is for a shell to work out: name --kernel, --initrd and --append",
            source=source,
            field=name,
        )
    return value


def _tools(said: Mapping[str, str], release: str, line: str, exists: Exists) -> Configured:
    if said.get("USE_KDUMP", "") in ("", "0"):
        raise BadInput("says that no crash kernel is loaded", source=TOOLS, field="USE_KDUMP")
    kernel, initrd = _said(said, "KDUMP_KERNEL", TOOLS), _said(said, "KDUMP_INITRD", TOOLS)
    if not kernel:  # locate_kdump_kernel: then the initrd is the running kernel's, whatever is said
        names = (f"/boot/vmlinuz-{release}", f"/boot/vmlinux-{release}")
        kernel = next(filter(exists, names), names[0])
        initrd = f"/boot/initrd.img-{release}"
    elif initrd and exists(kernel) and not exists(initrd):
        raise BadInput(
            f"the initrd {initrd} is not there: kdump-config loads no crash kernel",
            source=TOOLS,
            field="KDUMP_INITRD",
        )
    own = _said(said, "KDUMP_CMDLINE", TOOLS) or _without(line, _TOOLS_REMOVED)
    append = _said(said, "KDUMP_CMDLINE_APPEND", TOOLS) or TOOLS_APPEND
    return _there(TOOLS, kernel, initrd, f"{own} {append}", exists, target.of_tools(said))


def _utils(
    said: Mapping[str, str], release: str, line: str, exists: Exists, saves: Target
) -> Configured:
    version = _said(said, "KDUMP_KERNELVER", UTILS) or release
    folder = _said(said, "KDUMP_BOOTDIR", UTILS) or "/boot"
    name = _said(said, "KDUMP_IMG", UTILS) or "vmlinuz"
    kernel = f"{folder}/{name}-{version}{_said(said, 'KDUMP_IMG_EXT', UTILS)}"
    if not exists(kernel) and exists(f"/lib/modules/{version}/{name}"):
        kernel = f"/lib/modules/{version}/{name}"
    initrd = f"{folder}/initramfs-{version}kdump.img"
    if not exists(initrd) and exists(f"/var/lib/kdump/initramfs-{version}kdump.img"):
        initrd = f"/var/lib/kdump/initramfs-{version}kdump.img"
    removed = _said(said, "KDUMP_COMMANDLINE_REMOVE", UTILS).split()
    removed += [*_UTILS_REMOVED, "crashkernel"]
    own = _said(said, "KDUMP_COMMANDLINE", UTILS) or line
    append = _said(said, "KDUMP_COMMANDLINE_APPEND", UTILS)
    return _there(UTILS, kernel, initrd, f"{_without(own, removed)} {append}", exists, saves)


def _there(
    source: str, kernel: str, initrd: str, line: str, exists: Exists, saves: Target
) -> Configured:
    """An initrd that is not there is not loaded (kdump_load); a kernel has to be."""
    if not exists(kernel):
        raise BadInput(f"the crash kernel {kernel} is not there", source=source)
    return Configured(
        source=source,
        kernel=kernel,
        initrd=initrd if exists(initrd) else None,
        command_line=" ".join(line.split()),
        target=saves,
    )


def _without(line: str, names: Sequence[str]) -> str:
    """A command line without words of these names."""
    kept = (word for word in line.split() if word.partition("=")[0] not in names)
    return " ".join(kept)


def needed_modules(
    devices: Callable[[str], str | None], mounts: str, saves: Target
) -> frozenset[str]:
    """Modules without which no dump is saved: of the disk that the target is on, and those that
    the configuration asks for."""
    if saves.place is Place.ROOT:
        return root_modules(devices, mounts) | saves.modules
    if saves.place.network:
        return saves.modules
    path = devices(target.device(saves.where))
    if path is None:
        return saves.modules
    found = devices(f"/sys/class/block/{path.rsplit('/', 1)[-1]}")
    return _modules(devices, found) | saves.modules


def root_modules(devices: Callable[[str], str | None], mounts: str) -> frozenset[str]:
    """Modules that drive the disk under `/`; empty where nothing tells.

    `mounts` is /proc/self/mountinfo (proc_pid_mountinfo(5)); `devices` gives the real path of
    /sys/dev/block/MAJOR:MINOR, and of a `driver/module` link below it.
    """
    numbers = next(
        (
            row.split()[2]
            for row in mounts.splitlines()
            if len(row.split()) > 4 and row.split()[4] == "/"
        ),
        None,
    )
    return _modules(devices, None if numbers is None else devices(f"/sys/dev/block/{numbers}"))


def _modules(devices: Callable[[str], str | None], path: str | None) -> frozenset[str]:
    """Modules of a block device's driver and of all drivers above it, but for those that are built
    in: only one that was loaded has a state (Linux kernel/module/sysfs.c)."""
    found = set()
    while path and path.startswith("/sys/devices/"):
        module = devices(f"{path}/driver/module")
        if module and devices(f"{module}/initstate"):
            found.add(module.rsplit("/", 1)[-1].replace("-", "_"))
        path = path.rsplit("/", 1)[0]
    return frozenset(found)
