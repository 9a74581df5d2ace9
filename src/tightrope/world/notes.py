"""What a kernel that has just died left in its crash notes: its registers, and VMCOREINFO.

    crash_note          name "CORE", NT_PRSTATUS      one per CPU: the registers of the call of V
    "vmcoreinfo..."     name "VMCOREINFO", type 0     text, KEY=VALUE a line

    note    | name size | size | type | name, padded to 4 | description, padded to 4 |   (gABI chapter 5)

Sources, as of Linux 6.1: crash_save_cpu and crash_save_vmcoreinfo_init in kernel/crash_core.c and
kernel/kexec_core.c; arch_crash_save_vmcoreinfo in arch/x86/kernel/crash_core_{32,64}.c; struct
elf_prstatus in include/linux/elfcore.h; user_regs_struct in arch/x86/include/asm/user_{32,64}.h.

Rules: a note whose `what` begins with "vmcoreinfo" is that, every other one is a CPU's.  Only the
CPU that panicked is described by a host: the first note has its registers, the others have zeros.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from tightrope.errors import HostError
from tightrope.memory import PAGE_SIZE, Extent, Phys
from tightrope.model import Host, Paging, Piece, PieceRole, Registers
from tightrope.model.modes import MODES

NT_PRSTATUS = 1
VMCOREINFO = "vmcoreinfo"
RELEASE = "6.1.0"
START_KERNEL_MAP = 0xFFFF_FFFF_8000_0000
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
        if named.what.lower().startswith(VMCOREINFO):
            data = note("VMCOREINFO", 0, as_text(vmcoreinfo(host, pgd)))
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


def vmcoreinfo(host: Host, pgd: Phys) -> Mapping[str, str]:
    """The lines that say where the tables are, and in which format.

    SYMBOL() and KERNELOFFSET are bare hexadecimal, NUMBER() is decimal.  The symbol of the pgd is
    its address in the direct map: a host has its tables in `private`, not in the kernel's image.
    """
    lines = {
        "OSRELEASE": RELEASE,
        "PAGESIZE": str(PAGE_SIZE),
        "SYMBOL(swapper_pg_dir)": f"{host.direct_map.virt + pgd:x}",
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
