"""A guest that stands at V, as a handover: everything that is about to be walked, as it lies in
memory.

    iomem_resource, tables, registers -> Host       struct kimage, page list -> segments, and their plan
    P, the root of the tables         -> the programs' bytes and page_table_a

Rules: what the guest has is taken, and nothing laid anew: what should be there instead is for
`seen` and for the rules to say.  The image is the one that is given, or what the segments
themselves make.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tightrope import host, participants, plan
from tightrope.abi import boot
from tightrope.deeds.file_load import HABITS
from tightrope.deeds.segments import KEXEC_TOOLS
from tightrope.deeds.watch import notes, resources, xen
from tightrope.deeds.watch.kernel import SOURCE, GuestKernel
from tightrope.deeds.watch.loaded import KImage
from tightrope.deeds.watch.memory import GuestMemory
from tightrope.deeds.watch.xen import GuestXen
from tightrope.errors import BadInput, ImageError, MachineError
from tightrope.image import read as read_image
from tightrope.memory import PAGE_SIZE, Extent, Phys, Virt
from tightrope.model import (
    ZERO_FRAME,
    Given,
    Handover,
    Image,
    Loaded,
    Loader,
    Named,
    Paging,
    Participant,
    Piece,
    PieceRole,
    Plan,
    Registers,
    Tables,
    Trees,
    World,
    with_code,
)
from tightrope.model.recording import HeldSegment
from tightrope.participants import purgatory
from tightrope.participants.linux import Convention
from tightrope.plan import Request
from tightrope.plan.allocate import extents
from tightrope.x86.walk import Mmu

SECTOR = 512
LOADERS_OWN = (0x23C, 0x248), (0x250, 0x258)
"""hardware_subarch with its data, and setup_data: 0 in a file, and a loader's afterwards.
kexec-tools writes 2 into the first from a Xen dom0."""
LOADFLAGS, LOADED_HIGH = 0x211, 1
SETUP_SECTS, HEADER_AT, HEADER_SIZE, HEADER_MAGIC = 0x1F1, 0x1F1, 0x201, 0x202
"""HEADER_SIZE: how far the header goes behind its magic (Documentation/arch/x86/boot.rst)."""
OBJECT_MOST = 1 << 20


def observed(
    memory: GuestMemory,
    kernel: GuestKernel | GuestXen,
    image: KImage,
    datas: tuple[bytes, ...],
    registers: Registers,
    *,
    new: Image | None,
    physical_bits: int,
    gbpages: bool,
) -> Handover:
    """The handover that the guest is about to walk.  Raises TightropeError where it cannot be
    told."""
    at_v = registers.rip
    mmu = replace(kernel.mmu, cr0=registers.cr0, cr3=registers.cr3, cr4=registers.cr4)
    told = host.Told(
        iomem="\n".join(
            xen.resources(memory, kernel, crash=image.crash)
            if isinstance(kernel, GuestXen)
            else resources.listed(memory, kernel)
        ),
        symbols=f"{kernel.text:016x} T _text\n{_relocate(kernel):016x} T relocate_kernel",
        physical_bits=physical_bits,
        gbpages=gbpages,
        notes="\n".join(notes.told(memory, kernel, datas)) if image.crash else "",
    )
    found = host.read_guest(told, registers, memory.view, crash=image.crash, loaded=True)
    old = found.host
    if isinstance(kernel, GuestKernel):
        # A crash kernel is told of what /proc/iomem has, others of what the firmware said.
        if not image.crash:
            old = replace(old, memory=resources.firmware_map(memory, kernel, old.memory))
        if kernel.found.convention is Convention.LINUX_I386:
            old = replace(old, relocation=None)  # V is the control page in the direct map
    loaded = _loaded(memory, kernel, image, datas)
    new = new or _image(loaded, image)
    trees = kernel.participant.contract.trees
    request = Request(loaded=loaded, crash=image.crash, whole_memory=trees is Trees.WHOLE_MEMORY)
    narrowly = isinstance(kernel, GuestXen)
    walked = _as_it_lies(plan.prepare(new, old, request), image, at_v, narrowly=narrowly)
    page = memory.phys(image.control_page, PAGE_SIZE)
    root, swap, arguments = _call(memory, kernel, registers, page)
    code = replace(kernel.participant.code, data=_code(kernel, page))
    if isinstance(kernel, GuestXen):
        # From its machine_kexec() on a hypervisor is an old kernel that jumps by itself.
        chain = (kernel.participant, *([loaded.purgatory] if loaded.purgatory else []))
    else:
        chain = participants.chain(walked, kernel.participant)
    chain = with_code(chain, code)
    tables = _tables(memory, old, registers, root)
    behind = memory.where(mmu, at_v)
    if behind is None:
        raise MachineError(f"the guest stands at {at_v:#x}, which it does not map")
    frame = Phys(behind & -PAGE_SIZE)
    pieces = [Piece(phys=frame, data=memory.phys(frame, PAGE_SIZE), role=PieceRole.CODE_AT_V)]
    stack = memory.where(mmu, registers.general["rsp"])
    if stack is None:
        raise MachineError("the guest's stack is not mapped")
    lies = Extent.sized(stack & -PAGE_SIZE, PAGE_SIZE)
    # What lies below the stack pointer is nobody's, and relocation code may push there.
    above = memory.phys(stack, lies.end - stack)
    pieces.append(Piece(phys=Phys(stack), data=above, role=PieceRole.STACK))
    for each in arguments:
        start = each.start & -PAGE_SIZE
        if start != lies.start:
            data = memory.phys(start, PAGE_SIZE)
            pieces.append(Piece(phys=Phys(start), data=data, role=PieceRole.ARRAY_ON_STACK))
    for role, table in ((PieceRole.GDT, registers.gdt), (PieceRole.IDT, registers.idt)):
        pieces += _descriptors(memory, mmu, table, role)
    world = World(
        host=old,
        laid=tuple(pieces),
        pgd=found.pgd,
        tables=found.tables,
        code_phys=frame,
        registers=registers,
        arguments=arguments,
        stack=lies,
    )
    return Handover(
        intent=walked,
        world=world,
        chain=chain,
        page_table_a=tables,
        page_table_b=None if old.paging in (Paging.I386, Paging.PAE) else tables,
        page_list={Phys(at): data for at, data in image.list_pages.items()},
        segments=walked.segments,
        registers=registers,
        swap_page=swap,
    )


def _descriptors(
    memory: GuestMemory, mmu: Mmu, table: tuple[int, int], role: PieceRole
) -> Iterator[Piece]:
    """Each page of a descriptor table that is mapped: Xen's own selectors are in the last of 15."""
    base, limit = table
    for page in range(base & -PAGE_SIZE, base + limit + 1 if base else 0, PAGE_SIZE):
        there = memory.where(mmu, page)
        if there is not None:
            yield Piece(phys=Phys(there), data=memory.phys(there, PAGE_SIZE), role=role)


