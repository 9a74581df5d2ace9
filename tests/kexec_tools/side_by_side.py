"""A plan of ours and a call of kexec-tools for the same kernel, laid side by side.

    name                       ours                      theirs
    kernel: bytes              digest                    digest
    boot_params: cmd_line_ptr  what it points to         what it points to
    ...

Rules: both sides are read the same way, from bytes: boot_params by zero-page.rst's offsets, written
here once more; whatever holds an address is compared by what lies there, and where that is separately.
Nothing here judges: a comparison is a name and two values as text.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.kexec_tools.watched import Call, Loaded, Watched
from tightrope.model import Plan

Side = Mapping[str, str]

# Documentation/arch/x86/zero-page.rst, boot.rst: name -> (offset, bytes).  What lies between is "rest".
ZERO_PAGE = {
    "screen_info": (0x000, 0x40), "apm_bios_info": (0x040, 0x14), "tboot_addr": (0x058, 8),
    "ist_info": (0x060, 0x10), "acpi_rsdp_addr": (0x070, 8), "hd0_info": (0x080, 0x10),
    "hd1_info": (0x090, 0x10), "sys_desc_table": (0x0A0, 0x10), "olpc_ofw_header": (0x0B0, 0x10),
    "ext_ramdisk_image": (0x0C0, 4), "ext_ramdisk_size": (0x0C4, 4), "ext_cmd_line_ptr": (0x0C8, 4),
    "cc_blob_address": (0x13C, 4), "edid_info": (0x140, 0x80), "efi_info": (0x1C0, 0x20),
    "alt_mem_k": (0x1E0, 4), "scratch": (0x1E4, 4), "e820_entries": (0x1E8, 1),
    "eddbuf_entries": (0x1E9, 1), "edd_mbr_sig_buf_entries": (0x1EA, 1), "kbd_status": (0x1EB, 1),
    "secure_boot": (0x1EC, 1), "sentinel": (0x1EF, 1), "setup_sects": (0x1F1, 1),
    "root_flags": (0x1F2, 2), "syssize": (0x1F4, 4), "ram_size": (0x1F8, 2), "vid_mode": (0x1FA, 2),
    "root_dev": (0x1FC, 2), "boot_flag": (0x1FE, 2), "jump": (0x200, 2), "header": (0x202, 4),
    "version": (0x206, 2), "realmode_swtch": (0x208, 4), "start_sys_seg": (0x20C, 2),
    "kernel_version": (0x20E, 2), "type_of_loader": (0x210, 1), "loadflags": (0x211, 1),
    "setup_move_size": (0x212, 2), "code32_start": (0x214, 4), "ramdisk_image": (0x218, 4),
    "ramdisk_size": (0x21C, 4), "bootsect_kludge": (0x220, 4), "heap_end_ptr": (0x224, 2),
    "ext_loader_ver": (0x226, 1), "ext_loader_type": (0x227, 1), "cmd_line_ptr": (0x228, 4),
    "initrd_addr_max": (0x22C, 4), "kernel_alignment": (0x230, 4), "relocatable_kernel": (0x234, 1),
    "min_alignment": (0x235, 1), "xloadflags": (0x236, 2), "cmdline_size": (0x238, 4),
    "hardware_subarch": (0x23C, 4), "hardware_subarch_data": (0x240, 8), "payload_offset": (0x248, 4),
    "payload_length": (0x24C, 4), "setup_data": (0x250, 8), "pref_address": (0x258, 8),
    "init_size": (0x260, 4), "handover_offset": (0x264, 4), "kernel_info_offset": (0x268, 4),
    "edd_mbr_sig_buffer": (0x290, 0x40), "e820_table": (0x2D0, 128 * 20), "eddbuf": (0xD00, 0x1EC),
}  # fmt: skip
WIDE = {
    "cmd_line_ptr": "ext_cmd_line_ptr",
    "ramdisk_image": "ext_ramdisk_image",
    "ramdisk_size": "ext_ramdisk_size",
}
"""Low and high half of one value."""
SPECIAL = {"e820_entries", "e820_table", "setup_data", "code32_start", *WIDE, *WIDE.values()}
TYPES = {1: "ram", 2: "reserved", 3: "acpi", 4: "nvs", 5: "unusable", 7: "pmem"}
SETUP_TYPES = {9: "SETUP_RNG_SEED"}
"""Names of setup_data types that were met (bootparam.h)."""


@dataclass(frozen=True)
class Where:
    """The parts of one side: segments by what they are, and boot_params' own address."""

    kernel: Loaded
    initrd: Loaded
    params: int
    segments: tuple[Loaded, ...]

    def read(self, address: int, size: int) -> bytes | None:
        """What would lie there, None outside every segment."""
        for each in self.segments:
            if address in each:
                return each.at(address, size)
        return None

    @property
    def page(self) -> bytes:
        """The 4096 bytes of boot_params."""
        got = self.read(self.params, 4096)
        assert got is not None
        return got

    def field(self, name: str) -> int:
        """One field; the two halves of a wide one together."""
        offset, size = ZERO_PAGE[name]
        value = int.from_bytes(self.page[offset : offset + size], "little")
        return value | (self.field(WIDE[name]) << 32 if name in WIDE else 0)


def ours(plan: Plan) -> Where:
    """The parts of a plan of ours."""
    parts = {
        each.name: Loaded(each.destination.start, each.destination.size, bytes(each.data))
        for each in plan.segments
    }
    return Where(
        kernel=parts["kernel"],
        initrd=parts["initrd"],
        params=plan.boot_params,
        segments=tuple(parts.values()),
    )


