"""What CPUID says to a new kernel: what the emulated CPU has, without what it cannot execute.

Kexec hands over CR4.OSFXSR = 0, and so a decompressor runs.  Unicorn 2.1.4 then takes every
instruction of the maps 0F 38 and 0F 3A with the prefix 66 for one of SSE and raises #UD, also where
no XMM register is in it (QEMU 5.0, target/i386/translate.c, gen_sse()).  Of what its CPUID promises
these are

    SHLX             BMI2     Linux's zstd takes it where BMI1 and BMI2 are promised
    ADCX             ADX
    MOVBE, 16 bits   MOVBE
    CRC32, 16 bits   SSE4.2   not withdrawn: it promises far more, and what is 8, 32 or 64 bits wide runs

Rules: bits are withdrawn, never added.  All other leaves are the emulated CPU's own.
"""

from __future__ import annotations

from functools import cache

from tightrope.machine.unicorn.engine import Engine
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.observe.physical import Ram

LACKING = ("shlx", "adcx", "movbe", "crc32")
"""How the text of these instructions begins."""
_CODE = 0x1000
_BMI2, _ADX, _MOVBE = 1 << 8, 1 << 19, 1 << 22
_NOTHING = (0, 0, 0, 0)
_WITHDRAWN = {1: (0, 0, _MOVBE, 0), 7: (0, _BMI2 | _ADX, 0, 0)}
"""Leaf -> bits of eax, ebx, ecx and edx, in its subleaf 0 (SDM volume 2A, table 3-8)."""
_WITH_SUBLEAVES = (7,)
"""Of these leaves; CPUID does not look at ecx for the others."""


@cache
def cpuid(leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    """eax, ebx, ecx and edx after CPUID with these in eax and ecx."""
    ram = Ram((Extent.sized(_CODE, PAGE_SIZE),))
    ram.write(_CODE, b"\x0f\xa2")
    engine = Engine(ram)
    engine.own_mmu(False)
    engine.write("rax", leaf)
    engine.write("rcx", subleaf)
    engine.start(_CODE, count=1)
    other = leaf in _WITH_SUBLEAVES and subleaf
    withdrawn = _NOTHING if other else _WITHDRAWN.get(leaf, _NOTHING)
    eax, ebx, ecx, edx = (
        engine.read(name) & ~bits
        for name, bits in zip(("rax", "rbx", "rcx", "rdx"), withdrawn, strict=True)
    )
    return eax, ebx, ecx, edx