def _relocate(kernel: GuestKernel | GuestXen) -> int:
    return kernel.address("kexec_reloc") if isinstance(kernel, GuestXen) else kernel.found.virt


def _loaded(
    memory: GuestMemory, kernel: GuestKernel | GuestXen, image: KImage, datas: tuple[bytes, ...]
) -> Loaded:
    """The segments, and whose purgatory they are entered by."""
    segments = tuple(
        HeldSegment(destination=extent, data=_trimmed(data, size))
        for (extent, size), data in zip(image.segments, datas, strict=True)
    )
    entered = next((each for each in segments if image.start in each.destination), None)
    program: Participant | None = None
    by, habits, loader = "a loader that is not known", KEXEC_TOOLS, Loader.KEXEC_TOOLS
    if entered is not None:
        linux = [] if isinstance(kernel, GuestXen) else _purgatory(memory, kernel)
        program = purgatory.found(entered.destination, entered.data, linux, "Linux")
        if "digest" in program.code.symbols:
            version = (kernel.version or "").split(" ", 1)[0]
            by, habits, loader = f"kexec_file_load of Linux {version}", HABITS, Loader.FILE_LOAD
        else:
            by = "kexec-tools, or another user of kexec_load"
        if bytes(entered.data[0x202:0x206]) == b"HdrS":
            program = None
    return Loaded(
        loader=loader,
        by=by,
        source=SOURCE,
        segments=segments,
        entry=image.start,
        crash=image.crash,
        narrow=kernel.width.bits == 32,
        purgatory=program,
        habits=habits,
    )


