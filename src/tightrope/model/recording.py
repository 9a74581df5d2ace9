"""What a command would have handed to the kernel: a kexec system call that was held, and by whom.

    kexec_load        segments, an entry            the loader has chosen every place
    kexec_file_load   files, a command line         the kernel would choose

Rules: frozen, keyword-only, slotted; nouns only, see the package.  Bytes are what the process had
in its memory and in its open files at the call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tightrope.memory import Extent

if TYPE_CHECKING:
    from tightrope.model.image import Buffer


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldSegment:
    """One row of kexec_load(2): `data` first, zeros up to the end of `destination`, as it was asked
    for."""

    destination: Extent
    data: Buffer


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentsCall:
    """kexec_load(2).  `flags` as they were, the architecture in the upper half."""

    entry: int
    flags: int
    segments: tuple[HeldSegment, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldFile:
    """What an open file held; `path` is what the process had opened it as."""

    path: str
    data: Buffer


@dataclass(frozen=True, kw_only=True, slots=True)
class FilesCall:
    """kexec_file_load(2); `command_line` without its zero, `initrd` None where the flags say so."""

    kernel: HeldFile
    initrd: HeldFile | None
    command_line: bytes
    flags: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """A held call and who made it."""

    source: str
    """The file it was read from."""
    command: tuple[str, ...]
    loader: str
    """The program that made the call, with its version where it names one: "kexec-tools 2.0.25"."""
    machine: str
    """What the calling process is built for: "x86_64" or "i686"."""
    release: str
    """The Linux that it was recorded on."""
    crash: bool
    call: SegmentsCall | FilesCall
    programs: tuple[Buffer, ...] = ()
    """Relocatable ELF objects inside the loader: a purgatory is one, with the names of its parts.
    """
