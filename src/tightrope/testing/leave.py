"""One guest that boots a kernel, loads another by kexec_file_load(2), and leaves for it under
watch.

    initramfs -> QEMU -> "tightrope: loaded" -> attached -> reboot(2) -> watch -> Watched

Rules: what keeps it from leaving is an error with the console's last lines: a kernel without
CONFIG_KEXEC_FILE, one that does not come up, a refusal.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tightrope.deeds.watch import watch
from tightrope.errors import BadInput, MachineError, reason
from tightrope.machine.attached import Attached, Started
from tightrope.model.watched import Watched
from tightrope.testing.initrd import initrd

LOADED = "tightrope: loaded"
PANICS = "Attempted to kill init! exitcode=0x"
NOT_UP = ("Kernel panic", "System halted")
EXIT_CODE = re.compile(re.escape(PANICS) + r"([0-9a-f]{8})")
ERRORS = {1: "EPERM", 2: "ENOENT", 8: "ENOEXEC", 12: "ENOMEM", 22: "EINVAL", 38: "ENOSYS"}
CONSOLE = "console=ttyS0 earlyprintk=ttyS0,115200 panic=-1"
LINES = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaving:
    """How the guest is started: mebibytes of memory, more words for QEMU and for both kernels,
    seconds."""

    memory: int = 512
    qemu: Sequence[str] = ("-cpu", "qemu64")
    append: str = ""
    limit: float = 600.0
    walk: bool = True


def leave(kernel: Path, new: Path, how: Leaving) -> Watched:
    """Boot `kernel`, have it leave for `new`, watch it.  Raises TightropeError where it does not
    come to that."""
    with tempfile.TemporaryDirectory(prefix="tightrope-") as name:
        folder = Path(name)
        words = f"{CONSOLE} {how.append}".strip()
        archive = folder / "initrd"
        archive.write_bytes(initrd(_read(new), words))
        _read(kernel)  # what cannot be read is told by us, and not as a QEMU that has ended
        said = ["-m", str(how.memory), "-nodefaults", "-display", "none", "-no-reboot", *how.qemu]
        said += ["-kernel", str(kernel), "-initrd", str(archive), "-append", words]
        with Started(said, folder) as guest:
            if guest.wait((LOADED, PANICS, *NOT_UP), how.limit) != LOADED:
                raise MachineError(_refused(guest.text()))
            with guest.attached() as attached:
                return _watched(attached, guest, how)


def _watched(attached: Attached, guest: Started, how: Leaving) -> Watched:
    guest.say(b"\n")
    return watch(
        attached,
        limit=how.limit,
        follow_limit=how.limit,
        walk=how.walk,
        console=str(guest.console),
    )


def _refused(text: str) -> str:
    tail = "\n".join(["", *(f"    {each.rstrip()}" for each in text.splitlines()[-LINES:])])
    found = EXIT_CODE.search(text)
    if found is None:
        return f"the guest does not come up; its console ends:{tail}"
    number = int(found[1], 16) >> 8 & 0xFF
    why = " (built without CONFIG_KEXEC_FILE)" if number == 38 else ""
    return f"kexec_file_load answers {ERRORS.get(number, f'error {number}')}{why}; its console ends:{tail}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise BadInput(f"cannot be read: {reason(err)}", source=str(path)) from err