def _trimmed(data: bytes, size: int) -> bytes:
    """Without the zeros behind what was loaded; with them where they are none."""
    return data if any(data[size:]) else data[:size]


def _purgatory(memory: GuestMemory, kernel: GuestKernel) -> list[purgatory.Relocatable]:
    """The object that kexec_file_load takes, none where the kernel has none."""
    at, size_at = (
        kernel.symbols.address(name) for name in ("kexec_purgatory", "kexec_purgatory_size")
    )
    if at is None or size_at is None:
        return []
    size = memory.word(kernel.mmu, size_at)
    if not 0 < size < OBJECT_MOST:
        return []
    try:
        return [purgatory.read(memory.virt(kernel.mmu, at, size), f"{SOURCE}: kexec_purgatory")]
    except (ImageError, MachineError):
        return []


def _image(loaded: Loaded, image: KImage) -> Image:
    """A bzImage of the segments: the setup header that boot_params has, and the kernel behind it.

    Raises BadInput where no segment holds a struct boot_params.
    """
    params = next((e for e in loaded.segments if bytes(e.data[0x202:0x206]) == b"HdrS"), None)
    if params is None:
        raise BadInput(
            "nothing that it has loaded is a struct boot_params, as a Linux bzImage has: give KERNEL",
            source=SOURCE,
        )
    page = bytes(params.data[: boot.BOOT_PARAMS_SIZE])
    sectors = page[SETUP_SECTS] or 4
    size = int.from_bytes(page[0x1F4:0x1F8], "little") * 16
    kernel = next((e for e in loaded.segments if e is not params and len(e.data) >= size > 0), None)
    if kernel is None:
        raise BadInput("no segment has the size that its boot_params say", source=SOURCE)
    head = bytearray((sectors + 1) * SECTOR)
    end = HEADER_MAGIC + page[HEADER_SIZE]
    head[HEADER_AT:end] = page[HEADER_AT:end]
    head[0x1FE:0x200] = b"\x55\xaa"
    head[LOADFLAGS] |= LOADED_HIGH  # a loader may leave them out
    for first, behind in LOADERS_OWN:
        head[first:behind] = bytes(behind - first)
    return read_image(bytes(head) + bytes(kernel.data), f"{SOURCE}'s new kernel")


