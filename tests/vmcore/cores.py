"""Makers of memory cores: ELF files byte by byte, and crashed kernels whose tables lie in them.

Nothing here is taken from `tightrope.vmcore`; tables come from the builder in `tightrope.x86`.

    memory of a crashed kernel, 16 MiB from BASE (physical)

      BASE               text, 4 MiB: mapped with the kernel's own large pages
      BASE + 0x10000     the pgd, inside the text as Linux has it
      BASE + 4 MiB       the other tables
      BASE + 8 MiB       plain memory, mapped by the direct map as all the rest is
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tightrope.memory import Extent
from tightrope.x86.paging import FORMATS, Format, Rights
from tightrope.x86.tables import TableStore

MIB = 1 << 20
BASE = 0x100_0000
SIZE = 16 * MIB
PGD = BASE + 0x1_0000
DEVICE = 0xFEE0_0000
EM = {32: 3, 64: 62}


# ------------------------------------------------------------------------------------- the ELF file


@dataclass(frozen=True)
class Load:
    """One PT_LOAD: `left_out` bytes are in p_memsz and not in the file."""

    phys: int
    data: bytes | bytearray
    virt: int = 0
    left_out: int = 0


def elf_core(
    loads: Iterable[Load],
    notes: bytes = b"",
    *,
    bits: int = 64,
    machine: int | None = None,
    many: bool = False,
    skew: int = 0,
) -> bytes:
    """A core file.  `many` puts the header count into section 0; `skew` misaligns the memory."""
    loads = list(loads)
    header, entry = (52, 32) if bits == 32 else (64, 56)
    count = 1 + len(loads)
    section = (40 if bits == 32 else 64) if many else 0
    at = header + entry * count + section
    segments = [struct_program(bits, 4, at, 0, 0, len(notes), len(notes))]
    # Many MiB, thousands of times: they are copied once.
    body: list[bytes | bytearray] = [notes]
    end = at + len(notes)
    for load in loads:
        gap = -end % 4096 + skew
        size = len(load.data)
        segments.append(
            struct_program(bits, 1, end + gap, load.virt, load.phys, size, size + load.left_out)
        )
        body += [bytes(gap), load.data]
        end += gap + size
    word = "I" if bits == 32 else "Q"
    shoff = header + entry * count if many else 0
    head = struct.pack(
        f"<16sHHI{word * 3}IHHHHHH",
        b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9),
        4,
        EM[bits] if machine is None else machine,
        1,
        0,
        header,
        shoff,
        0,
        header,
        entry,
        0xFFFF if many else count,
        section,
        1 if many else 0,
        0,
    )
    info = 28 if bits == 32 else 44
    zero = bytes(info) + struct.pack("<I", count) + bytes(section - info - 4) if many else b""
    return b"".join((head, *segments, zero, *body))


def struct_program(
    bits: int, kind: int, offset: int, virt: int, phys: int, filesz: int, memsz: int
) -> bytes:
    """One program header."""
    if bits == 32:
        return struct.pack("<8I", kind, offset, virt, phys, filesz, memsz, 7, 0)
    return struct.pack("<IIQQQQQQ", kind, 7, offset, virt, phys, filesz, memsz, 0)


def note(name: str, kind: int, description: bytes) -> bytes:
    """One note, padded to four bytes as Linux writes it."""
    label = name.encode() + b"\0"
    head = struct.pack("<III", len(label), len(description), kind)
    return head + label + bytes(-len(label) % 4) + description + bytes(-len(description) % 4)


def prstatus() -> bytes:
    """NT_PRSTATUS of one x86_64 CPU: 336 bytes."""
    return note("CORE", 1, bytes(336))


def vmcoreinfo(values: Mapping[str, str]) -> bytes:
    """The VMCOREINFO note."""
    return note("VMCOREINFO", 0, "".join(f"{k}={v}\n" for k, v in values.items()).encode())


def qemu(*, cr3: int, cr4: int, cr0: int = 0x8005_0033) -> bytes:
    """QEMU's note of one CPU."""
    general = struct.pack("<18Q", *range(18))
    segments = struct.pack("<IIIIQ", 8, 0xFFFF, 0, 0, 0) * 10
    control = struct.pack("<5Q", cr0, 0, 0xDEAD, cr3, cr4)
    state = general + segments + control + bytes(8)
    return note("QEMU", 0, struct.pack("<II", 1, 8 + len(state)) + state)


