"""What a kernel that has just died left in its crash notes: its registers, and VMCOREINFO.

    crash_note          name "CORE", NT_PRSTATUS      one per CPU: the registers of the call of V
    "vmcoreinfo..."     name "VMCOREINFO", type 0     text, KEY=VALUE a line

    note    | name size | size | type | name, padded to 4 | description, padded to 4 |   (gABI chapter 5)

Sources, as of Linux 6.1: crash_save_cpu and crash_save_vmcoreinfo_init in kernel/crash_core.c and
kernel/kexec_core.c; arch_crash_save_vmcoreinfo in arch/x86/kernel/crash_core_{32,64}.c; struct
elf_prstatus in include/linux/elfcore.h; user_regs_struct in arch/x86/include/asm/user_{32,64}.h.

Rules: a note whose `what` begins with "vmcoreinfo" is that, every other one is a CPU's.  Only the
CPU that panicked is described by a host: the first note has its registers, the others have zeros.
Where there is room behind VMCOREINFO, a filter finds what it asks for, see `filtered_by`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from tightrope.errors import HostError
from tightrope.memory import PAGE_SIZE, Extent, Phys, Virt
from tightrope.model import Host, Named, Paging, Piece, PieceRole, Registers
from tightrope.model.modes import MODES
from tightrope.world import filtered_by
from tightrope.world.filtered_by import RELEASE

NT_PRSTATUS = 1
VMCOREINFO = "vmcoreinfo"
START_KERNEL_MAP = 0xFFFF_FFFF_8000_0000
IMAGE_END = START_KERNEL_MAP + (1 << 30)
"""KERNEL_IMAGE_SIZE with CONFIG_RANDOMIZE_BASE; modules follow (asm/page_64_types.h)."""
PHYSICAL_START = 0x100_0000
"""CONFIG_PHYSICAL_START: KASLR's offset is counted from START_KERNEL_MAP and this."""
REGISTERS_AT = {64: 112, 32: 72}
"""Offset of pr_reg in struct elf_prstatus, by bits of the kernel."""
PRSTATUS_SIZE = {64: 336, 32: 144}
_ORDER = {
    64: "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi - rip cs flags rsp ss - - ds es fs gs",
    32: "rbx rcx rdx rsi rdi rbp rax ds es fs gs - rip cs flags rsp ss",
}
"""user_regs_struct; `-` is a word that a host does not describe (orig_ax, fs_base, gs_base)."""


def pieces(host: Host, pgd: Phys, registers: Registers) -> Iterator[Piece]:
    """The host's crash notes as bytes, page by page.  Raises HostError for one that has no room.

    `pgd` is where the current pgd lies, `registers` are those of the CPU that panicked.
    """
    cpu: Registers | None = registers
    for number, named in enumerate(host.crash_notes):
        if _is_vmcoreinfo(named):
            lines = vmcoreinfo(host, pgd)
            told = filtered_by.lines(host, pgd_in_image(host, pgd), named.extent)
            data = note("VMCOREINFO", 0, as_text({**lines, **told}))
            if told and len(data) + 12 <= named.extent.size - filtered_by.SIZE:
                data = data.ljust(named.extent.size - filtered_by.SIZE, b"\0")
                data += filtered_by.data(host)
                yield from laid(host, number, data, ended=False)
                continue
            data = note("VMCOREINFO", 0, as_text(lines))
        else:
            data, cpu = note("CORE", NT_PRSTATUS, prstatus(host, cpu)), None
        yield from laid(host, number, data)


def laid(host: Host, number: int, data: bytes, *, ended: bool = True) -> Iterator[Piece]:
    """Notes in their place, the host's crash note `number`, page by page.  Raises HostError.

    `ended`: with Linux's final_note(), a header of zeros; Xen's ranges have no room for one.
    """
    named = host.crash_notes[number]
    data += bytes(12 if ended else 0)
    if len(data) > named.extent.size:
        raise HostError(
            f"{named.what} needs {len(data):#x} bytes",
            source=host.source,
            field=f"crash_note[{number}].size",
            limit=named.extent.size,
        )
    data = data.ljust(named.extent.size, b"\0")
    for frame in named.extent.pages:
        page = Extent.sized(frame * PAGE_SIZE, PAGE_SIZE)
        start = max(page.start, named.extent.start)
        end = min(page.end, named.extent.end)
        yield Piece(
            phys=Phys(start),
            data=data[start - named.extent.start : end - named.extent.start],
            role=PieceRole.NOTE,
            which=named.what,
        )


def pgd_in_image(host: Host, pgd: Phys) -> Virt | None:
    """Where the pgd is mapped beside the text, as a 64-bit kernel's is, which is in its image.

    Readers subtract this address from the text's (makedumpfile, libkdumpfile, drgn 0.3.0).  None
    where `private` is too far from the text, and where no VMCOREINFO names it.
    """
    if not host.paging.long_mode or not any(_is_vmcoreinfo(each) for each in host.crash_notes):
        return None
    virt = host.text.virt + pgd - host.text.phys
    return Virt(virt) if START_KERNEL_MAP <= virt < IMAGE_END else None


def _is_vmcoreinfo(named: Named) -> bool:
    return named.what.lower().startswith(VMCOREINFO)


def vmcoreinfo(host: Host, pgd: Phys) -> Mapping[str, str]:
    """The lines that say where the tables are, and in which format.

    SYMBOL() and KERNELOFFSET are bare hexadecimal, NUMBER() is decimal.
    """
    image = pgd_in_image(host, pgd)
    lines = {
        "OSRELEASE": RELEASE,
        "PAGESIZE": str(PAGE_SIZE),
        "SYMBOL(swapper_pg_dir)": f"{host.direct_map.virt + pgd if image is None else image:x}",
        "SYMBOL(_stext)": f"{host.text.virt:x}",
    }
    if host.paging.long_mode:
        phys_base = host.text.phys - (host.text.virt - START_KERNEL_MAP)
        offset = host.text.virt - START_KERNEL_MAP - PHYSICAL_START
        lines["NUMBER(phys_base)"] = str(phys_base)
        lines["NUMBER(pgtable_l5_enabled)"] = str(int(MODES[host.paging].levels == 5))
        lines["KERNELOFFSET"] = f"{offset & (1 << 64) - 1:x}"
    elif host.paging is Paging.PAE:
        lines["CONFIG_X86_PAE"] = "y"
    return lines


def as_text(lines: Mapping[str, str]) -> bytes:
    """`KEY=VALUE` a line."""
    return "".join(f"{key}={value}\n" for key, value in lines.items()).encode()


def note(name: str, kind: int, description: bytes) -> bytes:
    """One ELF note."""
    label = name.encode() + b"\0"
    head = struct.pack("<III", len(label), len(description), kind)
    return head + b"".join(each + bytes(-len(each) % 4) for each in (label, description))


def prstatus(host: Host, registers: Registers | None) -> bytes:
    """struct elf_prstatus: pr_reg is filled in, the rest is zero."""
    bits = 64 if MODES[host.paging].efer_on else 32
    out = bytearray(PRSTATUS_SIZE[bits])
    if registers is not None:
        known = {
            **registers.general,
            **registers.segments,
            "rip": registers.rip,
            "flags": registers.rflags,
            "-": 0,
        }
        words = [known[name] for name in _ORDER[bits].split()]
        struct.pack_into(
            f"<{len(words)}{'Q' if bits == 64 else 'I'}", out, REGISTERS_AT[bits], *words
        )
    return bytes(out)
