"""A command and its children, stopped at every system call.

    command --exec--> stopped --+--> at the entry of a call   `Watcher.enters`: it may replace the call
                                +--> at its exit              `Watcher.leaves`: it may replace the answer

Three locks, each enough alone, so that nothing is loaded on any machine:
- the number of a call that is held is replaced by -1 before the kernel sees it (PTRACE_SETREGS);
- CAP_SYS_BOOT is dropped from the bounding set first, so that the command cannot have it after its
  exec (capabilities(7)), and kexec_load() would be EPERM; a root that cannot drop it is not served
  at all.  CAP_NET_ADMIN goes with it, since `kexec -e` takes the networks down before it asks for
  the jump;
- PTRACE_O_EXITKILL ends everything with this process, and what is forked is traced from its first
  instruction.

Sources: ptrace(2); <linux/ptrace.h>; struct user_regs_struct (arch/x86/include/asm/user_64.h).

Rules: this file knows registers and no system call's meaning.  The architecture of a call is the
kernel's word (PTRACE_GET_SYSCALL_INFO, Linux 5.3), so that int $0x80 out of a 64-bit process is an
i386 call.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Protocol

from tightrope.abi.asking import CAP_NET_ADMIN, CAP_SYS_MODULE
from tightrope.abi.kexec import CAP_SYS_BOOT
from tightrope.errors import BadInput, MissingPart, reason

_TRACEME, _CONT_SYSCALL, _GETREGS, _SETREGS = 0, 24, 12, 13
_SETOPTIONS, _SYSCALL_INFO = 0x4200, 0x420E
_OPTIONS = 0x10_0000 | 1 | 0xE
"""EXITKILL; TRACESYSGOOD; TRACEFORK, TRACEVFORK, TRACECLONE."""
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_WALL = 0x4000_0000
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_DROPPED = (CAP_SYS_BOOT, CAP_NET_ADMIN, CAP_SYS_MODULE)
_ENTRY, _EXIT = 1, 2
"""ptrace_syscall_info.op."""
_INFO = struct.Struct("<B3xIQQQ6Q")
"""op, arch, ip, sp; of an entry the number and six arguments, of an exit the answer first."""
X86_64, I386 = 0xC000_003E, 0x4000_0003
"""AUDIT_ARCH_X86_64 and AUDIT_ARCH_I386 (<linux/audit.h>)."""
X32 = 0x4000_0000
"""__X32_SYSCALL_BIT: the same calls for a process with 32-bit pointers."""
_WORDS = 27
_RAX, _ORIG_RAX = 10, 15
_ARGUMENTS = {X86_64: (14, 13, 12, 7, 9, 8), I386: (5, 11, 12, 13, 14, 4)}
"""Where the registers of arguments are: rdi rsi rdx r10 r8 r9; ebx ecx edx esi edi ebp."""
_NO_CALL = (1 << 64) - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """A process at the entry of a system call."""

    pid: int
    machine: str
    """"x86_64", or "i686": whose call it is."""
    number: int
    arguments: tuple[int, ...]
    stack: int
    """The stack pointer."""

    def read(self, at: int, size: int) -> bytes:
        """The process's memory.  Raises OSError where it has none."""
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            memory.seek(at)
            out = b""
            while len(out) < size and (part := memory.read(size - len(out))):
                out += part
        if len(out) != size:
            raise OSError(0, f"{size:#x} bytes at {at:#x} are not all there")
        return out

    def write(self, at: int, data: bytes) -> None:
        """Put bytes into the process's memory.  Raises OSError."""
        with open(f"/proc/{self.pid}/mem", "r+b", buffering=0) as memory:
            memory.seek(at)
            memory.write(data)


def _nobody(_answer: int) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Instead:
    """What a call becomes: none at all, or the same with other arguments, which the kernel alone
    sees."""

    taken: bool = False
    """The kernel gets no call, and says ENOSYS."""
    answer: int | None = None
    """What the process is told instead of what the kernel says."""
    arguments: tuple[tuple[int, int], ...] = ()
    """(which, value); the process finds its own again."""
    heard: Callable[[int], None] = _nobody
    """Called with what the kernel said."""


class Watcher(Protocol):
    """Who decides about calls."""

    def enters(self, stop: Stop) -> Instead | None:
        """A call is about to be made; None leaves it alone."""


