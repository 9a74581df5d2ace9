"""Kernels that leave for one another in a PC: each jump is the guest's own kexec, one boot serves many.

    QEMU boots the first -> its initramfs loads the next, by a system call or by kexec-tools, and leaves
                         -> the next one comes up with the same initramfs, packed anew, and so on

Rules: nothing is asserted here.  A jump has happened when the next kernel's own init said which it is.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.conftest import debian_kernel, fetched_kexec
from tests.perform.dom0 import BOOT_SECONDS, BareLinux, Guest
from tests.perform.narrow import NarrowLinux
from tests.qemu.pcs import QUIET, initramfs, token
from tightrope.machine.qemu import cpu

Files = tuple[tuple[str, Path], ...]
"""Name in /home of the guest, and where it comes from."""
MEBIBYTES = 2048
CRASH = "256M"
PACKED = "/tmp/initrd"
PACK = f"(cd / && find . -xdev ! -path .{PACKED} | cpio -o -H newc > {PACKED}) 2>/dev/null"
"""The running initramfs, which the next kernel gets as well."""
SETUP_DATA = "cat /sys/kernel/boot_params/setup_data/*/type 2>/dev/null | tr '\\n' ' '; echo"
MAP = "cat /sys/firmware/memmap/*/start /sys/firmware/memmap/*/end /sys/firmware/memmap/*/type | md5sum"


class Loader(StrEnum):
    """What loads the next kernel; the value is what a table calls it."""

    FILE_LOAD = "kexec_file_load"
    KEXEC_TOOLS = "kexec-tools"


@dataclass(frozen=True, slots=True)
class Jump:
    """One jump that was asked for, and what came of it."""

    old: str
    new: str
    crash: bool
    loader: str
    happened: bool
    said: str
    """The new kernel's own line, or the last ones before it was silent."""
    setup_data: str = ""
    """The types of the setup_data that the new kernel was handed: 0x9 is a seed."""
    memory_map: str = ""
    """A sum over the memory map that it was handed."""
    words: str = ""
    """What was on its command line besides."""


def release(flavour: str) -> str:
    """What uname -r says in that kernel."""
    return debian_kernel(flavour).name.removeprefix("vmlinuz-")


def kexec_tools() -> Files:
    """The installed kexec and what it is linked with, as files of an initramfs."""
    said = subprocess.run(["ldd", "/sbin/kexec"], check=True, capture_output=True, text=True).stdout
    libraries = [Path(word) for word in said.split() if word.startswith("/")]
    return ("kexec", Path("/sbin/kexec")), *((f"lib/{each.name}", each) for each in libraries)


RUN_KEXEC = "chmod +x lib/*; /home/lib/ld-linux-x86-64.so.2 --library-path /home/lib /home/kexec"
RUN_NARROW_KEXEC = "/lib/ld-linux.so.2 /home/kexec"
"""A 32-bit one, by the libraries that a 32-bit initramfs has anyway."""


def narrow(flavour: str) -> bool:
    """Whether it is a kernel of 32 bits."""
    return flavour.startswith("686")


def files(flavours: Sequence[str], loader: Loader, *, bits: int = 64) -> Files:
    """What lies in /home of each guest; `bits` are its programs'."""
    kernels = tuple((f"k/{each}", debian_kernel(each)) for each in dict.fromkeys(flavours))
    if loader is not Loader.KEXEC_TOOLS:
        return kernels
    if bits == 32:
        return *kernels, ("kexec", fetched_kexec("kexec-tools-i386").with_name("kexec.i386"))
    return kernels + kexec_tools()


def booted(flavour: str, given: Files, *, crash: str = "") -> Guest:
    """A guest that boots this kernel, with programs of its own width."""
    if narrow(flavour):
        return NarrowLinux(
            flavour,
            {name: path.read_bytes() for name, path in given},
            MEBIBYTES,
            crash=crash,
        )
    return BareLinux(flavour, crash=crash, mebibytes=MEBIBYTES, files=given)


def load(
    new: str,
    loader: Loader,
    words: str,
    *,
    crash: bool = False,
    initrd: str = PACKED,
    bits: int = 64,
) -> str:
    """The command that loads a kernel in the guest."""
    if loader is Loader.FILE_LOAD:
        kind = "--crash " if crash else ""
        return (
            f"tightrope load k/{new} {kind}--via kexec_file_load --no-rehearsal --really"
            f" --initrd {initrd} --append '{words}'"
        )
    kind = "-p" if crash else "-l"
    return f"{_kexec(bits)} -c {kind} k/{new} --initrd={initrd} --append='{words}'"


