"""kexec-tools run under a tracer: what it would have handed to the kernel, byte for byte.

    kexec -c -d -l KERNEL   reads the image, decides where all goes, prints it, calls kexec_load()
    the tracer              stops it at that call, reads the segments, and makes the call none at all

Rules: nothing can be loaded, on any machine.  Three locks, each enough alone:
- the number of every call that could load or reboot is replaced by -1 before the kernel sees it, so the
  answer is ENOSYS (ptrace(2), PTRACE_SYSCALL; kexec_load(2), kexec_file_load(2), reboot(2));
- CAP_SYS_BOOT is dropped from the bounding set first, so that the process cannot have it after its exec
  (capabilities(7)) and kexec_load() would be EPERM; a root that cannot drop it is not run at all;
- PTRACE_O_EXITKILL ends the process with its tracer, and PTRACE_O_TRACE* holds whatever it forks.
This file knows the kernel's calls and no image format.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import lacking

KEXEC = Path("/usr/sbin/kexec")

# <linux/ptrace.h>, <linux/prctl.h>, <linux/capability.h>
TRACEME, GETREGS, SETREGS, SYSCALL, SETOPTIONS = 0, 12, 13, 24, 0x4200
TRACESYSGOOD, TRACE_FORK_VFORK_CLONE, EXITKILL = 1, 0xE, 0x10_0000
PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24
CAP_SYS_BOOT = 22
# arch/x86/entry/syscalls/syscall_64.tbl
KEXEC_LOAD, KEXEC_FILE_LOAD, REBOOT = 246, 320, 169
SYSCALL_STOP = 0x80
"""What TRACESYSGOOD adds to SIGTRAP at a system call."""
# struct user_regs_struct (arch/x86/include/asm/user_64.h), as 8-byte words
REGISTERS, R10, RAX, RDX, RSI, RDI, ORIG_RAX = 27, 7, 10, 12, 13, 14, 15
NONE_AT_ALL = (1 << 64) - 1
SEGMENT = struct.Struct("<QQQQ")
"""struct kexec_segment: buf, bufsz, mem, memsz (include/uapi/linux/kexec.h)."""


@dataclass(frozen=True)
class Loaded:
    """One segment as the kernel would have got it: `data` first, zeros up to `size`."""

    start: int
    size: int
    data: bytes

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.start + self.size

    def at(self, address: int, size: int) -> bytes:
        """Bytes by physical address."""
        offset = address - self.start
        return self.data[offset : offset + size].ljust(size, b"\0")


@dataclass(frozen=True)
class Call:
    """One call that was held: kexec_load(entry, len(segments), segments, flags), and its answer."""

    entry: int
    flags: int
    segments: tuple[Loaded, ...]
    answer: int

    def holding(self, address: int) -> Loaded:
        """The one segment that has this address."""
        (found,) = [each for each in self.segments if address in each]
        return found


@dataclass(frozen=True)
class Watched:
    """A run that is over."""

    output: str
    status: int
    bounding_set: int
    """CapBnd of the process while it ran."""
    calls: tuple[Call, ...]


def _locked() -> None:
    """In the child, before its exec: without CAP_SYS_BOOT, and traced.  Not run where neither holds."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT, 0, 0, 0)
    if libc.prctl(PR_CAPBSET_READ, CAP_SYS_BOOT, 0, 0, 0) and os.geteuid() == 0:
        raise PermissionError("CAP_SYS_BOOT cannot be dropped: kexec is not run here")
    if libc.ptrace(TRACEME, 0, None, None):
        raise PermissionError("cannot be traced: kexec is not run here")


def run(*arguments: str) -> Watched:
    """kexec with these arguments, held before it can load anything."""
    if not KEXEC.exists():
        lacking(f"no {KEXEC} here: install kexec-tools (scripts/system-packages)")
    if os.geteuid():
        lacking("kexec is told the machine's memory map as root only")
    return watched([str(KEXEC), *arguments])


def watched(command: Sequence[str]) -> Watched:
    """Any command, under the three locks."""
    if platform.machine() != "x86_64":
        lacking("the tracer knows the registers of x86_64 only")
    with tempfile.TemporaryFile() as output:
        # The child waits at its exec for the tracer, so what comes before that is the only race.
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_locked,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        )
        tracer = _Tracer(child.pid)
        try:
            child.returncode = status = tracer.follow()
        finally:
            if child.returncode is None:
                child.kill()
                child.wait()
        output.seek(0)
        text = output.read().decode(errors="replace")
    return Watched(text, status, tracer.bounding_set, tuple(tracer.calls))


class _Tracer:
    """One process from its exec to its end, stopped at every system call."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.calls: list[Call] = []
        self.bounding_set = -1
        self._ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        self._ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self._ptrace.restype = ctypes.c_long

    def _ask(self, request: int, data: object = None) -> None:
        if self._ptrace(request, self.pid, None, data):
            raise OSError(ctypes.get_errno(), f"ptrace({request:#x})")

    def follow(self) -> int:
        """To the end: the exit status, negative for a signal."""
        os.waitpid(self.pid, 0)
        self._ask(SETOPTIONS, TRACESYSGOOD | TRACE_FORK_VFORK_CLONE | EXITKILL)
        rows = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        self.bounding_set = int(dict(row.split(":", 1) for row in rows)["CapBnd"], 16)
        signal, held = 0, None
        entering = True
        while True:
            self._ask(SYSCALL, signal)
            _, status = os.waitpid(self.pid, 0)
            if not os.WIFSTOPPED(status):
                return os.waitstatus_to_exitcode(status)
            stop = os.WSTOPSIG(status)
            signal = 0
            if stop != SYSCALL_STOP | 5:
                # An event of the options above is a SIGTRAP, and for us; anything else is the child's.
                signal = 0 if stop == 5 else stop
                continue
            if entering:
                held = self._hold()
            elif held is not None:
                self._answered(held)
            entering = not entering

    def _hold(self) -> Call | None:
        """At the entry of a call: one that could load or reboot is replaced by none at all."""
        registers = (ctypes.c_uint64 * REGISTERS)()
        self._ask(GETREGS, registers)
        number = registers[ORIG_RAX]
        if number not in (KEXEC_LOAD, KEXEC_FILE_LOAD, REBOOT):
            return None
        registers[ORIG_RAX] = NONE_AT_ALL
        self._ask(SETREGS, registers)
        if number != KEXEC_LOAD:
            return Call(0, 0, (), 0)
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:

            def read(at: int, size: int) -> bytes:
                memory.seek(at)
                return memory.read(size)

            count = registers[RSI]
            rows = SEGMENT.iter_unpack(read(registers[RDX], count * SEGMENT.size))
            segments = tuple(Loaded(start, size, read(at, n)) for at, n, start, size in rows)
        return Call(registers[RDI], registers[R10], segments, 0)

    def _answered(self, held: Call) -> None:
        registers = (ctypes.c_uint64 * REGISTERS)()
        self._ask(GETREGS, registers)
        answer = ctypes.c_int64(registers[RAX]).value
        self.calls.append(Call(held.entry, held.flags, held.segments, answer))
