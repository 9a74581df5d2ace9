"""kexec-tools asked where it would put a kernel on a described machine, and nothing loaded.

    host  --host.files-->  a folder  --shown to kexec under the recorder-->  a recording  -->  Loaded

Rules: the kexec that is installed here, or one that is named, with the options that a user would
give it; a 32-bit one for a 32-bit old kernel.  Nothing is left behind.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tightrope import host as host_room
from tightrope.deeds import segments
from tightrope.deeds.record import record
from tightrope.errors import BadInput, MissingPart
from tightrope.model import Host, Loaded
from tightrope.record import file

FOREIGN = "Unsupported machine type"
"""What kexec says of a machine that it was not built for (kexec/phys_arch.c)."""
PLACES = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin"


def load(
    kernel: str,
    initrd: str | None,
    line: str,
    host: Host,
    *,
    crash: bool = False,
    program: str | None = None,
    options: Sequence[str] = (),
) -> Loaded:
    """What kexec would load for this machine: `program`, or the installed one.

    Raises MissingPart without one, or without the right to be told the truth; BadInput where it
    refuses.
    """
    if program is None:
        program = shutil.which("kexec", path=f"{os.environ.get('PATH', '')}:{PLACES}")
    if program is None:
        raise MissingPart(
            "--loader kexec-tools needs kexec, which is not here: install kexec-tools, or record on a machine"
            " that has it (tightrope record) and give --segments"
        )
    if not os.access(program, os.X_OK):
        raise BadInput("is not a program that can be run", source=program)
    if os.geteuid():
        raise MissingPart("kexec runs only as root: run this as root; nothing will be loaded")
    kind = "-p" if crash else "-l"
    command = [program, "-c", kind, kernel, f"--command-line={line}", *options]
    if not host.paging.long_mode:
        # It asks uname(2) which machine it is on, and is told by the persona of its process.
        command = [_tool("setarch"), "i686", *command]
    command += [] if initrd is None else [f"--initrd={initrd}"]
    with tempfile.TemporaryDirectory(prefix="tightrope-") as folder:
        for path, data in host_room.files(host).items():
            place = Path(folder + path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
            try:
                record(command, out, said=said, machine=folder)
            except BadInput as err:
                said.seek(0)
                words = said.read(4096).decode(errors="replace").strip().splitlines()
                if not host.paging.long_mode and any(FOREIGN in line for line in words):
                    raise _width(program, 64, 32) from err
                raise BadInput(
                    f"{words[-1] if words else err.problem}", source=f"kexec {kind} {kernel}"
                ) from err
            out.seek(0)
            recording = file.read(out.read(), f"kexec {kind}")
    if (recording.machine == "x86_64") is not host.paging.long_mode:
        wide = recording.machine == "x86_64"
        raise _width(program, 64 if wide else 32, 32 if wide else 64)
    return segments.recorded(recording)


def _width(program: str, bits: int, wanted: int) -> BadInput:
    return BadInput(
        f"is a {bits}-bit program, and the old kernel is a {wanted}-bit one: name a {wanted}-bit kexec"
        " (--kexec), or record on such a machine and give --segments",
        source=program,
    )


def _tool(name: str) -> str:
    """A program of util-linux.  Raises MissingPart."""
    found = shutil.which(name)
    if found is None:
        raise MissingPart(f"a 32-bit kexec is run by {name} (util-linux), which is not here")
    return found
