"""A core saved by makedumpfile, which leaves out what nobody wants to read.

    makedumpfile -l -d LEVEL --message-level 1 VMCORE FOLDER/vmcore.part -> FOLDER/vmcore

Source: makedumpfile(8).

Rules: it is asked whether it is there before anything is written; what it says when it fails is
told with its last line.  Its file gets its name as any other does: synced first.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tightrope.errors import MissingPart, PerformError
from tightrope.kdump.core import Vmcore
from tightrope.kdump.ring import Digest
from tightrope.kdump.saving import CHUNK, Copied, sync_folder, told

XEN = (
    "has no VMCOREINFO of Linux, which makedumpfile filters by: after a Xen dom0's panic the notes are"
    " the hypervisor's; save it without --filter"
)


def check(core: Vmcore) -> str:
    """makedumpfile's path.  Raises MissingPart where it is not, PerformError for what it cannot."""
    path = shutil.which("makedumpfile")
    if path is None:
        raise MissingPart("makedumpfile is not installed (on Debian: apt-get install makedumpfile)")
    if not core.notes.vmcoreinfo:
        raise PerformError(f"{core.source} {XEN}")
    return path


def filtered(core: Vmcore, final: Path, level: int, asked: Digest = Digest.SHA256) -> Copied:
    """Save what a dump level leaves of a core.  Raises PerformError, MissingPart."""
    tool, part = check(core), final.with_name(f"{final.name}.part")
    with told(part):
        part.unlink(missing_ok=True)
    done = subprocess.run(
        [tool, "-l", "-d", str(level), "--message-level", "4", core.source, str(part)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        said = [
            each for each in done.stdout.decode("utf-8", "replace").splitlines() if each.strip()
        ]
        last = next((each for each in said if "makedumpfile Failed" not in each), "no reason")
        raise PerformError(f"makedumpfile ended with {done.returncode}: {last}")
    digest = None if asked is Digest.NONE else hashlib.sha256()
    with told(part), open(part, "rb") as saved:
        while digest is not None and (data := saved.read(CHUNK)):
            digest.update(data)
        os.fsync(saved.fileno())
        size = os.fstat(saved.fileno()).st_size
        os.rename(part, final)
        sync_folder(final.parent)
    hexadecimal = None if digest is None else digest.hexdigest()
    return Copied(path=final, size=size, sha256=hexadecimal, resumed=0)
