"""The old kernel in a guest's memory: where it lies, its symbols, its relocation code.

    page tables  -> the first page that is mapped in the kernel's own GiB is _text, whatever KASLR
                    did; in 32 bits the longest piece of the direct map that is read-only
    kallsyms     -> in the guest's own memory, or in the image that is given, moved to where it lies
    relocate_kernel -> by the symbols; by its signature where there are none

Source: Linux Documentation/arch/x86/x86_64/mm.rst (the kernel's text mapping);
arch/x86/mm/init_32.c, mark_rodata_ro().

Rules: what is not found is one line that says what was looked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tightrope.deeds.watch.memory import PTI_BIT, GuestMemory
from tightrope.deeds.watch.width import I386, PAE, WIDE, Width
from tightrope.errors import BadInput, ImageError
from tightrope.image import kallsyms, vmlinux
from tightrope.memory import PAGE_SIZE, Virt
from tightrope.model import Buffer, Participant, Registers
from tightrope.model.vmlinux import LinkedSegment, Symbols, Vmlinux
from tightrope.participants.linux import Convention, Found, find, participant
from tightrope.participants.linux.indirect import NAMES, last_call
from tightrope.x86.cpu import CR0_PG, CR4_PAE, EFER_LMA
from tightrope.x86.walk import Mmu

TEXT, TEXT_END = 0xFFFF_FFFF_8000_0000, 0xFFFF_FFFF_C000_0000
STEP = 2 << 20
LOWEST = 1 << 20
BANNER = re.compile(rb"Linux version ([0-9][^\n\0]{3,300})")
SOURCE = "the guest"
NARROW_MOST = 48 << 20
"""Bytes from _text on in which a 32-bit kernel has its symbols: Debian's have 18 MiB in all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GuestKernel:
    """`mmu` is the kernel's own view of its memory."""

    mmu: Mmu
    width: Width
    text: int
    """Where _text lies."""
    version: str | None
    symbols: Symbols
    found: Found
    participant: Participant
    image: memoryview
    """Its bytes, from `text` on."""
    name: str = "Linux"

    def address(self, name: str) -> int:
        """A symbol's address.  Raises BadInput where it has none."""
        at: int | None = self.symbols.address(name)
        if at is None and self.width.bits == 32:
            at = _exported(self.image, self.text, name)
        if at is None:
            raise BadInput(f"its symbols have no {name}", source=SOURCE, field="kallsyms")
        return at


def mmu_of(registers: Registers, physical_bits: int) -> Mmu:
    """The kernel's view, also where a process was running.  Raises BadInput without paging."""
    if not registers.cr0 & CR0_PG:
        raise BadInput(
            "has paging off: a Linux is watched once it has booted",
            source=SOURCE,
        )
    return Mmu(
        cr0=registers.cr0,
        cr3=registers.cr3,
        cr4=registers.cr4,
        efer=registers.efer,
        physical_bits=physical_bits,
    )


def find_kernel(memory: GuestMemory, mmu: Mmu, image: Buffer | None, source: str) -> GuestKernel:
    """The kernel that runs.  Raises BadInput where there is none, ImageError for another image."""
    width = WIDE if mmu.efer & EFER_LMA else PAE if mmu.cr4 & CR4_PAE else I386
    mmu, segment = _wide(memory, mmu) if width is WIDE else _narrow(memory, mmu)
    banner = BANNER.search(segment.data)
    version = None if banner is None else banner[1].decode("latin-1")
    symbols = (
        kallsyms.recover((segment,), width.bits)
        if image is None
        else _moved(image, source, segment)
    )
    if symbols is None:
        raise BadInput(
            "has no kallsyms that can be read: give the image that it runs with --from",
            source=SOURCE,
        )
    whole = Vmlinux(
        source=SOURCE, bits=width.bits, version=version, segments=(segment,), symbols=symbols
    )
    code = find(whole)
    if (code.convention is Convention.LINUX_I386) is (width is WIDE):
        raise BadInput("is a kernel of another width than its CPU's mode", source=SOURCE)
    return GuestKernel(
        mmu=mmu,
        width=width,
        text=segment.virt,
        version=version,
        symbols=symbols,
        found=code,
        participant=participant(code),
        image=segment.data,
    )


