"""What this computer has of what tightrope uses: packages, machines, programs, kernels, rights.

Rules: it looks and changes nothing, and answers where no package is there at all; a package is
looked up and not imported, a machine is opened and closed again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tightrope.errors import MissingPart, TightropeError
from tightrope.model.health import Part

REHEARSE = "rehearsals on the emulator: the walk, the checks, the verdict"
PACKAGES = (
    # distribution, extra, what it is for, whether a rehearsal on the emulator needs it
    ("numpy", "", "reading hosts and planning", True),
    ("unicorn", "rehearse", REHEARSE, True),
    ("iced-x86", "rehearse", REHEARSE, True),
    ("tqdm", "rehearse", "the progress bar", False),
    ("pyelftools", "inspect", "ELF kernels, Xen, Multiboot kernels, --from", False),
    ("lz4", "inspect", "kernels and initrds that are compressed by lz4", False),
    ("zstandard", "inspect", "kernels and initrds that are compressed by zstd", False),
    ("z3-solver", "prove", "the theorems that enumeration does not prove", False),
    ("jinja2", "html", "--html FILE", False),
    ("shtab", "shell", "`completion`: bash, zsh and fish", False),
)
PROGRAMS = (
    # command, Debian package, what it is for
    ("qemu-system-x86_64", "qemu-system-x86", "--on qemu: a whole PC, to the new userspace"),
    ("as", "binutils", "--relocation FILE.S, prove code FILE.S"),
    ("kexec", "kexec-tools", "record -- kexec ..., and comparing plans with its own"),
)
CAP_SYS_BOOT = 22
"""Bit number, linux/capability.h."""


def doctor() -> tuple[Part, ...]:
    """Every part, what rehearsals need first."""
    return (*_packages(), *_machines(), *_programs(), *_this_linux())


def _packages() -> Iterator[Part]:
    for name, extra, costs, needed in PACKAGES:
        try:
            found: str | None = version(name)
        except PackageNotFoundError:
            found = None
        mend = f"install tightrope[{extra}]" if extra else "install tightrope"
        yield Part(name=name, found=found, costs=costs, mend=mend, needed=needed)


def _machines() -> Iterator[Part]:
    def opened() -> str:
        from tightrope.deeds import machines

        with machines.opened("kvm"):
            return "this computer's CPU"

    yield _tried("KVM", opened, costs="--on kvm and kvm-free: the same walk on a real CPU")


def _tried(name: str, attempt: Callable[[], str], *, costs: str) -> Part:
    """What an attempt says, or the reason of its failure as what would mend it."""
    try:
        return Part(name=name, found=attempt(), costs=costs, mend="")
    except TightropeError as err:
        return Part(name=name, found=None, costs=costs, mend=str(err))
    except ModuleNotFoundError as err:
        return Part(name=name, found=None, costs=costs, mend=f"{err.name}, which is missing, first")


def _programs() -> Iterator[Part]:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    for command, package, costs in PROGRAMS:
        yield Part(
            name=command,
            found=shutil.which(command, path=path),
            costs=costs,
            mend=f"Debian's package {package}",
        )


def _this_linux() -> Iterator[Part]:
    def newest() -> str:
        from tightrope.deeds import defaults

        found = defaults.newest_kernel()
        if found is None:
            raise MissingPart("Debian's package linux-image-amd64, and the right to read it")
        return found

    costs = "rehearse without KERNEL, other than of the shipped one; --from running"
    yield _tried("a readable kernel", newest, costs=costs)
    root = os.geteuid() == 0
    yield Part(
        name="root",
        found="yes" if root else None,
        costs="host capture reads all facts, none has to be assumed",
        mend="run it as root",
    )
    yield Part(
        name="CAP_SYS_BOOT",
        found="yes" if _capable(CAP_SYS_BOOT) else None,
        costs="load, exec and unload with --really",
        mend="run it as root, outside a container that drops it",
    )


def _capable(bit: int) -> bool:
    """Whether this process has a capability (proc_pid_status(5), CapEff)."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    line = next((each for each in status.splitlines() if each.startswith("CapEff:")), "CapEff: 0")
    return bool(int(line.split()[1], 16) >> bit & 1)
