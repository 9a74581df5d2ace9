"""Loading a kernel on this Linux: by which call, from what, and what is said before it is done.

    an image, an initrd, words   -->  a planner, `surveyed`  -->  kexec_load: the places that it found
                                 -->  open files             -->  kexec_file_load: Linux finds the places
    what `rehearse --write` left -->  segments, an entry     -->  kexec_load: the places that were rehearsed

Rules: what decides is here, what changes a machine is `perform.linux`.  An image is opened once;
what is looked at, hashed and loaded are the bytes behind the same descriptor.  Only the standard
library is needed, and no package: this runs in an initramfs.  Who plans is given, and needs what
planning needs.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tightrope.errors import BadInput, raw, reason
from tightrope.memory import PAGE_SIZE, align_up
from tightrope.perform import load_file
from tightrope.perform.linux.kexec import FileLoad, request_of
from tightrope.perform.linux.lock import open_for_writing
from tightrope.perform.linux.refusals import Request, only_files
from tightrope.perform.linux.state import State
from tightrope.perform.load_file import HOLDS, Load, Taker

if TYPE_CHECKING:
    from tightrope.perform.linux.signature import Signature

COMMAND_LINE = "/proc/cmdline"
MOST_IMAGE = 1 << 30
"""Bytes of a kernel image; the largest that distributions ship have 20 million."""
_HEADER = 0x268
"""Bytes up to the end of the setup header of boot protocol 2.15
(Documentation/arch/x86/boot.rst)."""
_LOADER_WORDS = ("BOOT_IMAGE=", "initrd=")
"""Words of a loader's own in /proc/cmdline, which the next kernel has no use for."""


class Via(StrEnum):
    """The system call that loads."""

    AUTO = "auto"
    LOAD = "kexec_load"
    FILE_LOAD = "kexec_file_load"


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """What was read of the files of an image, once: bytes, the names they came by, the words."""

    kernel: bytes
    kernel_name: str
    initrd: bytes | None
    initrd_name: str
    command_line: str
    crash: bool


Planner = Callable[[Files], Load]
"""Finds the places of an image on this machine.  Raises TightropeError with the reason why not."""
Rehearser = Callable[[Files], None]
"""Walks the places that Linux itself would find.  Raises TightropeError where it falls."""


Digests = tuple[tuple[str, str, int], ...]
"""(name, SHA-256 in hex, bytes) of each file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loading:
    """What would be loaded, ready to be handed over."""

    load: Load | FileLoad
    digests: Digests
    """Of each file that was opened; a plan says its own."""
    rehearsed: str | None = None
    """What a plan says that its rehearsal said, when it was written; None for an image."""
    written: bool = False
    """It is a plan, what `rehearse --write` left."""

    @property
    def via(self) -> Via:
        """The call that takes it."""
        return Via.FILE_LOAD if isinstance(self.load, FileLoad) else Via.LOAD

    @property
    def request(self) -> Request:
        """In the words of the refusals."""
        return request_of(self.load)


def reused_command_line(running: str) -> str:
    """The running kernel's command line without the words of the loader that started it."""
    return " ".join(word for word in running.split() if not word.startswith(_LOADER_WORDS))


