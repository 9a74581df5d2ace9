"""Xen in a guest's memory: where it lies, its symbols, kexec_reloc, and what dom0 has loaded.

    its own tables    Xen's text lies at one linear address; XPTI leaves only its entry code mapped in
                      dom0, and physically it is one piece
    symbols           in its own memory (xen/common/symbols.c), or of the image that is given
    struct kexec_image  type, arch, entry_maddr, nr_segments, segments, head
                      head is the address of the first page of the list, without a flag
    e820              what XENMEM_machine_memory_map answers with: loaders read that

From its machine_kexec() on Xen is an old kernel like any other: what dom0 calls physical is over.

Source: xen/include/asm-x86/config.h (XEN_VIRT_START, DIRECTMAP), xen/include/xen/kimage.h,
xen/include/asm-x86/e820.h, xen/common/kexec.c, xen/arch/x86/mm.c of 4.17 and 4.20.

Rules: what is not found is one line that says what was looked for.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tightrope.abi import xen as abi
from tightrope.deeds.watch.loaded import CRASH, INDIRECTION, KImage, read_list
from tightrope.deeds.watch.memory import GuestMemory
from tightrope.deeds.watch.width import WIDE, Width
from tightrope.errors import BadInput, ImageError, MachineError
from tightrope.image import kallsyms, vmlinux
from tightrope.memory import PAGE_SIZE, Extent, Virt
from tightrope.model import Buffer, Participant, Promise
from tightrope.model.vmlinux import LinkedSegment, Symbols
from tightrope.participants import xen
from tightrope.x86.cpu import CR4_LA57
from tightrope.x86.walk import Mmu

SOURCE = "the guest"
TEXTS = (0xFFFF_82D0_4020_0000, 0xFFFF_82D0_8020_0000)
"""Where Xen has its text in every tree of 4 levels, since 4.14 and before; in a Linux without Xen
that is the hole that it leaves to hypervisors (Documentation/arch/x86/x86_64/mm.rst)."""
LARGE_PAGE = 2 << 20
IMAGE = 3 << 20
"""Bytes from the text on that have code and read-only data, the symbols among them: with data and
bss a Xen that has symbols takes more."""
VERSION = re.compile(rb"(?:\xf3\x0f\x1e\xfa)?\xb8(.{4})", re.DOTALL)
"""[endbr64;] mov $N, %eax: all of xen_major_version() and xen_minor_version()."""
HEADER = struct.Struct("<B x H 4x Q I 4x Q Q")
"""struct kexec_image up to head."""
MOST_SEGMENTS = abi.SEGMENT_MAX
E820_NAMES = {1: "System RAM", 3: "ACPI Tables", 4: "ACPI Non-volatile Storage"}
MOST_ROWS = 1024
E820_ROW = struct.Struct("<QQI")


@dataclass(frozen=True, kw_only=True, slots=True)
class GuestXen:
    """`mmu` is the view in which the hypervisor is mapped: its own, or its guest's."""

    mmu: Mmu
    text: int
    """Where _start lies, XEN_VIRT_START and 2 MiB."""
    phys: int
    """The machine address of that."""
    version: str | None
    symbols: Symbols
    """Offsets from XEN_VIRT_START."""
    participant: Participant
    code: bytes
    """kexec_reloc as it lies in the hypervisor's text, with its stack."""
    name: str = "Xen"
    width: Width = WIDE

    def address(self, name: str) -> int:
        """A symbol's address.  Raises BadInput where it has none."""
        at = self.symbols.address(name)
        if at is None:
            raise BadInput(f"Xen's symbols have no {name}", source=SOURCE, field="symbols")
        return self.text - LARGE_PAGE + int(at)


def find_xen(memory: GuestMemory, mmu: Mmu, image: Buffer | None, source: str) -> GuestXen | None:
    """The hypervisor that runs; None where there is none.

    Raises BadInput where it cannot be watched, ImageError for an image that is another.
    """
    found = None if mmu.cr4 & CR4_LA57 else _lies(memory, mmu)
    if found is None:
        return None
    text, phys = found
    data = memoryview(memory.phys(phys, IMAGE))
    given = None if image is None else vmlinux.hypervisor(image, source)
    if image is not None and given is None:
        raise ImageError("is not Xen, and the guest runs under one", source=source)
    own = _symbols(data)
    known = own if given is None else _of_image(given, source)
    if known is None:
        raise BadInput(
            "runs under a Xen whose symbols cannot be read: give its image with --from",
            source=SOURCE,
        )
    linked = (LinkedSegment(virt=Virt(text), data=data),)
    code = xen.find(linked, f"{SOURCE}'s Xen")
    other = given is not None and xen.find(given, source).code != code.code
    if other or (own is not None and own.names != known.names):
        raise ImageError("is not the Xen that the guest runs", source=source, field="kexec_reloc")
    return GuestXen(
        mmu=mmu,
        text=text,
        phys=phys,
        version=_version(data, known),
        symbols=known,
        participant=_maps_what_is_asked(xen.participant(code)),
        code=code.code,
    )


