"""What is taken where nobody says: a kernel, a host, words on the command line, memory to reserve.

    request    audible, with_token      words without which a kernel cannot be heard, or not be told apart
    kernel     newest_kernel, shipped   of this machine, or the one that comes with tightrope
    host       example                  of a mode, with what the request needs
               with_crash_region        as crashkernel=SIZE would have reserved it
    reserve    crashkernel              what an old kernel that is booted keeps for the new one

Rules: nothing here is silent about what it changed: what comes back differs from what went in, and
a caller who compares the two can say so.  No file is opened; a kernel is found by its name.
"""

from __future__ import annotations

import os
import platform
import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tightrope import host
from tightrope.deeds.rehearse import CONSOLE_WORDS
from tightrope.deeds.unpacking import is_linux, speaks_for_itself
from tightrope.errors import BadInput, HostError
from tightrope.memory import Extent, align_down, subtract
from tightrope.model import Paging

if TYPE_CHECKING:
    from tightrope.model import Buffer, Host, Image, XenInterface
    from tightrope.plan import Request

KERNELS = ("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz")
"""Where distributions keep kernels; Debian's since 7.x lie with their modules alone."""
SHIPPED = "the shipped kernel"
CONSOLE = "console=ttyS0"
"""Where a Linux kernel's own messages go, and what its init says: without it to a screen that no
PC here has."""
TOKEN = "tightrope.token="
"""The word of the command line that an init repeats."""


def audible(image: Image, request: Request, *, whole: bool = False) -> Request:
    """The request whose command line makes this kernel speak on the first serial port.

    Linux is asked to, unless the command line says already where it speaks early; what another
    kernel knows is not guessed.  On a whole machine it is asked for its driver's console as well: a
    kernel without an early one (Alpine's) knows no other word.
    """
    line = own_line(image, request)
    asks = is_linux(image) and not speaks_for_itself(image)
    if asks and "earlyprintk" not in line:
        request = replace(request, command_line=f"{line} {CONSOLE_WORDS}".strip())
    return with_console(image, request) if whole else request


def with_console(image: Image, request: Request) -> Request:
    """The request whose command line lets a Linux kernel's init be heard on the first serial
    port."""
    line = own_line(image, request)
    asks = is_linux(image) and not speaks_for_itself(image)
    if not asks or any(word.startswith("console=") for word in line.split()):
        return request
    return replace(request, command_line=f"{line} {CONSOLE}".strip())


def with_token(image: Image, request: Request) -> tuple[str, Request]:
    """A word that nobody can guess, and the request whose command line has it for the new init."""
    token = secrets.token_hex(8)
    line = f"{own_line(image, request)} {TOKEN}{token}".strip()
    return token, replace(request, command_line=line)


def own_line(image: Image, request: Request) -> str:
    """The command line before anything is added to it: the one that was asked for, or the image's
    own."""
    return request.command_line or image.command_line or ""


def newest_kernel(root: Path = Path("/")) -> str | None:
    """The newest readable kernel of the machine whose files are under `root`, None without one."""
    kernels = [path for pattern in KERNELS for path in root.glob(pattern) if readable(path)]
    newest = max(kernels, key=lambda path: (path.stat().st_mtime, str(path)), default=None)
    return None if newest is None else str(newest)


def running_kernel(root: Path = Path("/"), release: str | None = None) -> str:
    """The image of the kernel that runs here.  Raises BadInput where it is not found."""
    release = release or platform.release()
    for place in (f"boot/vmlinuz-{release}", f"usr/lib/modules/{release}/vmlinuz"):
        if readable(root / place):
            return str(root / place)
    raise BadInput(f"no image of {release} in /boot or with its modules", source="--from running")


def readable(path: Path) -> bool:
    """A file that may be read; a link that leads nowhere is none."""
    return path.is_file() and os.access(path, os.R_OK)


MOST_SUMMED = 1 << 30
"""Bytes of an initrd that are read for the sum of it, before anybody asks whether there is room."""


