"""Guests of a user's: plain QEMU processes with a QMP and a gdb socket, and a shell on their console.

Rules: nothing is asserted here.  A guest is no machine of ours: it is started as a user would, and what is
known of it is its sockets' paths.  One boot serves many cases: a guest's state is saved (the monitor's
savevm, into a disk of its own that nothing in it sees), and each case comes back to one.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.conftest import debian_kernel, fetched_kexec
from tests.makers import cpio, qcow2
from tests.perform.dom0 import MACHINE, unpacked
from tests.perform.jumps import RUN_KEXEC, kexec_tools
from tightrope import image
from tightrope.machine.attached import Attached
from tightrope.machine.qemu.process import below_us

MEBIBYTES = 512
XEN_MEBIBYTES = 1024
"""dom0 has 384 of them, the crash region 160, and what is loaded lies in Xen's own."""
CRASH = "160M"
SECONDS = 900.0
"""Far above any boot, on a computer that does other things as well."""
LINE = "console=ttyS0 earlyprintk=ttyS0,115200 panic=-1 cryptomgr.notests"
NEW = "cloud-amd64"
"""Its payload is lz4, which is soon unpacked."""
PROGRAM = 0o100755
HYPERCALLS = ("xen-privcmd.ko", "xenfs.ko")
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
for each in /modules/*; do insmod $each; mount -t xenfs xenfs /proc/xen; done 2>/dev/null
stty -echo
kexec_() { cd /home && KEXEC "$@"; }
load() { kexec_ "$@" new --initrd=small --append='LINE tightrope=watched'; }
leave() { kexec_ -e; }
crash() { taskset 2 sh -c 'echo c > /proc/sysrq-trigger' || echo c > /proc/sysrq-trigger; }
echo "guest: up $(uname -r)"
while read -r line; do
    eval "$line"
    echo "guest: did $?"
done
poweroff -f
"""
"""What is typed at it are short words: Xen keeps 128 bytes for dom0 (SERIAL_RX_SIZE of console.c)
and drops what comes besides.  `kexec_` runs the one that is there, whatever its width; `crash` is on
the second CPU, where there is one."""
SHELL = INIT.replace("KEXEC", RUN_KEXEC.replace("ld-linux-x86-64", "ld-linux*")).replace(
    "LINE", LINE
)


@functools.cache
def small(machine: str = "amd64") -> bytes:
    """An initramfs with a shell on the console."""
    busybox = debian_kernel(f"busybox-{machine}").read_bytes()
    made = [
        cpio.entry(name, mode=cpio.DIRECTORY)
        for name in ("bin", "dev", "proc", "sys", "home", "home/lib")
    ]
    made += [
        cpio.entry("init", SHELL.encode(), mode=PROGRAM),
        cpio.entry("bin/busybox", busybox, mode=PROGRAM),
    ]
    return b"".join(made) + cpio.TRAILER


@functools.cache
def large(machine: str = "amd64", *, dom0: bool = False) -> bytes:
    """The same with kexec-tools, a kernel to leave for and its initramfs, both of 64 bits; a dom0's
    with the modules for hypercalls."""
    tools = kexec_tools() if machine == "amd64" else narrow_kexec_tools()
    given = [(f"home/{name}", path.read_bytes()) for name, path in tools]
    given += [("home/new", debian_kernel(NEW).read_bytes()), ("home/small", small())]
    folders = [cpio.entry("modules", mode=cpio.DIRECTORY)] if dom0 else []
    for name in HYPERCALLS if dom0 else ():
        path = debian_kernel("amd64").parent.parent / "modules" / name
        given.append((f"modules/{name}", path.read_bytes()))
    more = [cpio.entry(name, data, mode=PROGRAM) for name, data in given]
    return small(machine) + b"".join((*folders, *more)) + cpio.TRAILER


def narrow_kexec_tools() -> tuple[tuple[str, Path], ...]:
    """The 32-bit kexec and what it is linked with."""
    folder = fetched_kexec("kexec-tools-i386").parent
    libraries = ("ld-linux.so.2", "libc.so.6")
    return ("kexec", folder / "kexec.i386"), *((f"lib/{e}", folder / "lib" / e) for e in libraries)


def load(*how: str) -> str:
    """The command that loads the new kernel: -l or -p, and -s for kexec_file_load."""
    return f"load {' '.join(how)}"


LEAVE, CRASHES = "leave", "crash"


class Guest:
    """A QEMU of somebody's, with a disk for its states.  Use it in a `with`."""

    def __init__(
        self,
        folder: Path,
        flavour: str = "amd64",
        *,
        kaslr: bool = False,
        cpus: int = 1,
        accelerator: str = "tcg",
    ) -> None:
        """`kaslr`: the kernel as its file is; else unpacked, which is sooner up."""
        self.folder = folder
        folder.mkdir(exist_ok=True)
        kernel, initrd, disk = folder / "kernel", folder / "initrd", folder / "states.qcow2"
        path = debian_kernel(flavour)
        data = path.read_bytes()
        xen = flavour.startswith("xen-")
        # As a file of a distribution it unpacks itself, to where KASLR wants it; that takes seconds.
        kernel.write_bytes(
            gzip.decompress(data)
            if xen
            else data
            if kaslr
            else bytes(image.unpack(image.read(data, path.name)))
        )
        initrd.write_bytes(large("i386" if flavour.startswith("686") else "amd64", dom0=xen))
        disk.write_bytes(qcow2.empty())
        modules, words = str(initrd), f"{LINE} quiet crashkernel={CRASH}"
        if xen:
            dom0 = folder / "dom0"
            dom0.write_bytes(unpacked("amd64"))
            modules = f"{dom0} {MACHINE.DOM0},{initrd}"
            words = f"{MACHINE.XEN} crashkernel={CRASH}"
        # A path of a socket has 107 characters at most.
        self.qmp, self.gdb = (os.path.relpath(folder / name) for name in ("qmp", "gdb"))
        self.console = folder / "console"
        """What it has said, as QEMU writes it down."""
        size = XEN_MEBIBYTES if xen else MEBIBYTES
        said = [*below_us(), "-accel", accelerator, "-m", str(size), "-nodefaults"]
        said += ["-display", "none", "-smp", str(cpus)]
        said += ["-cpu", MACHINE.CPU if xen else "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt"]
        said += ["-kernel", str(kernel), "-initrd", modules, "-append", words]
        said += ["-chardev", f"socket,id=q,path={self.qmp},server=on,wait=off"]
        said += ["-mon", "chardev=q,mode=control"]
        said += ["-gdb", f"unix:{self.gdb},server=on,wait=off"]
        said += ["-chardev", f"stdio,id=c,logfile={self.console}", "-serial", "chardev:c"]
        said += ["-drive", f"if=none,id=states,file={disk},cache=unsafe"]
        self._process = subprocess.Popen(
            said, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        self.text = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def hear(self, seconds: float = 0.0) -> None:
        """Take in what the console has said."""
        assert self._process.stdout is not None
        while select.select([self._process.stdout], [], [], seconds)[0]:
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                return
            self.text += data.decode("latin-1")
            seconds = 0.0

    def wait(self, word: str, seconds: float = SECONDS) -> None:
        """Until the console says a word."""
        limit = time.monotonic() + seconds
        while word not in self.text:
            if time.monotonic() > limit or self._process.poll() is not None:
                raise AssertionError(f"{word!r} was not said: {self.text[-2000:]}")
            self.hear(0.2)

    def say(self, command: str) -> None:
        """Type a line, which has to be a short one."""
        assert len(command) < 128, command
        self.text = ""
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")

    def do(self, command: str) -> None:
        """A command, and that it went well."""
        self.say(command)
        self.wait("guest: did ")
        while "\n" not in self.text.partition("guest: did ")[2]:
            self.hear(0.2)
        assert "guest: did 0" in self.text, self.text

    def attached(self) -> Attached:
        """Watched, once its sockets are there."""
        self._sockets()
        return Attached(self.qmp, self.gdb)

    def _sockets(self) -> None:
        limit = time.monotonic() + SECONDS
        while not (Path(self.qmp).exists() and Path(self.gdb).exists()):
            assert time.monotonic() < limit
            time.sleep(0.05)

    def asked(self, *commands: tuple[str, dict[str, str]]) -> list[object]:
        """What QMP answers to each of these, while nobody else is on its socket."""
        self._sockets()
        answers = []
        with socket.socket(socket.AF_UNIX) as qmp, qmp.makefile("rw") as lines:
            qmp.connect(self.qmp)
            lines.readline()
            for name, arguments in (("qmp_capabilities", {}), *commands):
                lines.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
                lines.flush()
                while "return" not in (answer := json.loads(lines.readline())):
                    assert "error" not in answer, answer
                answers.append(answer["return"])
        return answers[1:]

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """QEMU gets no CPU, as on a computer that is very busy."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def status(self) -> str:
        """Its run state, in QMP's words."""
        (answer,) = self.asked(("query-status", {}))
        assert isinstance(answer, dict)
        return str(answer["status"])

    def monitor(self, line: str) -> None:
        """A line of QEMU's monitor that has nothing to say."""
        (said,) = self.asked(("human-monitor-command", {"command-line": line}))
        assert said == "", said

    def save(self, name: str) -> None:
        """Its state, to come back to; it goes on from there."""
        self.monitor(f"savevm {name}")

    def back(self, name: str, *, run: bool = True) -> None:
        """To a state that was saved, whatever has become of it."""
        self.monitor("stop")
        self.monitor(f"loadvm {name}")
        self.hear(0.3)  # what was said before, and is still on its way
        self.text = ""
        if run:
            self.monitor("cont")


def start(folder: Path, flavour: str) -> Guest:
    """6.1 as it is soonest up; a newer or a narrow one as its file is: it unpacks itself, KASLR
    moves it, and it has two CPUs."""
    plain = flavour == "amd64"
    return Guest(folder, flavour, kaslr=not plain, cpus=1 if plain else 2)