def _maps_what_is_asked(code: Participant) -> Participant:
    """Xen maps what dom0's segments name, and kexec-tools names all of the first MiB, holes with it
    (xen_kexec_load() in kexec/kexec-xen.c)."""
    contract = code.contract
    return replace(
        code, contract=replace(contract, promises=contract.promises - {Promise.EXACT_TABLES})
    )


def _lies(memory: GuestMemory, mmu: Mmu) -> tuple[int, int] | None:
    """Where its text is mapped, and what is there."""
    for text in TEXTS:
        for at in range(text, text + LARGE_PAGE, PAGE_SIZE):
            phys = memory.where(mmu, at)
            if phys is not None:
                return text, phys - (at - text)
    return None


def _symbols(data: memoryview) -> Symbols | None:
    found = kallsyms.of_hypervisor(data)
    return found[0] if found is not None and found[1] == LARGE_PAGE else None


def _of_image(segments: tuple[LinkedSegment, ...], source: str) -> Symbols:
    found = next(filter(None, (_symbols(each.data) for each in segments)), None)
    if found is None:
        raise ImageError("has no symbols", source=source)
    return found


def _version(data: memoryview, symbols: Symbols) -> str | None:
    """What its functions answer with."""
    numbers = []
    for name in ("xen_major_version", "xen_minor_version"):
        at = symbols.address(name)
        match = None if at is None else VERSION.match(data, int(at) - LARGE_PAGE)
        if match is None:
            return None
        numbers.append(int.from_bytes(match[1], "little"))
    return ".".join(map(str, numbers))


def read_image(memory: GuestMemory, old: GuestXen, at: int) -> KImage:
    """The struct kexec_image that is about to be entered; its control page is told by the call.

    Raises BadInput where that is none.
    """
    kind, arch, start, count, rows_at, head = HEADER.unpack(memory.virt(old.mmu, at, HEADER.size))
    if kind > CRASH or arch not in (abi.EM_386, abi.EM_X86_64) or not 0 < count < MOST_SEGMENTS:
        raise BadInput("its machine_kexec() is called with no kexec_image", source=SOURCE)
    row = abi.KEXEC_SEGMENT
    table = memory.virt(old.mmu, rows_at, row.size * count)
    loaded, mapped = [], []
    for number in range(count):
        each = row.unpack(table[number * row.size : (number + 1) * row.size])
        buffer, size, start_at, whole = (
            each[name] for name in ("buf", "buf_size", "dest_maddr", "dest_size")
        )
        assert isinstance(buffer, int)
        assert isinstance(size, int)
        assert isinstance(start_at, int)
        assert isinstance(whole, int)
        extent = Extent.sized(start_at, whole)
        if buffer:
            loaded.append((extent, size))
        else:
            mapped.append(extent)
    pages, destinations, sources, broken = read_list(memory, head | INDIRECTION, WIDE, clears=True)
    return KImage(
        at=at,
        crash=kind == CRASH,
        head=head | INDIRECTION,
        start=start,
        control_page=0,
        segments=tuple(loaded),
        list_pages=pages,
        destinations=np.array(destinations, np.int64),
        sources=np.array(sources, np.int64),
        broken=broken,
        mapped=tuple(mapped),
    )


def resources(memory: GuestMemory, old: GuestXen, *, crash: bool) -> Iterator[str]:
    """Its memory in the words of /proc/iomem."""
    at = old.address("e820")
    count = memory.word(old.mmu, at, 4)
    if not 0 < count <= MOST_ROWS:
        raise BadInput(f"has {count} rows", source=SOURCE, field="e820")
    own = Extent(old.phys, old.phys + old.address("_end") - old.text)
    reserved = Extent.sized(*_area(memory, old))
    inside = [(own, "Kernel code"), *([(reserved, "Crash kernel")] if reserved.size else [])]
    if crash and not reserved.size:
        raise BadInput("has no crash region", source=SOURCE, field="kexec_crash_area")
    for start, size, kind in E820_ROW.iter_unpack(
        memory.virt(old.mmu, at + 4, E820_ROW.size * count)
    ):
        if not size:
            continue
        yield f"{start:08x}-{start + size - 1:08x} : {E820_NAMES.get(kind, 'Reserved')}"
        for each, name in inside:
            if start <= each.start < start + size:
                yield f"  {each.start:08x}-{each.end - 1:08x} : {name}"


def _area(memory: GuestMemory, old: GuestXen) -> tuple[int, int]:
    """xen_kexec_reserve_t: size, start."""
    at = old.address("kexec_crash_area")
    size, start = (memory.word(old.mmu, at + number * 8) for number in range(2))
    if start + size >= 1 << 52:
        raise MachineError(f"its crash region is {size:#x} bytes at {start:#x}")
    return start, size
