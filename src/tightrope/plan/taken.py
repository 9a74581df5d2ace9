"""Somebody else's places: segments as a loader has put them, told apart by what they hold.

    kernel        the image's own bytes
    boot_params   a setup header where struct boot_params has one, and the image's
    initrd        where boot_params says
    purgatory     what is entered
    core header   an ELF core, at elfcorehdr=
    setup_data    where boot_params' list leads

Source: struct boot_params (Linux Documentation/arch/x86/zero-page.rst),
kexec/arch/i386/kexec-bzImage.c and kexec/arch/x86_64/kexec-bzImage64.c of kexec-tools,
arch/x86/kernel/kexec-bzimage64.c of Linux.

Rules: nothing is placed here and nothing changed.  The entry of the new kernel comes from the image
and from where it lies, never from what the purgatory says of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace

from tightrope.abi import boot, elf
from tightrope.errors import PlanError
from tightrope.memory import Extent, Phys
from tightrope.model import (
    Backup,
    EntryPoint,
    Host,
    Image,
    Loaded,
    Protocol,
    Segment,
    SegmentRole,
)
from tightrope.model.recording import HeldSegment
from tightrope.plan.place import Placed
from tightrope.plan.request import Request

RIP = 128
"""struct entry64_regs: rax rbx rcx rdx rsi rdi rsp rbp, r8 to r15, rip."""
WORD = b"elfcorehdr="
_LONGEST = 4096


def protocol(image: Image, walked: Host, loaded: Loaded) -> Protocol:
    """The entry that the purgatory leads to.

    Raises PlanError where the segments are for another machine, or the image is not among them.
    """
    _judge(walked, loaded)
    if loaded.narrow:
        return Protocol.LINUX_32
    kernel = _kernel(image, loaded)
    entered = next(each for each in loaded.segments if loaded.entry in each.destination)
    wide = next((e for e in image.entries if e.protocol is Protocol.LINUX_64), None)
    if wide is None:
        return Protocol.LINUX_32
    known = loaded.purgatory.code.symbols.get("registers") if loaded.purgatory else None
    if known is not None:
        rip = bytes(entered.data[known + RIP : known + RIP + 8])
        # entry64 leads on to the purgatory's own entry32 where it is told to.
        inside = int.from_bytes(rip, "little") in entered.destination
        return Protocol.LINUX_32 if inside else Protocol.LINUX_64
    where = (kernel.destination.start + wide.offset).to_bytes(8, "little")
    here = loaded.entry == kernel.destination.start + wide.offset
    return Protocol.LINUX_64 if here or where in bytes(entered.data) else Protocol.LINUX_32


def take(image: Image, loaded: Loaded, entry: EntryPoint) -> Placed:
    """The segments with their roles.  Raises PlanError for what cannot be told apart, or has no
    room."""
    kernel = _kernel(image, loaded)
    params = _boot_params(image, loaded, kernel)
    page = bytes(params.data[: boot.BOOT_PARAMS_SIZE]).ljust(boot.BOOT_PARAMS_SIZE, b"\0")
    initrd = _ramdisk(page)
    line = _command_line(loaded, page)
    nodes = boot.field("setup_data").read(page)
    roles: dict[int, tuple[SegmentRole, str]] = {}
    for each in loaded.segments:
        roles[each.destination.start] = _role(each, loaded, kernel, params, initrd, nodes)
    counts: dict[SegmentRole, int] = {}
    segments = []
    for each in loaded.segments:
        role, why = roles[each.destination.start]
        counts[role] = counts.get(role, 0) + 1
        segments.append(
            Segment(
                role=role,
                destination=each.destination,
                data=each.data,
                why=why,
                number=counts[role],
            )
        )
    return Placed(
        segments=tuple(segments),
        entry=Phys(loaded.entry),
        kernel_entry=Phys(kernel.destination.start + entry.offset),
        arguments={"rsi": params.destination.start},
        command_line=line,
        backup=_backup(loaded),
    )


def told(placed: Placed, request: Request) -> Request:
    """The request with what the segments carry, where nobody has said what was given to the
    loader."""
    initrd = next((each for each in placed.segments if each.role is SegmentRole.INITRD), None)
    if request.initrd is None and initrd is not None:
        params = next(each for each in placed.segments if each.role is SegmentRole.BOOT_PARAMS)
        place = _ramdisk(bytes(params.data))
        size = place.size if place else len(initrd.data)
        request = replace(request, initrd=bytes(initrd.data)[:size].ljust(size, b"\0"))
    if not request.command_line:
        request = replace(request, command_line=placed.command_line)
    return request


def _judge(walked: Host, loaded: Loaded) -> None:
    """Raise PlanError for what the old kernel would refuse, or could not reach."""
    if loaded.narrow == walked.paging.long_mode:
        bits = 32 if loaded.narrow else 64
        raise PlanError(
            f"was recorded for a {bits}-bit kernel, and {walked.source} has {walked.paging.value} paging",
            source=loaded.source,
        )
    if not any(loaded.entry in each.destination for each in loaded.segments):
        raise PlanError(
            f"the entry {loaded.entry:#x} is in no segment", source=loaded.source, field="entry"
        )
    region = walked.crash_region
    if loaded.crash and region is None:
        raise PlanError("there is no crash region", source=walked.source, field="crash_region")
    for each in loaded.segments:
        if loaded.crash and region is not None and not region.covers(each.destination):
            raise PlanError(
                f"{each.destination} lies outside the crash region {region}: it was recorded on another"
                " machine",
                source=loaded.source,
                field="segments",
            )
        if not any(ram.covers(each.destination) for ram in walked.memory.ram):
            raise PlanError(
                f"{each.destination} is not all RAM of {walked.source}: this was recorded on another machine",
                source=loaded.source,
                field="segments",
            )


def _kernel(image: Image, loaded: Loaded) -> HeldSegment:
    """The segment that holds the image."""
    if len(image.parts) != 1 or not image.setup_header:
        raise PlanError(
            "is not a bzImage: others are not told apart in segments", source=image.source
        )
    wanted = memoryview(image.parts[0].data)
    for each in loaded.segments:
        data = memoryview(each.data)
        same = data[:64] == wanted[:64] and data[: len(wanted)] == wanted
        if same and not any(data[len(wanted) :]):
            return each
    raise PlanError(f"is in none of the segments of {loaded.source}", source=image.source)


def _boot_params(image: Image, loaded: Loaded, kernel: HeldSegment) -> HeldSegment:
    """The segment that begins with a struct boot_params."""
    found = [
        each
        for each in loaded.segments
        if each is not kernel
        and bytes(each.data[0x202:0x206]) == b"HdrS"
        and _ramdisk(bytes(each.data[: boot.BOOT_PARAMS_SIZE])) != each.destination
    ]
    if len(found) > 1:
        wanted = image.setup_header[0x206 - boot.SETUP_HEADER :][:2]
        found = [each for each in found if bytes(each.data[0x206:0x208]) == wanted][:1]
    if not found:
        raise PlanError("no segment holds a struct boot_params", source=loaded.source)
    return found[0]


def _ramdisk(page: bytes) -> Extent | None:
    """The initrd's very bytes, as boot_params has them."""
    values = [
        boot.field(low).read(page) | boot.field(high).read(page) << 32
        for low, high in (
            ("ramdisk_image", "ext_ramdisk_image"),
            ("ramdisk_size", "ext_ramdisk_size"),
        )
    ]
    return Extent.sized(*values) if values[1] else None


