"""A Linux that is not there: it keeps what it is asked, and answers as the real one was seen to.

Rules: a plain load that fails keeps the old image, a crash load that fails drops it; the loaded flags are
files, as on a real machine, so that what is read back was written by somebody else.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from tightrope.abi.kexec import FileFlag
from tightrope.perform.linux.calls import CallFailed
from tightrope.perform.load_file import LoadSegment

IOMEM = """\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
00100000-3ffdffff : System RAM
  20000000-27ffffff : Crash kernel
"""
FILES = {
    "/proc/sys/kernel/osrelease": b"6.12.117+deb13-amd64\n",
    "/proc/sys/kernel/arch": b"x86_64\n",
    "/sys/kernel/kexec_loaded": b"0\n",
    "/sys/kernel/kexec_crash_loaded": b"0\n",
    "/proc/sys/kernel/kexec_load_disabled": b"0\n",
    "/proc/sys/kernel/kexec_load_limit_reboot": b"-1\n",
    "/proc/sys/kernel/kexec_load_limit_panic": b"-1\n",
    "/proc/iomem": IOMEM.encode(),
    "/proc/meminfo": b"MemTotal:        1000000 kB\nMemFree: 900000 kB\n",
    "/proc/keys": b"""\
16b6dbbc I------     1 perm 1f0b0000     0     0 keyring   .platform: 2
20b7c6e4 I------     2 perm 1f0b0000     0     0 keyring   .machine: empty
""",
    "/sys/kernel/security/lockdown": b"[none] integrity confidentiality\n",
    "/proc/self/status": b"Name:\tpython\nCapEff:\t000001ffffffffff\n",
    "/boot/config-6.12.117+deb13-amd64": b"CONFIG_KEXEC=y\nCONFIG_KEXEC_FILE=y\n# CONFIG_KEXEC_SIG_FORCE is not set\n",
    "/proc/cpuinfo": b"processor\t: 0\nflags\t\t: fpu pse pae\nbugs\t\t: spectre_v1\n",
}


@dataclass
class FakeLinux:
    """`refuse` is the errno of every load, 0 for none; `came_back` of a jump."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    refuse: int = 0
    refuse_next: int = 0
    """The errno of one load, and of no other."""
    came_back: int = 0
    loads: list[tuple[int, list[tuple[int, int, bytes]], int]] = field(default_factory=list)
    file_loads: list[tuple[int, int, bytes, FileFlag]] = field(default_factory=list)
    jumps: int = 0
    log: list[str] = field(default_factory=list)
    """Lines of the system's log, where a test keeps them here."""
    log_names: list[str] = field(default_factory=list)
    """Whose log it was each time that it was opened."""
    runs: list[Sequence[str]] = field(default_factory=list)
    brings_back: bool = True
    """Whether a program that is run loads a crash image."""

    def file(self, path: str) -> bytes | None:
        return self.files.get(path)

    def _counted(self, *, crash: bool) -> None:
        """A call that is asked is one load less, whatever comes of it (kexec_load_permitted)."""
        path = f"/proc/sys/kernel/kexec_load_limit_{'panic' if crash else 'reboot'}"
        left = int(self.files[path])
        if left == 0:
            raise CallFailed("kexec_load", errno.EPERM)
        self.files[path] = b"%d\n" % (left if left < 0 else left - 1)

    def _answer(self, *, crash: bool, unload: bool) -> None:
        self._counted(crash=crash)
        path = "/sys/kernel/kexec_crash_loaded" if crash else "/sys/kernel/kexec_loaded"
        refuse, self.refuse_next = self.refuse_next or self.refuse, 0
        if refuse:
            if crash and not unload:
                self.files[path] = b"0\n"
            raise CallFailed("kexec_load", refuse)
        self.files[path] = b"0\n" if unload else b"1\n"

    def kexec_load(self, entry: int, segments: Sequence[LoadSegment], flags: int) -> None:
        rows = [
            (each.destination.start, each.destination.size, bytes(each.data)) for each in segments
        ]
        self.loads.append((entry, rows, flags))
        if b"[none]" not in self.files["/sys/kernel/security/lockdown"]:
            self._counted(crash=bool(flags & 1))
            raise CallFailed("kexec_load", errno.EPERM)
        self._answer(crash=bool(flags & 1), unload=not segments)

    def kexec_file_load(
        self, kernel: int, initrd: int, command_line: bytes, flags: FileFlag
    ) -> None:
        self.file_loads.append((kernel, initrd, command_line, flags))
        self._answer(crash=bool(flags & 2), unload=bool(flags & 1))

    def reboot_kexec(self) -> None:
        self.jumps += 1
        if self.came_back:
            raise CallFailed("reboot", self.came_back)

    def run(self, words: Sequence[str]) -> int:
        self.runs.append(words)
        if self.brings_back:
            self.files["/sys/kernel/kexec_crash_loaded"] = b"1\n"
        return 0

    def become(self, words: Sequence[str]) -> NoReturn:
        raise Became(words)


class Became(Exception):
    """The process is another program now."""