def trace(command: Sequence[str], watcher: Watcher, output: IO[bytes] | None = None) -> int:
    """Run a command to its end: its exit status, negative for a signal.  `output` takes what it
    prints.

    Raises BadInput where there is no such command, MissingPart where it cannot be traced here.
    """
    if platform.machine() != "x86_64":
        raise MissingPart(
            f"a {platform.machine()} computer: the recorder knows the calls of x86_64"
        )
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        try:
            # The child waits at its exec for us: what comes before that is ours.
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if output else None,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                preexec_fn=lambda: _locked(mask),
            )
        except subprocess.SubprocessError as err:
            raise MissingPart(
                f"{command[0]} cannot be traced, or keeps its capabilities: it is not run here"
            ) from err
        except (OSError, ValueError) as err:
            raise BadInput(reason(err), source=command[0]) from err
        tracer = _Tracer(child.pid, watcher)
        child.returncode = -signal.SIGKILL  # how it ends unless it ends by itself
        try:
            child.returncode = tracer.follow()
        finally:
            tracer.end()
        return child.returncode
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _locked(mask: set[int | signal.Signals]) -> None:
    """In the child, before its exec: without what could change the machine, and traced."""
    libc = ctypes.CDLL(None, use_errno=True)
    for each in _DROPPED:
        libc.prctl(_PR_CAPBSET_DROP, each, 0, 0, 0)
        if libc.prctl(_PR_CAPBSET_READ, each, 0, 0, 0) and os.geteuid() == 0:
            raise PermissionError(f"capability {each} cannot be dropped")
    if libc.ptrace(_TRACEME, 0, None, None):
        raise PermissionError("not traced")
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class _Tracer:
    """All processes of a command."""

    def __init__(self, pid: int, watcher: Watcher) -> None:
        self._first = pid
        self._watcher = watcher
        self._alive = {pid}
        self._new = {pid}
        """Those that have not stopped yet."""
        self._held: dict[int, tuple[Instead, tuple[int, ...]]] = {}
        """Between entry and exit: what the call became, and its own registers."""
        self._ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        self._ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self._ptrace.restype = ctypes.c_long

    def _ask(self, request: int, pid: int, address: object = None, data: object = None) -> None:
        if self._ptrace(request, pid, address, data) == -1:
            raise OSError(ctypes.get_errno(), f"ptrace({request:#x})")

    def follow(self) -> int:
        """To the end of the first and of all others."""
        status = -signal.SIGKILL
        while self._alive:
            for pid in tuple(self._alive):
                try:
                    got, how = os.waitpid(pid, os.WNOHANG | _WALL)
                except ChildProcessError:
                    self._alive.discard(pid)
                    continue
                if not got:
                    continue
                if not os.WIFSTOPPED(how):
                    self._alive.discard(pid)
                    if pid == self._first:
                        status = os.waitstatus_to_exitcode(how)
                    continue
                self._stopped(pid, how)
                break
            else:
                signal.sigtimedwait({signal.SIGCHLD}, 0.05)
        return status

    def end(self) -> None:
        """Leave nothing behind."""
        for pid in self._alive:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, _WALL)
            except (ProcessLookupError, ChildProcessError):
                continue

    def _stopped(self, pid: int, how: int) -> None:
        number, event = os.WSTOPSIG(how), how >> 16
        deliver = 0
        try:
            if pid in self._new:
                self._new.discard(pid)
                self._ask(_SETOPTIONS, pid, None, _OPTIONS)
            elif event:
                message = ctypes.c_ulong()
                self._ask(0x4201, pid, None, ctypes.addressof(message))  # GETEVENTMSG: who is new
                if message.value not in self._alive:
                    self._alive.add(message.value)
                    self._new.add(message.value)
            elif number == _SYSCALL_STOP:
                self._call(pid)
            elif number != signal.SIGTRAP:
                deliver = number
            self._ask(_CONT_SYSCALL, pid, None, deliver)
        except ProcessLookupError:
            return  # it was killed meanwhile: its end is still to be told

    def _call(self, pid: int) -> None:
        raw = ctypes.create_string_buffer(96)
        self._ask(_SYSCALL_INFO, pid, len(raw), ctypes.addressof(raw))
        op, arch, _ip, stack, number, *arguments = _INFO.unpack_from(raw.raw)
        if op == _ENTRY:
            machine = {X86_64: "x86_64", I386: "i686"}.get(arch)
            if machine is None:
                return
            stop = Stop(
                pid=pid,
                machine=machine,
                number=number & ~X32 if arch == X86_64 else number,
                arguments=tuple(arguments),
                stack=stack,
            )
            instead = self._watcher.enters(stop)
            if instead is not None:
                self._replace(pid, arch, instead)
        elif op == _EXIT and pid in self._held:
            self._answer(pid, *self._held.pop(pid))

    def _replace(self, pid: int, arch: int, instead: Instead) -> None:
        registers = (ctypes.c_uint64 * _WORDS)()
        self._ask(_GETREGS, pid, None, ctypes.addressof(registers))
        before = tuple(registers)
        if instead.taken:
            registers[_ORIG_RAX] = _NO_CALL
        for which, value in instead.arguments:
            registers[_ARGUMENTS[arch][which]] = value
        self._ask(_SETREGS, pid, None, ctypes.addressof(registers))
        self._held[pid] = instead, before

    def _answer(self, pid: int, instead: Instead, before: tuple[int, ...]) -> None:
        registers = (ctypes.c_uint64 * _WORDS)()
        self._ask(_GETREGS, pid, None, ctypes.addressof(registers))
        instead.heard(ctypes.c_int64(registers[_RAX]).value)
        if instead.answer is not None:
            registers[_RAX] = instead.answer & _NO_CALL
        for arguments in _ARGUMENTS.values():
            for which, _ in instead.arguments:
                registers[arguments[which]] = before[arguments[which]]
        self._ask(_SETREGS, pid, None, ctypes.addressof(registers))