def leave(loader: Loader, *, bits: int = 64) -> str:
    """The command that jumps."""
    return "tightrope exec --really" if loader is Loader.FILE_LOAD else f"{_kexec(bits)} -e"


def _kexec(bits: int) -> str:
    return RUN_KEXEC if bits == 64 else RUN_NARROW_KEXEC


def chain(flavours: Sequence[str], loader: Loader) -> Iterator[Jump]:
    """Each kernel leaves for the next, in one guest for as long as it goes well."""
    at = 0
    while at + 1 < len(flavours):
        bits = 32 if narrow(flavours[at]) else 64
        first = booted(flavours[at], files(flavours, loader, bits=bits))
        with first.up() as guest:
            while at + 1 < len(flavours):
                jump = _jump(guest, flavours[at], flavours[at + 1], loader, bits)
                at += 1
                yield jump
                if not jump.happened:
                    break


def _jump(guest: Guest, old: str, new: str, loader: Loader, bits: int) -> Jump:
    said, data, memory_map, happened = "", "", "", False
    try:
        for command in (PACK, load(new, loader, QUIET, bits=bits)):
            status, lines = guest.do(command)
            said = " / ".join(lines[-3:])
            if status:
                return Jump(old, new, False, loader.value, False, f"not loaded: {said}")
        guest.pc.say(f"{leave(loader, bits=bits)}\n")
        said = guest.wait(guest.greeting)[-1]
        happened = said == f"{guest.greeting}{release(new)}"
        data = guest.do(SETUP_DATA)[1][-1].strip()
        memory_map = guest.do(MAP)[1][-1].split()[0]
    except AssertionError as err:
        said = str(err)
    return Jump(old, new, False, loader.value, happened, said, data, memory_map)


def crash(
    old: str, new: str, loader: Loader, more: str = "", *, silent: float = BOOT_SECONDS
) -> Jump:
    """A panic of one kernel, out of which another one comes up, or nothing for `silent` seconds.

    `more` are words of its command line.
    """
    word = token()
    bits = 32 if narrow(old) else 64
    width = "i386" if narrow(new) else "amd64"
    small = Path(f"{debian_kernel(f'busybox-{width}')}.cpio")
    initramfs(width)
    given = (*files([new], loader, bits=bits), ("small", small))
    happened, said, data = False, "", ""
    with booted(old, given, crash=CRASH) as guest:
        try:
            words = f"{QUIET} tightrope.token={word} tightrope.do=handed {more}".rstrip()
            status, lines = guest.up().do(
                load(new, loader, words, crash=True, initrd="small", bits=bits)
            )
            said = " / ".join(lines[-3:])
            if status == 0:
                guest.pc.say("echo c > /proc/sysrq-trigger\n")
                said = guest.wait(f"tightrope: userspace {word} ", silent)[-1].replace(word, "")
                happened = release(new) in said
                told = guest.wait(f"tightrope: handed {word}")[-1]
                data = told.partition(word)[2].strip()
        except AssertionError as err:
            said = f"{err}; {stands(guest)}"
    return Jump(old, new, True, loader.value, happened, said, data, words=more)


def stands(guest: Guest) -> str:
    """Where a guest is that says nothing, and whether it had the time to say something."""
    ran = sum(int(each) for each in _stat(guest.pc.process.number)[11:13]) / os.sysconf(
        "SC_CLK_TCK"
    )
    guest.pc.stop()
    here = cpu.registers(guest.pc)
    return f"the CPU stands at {here.rip:#x}, CR3 {here.cr3:#x}; {ran:.0f} s of CPU since its start"


def _stat(number: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on (proc(5))."""
    return Path(f"/proc/{number}/stat").read_text(encoding="ascii").rpartition(")")[2].split()


def every_pair(flavours: Sequence[str]) -> list[str]:
    """A way through kernels on which each is left for each, itself included, once (an Euler circuit)."""
    left = {each: list(flavours) for each in flavours}
    way, stack = [], [flavours[0]]
    while stack:
        if left[stack[-1]]:
            stack.append(left[stack[-1]].pop())
        else:
            way.append(stack.pop())
    return way[::-1]
