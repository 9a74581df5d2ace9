"""An initramfs of 32 bits in which `tightrope` runs: Debian's Python for i386, and what a load imports.

Rules: nothing is asserted here.  As scripts/build-dom0 makes the one of 64 bits: its init takes lines from
the console as commands.
"""

from __future__ import annotations

import functools
import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from tests.conftest import REPOSITORY, debian_kernel, lacking
from tests.perform.dom0 import Guest
from tests.qemu.disk import Disk
from tests.qemu.pcs import QUIET
from tightrope.machine.qemu.pc import Board

ROOT = REPOSITORY / ".cache" / "kernels" / "python-i386"
LIBRARIES = ("libc.so.6", "libm.so.6", "libz.so.1", "libexpat.so.1", "libffi.so.8", "ld-linux.so.2")
PLACES = ("lib/i386-linux-gnu", "usr/lib/i386-linux-gnu")
EXTENSIONS = ("_ctypes", "_json", "mmap")
"""Modules in C that are no part of Debian's program itself; without _hashlib its own SHA-256 is taken."""
MIB = 1 << 20


@functools.cache
def build_dom0() -> ModuleType:
    loader = SourceFileLoader("build_dom0", str(REPOSITORY / "scripts" / "build-dom0"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@functools.cache
def _contents() -> dict[str, tuple[int, bytes]]:
    """Path in the archive -> (mode, bytes), without files of a test's own."""
    program = next(iter(sorted(ROOT.glob("usr/bin/python3.*"))), None)
    if program is None:
        lacking("no Python for i386 here: run scripts/fetch-python-i386")
    build = build_dom0()
    library = Path("usr/lib") / program.name
    here = Path(functools.__file__).parent
    out: dict[str, tuple[int, bytes]] = {
        "init": (0o100755, build.INIT.format(modules="").encode()),
        "bin/busybox": (0o100755, debian_kernel("busybox-i386").read_bytes()),
        "usr/bin/python": (0o100755, program.read_bytes()),
        "lib/ld-linux.so.2": (0o100755, (ROOT / PLACES[0] / "ld-linux.so.2").read_bytes()),
    }
    for name in LIBRARIES:
        path = next(ROOT / place / name for place in PLACES if (ROOT / place / name).exists())
        out[f"{PLACES[0]}/{name}"] = 0o100755, path.resolve().read_bytes()
    for path in sorted((ROOT / library / "lib-dynload").glob("*.so")):
        if path.name.split(".")[0] in EXTENSIONS:
            out[str(library / "lib-dynload" / path.name)] = 0o100755, path.read_bytes()
    for path in build.loaded(None):
        if path.suffix != ".py":
            continue
        if path.is_relative_to(here):
            source = ROOT / library / path.relative_to(here)
            name = library / path.relative_to(here)
        elif path.is_relative_to(REPOSITORY / "src"):
            source, name = path, Path("home/src") / path.relative_to(REPOSITORY / "src")
        else:
            continue
        if source.exists():
            out[str(name.with_suffix(".pyc"))] = 0o100644, build.compiled(source)
    paths = ["/home/src", f"/{library}", f"/{library}/lib-dynload"]
    commands: dict[str, tuple[int, bytes]] = build.commands("/usr/bin/python", paths)
    return out | commands


def initramfs(files: dict[str, bytes]) -> bytes:
    """The archive, with files in /home."""
    own = {f"home/{name}": (0o100644, data) for name, data in files.items()}
    made: bytes = build_dom0().archive(_contents() | own)
    return made


class NarrowLinux(Guest):
    """Debian's 32-bit kernel on the bare PC."""

    def __init__(
        self, flavour: str, files: dict[str, bytes], mebibytes: int, *, crash: str = ""
    ) -> None:
        """`crash`: what crashkernel= says; none without it."""
        reserve = f" crashkernel={crash}" if crash else ""
        board = Board(
            size=mebibytes * MIB,
            kernel=debian_kernel(flavour).read_bytes(),
            initrd=initramfs(files),
            command_line=f"{QUIET}{reserve}",
        )
        super().__init__(board, Disk(MIB))
