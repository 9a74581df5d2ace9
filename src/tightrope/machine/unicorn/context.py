"""Two facts about an exception that Unicorn keeps to itself.

A saved context is a raw copy of QEMU's CPU state.  In it lie the error code of the exception that
was just raised, and the vector of the one before: Unicorn never clears the latter, because it never
delivers anything, and so takes the second page fault of a run for a double fault.

Rules: the offsets are found by raising a known exception on an engine of our own, never assumed;
when they are not where one is sure of them, MachineError says so.
"""

from __future__ import annotations

import ctypes
import functools
import struct

from tightrope.errors import MachineError
from tightrope.machine.unicorn.engine import Engine
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.observe.physical import Ram

_PROBE = 0x1234_5678
"""An address whose bytes are nothing else that a CPU holds."""

_OLD_EXCEPTION = 4 + 4 + 8 + 8 * 8 + 4 * 8
"""From error_code: error_code, is_int, next_eip, dr[8], breakpoints[4] (QEMU target/i386/cpu.h)."""


@functools.cache
def _error_code_offset() -> int:
    """Where error_code lies in a context: `int 0x21` at a known address leaves a pattern."""
    ram = Ram((Extent.sized(_PROBE & -PAGE_SIZE, PAGE_SIZE),))
    ram.write(_PROBE, b"\xcd\x21")
    probe = Engine(ram, 32)
    probe.own_mmu(False)
    seen: list[bytes] = []

    def interrupt(_vector: int) -> None:
        seen.append(probe.saved_bytes())
        probe.stop()

    probe.on_exception(interrupt)
    probe.start(_PROBE)
    pattern = struct.pack("<iiQ", 0, 1, _PROBE + 2)
    places = [at for at in range(0, len(seen[0]) - 16, 4) if seen[0][at : at + 16] == pattern]
    if len(places) != 1 or struct.unpack_from("<i", seen[0], places[0] + _OLD_EXCEPTION)[0] != -1:
        raise MachineError("this build of Unicorn keeps its exception state somewhere else")
    return places[0]


class ExceptionState:
    """The two hidden fields of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._at = _error_code_offset()
        self._context = engine.uc.context_save()
        self._base = ctypes.cast(self._context.context, ctypes.c_void_p).value or 0

    def error_code(self) -> int:
        """The error code of the exception that was just raised."""
        self._engine.uc.context_update(self._context)
        return ctypes.c_int.from_address(self._base + self._at).value & 0xFFFF_FFFF

    def forget(self) -> None:
        """Let the next exception be a first one."""
        self._engine.uc.context_update(self._context)
        ctypes.c_int.from_address(self._base + self._at + _OLD_EXCEPTION).value = -1
        self._engine.uc.context_restore(self._context)
