"""Machines of several shapes with Debian's kdump-tools: what `kdump check` says of each, and its real crash.

    a guest boots with crashkernel= -> contrib/capture.py describes it -> kexec -p, as kdump-config loads -> it panics
                                         |                                                    |
                                         v                                                    v
                              tightrope kdump check --host                     what lies on its disk afterwards

The crash kernel's initrd and its root are scripts/build-kdump's.  Both sides have the same files, words and
disk; they share no memory, no loader and no judge: what happened is read from the disk's ext4.

Rules: nothing is asserted here.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY, debian_kernel, lacking, without_hardware
from tests.kdump.narrow_host import narrow_host
from tests.perform import dom0, jumps, narrow
from tests.perform.dom0 import BOOT_SECONDS, MIB, Guest
from tests.perform.jumps import Loader
from tests.qemu.disk import Disk
from tightrope import host, vmcore
from tightrope.errors import TightropeError
from tightrope.kdump.configuration import TOOLS_APPEND
from tightrope.machine.qemu.pc import Board
from tightrope.vmcore.planned import planned

ROOT = "root=UUID=7167d09e-0000-4000-8000-00000000cafe"
WORDS = f"{ROOT} ro console=ttyS0 panic=-1 cryptomgr.notests"
"""What the guest boots with: kdump-tools hands all of it on, but crashkernel=."""
CRASH_WORDS = f"{WORDS} {TOOLS_APPEND}"
CAPTURE = REPOSITORY / "contrib" / "capture.py"


ENLARGED = 768 * MIB
_LINE = 200
"""Characters of a line that are kept: makedumpfile's progress is one of thousands."""


class Crash(Enum):
    """How the machine dies."""

    SYSRQ = "sysrq"
    NMI = "NMI"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A machine, and what is loaded there for its crash."""

    name: str
    flavour: str = "amd64"
    runs: str = ""
    """The flavour that runs there and dies, where it is another kernel than the crash kernel."""
    crash: Crash = Crash.SYSRQ
    by_file: bool = False
    """kexec_file_load: Linux itself tells the crash kernel of its memory."""
    limit: int = 0
    """Seconds that `kdump check` waits, where it is not to wait as long as it does."""
    mebibytes: int = 768
    crashkernel: str = "192M"
    """Empty: the machine boots without crashkernel=."""
    cpu: str = "max,la57=off"
    initrd: bool = True
    words: str = CRASH_WORDS

    @property
    def architecture(self) -> str:
        """Debian's name of it."""
        return "i386" if jumps.narrow(self.flavour) else "amd64"

    @property
    def kernel(self) -> Path:
        """Debian's, which scripts/build-kdump made the initrd for."""
        return next(made(self.architecture).glob("vmlinuz-*"))

    @property
    def dies(self) -> Path:
        """The kernel that runs there."""
        return debian_kernel(self.runs) if self.runs else self.kernel

    @property
    def release(self) -> str:
        """What uname -r says there."""
        return self.dies.name.removeprefix("vmlinuz-")


SHAPES = (
    Shape(name="good"),
    Shape(name="too small", crashkernel="80M"),
    Shape(name="no initrd", initrd=False),
    Shape(name="high and low", mebibytes=5120, crashkernel="192M,high crashkernel=72M,low"),
    Shape(name="5 levels", cpu="max"),
    Shape(name="686-pae", flavour="686-pae"),
    Shape(name="no such root", words=CRASH_WORDS.replace("cafe", "beef")),
    # Without its CMA memory this region is that of "too small".
    Shape(
        name="CMA, NMI", runs="cloud-amd64-7.3", mebibytes=1024,
        crashkernel="80M crashkernel=112M,cma", by_file=True, crash=Crash.NMI,
    ),
    Shape(name="6.12", runs="amd64-6.12"),
    Shape(name="no region", crashkernel=""),
    Shape(name="hung", words=f"{CRASH_WORDS} rdinit=/bin/cat", limit=60),
)  # fmt: skip
NAMED = {each.name: each for each in SHAPES}


@dataclass(frozen=True, kw_only=True, slots=True)
class Happened:
    """What came of a real crash, as its disk has it."""

    saved: str
    """The dump's path on the disk, empty where there is none."""
    release: str = ""
    """OSRELEASE of that dump."""
    pgd: str = ""
    """What `tightrope pgd` says of it."""
    differ: list[str] = field(default_factory=list)
    """What `pgd --plan` says that the dump has otherwise than the host file."""
    refused: list[str] = field(default_factory=list)
    """What the loaders said there where they refused to load it."""
    said: list[str] = field(default_factory=list)
    """The last lines of the console."""
    console: list[str] = field(default_factory=list, repr=False)
    """All of it."""
    seconds: float = 0.0


