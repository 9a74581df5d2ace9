"""Unicorn's library and its numbers, by the house's names.

Rules: with `engine` the only file that knows Unicorn's constants, and the only one that imports it:
where it cannot be loaded, MissingPart says so and how to get it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from tightrope.errors import MissingPart
from tightrope.x86.cpu import GENERAL
from tightrope.x86.walk import Access

try:
    from unicorn import unicorn as uc
    from unicorn import unicorn_const as const
    from unicorn import x86_const as x86
    from unicorn.unicorn_py3.unicorn import uclib as library
except ImportError as err:  # no wheel for this platform, or the extra was not installed
    raise MissingPart(
        f"the emulator needs Unicorn, which cannot be loaded here ({err});"
        " install tightrope[rehearse]"
    ) from err

__all__ = [
    "ACCESS",
    "LEGACY",
    "PERMISSION",
    "REGISTER",
    "Batch",
    "Failed",
    "Wide",
    "const",
    "library",
    "uc",
    "x86",
]

ACCESS = {
    const.UC_MEM_READ: Access.READ,
    const.UC_MEM_WRITE: Access.WRITE,
    const.UC_MEM_FETCH: Access.FETCH,
}
PERMISSION = {
    Access.READ: const.UC_PROT_READ,
    Access.WRITE: const.UC_PROT_READ | const.UC_PROT_WRITE,
    Access.FETCH: const.UC_PROT_READ | const.UC_PROT_EXEC,
}
"""What an answer to a question may allow."""

REGISTER = {
    name[len("UC_X86_REG_") :].lower(): number
    for name, number in vars(x86).items()
    if name.startswith("UC_X86_REG_")
}
REGISTER["rflags"] = REGISTER["eflags"]

LEGACY = {
    **{name: REGISTER[f"e{name[1:]}"] for name in GENERAL[:8]},
    "rip": REGISTER["eip"],
}
"""A 32-bit engine refuses the 64-bit names (from Unicorn 2.2 on)."""

Failed = uc.UcError


_REGISTERS = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int
)
"""Engine, numbers, pointers to values, count.  Addresses are passed on as they are: the binding's
own types, which look at each array anew, take as long again as the call."""
_READ = _REGISTERS(("uc_reg_read_batch", library))
_WRITE = _REGISTERS(("uc_reg_write_batch", library))


class _Table(ctypes.Structure):
    """uc_x86_mmr."""

    _fields_ = (
        ("selector", ctypes.c_uint16),
        ("base", ctypes.c_uint64),
        ("limit", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


class _Msr(ctypes.Structure):
    """uc_x86_msr."""

    _fields_ = (("number", ctypes.c_uint32), ("value", ctypes.c_uint64))


class Wide:
    """The registers of one engine that are more than a word: descriptor tables, MSRs."""

    def __init__(self, handle: Any) -> None:
        self._handle, self._table, self._msr = handle, _Table(), _Msr()
        self._of_table = ctypes.byref(self._table)
        self._of_msr = ctypes.byref(self._msr)

    def table(self, number: int) -> tuple[int, int]:
        """Base and limit of a descriptor table's register."""
        library.uc_reg_read(self._handle, number, self._of_table)
        return self._table.base, self._table.limit

    def msr(self, number: int) -> int:
        """A model-specific register."""
        self._msr.number = number
        library.uc_reg_read(self._handle, REGISTER["msr"], self._of_msr)
        return int(self._msr.value)


class Batch:
    """A few registers, read or written in one call; `values` has them in the order of the names."""

    def __init__(self, handle: Any, numbers: Sequence[int]) -> None:
        count = len(numbers)
        self.values = (ctypes.c_uint64 * count)()
        start = ctypes.addressof(self.values)
        self._ids = (ctypes.c_int * count)(*numbers)
        self._pointers = (ctypes.c_void_p * count)(*(start + 8 * n for n in range(count)))
        addresses = (ctypes.addressof(self._ids), ctypes.addressof(self._pointers))
        self._arguments = (ctypes.cast(handle, ctypes.c_void_p).value, *addresses, count)

    def read(self) -> ctypes.Array[ctypes.c_uint64]:
        """Fill `values` from the CPU."""
        _READ(*self._arguments)
        return self.values

    def write(self) -> None:
        """Put `values` into the CPU."""
        _WRITE(*self._arguments)
