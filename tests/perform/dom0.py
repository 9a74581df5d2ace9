"""Machines in QEMU to perform things in: a real Xen with its dom0, and Linux on the bare PC.

Rules: nothing is asserted here.  The guest takes commands on its console (scripts/build-dom0); files go
in and out over its disk.  One boot serves one jump: what can be asked before it is asked in the same.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Self

from tests.conftest import REPOSITORY, debian_kernel, lacking
from tests.qemu.disk import Disk
from tests.qemu.pcs import QUIET
from tightrope import image
from tightrope.machine.qemu.pc import Board, Pc

BOOT_SECONDS = 600.0
"""Far above any boot, on a computer that does other things as well."""


def _script() -> ModuleType:
    """scripts/boot-dom0, which says what the machine is made of."""
    loader = SourceFileLoader("boot_dom0", str(REPOSITORY / "scripts" / "boot-dom0"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


MACHINE = _script()
MIB: int = MACHINE.MIB


def starved(number: int) -> float:
    """Seconds that the threads of a process could have run and others had the CPU; 0 where Linux
    does not count them (Documentation/scheduler/sched-stats.rst: /proc/PID/schedstat).
    """
    waited = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        for each in Path(f"/proc/{number}/task").iterdir():
            waited = max(waited, int((each / "schedstat").read_text().split()[1]))
    return waited / 1e9


@functools.cache
def initramfs(files: tuple[tuple[str, Path], ...] = (), *, rehearse: bool = False) -> bytes:
    """What scripts/build-dom0 makes, with each file under its name; with what a rehearsal takes."""
    kernel = debian_kernel("amd64")
    if not (kernel.parent.parent / "modules").is_dir():
        lacking("no modules of Debian's amd64 kernel here: run scripts/fetch-kernels")
    script = REPOSITORY / "scripts" / "build-dom0"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "dom0.cpio"
        given = [f"home/{name}={path}" for name, path in files]
        flags = ["--rehearse"] if rehearse else []
        subprocess.run([sys.executable, script, *flags, out, *given], check=True)
        return out.read_bytes()


@functools.cache
def unpacked(flavour: str) -> bytes:
    """Debian's kernel as the ELF file within: unpacking xz under an emulated CPU costs six seconds.

    QEMU enters it by its PVH note, with the same memory, command line and initrd.
    """
    path = debian_kernel(flavour)
    return bytes(image.unpack(image.read(path.read_bytes(), path.name)))


class Guest:
    """A machine that boots by itself, and takes commands on its console once it is `up`."""

    greeting = "tightrope: linux "
    """What its init says first."""

    def __init__(self, board: Board, disk: Disk) -> None:
        self.disk, self.used = disk, 0
        self.closed = False
        try:
            self.pc = Pc(board)
            self.seen = 0
            # Its output goes into a socket that has room for a boot: nobody has to read meanwhile.
            self.pc.go(seconds=0.01, interrupt=False)
        except BaseException:
            self.close()
            raise

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
        """End the guest; calling it again does nothing."""
        if hasattr(self, "pc"):
            self.pc.close()
        if not self.closed:
            os.close(self.disk.descriptor)
            self.closed = True

    def up(self) -> Self:
        """Wait for the boot to be over."""
        self.wait(self.greeting)
        return self

    def wait(self, word: str, seconds: float = BOOT_SECONDS) -> list[str]:
        """The lines from the last ones looked at up to the one that holds `word`.

        Raises AssertionError when a command comes back instead, or nothing does.  What the guest
        waited for a CPU of this computer does not count.
        """
        number, begins = self.pc.process.number, self.seen
        limit = time.monotonic() + seconds - starved(number)
        ends = False

        def there() -> bool:
            nonlocal ends
            while self.seen < len(self.pc.lines) and not ends:
                self.seen += 1
                line = self.pc.lines[self.seen - 1]
                ends = word in line or line.startswith(("tightrope: did ", "Kernel panic"))
            return ends

        stood = None
        while not ends and stood is None:
            left = limit + starved(number) - time.monotonic()
            if left <= 0:
                break
            stood = self.pc.go(seconds=left, turn=there, interrupt=False)
        lines = self.pc.lines[begins : self.seen]
        if not lines or word not in lines[-1]:
            raise AssertionError(f"{word!r} was not said in {seconds:.0f} s: {lines[-20:]}")
        return lines

    def do(self, command: str, seconds: float = BOOT_SECONDS) -> tuple[int, list[str]]:
        """One command's status and the lines that it said."""
        self.pc.say(f"{command}\n")
        lines = self.wait("tightrope: did ", seconds)
        # The terminal echoes the command.
        said = [each for each in lines[:-1] if command not in each]
        return int(lines[-1].rsplit(" ", 1)[1]), said

    def put(self, name: str, data: bytes) -> str:
        """A file in the guest, through a place on the disk that it has not read before; its path."""
        at = self.used
        os.pwrite(self.disk.descriptor, data, at)
        self.used += -(-len(data) // MIB) * MIB
        return self.fetch(name, at, len(data))

    def fetch(self, name: str, at: int, size: int) -> str:
        """A file out of the disk, where `put` has left it, of an earlier kernel's too; its path."""
        blocks = -(-size // MIB)
        copy = f"dd if=/dev/nvme0n1 of={name} bs=1M skip={at // MIB} count={blocks} 2>/dev/null"
        status, lines = self.do(f"{copy} && truncate -s {size} {name}")
        if status:
            raise AssertionError(f"{name} did not get into the guest: {lines}")
        return name

    def core(self, path: Path) -> Path:
        """What a crash kernel's init left on the disk."""
        return self.disk.core(path)


class Dom0(Guest):
    """Xen and its dom0."""

    greeting = "tightrope: dom0 "

    def __init__(self, *, crash: int = 128) -> None:
        """`crash`: MiB of crash region."""
        xen = gzip.decompress(debian_kernel("xen-amd64").read_bytes())
        disk = Disk(MACHINE.RAM)
        board = Board(
            size=MACHINE.RAM,
            kernel=xen,
            command_line=MACHINE.xen_words(crash),
            cpu=MACHINE.CPU,
            drive=disk.descriptor,
            modules=((unpacked("amd64"), MACHINE.DOM0), (initramfs(), "")),
        )
        super().__init__(board, disk)


class BareLinux(Guest):
    """Debian's kernel on the bare PC, with the Python and the `tightrope` of dom0's initramfs."""

    def __init__(
        self,
        flavour: str = "amd64",
        *,
        crash: str = "",
        words: str = "",
        mebibytes: int = 640,
        files: tuple[tuple[str, Path], ...] = (),
        rehearse: bool = False,
        counted: bool = False,
    ) -> None:
        """`crash`: what crashkernel= says, none without it; `words`: the command line's besides.  `files` lie in /home from the beginning.

        With `rehearse` it has the packages that a rehearsal takes; `counted` is the board's.
        """
        disk = Disk(MACHINE.RAM)
        reserve = f" crashkernel={crash}" if crash else ""
        board = Board(
            size=mebibytes * MIB,
            split=mebibytes >= 3584,
            kernel=unpacked(flavour),
            initrd=initramfs(files, rehearse=rehearse),
            command_line=f"{QUIET}{reserve} {words}".rstrip(),
            drive=disk.descriptor,
            counted=counted,
        )
        super().__init__(board, disk)
