"""/dev/kvm: opened, and asked what it is.

Rules: what stands in the way of using it is a MissingPart whose text says what to do about it.
"""

from __future__ import annotations

import ctypes
import os
from functools import cached_property

from tightrope.abi import kvm as abi
from tightrope.errors import MachineError, MissingPart

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)
"""By ctypes: `fcntl.ioctl` takes no number of more than 31 bits, and may call again after a signal.
"""


def call(descriptor: int, number: int, argument: int | bytes | bytearray = 0) -> int:
    """One ioctl; a bytearray is changed in place.  Raises OSError, InterruptedError after a
    signal."""
    if isinstance(argument, int):
        got = _libc.ioctl(descriptor, number, argument)
    else:
        data = argument if isinstance(argument, bytearray) else bytearray(argument)
        raw = (ctypes.c_char * len(data)).from_buffer(data)
        got = _libc.ioctl(descriptor, number, ctypes.addressof(raw))
        del raw
    if got < 0:
        problem = ctypes.get_errno()
        raise OSError(problem, os.strerror(problem))
    return int(got)


class Device:
    """An open /dev/kvm.  Raises MissingPart when it cannot be used."""

    def __init__(self, path: str | None = None) -> None:
        path = path or abi.DEVICE
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as err:
            raise MissingPart(_why(path, err)) from err
        try:
            version = call(self._fd, abi.GET_API_VERSION)
        except OSError as err:
            self.close()
            raise MissingPart(f"{path} is not KVM's: {err.strerror}") from err
        if version != abi.API_VERSION:
            self.close()
            raise MissingPart(f"{path} speaks version {version} of KVM's interface, not 12")
        if not self.extension(abi.CAP_SET_GUEST_DEBUG):
            self.close()
            raise MissingPart(f"this computer's {path} has no guest debugging")

    def close(self) -> None:
        """Close the device; machines made from it go on."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def extension(self, number: int) -> int:
        """KVM_CHECK_EXTENSION."""
        return call(self._fd, abi.CHECK_EXTENSION, number)

    def create_vm(self) -> int:
        """A new virtual machine's descriptor.  Raises MachineError."""
        try:
            return call(self._fd, abi.CREATE_VM)
        except OSError as err:
            raise MachineError(f"KVM makes no virtual machine: {err.strerror}") from err

    @cached_property
    def run_size(self) -> int:
        """Bytes of struct kvm_run and what follows it."""
        return call(self._fd, abi.GET_VCPU_MMAP_SIZE)

    @cached_property
    def cpuid(self) -> tuple[tuple[int, ...], ...]:
        """What KVM offers: (function, index, flags, eax, ebx, ecx, edx)."""
        head, entry = abi.CPUID_HEAD, abi.CPUID_ENTRY
        data = bytearray(head.size + abi.CPUID_ENTRIES * (entry.size))
        head.pack_into(data, 0, abi.CPUID_ENTRIES, 0)
        call(self._fd, abi.GET_SUPPORTED_CPUID, data)
        count, _padding = head.unpack_from(data)
        return tuple(entry.unpack_from(data, head.size + n * entry.size) for n in range(count))

    @property
    def physical_bits(self) -> int:
        """MAXPHYADDR."""
        return next(
            (each[3] & 0xFF for each in self.cpuid if each[0] == abi.CPUID_ADDRESS_SIZES), 36
        )


def _why(path: str, err: OSError) -> str:
    if isinstance(err, FileNotFoundError):
        return (
            f"no {path} here: this computer's kernel has no KVM, or its CPU's virtualization is off"
        )
    if isinstance(err, PermissionError):
        return f"no permission to use {path}: it belongs to root and, on most systems, group kvm"
    return f"{path} cannot be opened: {err.strerror}"
