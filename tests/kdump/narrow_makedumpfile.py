"""i386's makedumpfile, which reads dumps of 32-bit kernels: the one for amd64 reads none.

    scripts/build-kdump's root for 686-pae -> the program and its libraries, in a folder -> run here by its own loader

Rules: nothing is asserted here.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.kdump.shapes import made

_LIBRARIES = "/usr/lib/i386-linux-gnu"
_LOADER = "ld-linux.so.2"


def unpacked(folder: Path) -> tuple[str, ...]:
    """The words that it is called by, in front of its own."""
    root, program = made("i386") / "root.ext4", folder / "makedumpfile"
    debugfs = shutil.which("debugfs") or "/usr/sbin/debugfs"
    for words in (f"dump /usr/bin/makedumpfile {program}", f"rdump {_LIBRARIES} {folder}"):
        subprocess.run([debugfs, "-R", words, root], check=True, capture_output=True)
    libraries = folder / Path(_LIBRARIES).name
    for each in (program, libraries / _LOADER):
        each.resolve().chmod(0o755)
    return str(libraries / _LOADER), "--library-path", str(libraries), str(program)