def _as_it_lies(made: Plan, image: KImage, at_v: int, *, narrowly: bool) -> Plan:
    """The plan with the frames that the guest's kernel has chosen; `narrowly`: it maps no more than
    was handed over."""
    lies = dict(zip(image.destinations.tolist(), image.sources.tolist(), strict=True))
    pages = np.concatenate([np.array(each.destination.pages, np.int64) for each in made.segments])
    sources = np.array([lies.get(page, page) for page in pages.tolist()], np.int64)
    frames = np.array(sorted(at >> 12 for at in image.list_pages), np.int64)
    ours = {"the control page", "the page list", "sources"}
    away = (sources != pages) & (sources != ZERO_FRAME)
    word = "<u8" if made.paging.long_mode else "<u4"
    own = [
        Named(extent=Extent.sized(image.control_page, PAGE_SIZE), what="the control page"),
        *(Named(extent=e, what="the page list") for e in extents(frames)),
        *(Named(extent=e, what="sources") for e in extents(np.unique(sources[away]))),
    ]
    rest = [each for each in made.identity if each.what not in ours]
    if narrowly:
        # A hypervisor maps what was handed over, and nothing that only we would want.
        handed = {each.name for each in made.segments}
        rest = [each for each in rest if each.what in handed]
        rest += [Named(extent=each, what="mapped, not loaded") for each in image.mapped]
    return replace(
        made,
        control_page=Phys(image.control_page),
        relocation=Virt(at_v),
        destinations=pages,
        sources=sources,
        head=image.head,
        list_pages={Phys(at): np.frombuffer(data, word) for at, data in image.list_pages.items()},
        spare=(),
        identity=(*own, *rest),
    )


def control_page(memory: GuestMemory, kernel: GuestKernel | GuestXen, registers: Registers) -> int:
    """P, as the call hands it over."""
    if isinstance(kernel, GuestXen):
        return registers.general["rdi"]
    if kernel.found.convention is Convention.LINUX_7:
        return registers.general["rsi"]
    return memory.word(kernel.mmu, _array(memory, kernel, registers), kernel.width.size)


def _array(memory: GuestMemory, kernel: GuestKernel, registers: Registers) -> int:
    """Where the call's array of pages lies: in the second register, or the second on the stack."""
    size = kernel.width.size
    if size == 8:
        return registers.general["rsi"]
    return memory.word(kernel.mmu, registers.general["rsp"] + 2 * size, size)


def _call(
    memory: GuestMemory, kernel: GuestKernel | GuestXen, registers: Registers, page: bytes
) -> tuple[int, Phys | None, tuple[Extent, ...]]:
    """The root of page_table_a, the swap page, and where the call's words lie."""
    if isinstance(kernel, GuestXen):
        return registers.general["rsi"], None, ()
    if kernel.found.convention is Convention.LINUX_7:
        at = kernel.found.symbols["kexec_pa_table_page"]
        return int.from_bytes(page[at : at + 8], "little"), None, ()
    array, size = _array(memory, kernel, registers), kernel.width.size
    phys = memory.where(kernel.mmu, array)
    if phys is None:
        raise MachineError(f"the page array at {array:#x} is not mapped")
    order = kernel.participant.contract.array
    words = [memory.word(kernel.mmu, array + size * number, size) for number in range(len(order))]
    by = dict(zip(order, words, strict=True))
    laid = [Extent.sized(phys, size * len(order))]
    stacked = sum(at.startswith("rsp+") for at in kernel.participant.contract.arguments)
    if stacked:  # above the return address
        above = memory.where(kernel.mmu, registers.general["rsp"] + size)
        if above is None:
            raise MachineError("the guest's stack is not mapped")
        laid.append(Extent.sized(above, size * stacked))
    return by[Given.TABLE_A], Phys(by[Given.SWAP_PAGE]), tuple(laid)


def _code(kernel: GuestKernel | GuestXen, page: bytes) -> bytes:
    """The control page's bytes as code: all of it, or as much as the kernel copies there."""
    same = kernel.participant.contract.same
    return page[:same] + kernel.participant.code.data[same:]


def _tables(memory: GuestMemory, old: object, registers: Registers, root: int) -> Tables:
    """Every page of a tree."""
    from tightrope.model import Host
    from tightrope.x86.survey import survey

    assert isinstance(old, Host)
    pages: dict[int, memoryview] = {}

    def table(frame: int) -> memoryview | None:
        view = memory.view(frame & -PAGE_SIZE, PAGE_SIZE)
        if view is not None:
            pages[frame & -PAGE_SIZE] = view
        return view

    survey(table, registers.mmu(old.cpu, root=root))
    return Tables(root=Phys(root), pages=pages)
