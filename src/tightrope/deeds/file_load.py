"""kexec_file_load as an old kernel would do it: its purgatory, cut out of its image, and its
placement.

    vmlinux --kallsyms--> kexec_purgatory, an object --laid--> with registers, regions and digest filled in

Rules: a deed; where things go is `plan.file_load`'s, what the words of a purgatory are called is
`participants.purgatory`'s.  What is not known for certain (an image without symbols, a release
that was not read) is an ImageError.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import replace

from tightrope.errors import ImageError
from tightrope.image import vmlinux
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Buffer, Habits, Host, Image, Loaded, Loader
from tightrope.model.recording import HeldSegment
from tightrope.model.vmlinux import Vmlinux
from tightrope.participants import purgatory
from tightrope.participants.purgatory import Relocatable
from tightrope.plan.file_load import Headers, file_load

RNG_SEED, EFI = 9, 4
HABITS = Habits(
    fields={
        "screen_info": None, "alt_mem_k": None, "acpi_rsdp_addr": None, "efi_info": None,
        "eddbuf_entries": None, "edd_mbr_sig_buf_entries": None, "edd_mbr_sig_buffer": None, "eddbuf": None,
        "loadflags": frozenset({0}), "hardware_subarch": None,
    },
    setup_data=frozenset({RNG_SEED, EFI}),
)  # fmt: skip
"""setup_boot_parameters() in arch/x86/kernel/kexec-bzimage64.c."""
CRASH_HABITS = replace(HABITS, first_ram=PAGE_SIZE)
"""Of a crash load the low memory is what /proc/iomem has of it: without page 0."""
HOTPLUG = "arch_crash_handle_hotplug_event"
"""A function that is there with CONFIG_CRASH_HOTPLUG (6.6 and later)."""
CPUS = "__per_cpu_offset"
"""An array with a long for each of CONFIG_NR_CPUS."""
OLDEST, NEWEST = (6, 1), (7, 3)
"""What was read and measured; between them only the order of ranges changed."""
RSP, RSI, RIP = 4 * 8, 6 * 8, 16 * 8
"""Offsets in struct kexec_entry64_regs: rax rcx rdx rbx rsp rbp rsi rdi r8 to r15 rip
(asm/kexec.h)."""
_RELEASE = re.compile(r"(\d+)\.(\d+)")
_MOST = 1 << 20


def load(
    old: Buffer,
    source: str,
    image: Image,
    initrd: Buffer | None,
    line: str,
    host: Host,
    *,
    crash: bool = False,
) -> Loaded:
    """What kexec_file_load of the kernel in `old` would load.  Raises ImageError, PlanError,
    MissingPart."""
    kernel = vmlinux.read(old, source)
    program = purgatory.read(_object(kernel), f"{source}: kexec_purgatory")
    version = (kernel.version or "").split(" ", 1)[0]

    def laid(
        where: Extent, params: int, entry: int, others: Sequence[HeldSegment]
    ) -> tuple[bytes, int]:
        data = filled(program, where, params, entry, others)
        return data, where.start + program.entry

    placed = file_load(
        image,
        host,
        release=_release(kernel),
        initrd=initrd,
        command_line=line,
        size=program.size,
        purgatory=laid,
        headers=_headers(kernel) if crash else None,
    )
    first = next(each for each in placed.segments if placed.entry in each.destination)
    by = f"kexec_file_load of Linux {version}"
    return Loaded(
        loader=Loader.FILE_LOAD,
        by=by,
        source=source,
        segments=placed.segments,
        entry=placed.entry,
        crash=crash,
        narrow=False,
        purgatory=purgatory.found(first.destination, first.data, [program], f"Linux {version}"),
        habits=CRASH_HABITS if crash else HABITS,
    )


def _headers(kernel: Vmlinux) -> Headers:
    """How this kernel keeps a core header (crash_load_segments() in arch/x86/kernel/crash.c)."""
    symbols = kernel.symbols
    if symbols is None or symbols.address(HOTPLUG) is None:
        return Headers()
    return Headers(cpus=(symbols.room(CPUS) or 0) // 8)


def _object(kernel: Vmlinux) -> bytes:
    """The kernel's purgatory as its image has it (kexec_purgatory, kexec_purgatory_size)."""
    word = kernel.bits // 8
    symbols = kernel.symbols
    places = [
        None if symbols is None else symbols.address(name)
        for name in ("kexec_purgatory", "kexec_purgatory_size")
    ]
    at, size_at = places
    if at is None or size_at is None:
        raise ImageError(
            "has no kexec_purgatory: built without CONFIG_KEXEC_FILE, or without symbols"
            if kernel.bits == 64
            else "is a 32-bit kernel: kexec_file_load is x86_64's",
            source=kernel.source,
        )
    size = int.from_bytes(kernel.at(size_at, word), "little")
    if size > _MOST:
        raise ImageError(
            f"its purgatory has {size:#x} bytes",
            source=kernel.source,
            field="kexec_purgatory_size",
            limit=_MOST,
        )
    return kernel.at(at, size)


def _release(kernel: Vmlinux) -> tuple[int, int]:
    """Major and minor.  Raises ImageError where that release's placement is not known."""
    found = _RELEASE.match(kernel.version or "")
    release = (int(found[1]), int(found[2])) if found else (0, 0)
    if not OLDEST <= release <= NEWEST:
        raise ImageError(
            f"is Linux {kernel.version or 'of an unknown version'}, and how its kexec_file_load places is not"
            f" known: {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]} are",
            source=kernel.source,
        )
    return release


def filled(
    program: Relocatable,
    where: Extent,
    params: int,
    entry: int,
    others: Sequence[HeldSegment],
) -> bytes:
    """The purgatory's bytes with the registers of the entry, the list of segments, and their
    digest."""
    data = bytearray(program.laid(where.start))
    symbols = program.symbols
    registers = symbols["entry64_regs"]
    for offset, value in (
        (RSP, where.start + symbols["stack_end"]),
        (RSI, params),
        (RIP, entry),
    ):
        struct.pack_into("<Q", data, registers + offset, value)
    digest = hashlib.sha256()
    rows = b""
    for each in others:
        size = each.destination.size
        rows += struct.pack("<QQ", each.destination.start, size)
        digest.update(each.data)
        digest.update(bytes(size - len(each.data)))
    at = symbols["purgatory_sha_regions"]
    data[at : at + len(rows)] = rows
    at = symbols["purgatory_sha256_digest"]
    data[at : at + 32] = digest.digest()
    return bytes(data)
