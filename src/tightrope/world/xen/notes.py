"""What a hypervisor that has just died left in its crash notes: its registers, Xen's own,
VMCOREINFO.

    crash_note          "CORE"  NT_PRSTATUS     the registers at the jump
                        "Xen"   CRASH_REGS      cr0, cr2, cr3, cr4
                        "Xen"   CRASH_INFO      version, where Xen lies: by the CPU that crashed alone
    "vmcoreinfo..."     "VMCOREINFO_XEN"        text, KEY=VALUE a line

Sources: machine_crash_save_cpu, machine_crash_save_info and crash_save_vmcoreinfo in
xen/common/kexec.c; crash_xen_core_t and crash_xen_info_t in asm-x86/elf.h and xen/elfcore.h.

Rules: as `notes`.  The words of CRASH_INFO that point to Xen's strings, and dom0's list of its p2m,
are 0: a host does not describe them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from tightrope.abi import xen as abi
from tightrope.memory import PAGE_SIZE, Phys
from tightrope.model import Host, Paging, Piece, Registers, Xen
from tightrope.model.modes import MODES
from tightrope.world import notes

ROOT_SYMBOL = {Paging.I386: "pgd_l2", Paging.PAE: "pgd_l3", Paging.X86_64: "pgd_l4"}
"""The alias of idle_pg_table (arch_crash_save_vmcoreinfo); the one of i386 is ours, it never had
any."""


def pieces(host: Host, xen: Xen, idle: Phys, registers: Registers) -> Iterator[Piece]:
    """The hypervisor's crash notes as bytes, page by page.  Raises HostError for one without room.

    `idle` is the root of its own tables, `registers` are those of the CPU that jumps.
    """
    cpu: Registers | None = registers
    for number, named in enumerate(host.crash_notes):
        if named.what.lower().startswith(notes.VMCOREINFO):
            text = notes.as_text(vmcoreinfo(host, idle))
            data = notes.note(abi.VMCOREINFO_OWNER, 0, text)
        else:
            data, cpu = _cpu(host, xen, cpu), None
        # Xen 4.17 says 500 bytes for CPU 0 and means them: no note of zeros behind them.
        yield from notes.laid(host, number, data, ended=False)


def vmcoreinfo(host: Host, idle: Phys) -> Mapping[str, str]:
    """The lines that say where the hypervisor's own tables are."""
    return {
        "PAGESIZE": str(PAGE_SIZE),
        f"SYMBOL({ROOT_SYMBOL[host.paging]})": f"{host.direct_map.virt + idle:x}",
    }


def _cpu(host: Host, xen: Xen, registers: Registers | None) -> bytes:
    word = "Q" if MODES[host.paging].efer_on else "I"
    controls = (
        [registers.cr0, registers.cr2, registers.cr3, registers.cr4] if registers else [0] * 4
    )
    out = notes.note("CORE", notes.NT_PRSTATUS, notes.prstatus(host, registers))
    out += notes.note(abi.NOTE_OWNER, abi.CRASH_REGS, struct.pack(f"<4{word}", *controls))
    if registers is not None:
        known = dict.fromkeys(abi.CRASH_INFO_WORDS, 0) | {
            "xen_major_version": xen.version[0],
            "xen_minor_version": xen.version[1],
            "xen_phys_start": int(host.text.phys),
        }
        words = struct.pack(f"<{len(known)}{word}", *known.values())
        out += notes.note(abi.NOTE_OWNER, abi.CRASH_INFO, words)
    return out
