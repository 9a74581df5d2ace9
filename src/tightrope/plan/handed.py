"""What a new kernel is handed besides its own bytes, protocol by protocol.

    linux64, linux32    initrd, command line, boot_params and
                        setup_data where it needs one         rsi = boot_params
    multiboot           modules, information                  eax = magic, ebx = information
    multiboot2          modules, tags                         eax = magic, ebx = tags
    pvh                 modules, command line, start info     ebx = start info
    flat                nothing

Rules: this file decides which segments there are and what the registers hold; the bytes are made in
boot_params, multiboot and start_info.  What a protocol has no place for is refused, not dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tightrope.abi import boot
from tightrope.abi import multiboot as multiboot_abi
from tightrope.errors import PlanError, raw
from tightrope.memory import Extent, MemoryMap, Phys
from tightrope.model import Buffer, Host, Image, Module, Protocol, Segment, SegmentRole
from tightrope.plan import multiboot
from tightrope.plan.boot_params import boot_params
from tightrope.plan.entering import LINUX
from tightrope.plan.multiboot import PlacedModule
from tightrope.plan.request import Request
from tightrope.plan.room import Room
from tightrope.plan.setup_data import efi_info, for_kernel, hung, more
from tightrope.plan.start_info import start_info


@dataclass(frozen=True, kw_only=True, slots=True)
class Handed:
    """Segments in the order of the plan, and the registers that are not zero at the entry."""

    segments: tuple[Segment, ...]
    registers: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class New:
    """The new kernel as far as it is placed: its base, and the map of the memory that is its
    own."""

    image: Image
    base: Phys
    memory: MemoryMap
    host: Host


def handed(new: New, protocol: Protocol, request: Request, room: Room) -> Handed:
    """Place and make everything.  Raises PlanError for what does not fit or the protocol cannot
    take."""
    _judge(new.image, protocol, request)
    if protocol is Protocol.FLAT:
        return Handed(segments=(), registers={})
    if protocol in LINUX:
        return _linux(new, request, room)
    if protocol is Protocol.PVH:
        return _pvh(new, request, room)
    return _multiboot(new, protocol, request, room)


def _judge(image: Image, protocol: Protocol, request: Request) -> None:
    def refusal(problem: str, field: str) -> PlanError:
        return PlanError(problem, source=image.source, field=field)

    if protocol is Protocol.FLAT:
        if request.modules or request.initrd is not None or request.command_line:
            raise refusal("is handed nothing: no command line, initrd or module", "entries")
    elif protocol in LINUX:
        if request.modules:
            raise refusal("takes an initrd, and no modules", "modules")
    elif protocol is not Protocol.PVH and request.initrd is not None:
        raise refusal("takes modules, and no initrd", "initrd")
    for module in request.modules:
        if not len(module.data):
            raise PlanError("the module is empty", source=module.source)
    if request.initrd is not None and not len(request.initrd):
        raise PlanError("the initrd is empty", source=request.initrd_source)


# ----------------------------------------------------------------------------------------- Linux


def _linux(new: New, request: Request, room: Room) -> Handed:
    line = encoded(new.image, request.command_line)
    segments = []
    initrd: Extent | None = None
    if request.initrd is not None:
        segments.append(_initrd(new.image, request.initrd, request.initrd_source, room))
        initrd = Extent.sized(segments[0].destination.start, len(request.initrd))
    line_at = room.small(SegmentRole.COMMAND_LINE, len(line))
    params_at = room.small(SegmentRole.BOOT_PARAMS, boot.BOOT_PARAMS_SIZE)
    efi = for_kernel(new.host.efi, new.image)
    size = len(hung(0, new.memory, efi).data)
    list_at = room.small(SegmentRole.SETUP_DATA, size) if size else None
    behind = hung(list_at.start if list_at else 0, new.memory, efi)
    params = boot_params(
        new.image,
        load=new.base,
        command_line=Phys(line_at.start),
        initrd=initrd,
        memory=new.memory,
        rsdp=new.host.rsdp,
        screen=new.host.screen,
        setup_data=behind.first,
        efi_info=efi_info(efi, behind.runtime_map) if efi else b"",
        secure_boot=efi.secure_boot.number if efi else 0,
        source=new.host.source,
    )
    segments += [
        Segment(role=SegmentRole.COMMAND_LINE, destination=line_at, data=line, why="near 4 GiB"),
        Segment(role=SegmentRole.BOOT_PARAMS, destination=params_at, data=params, why="near 4 GiB"),
    ]
    if list_at:
        told = [f"the memory map's rows behind the first {boot.E820_MAX_ENTRIES}"]
        told = told if more(new.memory.regions) else []
        told += ["EFI's runtime services"] if efi else []
        segments.append(
            Segment(
                role=SegmentRole.SETUP_DATA,
                destination=list_at,
                data=behind.data,
                why=" and ".join(told),
            )
        )
    return Handed(segments=tuple(segments), registers={"rsi": params_at.start})


def _initrd(image: Image, data: Buffer, source: str, room: Room) -> Segment:
    place = room.initrd(len(data), source)
    limit = image.initrd_limit
    why = f"below initrd_addr_max {limit:#x}"
    if place.end > limit + 1:
        why = f"above initrd_addr_max {limit:#x}, which the image allows"
    return Segment(role=SegmentRole.INITRD, destination=place, data=data, why=why)


# ------------------------------------------------------------------------------------- all others


def _modules(
    new: New, modules: tuple[Module, ...], room: Room, *, names: bool
) -> tuple[list[Segment], list[PlacedModule]]:
    """Segments of the modules, and what the new kernel is told of them."""
    segments = []
    placed = []
    for number, module in enumerate(modules, 1):
        place = room.initrd(len(module.data), module.source)
        why = f"{module.source}: from the top, below 4 GiB"
        segments.append(
            Segment(
                role=SegmentRole.MODULE,
                number=number,
                destination=place,
                data=module.data,
                why=why,
            )
        )
        text = f"{module.source} {module.arguments}".strip() if names else module.arguments
        placed.append(
            PlacedModule(
                extent=Extent.sized(place.start, len(module.data)),
                string=encoded(
                    new.image, text, f"module {number}", name=module.source if names else ""
                ),
            )
        )
    return segments, placed


def _multiboot(new: New, protocol: Protocol, request: Request, room: Room) -> Handed:
    file = new.image.source.rpartition("/")[2].split(maxsplit=1)[0]
    line = encoded(new.image, f"{file} {request.command_line}".strip(), name=file)
    segments, placed = _modules(new, request.modules, room, names=True)
    if protocol is Protocol.MULTIBOOT:
        magic, role = multiboot_abi.LOADED_BY_1, SegmentRole.MULTIBOOT
        size = len(multiboot.information(0, command_line=line, modules=placed, memory=new.memory))
        at = room.low(role, size)
        data = multiboot.information(at.start, command_line=line, modules=placed, memory=new.memory)
    else:
        magic, role = multiboot_abi.LOADED_BY_2, SegmentRole.MULTIBOOT2
        data = multiboot.tags(new.base, command_line=line, modules=placed, memory=new.memory)
        at = room.low(role, len(data))
    # Where kexec-tools has it (kexec-multiboot-x86.c), and where GNU Mach can reach it early.
    why = "low: some kernels have little mapped"
    segments.append(Segment(role=role, destination=at, data=data, why=why))
    return Handed(segments=tuple(segments), registers={"rax": magic, "rbx": at.start})


def _pvh(new: New, request: Request, room: Room) -> Handed:
    """Start info and command line lie as low as they can.

    Linux reads them through its first tables, which map 1 GiB in 64 bits
    (arch/x86/kernel/head_64.S, level2_ident_pgt) and little more than the kernel's end in 32
    (head32.c, mk_early_pgtbl_32).
    """
    line = encoded(new.image, request.command_line)
    modules = request.modules
    if request.initrd is not None:
        initrd = Module(data=request.initrd, source=request.initrd_source, arguments="")
        modules = (initrd, *modules)
    segments, placed = _modules(new, modules, room, names=False)
    line_at = room.low(SegmentRole.COMMAND_LINE, len(line))

    def made(at: int) -> bytes:
        return start_info(
            at, command_line=line_at.start, modules=placed, memory=new.memory, rsdp=new.host.rsdp
        )

    info_at = room.low(SegmentRole.START_INFO, len(made(0)))
    info = made(info_at.start)
    why = "low: Linux has little mapped at its PVH entry"
    segments += [
        Segment(role=SegmentRole.COMMAND_LINE, destination=line_at, data=line, why=why),
        Segment(role=SegmentRole.START_INFO, destination=info_at, data=info, why=why),
    ]
    return Handed(segments=tuple(segments), registers={"rbx": info_at.start})


def encoded(image: Image, text: str, what: str = "command line", *, name: str = "") -> bytes:
    """A command line as a kernel reads it, its zero included.  Raises PlanError.

    `name` is what it begins with for a loader's sake: whoever reads the rest does not count it.
    """
    try:
        line = raw(text)
    except UnicodeEncodeError as err:
        raise PlanError("is not UTF-8 text", source=what, offset=err.start) from err
    if b"\0" in line:
        raise PlanError("holds a zero byte", source=what)
    counted = len(line) - min(len(line), len(raw(f"{name} ")) if name else 0)
    if counted > image.cmdline_limit:
        raise PlanError(
            f"{counted} bytes are more than {image.source} takes",
            source=what,
            field="cmdline_size",
            limit=image.cmdline_limit,
        )
    return line + b"\0"