@contextmanager
def opened(
    kernel: str,
    initrd: str | None,
    command_line: str,
    *,
    crash: bool,
    via: Via,
    state: State,
    rehearsed: bool,
    planner: Planner | None = None,
    rehearser: Rehearser | None = None,
) -> Iterator[Loading]:
    """What a file holds, ready to load; its descriptors live as long as the `with`.

    A file that `tightrope rehearse --write` left is a load by itself: nothing else goes with it.
    An image goes by kexec_load where there is a `planner` to find its places, else by
    kexec_file_load, where `rehearser` has a say.  Raises BadInput for what cannot be loaded in the
    way that was asked for.
    """
    descriptors: list[int] = []
    try:
        at = _open(kernel, descriptors)
        head = os.pread(at, 4096, 0)
        if head.startswith(b"\x7fELF") and load_file.is_ours(head):
            yield _planned(
                kernel, at, initrd, command_line, crash=crash, via=via, rehearsed=rehearsed
            )
            return
        disk = None if initrd is None else _open(initrd, descriptors)
        if _via(via, state, planner, kernel) is Via.LOAD:
            if planner is None:
                raise BadInput(
                    "kexec_load takes a plan, and this is a kernel: write a plan with"
                    f" `tightrope rehearse {kernel} --write FILE`, then load FILE",
                    source=kernel,
                )
            whole, found = _read(at, kernel, disk, initrd or "", command_line, crash=crash)
            yield Loading(load=planner(whole), digests=found)
            return
        named = [(kernel, at), *([] if initrd is None or disk is None else [(initrd, disk)])]
        if rehearser is not None:
            whole, digests = _read(at, kernel, disk, initrd or "", command_line, crash=crash)
            rehearser(whole)
        else:
            digests = tuple((name, *_digest(each)) for name, each in named)
        signed, signature = _signed(at) if only_signed(state) else (None, None)
        yield Loading(
            load=FileLoad(
                kernel=at,
                initrd=disk,
                command_line=raw(command_line),
                crash=crash,
                is_bzimage=_is_bzimage(head),
                signed=signed,
                signature=signature,
                ima_signed=_ima_signed(at) if state.appraised else None,
                written=tuple(name for name, each in named if open_for_writing(each)),
                room=_room(head, disk),
            ),
            digests=digests,
        )
    finally:
        for each in descriptors:
            os.close(each)


def read_whole(
    kernel: str, initrd: str | None, command_line: str, *, crash: bool
) -> tuple[Files, Digests]:
    """The bytes of an image and its initrd, each read once, and their digests.  Raises BadInput."""
    descriptors: list[int] = []
    try:
        at = _open(kernel, descriptors)
        disk = None if initrd is None else _open(initrd, descriptors)
        return _read(at, kernel, disk, initrd or "", command_line, crash=crash)
    finally:
        for each in descriptors:
            os.close(each)


def _read(
    at: int, kernel: str, disk: int | None, initrd: str, command_line: str, *, crash: bool
) -> tuple[Files, Digests]:
    """What is behind the descriptors, with their names."""
    image = _all(at)
    digests = [_hashed(kernel, image)]
    packed = None
    if disk is not None:
        packed = _all(disk)
        digests.append(_hashed(initrd, packed))
    read = Files(
        kernel=image,
        kernel_name=kernel,
        initrd=packed,
        initrd_name=initrd,
        command_line=command_line,
        crash=crash,
    )
    return read, tuple(digests)


def _planned(
    path: str,
    at: int,
    initrd: str | None,
    command_line: str,
    *,
    crash: bool,
    via: Via,
    rehearsed: bool,
) -> Loading:
    """A load that was written beside its rehearsal."""
    if initrd is not None or command_line or crash:
        raise BadInput(
            "says what is loaded: --initrd, --append and --crash cannot be given with it",
            source=path,
        )
    if via is Via.FILE_LOAD:
        raise BadInput("has its places already: kexec_file_load would find others", source=path)
    data = _whole(at)
    load, digest = load_file.identified(data, path)
    if load.taker is not Taker.LINUX:
        raise BadInput("was written for a hypervisor: `tightrope perform xen`", source=path)
    if rehearsed and load.rehearsed != HOLDS:
        said = load.rehearsed
        raise BadInput(
            f"the rehearsal said {said!r}" if said else "it was not rehearsed", source=path
        )
    return Loading(
        load=load,
        digests=((path, digest, len(data)),),
        rehearsed=load.rehearsed or None,
        written=True,
    )


def _via(via: Via, state: State, planner: Planner | None, source: str) -> Via:
    """The call for an image; a plan has its own.  Raises BadInput under Xen, where neither is
    right.

    Where signatures are enforced kexec_load takes nothing; a 32-bit x86 has no other call.
    """
    if state.xen_pv:
        raise BadInput(
            "this Linux is a PV guest of Xen's: in dom0 go by `tightrope perform xen`",
            source=source,
        )
    if via is not Via.AUTO:
        return via
    if state.architecture in ("i686", "i386"):
        return Via.LOAD
    files = planner is None or only_signed(state) or only_files(state)
    return Via.FILE_LOAD if files else Via.LOAD


