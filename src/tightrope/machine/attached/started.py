"""A QEMU that is started for one kexec, with the sockets that a watch attaches to.

    folder/qmp, folder/gdb    its sockets        folder/console    what its kernel says

Rules: it ends with us, however we end (`machine.qemu.process.below_us`), and at the latest with
the `with`.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tightrope.errors import MachineError
from tightrope.machine.attached.guest import Attached
from tightrope.machine.qemu.process import below_us

START_SECONDS = 30.0
TURN_SECONDS = 0.05


class Started:
    """A guest of ours.  Use it in a `with`."""

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        """`arguments`: what QEMU is given besides sockets and console.  Raises MissingPart without
        QEMU."""
        self.console = folder / "console"
        # A path of a socket has 107 characters at most.
        self._qmp, self._gdb = (os.path.relpath(folder / name) for name in ("qmp", "gdb"))
        said = [*below_us(), *arguments]
        said += ["-chardev", f"socket,id=q,path={self._qmp},server=on,wait=off"]
        said += ["-mon", "chardev=q,mode=control"]
        said += ["-gdb", f"unix:{self._gdb},server=on,wait=off"]
        said += [
            "-chardev",
            f"stdio,id=c,signal=off,logfile={self.console}",
            "-serial",
            "chardev:c",
        ]
        self._errors = folder / "errors"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                said,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def text(self) -> str:
        """What it has said on its console."""
        try:
            return self.console.read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def wait(self, words: Sequence[str], seconds: float) -> str:
        """Until its console says one of some words: which.  Raises MachineError where it does
        not."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            text = self.text()
            for word in words:
                if word in text:
                    return word
            if self._process.poll() is not None:
                raise MachineError(f"QEMU has ended: {self._last_words()}")
            time.sleep(TURN_SECONDS)
        last = self.text().strip().rsplit("\n", 1)[-1].strip()
        raise MachineError(
            f"the guest does not come up in {seconds:.0f} s; its last line: {last!r}"
        )

    def say(self, data: bytes) -> None:
        """Type on its console."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def attached(self) -> Attached:
        """Watched, once its sockets are there.  Raises MachineError where they do not come."""
        limit = time.monotonic() + START_SECONDS
        while not (Path(self._qmp).exists() and Path(self._gdb).exists()):
            if time.monotonic() > limit or self._process.poll() is not None:
                raise MachineError(f"QEMU opens no sockets: {self._last_words()}")
            time.sleep(TURN_SECONDS)
        return Attached(self._qmp, self._gdb)

    def _last_words(self) -> str:
        text = self._errors.read_text("utf-8", "replace").strip()
        return text.rsplit("\n", 1)[-1] or "it says nothing"
