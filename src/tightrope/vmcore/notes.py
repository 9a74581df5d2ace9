"""The notes of a core: VMCOREINFO as a dictionary, and the control registers that a hypervisor
left.

    name "CORE"        NT_PRSTATUS, one per CPU: general registers, no control register
    name "VMCOREINFO"  text, `KEY=VALUE` a line (Linux Documentation/admin-guide/kdump/vmcoreinfo.rst)
    name "QEMU"        type 0, one per CPU: struct QEMUCPUState (QEMU target/i386/arch_dump.c)
    name "Xen"         XEN_ELFNOTE_CRASH_REGS, one per CPU: cr0 cr2 cr3 cr4 (xen/elfcore.h)

Rules: standard library alone.  Notes are hints.  One that is cut short ends the reading of its
segment; a hint that is missing is missed by whoever needs it, never here.  Of several VMCOREINFO
the first is believed that names a pgd: each is right about its own kernel, a mixture about none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from tightrope.abi import elf_notes
from tightrope.model.notes import PGD_SYMBOLS, ControlRegisters, Notes

_XEN_CRASH_REGS = 0x1000002
_QEMU_VERSION = 1
_QEMU_CR0 = 8 + 18 * 8 + 10 * 24
"""Offset of cr[0]: version and size, 18 registers, 10 segments of 24 bytes."""


def read_notes(segments: Iterable[memoryview], *, word: int) -> Notes:
    """What the PT_NOTE segments say; `word` is the bytes of an unsigned long of the dead kernel."""
    infos: list[dict[str, str]] = []
    control: list[ControlRegisters] = []
    prstatus: list[bytes] = []
    for segment in segments:
        for name, kind, description in elf_notes.each(segment):
            if name == b"VMCOREINFO":
                if (info := dict(elf_notes.lines(bytes(description)))) not in infos:
                    infos.append(info)
            elif name == b"CORE" and kind == elf_notes.NT_PRSTATUS:
                prstatus.append(bytes(description))
            elif name == b"QEMU" and kind == 0 and len(description) >= _QEMU_CR0 + 5 * 8:
                if int.from_bytes(description[:4], "little") == _QEMU_VERSION:
                    cr = _words(description[_QEMU_CR0:], 8)
                    control.append(ControlRegisters(who="QEMU", cr0=cr[0], cr3=cr[3], cr4=cr[4]))
            elif name == b"Xen" and kind == _XEN_CRASH_REGS and len(description) >= 4 * word:
                cr = _words(description, word)
                control.append(ControlRegisters(who="Xen", cr0=cr[0], cr3=cr[2], cr4=cr[3]))
    infos.sort(key=lambda info: not any(f"SYMBOL({name})" in info for name in PGD_SYMBOLS))
    believed, *others = (MappingProxyType(each) for each in infos or [{}])
    return Notes(
        vmcoreinfo=believed,
        others=tuple(others),
        prstatus=tuple(prstatus),
        control=tuple(control),
    )


def vmcoreinfo_alone(text: bytes) -> Mapping[str, str]:
    """VMCOREINFO's text where it stands without a note around it."""
    return MappingProxyType(dict(elf_notes.lines(text)))


def _words(data: memoryview, size: int) -> list[int]:
    return [int.from_bytes(data[at : at + size], "little") for at in range(0, 5 * size, size)]