def _exported(data: memoryview, text: int, name: str) -> int | None:
    """A symbol for modules: Debian's 32-bit kernels have no data in kallsyms (KALLSYMS_ALL).

    struct kernel_symbol: value, name, namespace, each as far away from its own place as it says
    (include/linux/export-internal.h, HAVE_ARCH_PREL32_RELOCATIONS).
    """
    whole, wanted = bytes(data), b"\0" + name.encode() + b"\0"
    words = np.frombuffer(whole, "<u4", len(whole) // 4)
    leads = words + (text + 4 * np.arange(len(words))).astype(np.uint32)
    said = whole.find(wanted)
    while said >= 0:
        for at in np.nonzero(leads[1:] == np.uint32(text + said + 1))[0]:
            if text <= (value := int(leads[at])) < text + len(whole):
                return value
        said = whole.find(wanted, said + 1)
    return None


def calls_by(kernel: GuestKernel, name: str) -> tuple[int, str]:
    """Where a function of a 32-bit kernel makes its last call through a register, and gdb's name of
    that.  Raises BadInput where it makes none."""
    start = kernel.address(name)
    behind = min(int(each) for each in kernel.symbols.addresses if each > start)
    code = bytes(kernel.image[start - kernel.text : behind - kernel.text])
    thunks: dict[int, str] = {}
    for each in NAMES:
        at = kernel.symbols.address(f"__x86_indirect_thunk_{each}")
        if at is not None:
            thunks[at] = each
    found = last_call(code, start, thunks)
    if found is None:
        raise BadInput("calls nothing through a register", source=SOURCE, field=name)
    return found[0], f"r{found[1][1:]}"


def _wide(memory: GuestMemory, mmu: Mmu) -> tuple[Mmu, LinkedSegment]:
    """A 64-bit kernel's view and its image.  Raises BadInput where there is none."""
    for cr3 in (mmu.cr3, mmu.cr3 & ~PTI_BIT):
        mmu = replace(mmu, cr3=cr3)
        mapped = [at for at in range(TEXT, TEXT_END, STEP) if memory.where(mmu, at) is not None]
        if len(mapped) > 2:
            break
    else:
        raise BadInput(
            "maps no kernel where a 64-bit Linux has its text: it has not booted yet, or is not Linux",
            source=SOURCE,
        )
    first = mapped[0]
    phys = memory.where(mmu, first)
    assert phys is not None
    # Physically it is one piece, whatever of it is unmapped meanwhile (freed init memory).
    data = memory.phys(phys, mapped[-1] + STEP - first)
    return mmu, LinkedSegment(virt=Virt(first), data=memoryview(data))


def _narrow(memory: GuestMemory, mmu: Mmu) -> tuple[Mmu, LinkedSegment]:
    """A 32-bit kernel's: in the direct map with all of low memory, its text and read-only data are
    what cannot be written there."""
    from tightrope.x86.survey import survey

    def table(frame: int) -> memoryview | None:
        return memory.view(frame & -PAGE_SIZE, PAGE_SIZE)

    for cr3 in (mmu.cr3, mmu.cr3 & ~PTI_BIT):
        mmu = replace(mmu, cr3=cr3)
        memory.in_use(mmu)
        mapped = survey(table, mmu)
        own = ~mapped.user & (mapped.phys >= LOWEST) & (mapped.virt >= LOWEST)
        offsets, counts = np.unique((mapped.virt - mapped.phys)[own], return_counts=True)
        if not len(offsets):
            continue
        lies = own & (mapped.virt - mapped.phys == offsets[counts.argmax()])
        text = _longest(mapped.virt, mapped.size, lies & ~mapped.writable)
        # A process's view has no direct map of more than a few pages.
        if text is not None and int(mapped.size[lies].sum()) > NARROW_MOST:
            break
    else:
        raise BadInput(
            "maps no kernel where a 32-bit Linux has its text: it has not booted yet, or is not Linux",
            source=SOURCE,
        )
    last = int((mapped.virt[lies] + mapped.size[lies]).max())
    phys = text - int(offsets[counts.argmax()])
    data = memory.phys(phys, min(NARROW_MOST, last - text))
    return mmu, LinkedSegment(virt=Virt(text), data=memoryview(data))


def _longest(
    virt: NDArray[np.uint64], size: NDArray[np.uint64], which: NDArray[np.bool_]
) -> int | None:
    """Where the longest run of some pages begins: code that is made at run time is read-only,
    too, page by page."""
    if not which.any():
        return None
    order = np.argsort(virt[which], kind="stable")
    starts, sizes = virt[which][order], size[which][order]
    runs = np.concatenate([[0], np.nonzero(starts[1:] != starts[:-1] + sizes[:-1])[0] + 1])
    return int(starts[runs[np.add.reduceat(sizes, runs).argmax()]])


def _moved(image: Buffer, source: str, there: LinkedSegment) -> Symbols:
    """The image's symbols where KASLR has put them.  Raises ImageError for another kernel."""
    kernel = vmlinux.read(image, source)
    if kernel.symbols is None:
        raise ImageError("has no symbols", source=source, field="kallsyms")
    linked = min(segment.virt for segment in kernel.segments)
    banner = kernel.symbols.address("linux_banner")
    if banner is not None:
        said = kernel.at(banner, 64)
        at = banner - linked
        if bytes(there.data[at : at + 64]) != said:
            raise ImageError("is not the kernel that the guest runs", source=source)
    slide = np.uint64((there.virt - linked) & (1 << 64) - 1)
    return Symbols(
        names=kernel.symbols.names,
        starts=kernel.symbols.starts,
        addresses=kernel.symbols.addresses + slide,
    )
