"""Makers of a loader's purgatory: 64-bit code that adds up the bytes of some ranges and goes on, or stays.

    lea stack, %rsp; for each range: add every byte to %eax; cmp $sum, %eax; jne .; rsi = params; jmp entry

Rules: written as bytes by the SDM's opcode tables, and nothing of tightrope is used.
"""

from __future__ import annotations

from collections.abc import Iterable

STACK = 0x1000
"""The stack's top, from the purgatory's beginning: its segment has two pages."""
SIZE = 0x2000


def purgatory(
    ranges: Iterable[tuple[int, int, bytes]], params: int, entry: int, *, total: int | None = None
) -> bytes:
    """Code for any page; each range is (address, bytes, what lies there, with zeros behind it)."""
    code = bytearray(b"\x48\x8d\x25" + (STACK + 0x1000 - 7).to_bytes(4, "little"))
    code += b"\x50\x31\xc0"  # push rax; xor eax, eax
    wanted = 0
    for start, size, data in ranges:
        wanted += sum(data)
        code += b"\x48\xbe" + start.to_bytes(8, "little")  # mov $start, %rsi
        code += b"\x48\xb9" + size.to_bytes(8, "little")  # mov $size, %rcx
        code += bytes.fromhex("0fb616 01d0 48ffc6 48ffc9 75f3")  # 1: movzbl (%rsi), %edx ... jne 1b
    wanted = wanted if total is None else total
    code += b"\x3d" + (wanted & 0xFFFF_FFFF).to_bytes(4, "little")  # cmp $wanted, %eax
    code += bytes.fromhex("7402 ebfe")  # je 1f; jmp .; 1:
    code += b"\x48\xbe" + params.to_bytes(8, "little")
    code += b"\x48\xb8" + entry.to_bytes(8, "little") + b"\xff\xe0"  # mov $entry, %rax; jmp *%rax
    return bytes(code)
