"""The notes of a core: VMCOREINFO as a dictionary, and the control registers that a hypervisor
left.

    name "CORE"        NT_PRSTATUS, one per CPU: general registers, no control register
    name "VMCOREINFO"  text, `KEY=VALUE` a line (Linux Documentation/admin-guide/kdump/vmcoreinfo.rst)
    name "QEMU"        type 0, one per CPU: struct QEMUCPUState (QEMU target/i386/arch_dump.c)
    name "Xen"         XEN_ELFNOTE_CRASH_REGS, one per CPU: cr0 cr2 cr3 cr4 (xen/elfcore.h)

Rules: notes are hints.  One that is cut short ends the reading of its segment; a hint that is
missing is missed by whoever needs it, never here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from tightrope.model.dump import ControlRegisters, Notes

_NT_PRSTATUS = 1
_XEN_CRASH_REGS = 0x1000002
_QEMU_VERSION = 1
_QEMU_CR0 = 8 + 18 * 8 + 10 * 24
"""Offset of cr[0]: version and size, 18 registers, 10 segments of 24 bytes."""


def read_notes(segments: Iterable[memoryview], *, word: int) -> Notes:
    """What the PT_NOTE segments say; `word` is the bytes of an unsigned long of the dead kernel."""
    info: dict[str, str] = {}
    control: list[ControlRegisters] = []
    cpus = 0
    for segment in segments:
        for name, kind, description in _each(segment):
            if name == b"VMCOREINFO":
                info.update(_lines(bytes(description)))
            elif name == b"CORE" and kind == _NT_PRSTATUS:
                cpus += 1
            elif name == b"QEMU" and kind == 0 and len(description) >= _QEMU_CR0 + 5 * 8:
                if int.from_bytes(description[:4], "little") == _QEMU_VERSION:
                    cr = _words(description[_QEMU_CR0:], 8)
                    control.append(ControlRegisters(who="QEMU", cr0=cr[0], cr3=cr[3], cr4=cr[4]))
            elif name == b"Xen" and kind == _XEN_CRASH_REGS and len(description) >= 4 * word:
                cr = _words(description, word)
                control.append(ControlRegisters(who="Xen", cr0=cr[0], cr3=cr[2], cr4=cr[3]))
    return Notes(vmcoreinfo=MappingProxyType(info), cpus=cpus, control=tuple(control))


def vmcoreinfo_alone(text: bytes) -> Mapping[str, str]:
    """VMCOREINFO's text where it stands without a note around it."""
    return MappingProxyType(dict(_lines(text)))


def _each(segment: memoryview) -> Iterator[tuple[bytes, int, memoryview]]:
    """(name without its zero, type, description) of each note; all fields are 4-byte aligned."""
    at = 0
    while at + 12 <= len(segment):
        name_size, size, kind = (
            int.from_bytes(segment[at + n : at + n + 4], "little") for n in (0, 4, 8)
        )
        name = at + 12
        description = name + (name_size + 3 & ~3)
        end = description + size
        if end > len(segment):
            return
        yield (
            bytes(segment[name : name + min(name_size, 64)]).rstrip(b"\0"),
            kind,
            segment[description:end],
        )
        at = description + (size + 3 & ~3)


def _lines(text: bytes) -> Iterator[tuple[str, str]]:
    for line in text.split(b"\0", 1)[0].decode("latin-1").split("\n"):
        key, equals, value = line.partition("=")
        if equals:
            yield key, value


def _words(data: memoryview, size: int) -> list[int]:
    return [int.from_bytes(data[at : at + size], "little") for at in range(0, 5 * size, size)]
