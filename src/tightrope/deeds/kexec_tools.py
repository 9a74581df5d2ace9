"""kexec-tools asked where it would put a kernel on a described machine, and nothing loaded.

    host  --host.files-->  a folder  --shown to kexec under the recorder-->  a recording  -->  Loaded

Rules: the kexec that is installed here, with the options that a user would give it.  Nothing is
left behind.
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

PLACES = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin"


def load(
    kernel: str, initrd: str | None, line: str, host: Host, *, options: Sequence[str] = ()
) -> Loaded:
    """What the installed kexec would load for this machine.

    Raises MissingPart without one, or without the right to be told the truth; BadInput where it
    refuses.
    """
    program = shutil.which("kexec", path=f"{os.environ.get('PATH', '')}:{PLACES}")
    if program is None:
        raise MissingPart(
            "--loader kexec-tools needs kexec, which is not here: install kexec-tools, or record on a machine"
            " that has it (tightrope record) and give --segments"
        )
    if os.geteuid():
        raise MissingPart("kexec works for root alone: run as root, nothing is loaded")
    if not host.paging.long_mode:
        raise BadInput(
            "kexec of this machine plans for a 64-bit kernel: record on a 32-bit one (tightrope record), and"
            " give --segments",
            source="--loader kexec-tools",
        )
    command = [program, "-c", "-l", kernel, f"--command-line={line}", *options]
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
                raise BadInput(
                    f"{words[-1] if words else err.problem}", source=f"kexec -l {kernel}"
                ) from err
            out.seek(0)
            recording = file.read(out.read(), "kexec -l")
    return segments.recorded(recording)