def _command_line(loaded: Loaded, page: bytes) -> str:
    at = boot.field("cmd_line_ptr").read(page) | boot.field("ext_cmd_line_ptr").read(page) << 32
    for each in loaded.segments:
        if at in each.destination:
            text = bytes(each.data[at - each.destination.start :][:_LONGEST])
            return text.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    return ""


def _role(
    each: HeldSegment,
    loaded: Loaded,
    kernel: HeldSegment,
    params: HeldSegment,
    initrd: Extent | None,
    nodes: int,
) -> tuple[SegmentRole, str]:
    """What a segment is for, and how that is known."""
    if each is kernel:
        return SegmentRole.KERNEL, "the image's bytes"
    if each is params:
        return SegmentRole.BOOT_PARAMS, "a setup header, and the command line behind it"
    if loaded.entry in each.destination:
        return SegmentRole.PURGATORY, f"{loaded.by} enters it"
    if initrd is not None and initrd.start in each.destination:
        return SegmentRole.INITRD, "where boot_params says"
    if nodes and nodes in each.destination:
        return SegmentRole.SETUP_DATA, "boot_params' list leads there"
    if bytes(each.data[:4]) == b"\x7fELF" and loaded.crash:
        return SegmentRole.CORE_HEADER, "an ELF core"
    if loaded.crash and not any(bytes(each.data[:4096])):
        return SegmentRole.BACKUP, "zeros, in the crash region"
    return SegmentRole.OTHER, f"placed by {loaded.by}"


def _words(loaded: Loaded, names: tuple[str, ...]) -> Mapping[str, int]:
    """Words of the purgatory, by their names; none where its object is not known."""
    symbols = loaded.purgatory.code.symbols if loaded.purgatory else {}
    entered = next(each for each in loaded.segments if loaded.entry in each.destination)
    data = bytes(entered.data)
    word = struct.Struct("<I" if loaded.narrow else "<Q")
    if not all(name in symbols and symbols[name] + word.size <= len(data) for name in names):
        return dict.fromkeys(names, 0)
    return {name: word.unpack_from(data, symbols[name])[0] for name in names}


def _backup(loaded: Loaded) -> tuple[Backup, ...]:
    """What kexec-tools' purgatory saves of low memory (crashdump_backup_memory())."""
    if not loaded.crash:
        return ()
    words = _words(loaded, ("backup_src_start", "backup_src_size", "backup_start"))
    start, size, copy = words.values()
    if size and copy:
        return (Backup(source=Extent.sized(start, size), copy=Phys(copy)),)
    # Of a purgatory that is not known the core header tells it: a row that is read elsewhere.
    return tuple(
        Backup(source=Extent.sized(row["paddr"], row["filesz"]), copy=Phys(row["offset"]))
        for each in loaded.segments
        for row in core_rows(bytes(each.data))
        if row["type"] == elf.PT_LOAD and row["offset"] != row["paddr"] and row["filesz"]
    )


def core_rows(data: bytes) -> Iterator[dict[str, int]]:
    """The program headers of an ELF core; none of anything else."""
    bits = 64 if data[4:5] == b"\2" else 32
    layout, row = elf.HEADER[bits], elf.PROGRAM_HEADER[bits]
    if data[:4] != b"\x7fELF" or len(data) < layout.size:
        return
    header = layout.unpack(data)
    if header["type"] != elf.ET_CORE:
        return
    for number in range(header["phnum"]):
        at = header["phoff"] + number * row.size
        if at + row.size <= len(data):
            yield row.unpack(data, at)
