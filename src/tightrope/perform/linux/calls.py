"""kexec_load(2), kexec_file_load(2) and reboot(2): the port, and Linux behind it.

Rules: this file knows how to ask, not what.  Nothing is checked here and nothing is explained: an
errno comes back as `CallFailed`.  Only the standard library: this has to run in an initramfs.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import NoReturn, Protocol

from tightrope.abi import kexec as abi
from tightrope.errors import MissingPart
from tightrope.perform.load_file import LoadSegment


class CallFailed(Exception):
    """The kernel answered with an error; `number` is the errno, positive."""

    def __init__(self, call: str, number: int) -> None:
        super().__init__(f"{call}: {errno.errorcode.get(number, number)}, {os.strerror(number)}")
        self.call = call
        self.number = number


class SystemCalls(Protocol):
    """Whoever can ask a Linux kernel."""

    def kexec_load(self, entry: int, segments: Sequence[LoadSegment], flags: int) -> None:
        """Load segments; none unloads.  Raises CallFailed."""

    def kexec_file_load(
        self, kernel: int, initrd: int, command_line: bytes, flags: abi.FileFlag
    ) -> None:
        """Load files by their descriptors; the command line without its zero.  Raises
        CallFailed."""

    def reboot_kexec(self) -> None:
        """Jump.  Where it works it does not return.  Raises CallFailed."""

    def become(self, words: Sequence[str]) -> NoReturn:
        """This process becomes another program, found on the PATH.  Raises CallFailed."""

    def run(self, words: Sequence[str]) -> int:
        """Another program's exit status, 127 where it cannot be started.  What it says is not
        kept."""


class _Segment(ctypes.Structure):
    """struct kexec_segment, as wide as this process."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("bufsz", ctypes.c_size_t),
        ("mem", ctypes.c_ulong),
        ("memsz", ctypes.c_size_t),
    )


class _Buffer(ctypes.Structure):
    """Py_buffer (Python/C API, "Buffer structure"): its first fields, and room for the others."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("others", ctypes.c_byte * 128),
    )


@contextmanager
def in_place(data: bytes | bytearray | memoryview) -> Iterator[int]:
    """Where bytes lie; they are not copied, and stay there as long as the `with`.

    ctypes by itself gives the address of memory that may be written, and of no other.
    """
    held = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(data), ctypes.byref(held), 0)
    try:
        yield held.buf or 0
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(held))


class Linux:
    """The kernel under this process."""

    def __init__(self) -> None:
        """Raises MissingPart on a machine that is no x86 Linux."""
        system = os.uname()
        # A 32-bit process on a 64-bit kernel asks by the 32-bit numbers.
        wide = ctypes.sizeof(ctypes.c_void_p) == 8
        machine = "x86_64" if system.machine == "x86_64" and wide else "i686"
        if system.sysname != "Linux" or system.machine not in ("x86_64", "i686", "i586"):
            raise MissingPart(
                f"kexec is asked for on x86 Linux; this is {system.sysname} on {system.machine}"
            )
        self._machine = machine
        self._architecture = abi.ARCHITECTURE["x86_64" if system.machine == "x86_64" else "i686"]
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.syscall.restype = ctypes.c_long

    def _call(self, name: str, numbers: Mapping[str, int], *arguments: object) -> None:
        number = numbers.get(self._machine)
        if number is None:
            raise CallFailed(name, errno.ENOSYS)
        if self._libc.syscall(ctypes.c_long(number), *arguments) < 0:
            raise CallFailed(name, ctypes.get_errno())

    def kexec_load(self, entry: int, segments: Sequence[LoadSegment], flags: int) -> None:
        """See `SystemCalls.kexec_load`."""
        rows = (_Segment * max(len(segments), 1))()
        with ExitStack() as held:
            for row, each in zip(rows, segments, strict=False):
                size = len(each.data)
                row.buf = held.enter_context(in_place(each.data)) if size else None
                row.bufsz, row.mem, row.memsz = size, each.destination.start, each.destination.size
            self._call(
                "kexec_load",
                abi.KEXEC_LOAD,
                ctypes.c_ulong(entry),
                ctypes.c_ulong(len(segments)),
                rows,
                ctypes.c_ulong(flags | self._architecture),
            )

    def kexec_file_load(
        self, kernel: int, initrd: int, command_line: bytes, flags: abi.FileFlag
    ) -> None:
        """See `SystemCalls.kexec_file_load`."""
        line = command_line + b"\0"
        unload = abi.FileFlag.UNLOAD in flags
        self._call(
            "kexec_file_load",
            abi.KEXEC_FILE_LOAD,
            ctypes.c_int(kernel),
            ctypes.c_int(initrd),
            ctypes.c_ulong(0 if unload else len(line)),
            None if unload else ctypes.c_char_p(line),
            ctypes.c_ulong(flags),
        )

    def reboot_kexec(self) -> None:
        """See `SystemCalls.reboot_kexec`."""
        first, second = abi.REBOOT_MAGIC
        self._call(
            "reboot",
            abi.REBOOT,
            ctypes.c_long(first),
            ctypes.c_long(second),
            ctypes.c_ulong(abi.REBOOT_KEXEC),
            None,
        )

    def become(self, words: Sequence[str]) -> NoReturn:
        """See `SystemCalls.become`."""
        try:
            os.execvp(words[0], list(words))
        except OSError as err:
            raise CallFailed(f"execve of {words[0]}", err.errno or errno.ENOENT) from err

    def run(self, words: Sequence[str]) -> int:
        """See `SystemCalls.run`."""
        null = [(os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_RDWR, 0) for n in range(3)]
        try:
            child = os.posix_spawn(words[0], list(words), os.environ, file_actions=null)
        except OSError:
            return 127
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
