"""Kernels that no x86 CPU runs, and programs that only EFI starts: named for what they are.

    where in the file    what is there           what it is                      source
    0x24                 0x016f2818              an arm zImage                   arch/arm/boot/compressed/head.S
    0x38                 "ARM", 0x64             an arm64 Image                  Documentation/arch/arm64/booting.rst
    0x38                 "RSC", 5                a riscv Image                   Documentation/arch/riscv/boot-image-header.rst
    0x04                 "zimg"                  a kernel packed for EFI         drivers/firmware/efi/libstub/zboot-header.S
    COFF header          Machine                 a PE file for a CPU             Microsoft "PE Format", Machine Types
    section table        .kernel                 Xen with its dom0 in one file   Xen docs/misc/efi.pandoc

Rules: nothing is read but what gives the name; who calls this has found that nothing here can be
loaded.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType

from tightrope.image.certificates import pe_header

_HEADERS = (
    (0x24, b"\x18\x28\x6f\x01", "an arm kernel (zImage)"),
    (0x38, b"ARM\x64", "an arm64 kernel (Image)"),
    (0x38, b"RSC\x05", "a riscv kernel (Image)"),
    (0x30, b"RISCV\0\0\0", "a riscv kernel (Image)"),
    (0, b"\x27\x05\x19\x56", "a U-Boot image (uImage)"),
    (0, b"\xd0\x0d\xfe\xed", "a device tree, or a U-Boot FIT image"),
)
_ZBOOT, _ZBOOT_AT = b"zimg", 4
_ZBOOT_COMPRESSION = slice(0x18, 0x38)
_MACHINE_AT = 4
"""Of Machine in the COFF header, from the letters "PE"."""
_X86 = frozenset({0x14C, 0x8664})
_MACHINES: Mapping[int, str] = MappingProxyType(
    {
        0x1C0: "arm",
        0x1C2: "arm",
        0x1C4: "arm",
        0x5032: "riscv32",
        0x5064: "riscv64",
        0x6232: "loongarch32",
        0x6264: "loongarch64",
        0xAA64: "arm64",
    }
)
_XEN = re.compile(rb"Xen version %d\.%d")
"""How Xen's own banner begins."""
XEN_KERNEL = ".kernel"
"""The section with dom0's kernel."""


def foreign(data: memoryview, sections: Collection[str] = ()) -> str | None:
    """What the bytes are, a noun phrase with its reason; None when they are none of these.

    `sections` are the names of a PE file's.
    """
    pe = pe_header(data)
    machine = None
    if pe is not None:
        number = int.from_bytes(data[pe + _MACHINE_AT : pe + _MACHINE_AT + 2], "little")
        machine = None if number in _X86 else _MACHINES.get(number)
    if bytes(data[_ZBOOT_AT : _ZBOOT_AT + len(_ZBOOT)]) == _ZBOOT:
        packed = bytes(data[_ZBOOT_COMPRESSION]).partition(b"\0")[0].decode("ascii", "replace")
        of = machine or "another architecture"
        return f"a kernel for {of}, packed for EFI (zboot, {packed}), and this is x86"
    for at, magic, what in _HEADERS:
        if bytes(data[at : at + len(magic)]) == magic:
            return f"{what}, and this is x86"
    if machine is not None:
        return f"an EFI program for {machine}, and this is x86"
    if pe is not None and (XEN_KERNEL in sections or _XEN.search(data)):
        whole = XEN_KERNEL in sections
        what = "Xen with its dom0 in one file (unified xen.efi)" if whole else "Xen (xen.efi)"
        return f"{what}: only EFI starts it; kexec takes the ELF file, xen.gz, and dom0 as a module"
    return None
