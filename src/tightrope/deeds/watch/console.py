"""A guest's console, read in the file that QEMU writes it to (-serial file:PATH, a chardev's logfile=).

Rules: the file is only read.  A line is one once it ends; what has no letter in it is none.
"""

from __future__ import annotations

from pathlib import Path

from tightrope.errors import BadInput, reason

FIELD = "--console"
MOST = 1 << 16
"""Bytes of an unfinished line that are kept."""


class Console:
    """What comes on a console from when it was last skipped."""

    def __init__(self, path: str) -> None:
        """Raises BadInput for a path that is no file."""
        self._path = Path(path)
        self._at = 0
        self._kept = b""
        if not self._path.is_file():
            raise BadInput("is not a file that QEMU writes to", source=path, field=FIELD)
        self.skip()

    def skip(self) -> None:
        """What has been said up to here is of no interest."""
        self._at, self._kept = self._size(), b""

    def line(self) -> str | None:
        """The first whole line since then, without its end; None while there is none."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                data = file.read(MOST)
        except OSError as err:
            raise self._lost(err) from err
        self._at += len(data)
        *lines, rest = (self._kept + data).replace(b"\r", b"\n").split(b"\n")
        self._kept = rest[-MOST:]
        texts = (each.decode("utf-8", "replace").strip() for each in lines)
        return next((each for each in texts if any(map(str.isalnum, each))), None)

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError as err:
            raise self._lost(err) from err

    def _lost(self, err: OSError) -> BadInput:
        return BadInput(f"cannot be read: {reason(err)}", source=str(self._path), field=FIELD)
