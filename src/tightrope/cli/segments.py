"""Whose segments a rehearsal walks: what `--loader` and `--segments` ask for.

Rules: a word or a file becomes Loaded, or BadInput; how a loader places is not known here.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tightrope.cli import files
from tightrope.errors import BadInput

if TYPE_CHECKING:
    from tightrope.model import Host, Image, Loaded


COUNTING = ("kvm", "unicorn")
"""Machines that take so many instructions for a walk in circles."""


def asked(options: argparse.Namespace, image: Image, old: Host, line: str) -> Loaded | None:
    """Somebody else's segments, None for our own; `line` is the command line for a loader.

    Raises BadInput, and MissingPart.
    """
    from tightrope.model import Loader

    judge(options)
    loader = Loader(options.loader) if options.loader else None
    if options.segments is None and loader in (None, Loader.TIGHTROPE):
        return None
    if options.segments is not None and options.until == "userspace":
        raise BadInput(
            "has a command line already: nothing can be added to it", source="--segments"
        )
    if options.segments is not None:
        return _recorded(options, loader)
    if options.kernel is None:
        raise BadInput("needs the KERNEL to be named", source="--loader")
    if loader is Loader.FILE_LOAD:
        return _file_load(options, image, old, line)
    from tightrope.deeds import kexec_tools

    return kexec_tools.load(
        options.kernel, options.initrd, line, old, crash=options.crash, program=options.kexec
    )


def judge(options: argparse.Namespace) -> None:
    """What does not go with somebody else's segments.  Raises BadInput."""
    from tightrope.model import Loader

    loader = Loader(options.loader) if options.loader else None
    if options.kexec is not None and loader is not Loader.KEXEC_TOOLS:
        raise BadInput(
            "names the program for --loader kexec-tools, which is not given", source="--kexec"
        )
    if options.segments is None and loader in (None, Loader.TIGHTROPE):
        return
    where = "--segments" if options.segments else "--loader"
    if options.xen or options.old_kernel or options.flat is not None or options.module:
        raise BadInput("cannot be given with --xen, --old-kernel, --flat or --module", source=where)
    if options.verify or options.scatter is not None or options.entry or options.unpack:
        raise BadInput(
            "places the segments itself: no --verify, --scatter, --entry or --unpack with it",
            source=where,
        )
    if options.on in COUNTING:
        raise BadInput(
            f"has a purgatory, too long for {options.on}, which counts instructions: walk it on the emulator, or"
            " on qemu",
            source=where,
        )


def _recorded(options: argparse.Namespace, loader: object) -> Loaded:
    """What a segments file has."""
    from tightrope.deeds import segments
    from tightrope.record import file

    if options.initrd or options.append or options.crash:
        raise BadInput(
            "says what is loaded: --initrd, --append and --crash cannot be given with it",
            source="--segments",
        )
    if loader is not None:
        raise BadInput(
            "has its places already: --loader cannot be given with it", source="--segments"
        )
    return segments.recorded(file.read(files.read(options.segments), options.segments))


def _file_load(options: argparse.Namespace, image: Image, old: Host, line: str) -> Loaded:
    """What kexec_file_load of the kernel of --from would place."""
    from tightrope.deeds import file_load

    if not options.old_code:
        raise BadInput(
            "places segments as the old kernel would: name it, --from VMLINUZ or --from running",
            source="--loader file-load",
        )
    path = files.old_image(options)
    return file_load.load(
        files.read(path),
        path,
        image,
        options.initrd and files.read(options.initrd),
        line,
        old,
        crash=options.crash,
    )