def theirs(call: Call, code: bytes, initrd: bytes) -> Where:
    """The parts of a call of kexec-tools: the kernel's and the initrd's segments by their first bytes.

    boot_params is where the purgatory's registers say (see `hands_over`).
    """
    (kernel,) = [each for each in call.segments if each.data[:4096] == code[:4096]]
    (ramdisk,) = [each for each in call.segments if each.data[:4096] == initrd[:4096]]
    _entry, params = hands_over(call, kernel)
    return Where(kernel=kernel, initrd=ramdisk, params=params, segments=call.segments)


def hands_over(call: Call, kernel: Loaded) -> tuple[int, int]:
    """Where the purgatory jumps and what it puts into (r|e)si.

    It keeps them in `struct entry64_regs` (rax rbx rcx rdx rsi rdi rsp rbp r8..r15 rip, 8 bytes each)
    or `struct entry32_regs` (eax ebx ecx edx esi edi esp ebp eip, 4 each); found by the instruction
    pointer, which is an entry of the kernel, where rsi leads to a setup header.
    """
    purgatory = call.holding(call.entry)
    hits = []
    for size, pointer, where in ((8, 16, kernel.start + 0x200), (4, 8, kernel.start)):
        if where >> 8 * size:
            continue
        needle = where.to_bytes(size, "little")
        for match in re.finditer(re.escape(needle), purgatory.data):
            base = match.start() - pointer * size
            if base >= 0 and base % size == 0:
                word = purgatory.data[base + 4 * size : base + 5 * size]
                hits.append((where, int.from_bytes(word, "little")))
    (found,) = [hit for hit in hits if _is_zero_page(call, hit[1])]
    return found


def _is_zero_page(call: Call, address: int) -> bool:
    """Whether a segment has a setup header's magic where one in boot_params would be."""
    return any(each.at(address + 0x202, 4) == b"HdrS" for each in call.segments if address in each)


def _placed(where: Where, address: int) -> str:
    """An address in words: what it leads to, if that can be told."""
    if address == where.kernel.start:
        return "the kernel"
    if address == where.initrd.start:
        return "the initrd"
    return hex(address)


def described(where: Where, entry: int) -> dict[str, str]:
    """Everything about one side that can be compared."""
    kernel, initrd = where.kernel, where.initrd
    line = where.read(where.field("cmd_line_ptr"), 2048) or b"?"
    out = {
        "kernel: bytes": _digest(kernel.data),
        "kernel: address": hex(kernel.start),
        "kernel: room": hex(kernel.size),
        "kernel: a multiple of kernel_alignment": str(
            kernel.start % where.field("kernel_alignment") == 0
        ),
        "initrd: bytes": _digest(initrd.data),
        "initrd: address": hex(initrd.start),
        "initrd: room": hex(initrd.size),
        "command line": line.partition(b"\0")[0].decode(errors="replace"),
        "command line: address": hex(where.field("cmd_line_ptr")),
        "boot_params: address": hex(where.params),
        "entry: from the kernel": hex(entry - kernel.start),
        "segments": str(len(where.segments)),
        "boot_params: ramdisk_image": _placed(where, where.field("ramdisk_image")),
        "boot_params: ramdisk_size": hex(where.field("ramdisk_size")),
        "boot_params: code32_start": _placed(where, where.field("code32_start")),
        "boot_params: setup_data": ", ".join(_setup_data(where)) or "none",
        "e820": ", ".join(f"{a:#x}-{b:#x} {kind}" for a, b, kind in e820(where)),
    }
    named = bytearray(4096)
    for name, (offset, size) in ZERO_PAGE.items():
        named[offset : offset + size] = bytes([1]) * size
        if name not in SPECIAL:
            value = where.page[offset : offset + size]
            small = hex(int.from_bytes(value, "little"))
            out[f"boot_params: {name}"] = small if size <= 8 else value.hex() if any(value) else "0"
    rest = bytes(byte for byte, known in zip(where.page, named, strict=True) if not known)
    out["boot_params: rest"] = rest.hex() if any(rest) else "0"
    return out


def _digest(data: bytes) -> str:
    return f"{len(data):#x} bytes, sha256 {hashlib.sha256(data).hexdigest()[:16]}"


def _setup_data(where: Where) -> Iterator[str]:
    """The chain of struct setup_data {next, type, len, data} (bootparam.h)."""
    at = where.field("setup_data")
    while at:
        node = where.read(at, 16)
        assert node is not None, f"setup_data at {at:#x} is in no segment"
        at, kind, length = struct.unpack("<QII", node)
        yield f"{SETUP_TYPES.get(kind, kind)}, {length} bytes"


def e820(where: Where) -> list[tuple[int, int, str]]:
    """The memory map: start, end, kind, in its order."""
    rows = [
        struct.unpack_from("<QQI", where.page, 0x2D0 + 20 * n)
        for n in range(where.field("e820_entries"))
    ]
    return [(start, start + size, TYPES[kind]) for start, size, kind in rows]


def printed(watched: Watched) -> tuple[int, list[tuple[int, int, int]]]:
    """What `kexec -d` prints of its call: the entry, and (mem, bufsz, memsz) of each segment."""
    text = watched.output
    entry = int(re.findall(r"^entry\s+= (0x[0-9a-f]+)", text, re.MULTILINE)[-1], 16)
    rows: dict[int, dict[str, int]] = {}
    for number, key, value in re.findall(r"^segment\[(\d+)\]\.(\w+)\s+= (0x[0-9a-f]+)", text, re.M):
        rows.setdefault(int(number), {})[key] = int(value, 16)
    return entry, [(row["mem"], row["bufsz"], row["memsz"]) for row in rows.values()]


def differences(one: Side, other: Side) -> dict[str, tuple[str, str]]:
    """name -> (ours, theirs) of all that is not the same; both describe the same names."""
    assert one.keys() == other.keys()
    return {name: (one[name], other[name]) for name in one if one[name] != other[name]}
