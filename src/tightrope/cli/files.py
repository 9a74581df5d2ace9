"""What the command line reads, and a file that is new.

Rules: a file that cannot be read or written is one line, with the system's reason: BadInput.
"""

from __future__ import annotations

import argparse
import os
import stat
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from tightrope.errors import BadInput, TightropeError, reason

MAPPED = 256 << 20
"""Bytes from which on a file is mapped; a smaller one is read, so that nobody can cut it short
meanwhile."""
MOST_POURED = 512 << 20
"""Bytes that are taken out of what has no size: a pipe, a device."""
MOST_TEXT = 16 << 20
"""Bytes of a host file; one with every row that a machine can have is far smaller."""

if TYPE_CHECKING:
    from tightrope.deeds.old_kernel import OldHypervisor, OldKernel
    from tightrope.deeds.unpacking import Unpacking
    from tightrope.model import Buffer, Host, Image, Paging, Participant
    from tightrope.plan import Module, Request


class Early(NamedTuple):
    """A kernel and its initrd that are unpacked while everything else is still to be loaded."""

    image: Image
    initrd: Buffer | None
    unpacking: Unpacking


def early(options: argparse.Namespace) -> Early | None:
    """Kernel and initrd where they are plain files of their own and not large, already being
    unpacked.

    None where they are not, or where something is wrong with them: `inputs` says what, in its
    order.
    """
    paths = [path for path in (options.kernel, options.initrd) if path]
    plain = options.kernel and options.flat is None and not (options.unpack or options.shipped)
    if not plain or not all(os.path.isfile(path) for path in paths):
        return None
    from tightrope.deeds.unpacking import LARGE, Unpacking, begin

    if options.initrd and os.path.getsize(options.initrd) >= LARGE:
        return None
    try:
        image = kernel_image(options, options.kernel)
        begun = begin(image)
        initrd = read(options.initrd) if options.initrd else None
    except TightropeError:
        return None
    return Early(image, initrd, Unpacking(image, initrd, begun))


def inputs(options: argparse.Namespace, begun: Early | None = None) -> tuple[Image, Host, Request]:
    """Image, host and request from the arguments.  Raises BadInput."""
    from tightrope import image
    from tightrope.deeds import defaults
    from tightrope.model import OnDamage, Paging, Protocol, XenCrash, XenInterface
    from tightrope.plan import Request

    if options.crashed != "dom0" and not (options.xen and options.crash):
        raise BadInput("says who crashes, and needs --xen and --crash", source="--crashed")
    if options.host:
        for name in ("mode", "dom0"):
            if getattr(options, name) is not None:
                raise BadInput(
                    "cannot be given with --host: the host file says it", source=f"--{name}"
                )
        old = host_file(options.host)
    else:
        old = defaults.example(
            paging=Paging(options.mode) if options.mode else None,
            xen=XenInterface(options.xen) if options.xen else None,
            dom0_bits=options.dom0,
            crash=options.crash,
        )
    if options.crash_size is not None:
        old = defaults.with_crash_region(old, options.crash_size)
    kernel = options.kernel
    if options.flat is not None and kernel is None:
        raise BadInput("a flat binary has to be named", source="command line", field="--flat")
    if kernel and options.shipped:
        raise BadInput("give a KERNEL or --shipped, not both", source="command line")
    if kernel is None and not options.shipped:
        kernel = defaults.newest_kernel()
    initrd: Buffer | None = begun.initrd if begun else None
    if begun is None and options.initrd:
        initrd = read(options.initrd)
    line = options.append
    if kernel is None:
        new, initrd, line = defaults.shipped(initrd, line)
    else:
        new = begun.image if begun else kernel_image(options, kernel)
    if options.unpack:
        new = image.unpacked(new)
    return (
        new,
        old,
        Request(
            initrd=initrd,
            initrd_source=options.initrd or "the shipped initrd",
            modules=tuple(_module(each) for each in options.module),
            command_line=line,
            scatter=options.scatter,
            crash=options.crash,
            from_top=getattr(options, "from_top", False),
            verify=OnDamage(options.verify) if getattr(options, "verify", None) else None,
            backup=options.backup,
            protocol=Protocol(options.entry) if options.entry else None,
            xen=XenInterface(options.xen) if options.xen else None,
            crashed=XenCrash(options.crashed),
        ),
    )