def shipped(initrd: Buffer | None, line: str) -> tuple[Image, Buffer, str]:
    """The shipped kernel, its example initrd unless one is given, and the line by which it checks
    it.

    Raises BadInput for an initrd of more than `MOST_SUMMED` bytes, of which nothing is read.
    """
    from tightrope import image
    from tightrope import shipped as room

    given = room.example_initrd() if initrd is None else initrd
    if len(given) > MOST_SUMMED:
        raise BadInput(
            f"{len(given):#x} bytes are more than the shipped kernel is given to sum",
            source="--initrd",
            limit=MOST_SUMMED,
        )
    return (
        image.read(room.read(), SHIPPED),
        given,
        f"{line} {room.initrd_argument(given)}".strip(),
    )


def example(
    *,
    paging: Paging | None = None,
    xen: XenInterface | None = None,
    dom0_bits: int | None = None,
    crash: bool = False,
) -> Host:
    """The example host of a mode, under Xen where that is asked; with a crash region for a crash.

    Without a mode and without Xen it is the document of `host.example` as it stands.  Raises
    HostError for a hypervisor that never existed, BadInput for a dom0 without one.
    """
    region = CRASH_REGION if crash else None
    if xen is not None:
        paging = paging or Paging.X86_64
        text = host.xen_example(paging, xen, dom0_bits=dom0_bits, crash=region)
        return host.read(text, f"the example hypervisor ({paging.value})")
    if paging is not None:
        old = host.read(host.example(paging, crash=region), f"the example host ({paging.value})")
        return with_crash_region(old, NARROW_CRASH) if crash and not paging.long_mode else old
    if dom0_bits:
        raise BadInput("there is no dom0 without --xen", source="--dom0")
    return host.read(host.example(crash=region), "the default host")


CRASH_REGION = Extent.sized(0x4000_1000, 0x1400_0000)
"""320 MiB of free RAM in every example host; its start is not a multiple of 2 MiB.

A host file's own sample has 256 MiB (`host.examples`), and an old kernel that is booted reserves a
quarter of its PC's memory (`crashkernel`)."""
NARROW_CRASH = 256 << 20
"""Bytes of a 32-bit example's crash region: such a kernel reserves what it maps, as the control
page is called in the direct map."""
CRASH_ALIGN, CRASH_BELOW, CRASH_BELOW_32 = 16 << 20, 1 << 32, 512 << 20
"""Where Linux puts crashkernel=SIZE: aligned, and below 4 GiB while there is room; a 32-bit kernel
below 512 MiB (arch/x86/include/asm/crash_reserve.h; reserve_crashkernel_generic searches from the
top)."""


def with_crash_region(old: Host, size: int) -> Host:
    """The host with another crash region, where crashkernel=SIZE would be put.  Raises HostError."""
    taken = [Extent.sized(old.text.phys, old.text.size), old.private]
    taken += [each.extent for each in (*old.busy, *old.firmware, *old.preserved)]
    narrow = old.xen is None and not old.paging.long_mode
    below = CRASH_BELOW_32 if narrow else CRASH_BELOW
    taken.append(Extent(below, 1 << 64))
    for free in reversed(subtract(old.memory.ram, taken)):
        start = align_down(free.end - size, CRASH_ALIGN) if free.size >= size else -1
        if start >= free.start:
            return replace(old, crash_region=Extent.sized(start, size))
    raise HostError(
        f"no free RAM below {'512 MiB' if narrow else '4 GiB'} for a crash region",
        source=old.source,
        field="--crash",
        limit=size,
    )


def old_memory(*, crash: bool) -> int:
    """MiB of a PC whose old kernel is booted.  A crash kernel lives in what was reserved and
    nowhere else, and KASLR may put the old kernel into the middle of what could be: see
    `crashkernel`.
    """
    return 768 if crash else 512


def crashkernel(mebibytes: int) -> str:
    """The argument of crashkernel= for an old kernel with so much memory: a quarter of it."""
    return f"{mebibytes // 4}M"