def made(architecture: str) -> Path:
    """The folder that scripts/build-kdump made."""
    folder = REPOSITORY / ".cache" / "kernels" / f"kdump-tools-{architecture}"
    if (why := folder.with_name("kdump-tools-why.txt")).exists():
        without_hardware(why.read_text().strip())
    if not (folder / "packages.txt").exists():
        lacking(f"no kdump-tools of {architecture} here: run scripts/build-kdump")
    return folder


@contextmanager
def crashing(
    shape: Shape, disk_files: Mapping[str, bytes] | None = None
) -> Iterator[tuple[Guest, Disk]]:
    """The machine, up, with all that is loaded there in /home.

    `disk_files` are programs by their paths on the disk, which has room for them and for a dump.
    """
    disk = Disk(MIB)
    bits = 32 if shape.architecture == "i386" else 64
    files = (
        *jumps.files([], Loader.KEXEC_TOOLS, bits=bits),
        ("vmlinuz", shape.kernel),
        ("initrd", made(shape.architecture) / "initrd.img"),
        ("capture.py", CAPTURE),
    )
    if bits == 32:
        initramfs = narrow.initramfs({name: path.read_bytes() for name, path in files})
    else:
        initramfs = dom0.initramfs(files)
    with (made(shape.architecture) / "root.ext4").open("rb") as root:
        if disk_files:
            _enlarged(root.fileno(), disk.descriptor, disk_files)
        else:
            _copied(root.fileno(), disk.descriptor)
    board = Board(
        size=shape.mebibytes * MIB,
        split=shape.mebibytes > 3072,
        kernel=shape.dies.read_bytes(),
        initrd=initramfs,
        command_line=f"{WORDS} crashkernel={shape.crashkernel}" if shape.crashkernel else WORDS,
        cpu=shape.cpu,
        drive=disk.descriptor,
    )
    with Guest(board, disk) as guest:
        yield guest.up(), disk


def described(guest: Guest, shape: Shape) -> str:
    """The machine's host file, by contrib/capture.py; of a 32-bit one by what that collects."""
    status, lines = guest.do(
        "python capture.py >captured.toml 2>notes || tail -n 3 notes; cat captured.toml; test -s captured.toml"
    )
    if status:
        raise AssertionError(f"capture.py: {lines[-5:]}")
    text = "\n".join(each for each in lines if not each.startswith("[ ")) + "\n"
    return narrow_host(text) if shape.architecture == "i386" else text


def loaded(guest: Guest, shape: Shape) -> list[str]:
    """Load what kdump-config would.  Raises AssertionError where the guest refuses it.

    Without crashkernel= it is the other way round: the last lines of kexec and of `tightrope load`, which have
    to refuse it.
    """
    bits = 32 if shape.architecture == "i386" else 64
    run = jumps.RUN_NARROW_KEXEC if bits == 32 else jumps.RUN_KEXEC
    initrd = "--initrd=initrd" if shape.initrd else ""
    how = "-p -s" if shape.by_file else "-p"
    status, lines = guest.do(f"{run} {how} --command-line='{shape.words}' {initrd} vmlinuz")
    if bool(status) is bool(shape.crashkernel):
        raise AssertionError(f"kexec -p: {status} {lines[-5:]}")
    refused = lines[-1:] if status else []
    if status:
        status, lines = guest.do(f"tightrope load vmlinuz --crash --append '{shape.words}' 2>&1")
        if not status:
            raise AssertionError(f"tightrope load: {lines[-5:]}")
        refused += lines[-1:]
    guest.do(
        'cd /; ls -A1 | grep -vxE "bin|dev|proc|sys" | xargs rm -rf'
    )  # makedumpfile need not pack them
    return refused


def crashed(
    guest: Guest, disk: Disk, old: str, shape: Shape, refused: Sequence[str] = ()
) -> Happened:
    """Crash it, and look what is on its disk once it has restarted, or nothing more comes.

    `old` is its host file; `refused` what `loaded` gave.
    """
    started = time.monotonic()
    console = ended(guest, shape)
    seconds = time.monotonic() - started
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "disk"
        with image.open("wb") as out:
            _copied(disk.descriptor, out.fileno())
        return Happened(
            **_on_disk(image, Path(folder) / "dump", old),
            refused=list(refused),
            said=console[-12:],
            console=console,
            seconds=round(seconds, 1),
        )