def host_file(path: str) -> Host:
    """The host that a file describes.  Raises BadInput."""
    from tightrope import host

    return host.read_bytes(bytes(read(path, most=MOST_TEXT)), path)


def named(options: argparse.Namespace) -> list[str]:
    """The files that a command reads, as they were named."""
    names = (
        "kernel",
        "host",
        "initrd",
        "segments",
        "relocation",
        "old_kernel",
        "old_initrd",
        "file",
    )
    given = [getattr(options, name, None) for name in names]
    modules = [each.strip().partition(" ")[0] for each in getattr(options, "module", ())]
    return [str(each) for each in (*given, *modules) if each]


def kernel_image(options: argparse.Namespace, path: str) -> Image:
    """The image in a file, a flat binary where an address is given.  Raises BadInput."""
    from tightrope import image

    if options.flat is None:
        return image.read(read(path), path)
    return image.read_flat(read(path), path, options.flat, options.bits)


def relocation(options: argparse.Namespace, paging: Paging) -> str | Participant:
    """The design that is asked for, or somebody's own code in its place.  Raises BadInput."""
    if options.relocation is None:
        if options.contract is not None:
            raise BadInput("needs --relocation: it is what that code promises", source="--contract")
        return str(options.design)
    if options.contract is None:
        raise BadInput("needs --contract: `tightrope contracts` lists them", source="--relocation")
    from tightrope.participants import from_file

    return from_file.relocation(
        from_file.read(options.relocation, paging), options.contract, paging
    )


def old_code(options: argparse.Namespace) -> OldKernel | OldHypervisor:
    """The relocation code of an old kernel's image, a hypervisor's, or the running one's.

    Raises BadInput.
    """
    from tightrope.deeds import old_kernel

    if options.relocation is not None or options.contract is not None:
        raise BadInput(
            "walks the old kernel's code, and --relocation other code: give one of them",
            source="--from",
        )
    path = old_image(options)
    return old_kernel.code_of(read(path), path)


def old_image(options: argparse.Namespace) -> str:
    """The file of the old kernel's image.  Raises BadInput."""
    from tightrope.deeds import defaults

    path: str = options.old_code
    return defaults.running_kernel() if path == "running" else path


def _module(text: str) -> Module:
    """A module from "FILE ARGUMENTS".  Raises BadInput."""
    from tightrope.plan import Module

    path, _, arguments = text.strip().partition(" ")
    if not path:
        raise BadInput("names no file", source="command line", field="--module")
    return Module(data=read(path), source=path, arguments=arguments.strip())


def read(path: str, *, most: int | None = None) -> bytes | memoryview:
    """A file's bytes, `most` of them at the most: read where they are few, mapped where they are
    many.

    So a file that is too large for a machine's memory is refused by its size, before it is read.
    Raises BadInput with the system's reason, or with the limit.
    """
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return _poured(file, path, most or MOST_POURED)
            if most is not None and status.st_size > most:
                problem = f"{status.st_size:#x} bytes are more than such a file has"
                raise BadInput(problem, source=path, limit=most)
            if status.st_size < MAPPED:
                return file.read()
            import mmap

            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as err:
        raise BadInput(reason(err), source=path) from err


def _poured(file: BinaryIO, path: str, most: int) -> bytes:
    """What comes out of a pipe or a device, which has no size."""
    data = file.read(most + 1)
    if len(data) > most:
        problem = "is not a regular file, and does not end where it should"
        raise BadInput(problem, source=path, limit=most)
    return data


def text_or_none(path: str) -> str | None:
    """A file of the running system as text, None where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read().decode("latin-1")
    except OSError:
        return None