def only_signed(state: State) -> bool:
    """Whether this kernel takes signed images alone: locked down, or built so."""
    return state.lockdown not in (None, "none") or state.built("KEXEC_SIG_FORCE") is True


def _open(path: str, descriptors: list[int]) -> int:
    """A regular file of a size that can be loaded, read only.  Raises BadInput."""
    if not path:
        raise BadInput("an empty name names no file", source="command line")
    try:
        at = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as err:
        raise BadInput(reason(err), source=path) from err
    descriptors.append(at)
    what = os.fstat(at)
    if not stat.S_ISREG(what.st_mode):
        raise BadInput("is not a regular file", source=path)
    if not what.st_size:
        raise BadInput("is empty", source=path)
    if what.st_size > MOST_IMAGE:
        problem = f"{what.st_size:#x} bytes are more than such a file has"
        raise BadInput(problem, source=path, limit=MOST_IMAGE)
    return at


def _digest(at: int) -> tuple[str, int]:
    """SHA-256 in hex and bytes of what a descriptor leads to; its position stays at 0."""
    digest, size = hashlib.sha256(), 0
    while block := os.pread(at, 1 << 20, size):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


def _whole(at: int) -> bytearray:
    """All bytes behind a descriptor, copied once: the system calls take them from where they are.

    They are read and not mapped, so that nobody can cut the file short meanwhile.
    """
    out = bytearray(os.fstat(at).st_size)
    view, size = memoryview(out), 0
    while size < len(out) and (got := os.preadv(at, (view[size:],), size)):
        size += got
    view.release()
    del out[size:]
    return out


def _all(at: int) -> bytes:
    """All bytes behind a descriptor, as they are: one read where Linux gives them in one."""
    size = os.fstat(at).st_size
    pieces = [os.pread(at, size, 0)]
    while pieces[-1] and (read := sum(map(len, pieces))) < size:
        pieces.append(os.pread(at, size - read, read))
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _hashed(name: str, data: bytes | bytearray) -> tuple[str, str, int]:
    return name, hashlib.sha256(data).hexdigest(), len(data)


def _is_bzimage(head: bytes) -> bool:
    """What bzImage64_probe asks for: boot protocol 2.12, loaded high, relocatable, a 64-bit
    entry."""
    if len(head) < _HEADER or head[0x1FE:0x200] != b"\x55\xaa" or head[0x202:0x206] != b"HdrS":
        return False
    protocol = int.from_bytes(head[0x206:0x208], "little")
    xloadflags = int.from_bytes(head[0x236:0x238], "little")
    wanted = 1 | 2  # XLF_KERNEL_64, XLF_CAN_BE_LOADED_ABOVE_4G
    return protocol >= 0x020C and bool(head[0x211] & 1) and xloadflags & wanted == wanted


def _signed(at: int) -> tuple[bool | None, Signature | None]:
    """Whether the image names a certificate table, None where it is no PE file; what that says."""

    from tightrope.perform.linux import signature

    def image(size: int, offset: int) -> bytes:
        return os.pread(at, size, offset)

    found = signature.read(image, os.fstat(at).st_size)
    return (None if found is None and not signature.is_pe(image) else found is not None), found


def _room(head: bytes, initrd: int | None) -> int:
    """Bytes of memory, whole pages, that an image and its initrd take at least: the setup header's
    init_size is what the kernel unpacks itself into."""
    if not _is_bzimage(head):
        return 0
    kernel = int.from_bytes(head[0x260:0x264], "little")
    disk = 0 if initrd is None else os.fstat(initrd).st_size
    return align_up(kernel, PAGE_SIZE) + align_up(disk, PAGE_SIZE)


def _ima_signed(at: int) -> bool:
    """Whether security.ima of a file is a signature and no mere digest: EVM_IMA_XATTR_DIGSIG, or
    IMA_VERITY_DIGSIG (security/integrity/integrity.h)."""
    try:
        return os.getxattr(at, "security.ima")[:1] in (b"\x03", b"\x06")
    except OSError:
        return False
