"""Kernels that leave for one another in a PC: each jump is the guest's own kexec, one boot serves many.

    QEMU boots the first -> its initramfs loads the next, by a system call or by kexec-tools, and leaves
                         -> the next one comes up with the same initramfs, packed anew, and so on

Rules: nothing is asserted here.  A jump has happened when the next kernel's own init said which it is.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.conftest import debian_kernel
from tests.perform.dom0 import BareLinux
from tests.qemu.pcs import QUIET, initramfs, token

MEBIBYTES = 2048
CRASH = "256M"
PACKED = "/tmp/initrd"
PACK = f"(cd / && find . -xdev ! -path .{PACKED} | cpio -o -H newc > {PACKED}) 2>/dev/null"
"""The running initramfs, which the next kernel gets as well."""
SETUP_DATA = "ls /sys/kernel/boot_params/setup_data 2>/dev/null | wc -l"
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
    """How many pieces of setup_data the new kernel was handed."""
    memory_map: str = ""
    """A sum over the memory map that it was handed."""


def release(flavour: str) -> str:
    """What uname -r says in that kernel."""
    return debian_kernel(flavour).name.removeprefix("vmlinuz-")


def kexec_tools() -> tuple[tuple[str, Path], ...]:
    """The installed kexec and what it is linked with, as files of an initramfs."""
    said = subprocess.run(["ldd", "/sbin/kexec"], check=True, capture_output=True, text=True).stdout
    libraries = [Path(word) for word in said.split() if word.startswith("/")]
    return ("kexec", Path("/sbin/kexec")), *((f"lib/{each.name}", each) for each in libraries)


RUN_KEXEC = "/home/lib/ld-linux-x86-64.so.2 --library-path /home/lib /home/kexec"


def files(flavours: Sequence[str], loader: Loader) -> tuple[tuple[str, Path], ...]:
    """What lies in /home of each guest."""
    kernels = tuple((f"k/{each}", debian_kernel(each)) for each in dict.fromkeys(flavours))
    return kernels + (kexec_tools() if loader is Loader.KEXEC_TOOLS else ())


def load(new: str, loader: Loader, words: str, *, crash: bool = False, initrd: str = PACKED) -> str:
    """The command that loads a kernel in the guest."""
    if loader is Loader.FILE_LOAD:
        kind = "--crash " if crash else ""
        return (
            f"tightrope load k/{new} {kind}--via kexec_file_load --no-rehearsal --really"
            f" --initrd {initrd} --append '{words}'"
        )
    kind = "-p" if crash else "-l"
    return (
        f"chmod +x kexec lib/*; {RUN_KEXEC} -c {kind} k/{new} --initrd={initrd} --append='{words}'"
    )


def leave(loader: Loader) -> str:
    """The command that jumps."""
    return "tightrope exec --really" if loader is Loader.FILE_LOAD else f"{RUN_KEXEC} -e"


def chain(flavours: Sequence[str], loader: Loader) -> Iterator[Jump]:
    """Each kernel leaves for the next, in one guest for as long as it goes well."""
    at = 0
    while at + 1 < len(flavours):
        first = BareLinux(flavours[at], mebibytes=MEBIBYTES, files=files(flavours, loader))
        with first.up() as guest:
            while at + 1 < len(flavours):
                jump = _jump(guest, flavours[at], flavours[at + 1], loader)
                at += 1
                yield jump
                if not jump.happened:
                    break


def _jump(guest: BareLinux, old: str, new: str, loader: Loader) -> Jump:
    said, data, memory_map, happened = "", "", "", False
    try:
        for command in (PACK, load(new, loader, QUIET)):
            status, lines = guest.do(command)
            said = " / ".join(lines[-3:])
            if status:
                return Jump(old, new, False, loader.value, False, f"not loaded: {said}")
        guest.pc.say(f"{leave(loader)}\n")
        said = guest.wait(guest.greeting)[-1]
        happened = said == f"{guest.greeting}{release(new)}"
        data = guest.do(SETUP_DATA)[1][-1]
        memory_map = guest.do(MAP)[1][-1].split()[0]
    except AssertionError as err:
        said = str(err)
    return Jump(old, new, False, loader.value, happened, said, data, memory_map)


def crash(old: str, new: str, loader: Loader) -> Jump:
    """A panic of one kernel, out of which another one comes up."""
    word = token()
    small = Path(f"{debian_kernel('busybox-amd64')}.cpio")
    initramfs("amd64")
    given = (*files([new], loader), ("small", small))
    happened, said = False, ""
    with BareLinux(old, crash=CRASH, mebibytes=MEBIBYTES, files=given) as guest:
        try:
            words = f"{QUIET} tightrope.token={word}"
            status, lines = guest.up().do(load(new, loader, words, crash=True, initrd="small"))
            said = " / ".join(lines[-3:])
            if status == 0:
                guest.pc.say("echo c > /proc/sysrq-trigger\n")
                said = guest.wait(f"tightrope: userspace {word} ")[-1].replace(word, "")
                happened = release(new) in said
        except AssertionError as err:
            said = str(err)
    return Jump(old, new, True, loader.value, happened, said)


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