def ended(guest: Guest, shape: Shape) -> list[str]:
    """Crash it, and wait until it has restarted or nothing more comes; the console from there on."""
    begins = len(guest.pc.lines)
    if shape.crash is Crash.NMI:
        guest.do("echo 1 > /proc/sys/kernel/unknown_nmi_panic")
        guest.pc.monitor("nmi")
    else:
        guest.pc.say("echo c > /proc/sysrq-trigger\n")
    guest.pc.go(seconds=4 * shape.limit or BOOT_SECONDS, interrupt=False)
    # A program that draws its progress goes back to the start of a line.
    lines = [part for each in guest.pc.lines[begins:] for part in each.rstrip("\r").split("\r")]
    return [each[-_LINE:] for each in lines]


def _enlarged(root: int, target: int, files: Mapping[str, bytes]) -> None:
    """The root's file system in ENLARGED bytes, with these programs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = folder / "disk"
        with image.open("wb") as out:
            _copied(root, out.fileno())
            os.truncate(image, ENLARGED)
        _e2fs("e2fsck", "-f", "-y", str(image))
        _e2fs("resize2fs", str(image))
        words = []
        for number, (path, data) in enumerate(files.items()):
            (folder / str(number)).write_bytes(data)
            words += [f"rm {path}", f"write {folder / str(number)} {path}"]
            words += [f"set_inode_field {path} mode 0100755"]
        (folder / "words").write_text("".join(f"{each}\n" for each in words))
        _e2fs("debugfs", "-w", "-f", str(folder / "words"), str(image))
        with image.open("rb") as made_here:
            _copied(made_here.fileno(), target)


@contextmanager
def on_disk(disk: Disk, folder: str) -> Iterator[Path]:
    """A folder of the disk as a folder here."""
    with tempfile.TemporaryDirectory() as name:
        image = Path(name) / "disk"
        with image.open("wb") as out:
            _copied(disk.descriptor, out.fileno())
        _e2fs("e2fsck", "-f", "-y", str(image))
        _e2fs("debugfs", "-R", f"rdump {folder} {name}", str(image))
        yield Path(name) / Path(folder).name


def _copied(source: int, target: int) -> None:
    """All bytes of a file into another, holes as holes."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError:  # nothing but a hole is left
            return
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            at += os.pwrite(target, os.pread(source, min(MIB, end - at), at), at)


def _on_disk(image: Path, out: Path, old: str) -> dict[str, Any]:
    """The dump that lies in /var/crash, read back, and held against the host file."""
    _e2fs("e2fsck", "-f", "-y", str(image))  # its journal is played
    found = ""
    for folder in _names(image, "/var/crash"):
        for name in _names(image, f"/var/crash/{folder}"):
            if name.startswith(("dump.", "vmcore.")):
                found = f"/var/crash/{folder}/{name}"
    if not found:
        return {"saved": ""}
    _e2fs("debugfs", "-R", f"dump {found} {out}", str(image))
    try:
        core = vmcore.read(str(out))
        answer = vmcore.pgd(core)
    except TightropeError as err:
        return {"saved": found, "pgd": str(err)}
    return {
        "saved": found,
        "release": core.notes.vmcoreinfo.get("OSRELEASE", ""),
        "pgd": answer.answer.value,
        "differ": list(planned(answer, host.read_bytes(old.encode(), "captured")).differ),
    }


def _names(image: Path, folder: str) -> list[str]:
    """Names in a folder of the disk (debugfs's ls -p: /inode/mode/uid/gid/name/size/)."""
    rows = _e2fs("debugfs", "-R", f"ls -p {folder}", str(image)).splitlines()
    names = [row.split("/")[5] for row in rows if row.count("/") >= 6]
    return [each for each in names if each not in (".", "..")]


def _e2fs(*words: str) -> str:
    path = shutil.which(words[0]) or f"/usr/sbin/{words[0]}"
    return subprocess.run(
        [path, *words[1:]], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    ).stdout


def predicted(shape: Shape, captured: Path, *more: str) -> dict[str, object]:
    """What `tightrope kdump check --json` says of the machine's host file."""
    folder = made(shape.architecture)
    words = [
        *("kdump", "check", "--json", "--host", str(captured), "--append", shape.words),
        *("--kernel", str(shape.kernel), "--disk", str(folder / "root.ext4")),
        *(("--initrd", str(folder / "initrd.img")) if shape.initrd else ()),
        *(("--limit", str(shape.limit)) if shape.limit else ()),
        *more,
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tightrope", *words],
        check=False, capture_output=True, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    if not done.stdout:
        raise AssertionError(done.stderr)
    document: dict[str, object] = json.loads(done.stdout)
    return document


@functools.cache
def program() -> str:
    """The version of kdump-tools that the files are of."""
    rows = (made("amd64") / "packages.txt").read_text().splitlines()
    return next(
        row.split("_")[1].replace("%3a", ":") for row in rows if row.startswith("kdump-tools_")
    )
