"""Hypercalls of a process in dom0: the port, and Linux's device behind it.

    Hypercalls.buffer   memory that a hypervisor can read and write: whole pages, resident
    Hypercalls.call     one hypercall

Sources: Linux drivers/xen/privcmd.c and privcmd-buf.c; include/uapi/xen/privcmd.h (numbers in
abi.xen).

Rules: this file knows how to ask, not what.  Xen reads a process's memory through its page tables
as they stand: a page that Linux has not there is EFAULT, so memory for it comes from
/dev/xen/hypercall, or is locked.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
from types import TracebackType
from typing import Protocol, Self

from tightrope.abi import xen as abi
from tightrope.errors import MissingPart, PerformError
from tightrope.memory import PAGE_SIZE, align_up


class HypercallFailed(Exception):
    """Xen answered with an error; `number` is the errno, positive."""

    def __init__(self, number: int) -> None:
        super().__init__(abi.ERRNO.get(number, errno.errorcode.get(number, str(number))))
        self.number = number


class Buffer(Protocol):
    """Bytes that stay where they are; `address` is what a hypercall is told."""

    @property
    def address(self) -> int:
        """Page aligned."""

    @property
    def view(self) -> memoryview:
        """The bytes themselves, writable."""


class Hypercalls(Protocol):
    """Whoever can ask a hypervisor."""

    def buffer(self, size: int) -> Buffer:
        """Zeroed memory of at least `size` bytes, until the port is closed."""

    def call(self, number: int, *arguments: int) -> int:
        """What Xen returned, not negative.  Raises HypercallFailed."""


class FrameCalls(Hypercalls, Protocol):
    """Who can also reach machine frames."""

    def map_frames(self, numbers: Buffer, count: int) -> memoryview:
        """The machine frames whose numbers (u64) are in a buffer, one behind the other.

        They have to be this domain's.  Raises PerformError.
        """


class Resident:
    """Whole pages that stay in memory."""

    def __init__(self, descriptor: int | None, size: int) -> None:
        """From /dev/xen/hypercall where there is a descriptor of it, else locked memory.

        Raises OSError where the pages are not to be had.
        """
        self._map = mmap.mmap(
            -1 if descriptor is None else descriptor,
            max(align_up(size, PAGE_SIZE), PAGE_SIZE),
            flags=mmap.MAP_SHARED if descriptor is not None else mmap.MAP_PRIVATE | mmap.MAP_ANON,
        )
        self.view = memoryview(self._map)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        if descriptor is None:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.mlock(ctypes.c_void_p(self.address), ctypes.c_size_t(len(self._map))):
                raise OSError(ctypes.get_errno(), "mlock")


class Privcmd:
    """Linux's device for hypercalls.  Close it, or use it in a `with`."""

    def __init__(self) -> None:
        """Raises MissingPart where this is no dom0, or not root."""
        self.descriptor, self._buffers = -1, -1
        self._held: list[Resident] = []
        """A hypercall's argument points to others: none of them may go before the port does."""
        for path in abi.PRIVCMD:
            try:
                self.descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                break
            except OSError as err:
                why = f"{path}: {err.strerror}"
        else:
            raise MissingPart(f"no hypercalls from here (load xen-privcmd, be root): {why}")
        # Before Linux 4.18 it is not there: locked memory has to do.
        with contextlib.suppress(OSError):
            self._buffers = os.open(abi.HYPERCALL_BUFFERS, os.O_RDWR | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give devices and memory back; calling it again does nothing."""
        self._held.clear()
        for name in ("descriptor", "_buffers"):
            if getattr(self, name) >= 0:
                os.close(getattr(self, name))
                setattr(self, name, -1)

    def buffer(self, size: int) -> Resident:
        """See `Hypercalls.buffer`.  Raises MissingPart where the memory is not to be had."""
        try:
            self._held.append(Resident(self._buffers if self._buffers >= 0 else None, size))
        except OSError as err:
            raise MissingPart(f"no {size} bytes for a hypercall: {err.strerror}") from err
        return self._held[-1]

    def call(self, number: int, *arguments: int) -> int:
        """See `Hypercalls.call`."""
        padded = (*arguments, *[0] * (5 - len(arguments)))
        request = bytearray(abi.PRIVCMD_HYPERCALL.pack(op=number, arg=padded))
        return self.ioctl(abi.IOCTL_PRIVCMD_HYPERCALL, request)

    def ioctl(self, command: int, request: bytearray) -> int:
        """One ioctl of the device; `request` is written back.  Raises HypercallFailed."""
        try:
            return int(fcntl.ioctl(self.descriptor, command, request, True))
        except OSError as err:
            raise HypercallFailed(err.errno or 0) from err

    def map_frames(self, numbers: Buffer, count: int) -> memoryview:
        """See `FrameCalls.map_frames`."""
        record = abi.PRIVCMD_MMAPBATCH_V2
        pages = mmap.mmap(self.descriptor, count * PAGE_SIZE, flags=mmap.MAP_SHARED)
        errors = (ctypes.c_int * count)()
        request = bytearray(
            record.pack(
                num=count,
                dom=abi.DOMID_SELF,
                addr=ctypes.addressof(ctypes.c_char.from_buffer(pages)),
                arr=numbers.address,
                err=ctypes.addressof(errors),
            )
        )
        what = f"IOCTL_PRIVCMD_MMAPBATCH_V2 ({record.name}, {record.size} bytes)"
        try:
            self.ioctl(abi.IOCTL_PRIVCMD_MMAPBATCH_V2, request)
        except HypercallFailed as err:
            raise PerformError(f"{what}: {err}", number=err.number) from err
        bad = next((n for n, each in enumerate(errors) if each), None)
        if bad is not None:
            number = -errors[bad]
            raise PerformError(f"{what}: frame {bad} of {count}: errno {number}", number=number)
        return memoryview(pages)