def xen(*, cr3: int, cr4: int) -> bytes:
    """Xen's XEN_ELFNOTE_CRASH_REGS of one CPU."""
    return note("Xen", 0x1000002, struct.pack("<4Q", 0x8005_0033, 0xDEAD, cr3, cr4))


# --------------------------------------------------------------------------------- crashed kernels


@dataclass
class Crashed:
    """A dead kernel's memory in one piece, its tables in it, and how its notes describe it."""

    mode: str
    memory: bytearray = field(default_factory=lambda: bytearray(SIZE))
    info: dict[str, str] = field(default_factory=dict)
    tables: tuple[int, ...] = ()

    def word(self, at: int, size: int) -> int | None:
        """What `x86.walk` reads with."""
        if not BASE <= at <= BASE + len(self.memory) - size:
            return None
        return int.from_bytes(self.memory[at - BASE : at - BASE + size], "little")

    def page(self, frame: int) -> bytes | None:
        """What `x86.survey` reads with."""
        at = frame - BASE
        return bytes(self.memory[at : at + 4096]) if 0 <= at < len(self.memory) else None

    def put(self, at: int, value: int, size: int) -> None:
        """Write one word of physical memory."""
        self.memory[at - BASE : at - BASE + size] = value.to_bytes(size, "little")

    @property
    def bits(self) -> int:
        """The kernel's word, and its core's class."""
        return 64 if self.mode in ("x86_64", "la57") else 32

    def core(self, *, notes: bytes | None = None, skew: int = 0) -> bytes:
        """The core file, as kdump writes it unless `notes` say otherwise."""
        if notes is None:
            notes = prstatus() + prstatus() + vmcoreinfo(self.info)
        return elf_core([Load(BASE, self.memory)], notes, bits=self.bits, skew=skew)


def frames(first: int) -> Iterator[int]:
    """The pgd inside the text, every other table from `first` on."""
    yield PGD
    while True:
        yield first
        first += 4096


def crashed(mode: str, *, text_virt: int | None = None) -> Crashed:
    """A kernel that died with whole tables: text, direct map, one device page."""
    fmt = FORMATS[mode]
    out = Crashed(mode)
    store = TableStore(fmt, frames(BASE + 4 * MIB).__next__)
    memory = Extent.sized(BASE, SIZE)
    out.info["OSRELEASE"] = "6.1.0-56-amd64"
    if out.bits == 64:
        virt = text_virt or 0xFFFF_FFFF_8100_0000
        direct = 0xFFFF_8880_0000_0000 if mode == "x86_64" else 0xFF11_0000_0000_0000
        device = direct + (1 << 40)
        store.map_extent(
            virt,
            Extent.sized(BASE, 4 * MIB),
            Rights(writable=False, is_global=True),
            page_sizes=(2 * MIB, 4096),
        )
        out.info["NUMBER(phys_base)"] = str(BASE - (virt - 0xFFFF_FFFF_8000_0000))
        out.info["NUMBER(pgtable_l5_enabled)"] = str(int(mode == "la57"))
        out.info["SYMBOL(_stext)"] = f"{virt:x}"
    else:
        direct, device = 0xC000_0000, 0xFFFB_0000
        virt = direct + BASE
        if mode == "pae":
            out.info["CONFIG_X86_PAE"] = "y"
    out.info["SYMBOL(swapper_pg_dir)"] = f"{virt + PGD - BASE:x}"
    large = fmt.page_sizes(gbpages=False)
    # A ragged direct map: small pages first, large ones where they fit.
    store.map_extent(
        direct + BASE,
        Extent(BASE, BASE + 4 * MIB),
        Rights(executable=not fmt.has_nx),
        page_sizes=(4096,),
    )
    store.map_extent(
        direct + BASE + 4 * MIB,
        Extent(BASE + 4 * MIB, memory.end),
        Rights(executable=not fmt.has_nx),
        page_sizes=large,
    )
    store.map_extent(device, Extent.sized(DEVICE, 4096), Rights(), page_sizes=(4096,))
    for frame, page in store.pages().items():
        out.memory[frame - BASE : frame - BASE + 4096] = page
    out.tables = tuple(store.pages())
    return out


def format_of(mode: str) -> Format:
    """The builder's format."""
    return FORMATS[mode]
