"""A kernel image, read and checked: what `image.read` gives.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tightrope.memory import Phys

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tightrope.choices import Protocol

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryPoint:
    """One way into an image: `offset` bytes from the image's base, in `bits` mode."""

    name: str
    offset: int
    bits: int
    protocol: Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What lies at `offset` bytes from the image's base: `data` first, zeros up to `size` bytes."""

    offset: int
    data: memoryview
    size: int
    zeroed: bool = True
    """Whether the zeros are asked for.  A bzImage has room there, and clears of it what it wants
    clear (boot.rst, init_size): a 32-bit kexec loads the file and no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """The compressed kernel inside a bzImage; `offset` and `size` in bytes of its one part."""

    offset: int
    size: int
    compression: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What something compressed turned out to hold when it was unpacked: a payload, an initrd.

    Whole where there is neither a `flaw` nor a reason why it is `untold`.
    """

    what: str
    """A noun phrase: what was unpacked, as far as it came."""
    flaw: str | None = None
    """What is wrong with it, a clause without a subject."""
    where: str = ""
    """The field or the bytes that are wrong."""
    says: str = ""
    """What the kernel that unpacks it says, where it says anything."""
    untold: str | None = None
    """Why it cannot be told whether it is whole."""
    size: int | None = None
    """Bytes that it unpacks to, where it is whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Movable:
    """Where a Multiboot2 header lets a loader put the kernel: [start, end), at multiples of
    `alignment`."""

    start: int
    end: int
    alignment: int


@dataclass(frozen=True, kw_only=True, slots=True, weakref_slot=True)
class Image:
    """A kernel image, read and checked.  Sizes, alignments and limits are bytes.

    Offsets count from the image's base: the load address of a bzImage, the lowest physical address
    of an ELF or Multiboot kernel, the given address of a flat binary; `pref_address` is where the
    image wants its base, and has it unless it is `relocatable`.
    """

    source: str
    format: str
    """One of "bzImage", "unified kernel image", "ELF32", "ELF64", "Multiboot" and "flat binary"."""
    parts: tuple[Part, ...]
    """What is loaded, lowest first, at least one; no two have a byte in the same page.

    A bzImage has one: what follows the setup code, a signature behind it included.
    """
    file_size: int
    """Bytes that were read; of what a gzip file unpacks to when it was one."""
    setup_header: bytes
    """The setup header as boot_params wants it: the file's bytes from 0x1f1 to the header's end.

    Empty in an image that has none; then `protocol`, `loadflags` and `xloadflags` are 0.
    """
    protocol: int
    """Version of the Linux boot protocol."""
    version: str | None
    entries: tuple[EntryPoint, ...]
    """The preferred one first, at least one."""
    relocatable: bool
    pref_address: Phys
    init_size: int
    """Bytes from the base that the image needs before it reads its memory map."""
    alignment: int
    min_alignment: int
    cmdline_limit: int
    """Bytes of command line without its terminating zero."""
    initrd_limit: Phys
    """The highest address that a byte of the initrd or of a module may have.

    `above_4g` lifts it for 64-bit entries.
    """
    above_4g: bool
    """Kernel, boot_params, command line and initrd may lie above 4 GiB
    (XLF_CAN_BE_LOADED_ABOVE_4G)."""
    loadflags: int
    xloadflags: int
    payload: Payload | None
    initrd: memoryview | None
    """What a unified kernel image carries, None when it carries none."""
    command_line: str | None
    """What a unified kernel image carries, None when it carries none."""
    relocations: NDArray[np.int64] | None = None
    """Offsets of 32-bit words to which the distance from `pref_address` is added, where it is
    moved."""
    reach: int | None = None
    """Where the image ends at the latest, wherever it is moved; None: where its entry's mode does.
    """
    solid: bool = True
    """All memory from the base to `init_size` is the kernel's; else its parts are, and no hole
    between."""
    movable: Movable | None = None
    """What its Multiboot2 header says of moving it; a plan leaves it where it is linked."""
    doubt: str | None = None
    """Why nobody enters it without being asked to: it does not say that it is a kernel."""
    signature: int = 0
    """Bytes of the PE certificate table behind a signed bzImage, which are loaded with it."""
    file: memoryview | None = None
    """All of a bzImage, the setup code that no kexec loads included; None in an image that is none.
    """
    remarks: tuple[str, ...] = ()
    """What a reader should know of the file that is no reason to refuse it, a clause each."""
    alternatives: tuple[Image, ...] = ()
    """The same file as other headers of it would have it laid, with the entries that these give."""
