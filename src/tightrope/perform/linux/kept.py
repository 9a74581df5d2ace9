"""What tightrope loaded here last, kept where a reboot forgets it, so that it can be loaded again.

    load --> /run/tightrope.kexec.json, /run/tightrope.crash.json --> status says by whom
                                                                  --> a dropped one comes back

What is kept are paths, digests and words, no byte of an image.  A later load by somebody else
leaves these files as they are: that it is still this image that is loaded no file of Linux's says.

Rules: root's alone (0600), since a command line may have secrets in it.  A file that does not read
as one of ours is as none.  That one cannot be written fails no load: it is told.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tightrope.errors import reason
from tightrope.perform.linux.lock import FOLDERS
from tightrope.perform.linux.state import Files

NAMES = ("tightrope.kexec.json", "tightrope.crash.json")
"""By whether it is a crash image."""
LATEST = 1 << 40
"""Seconds that a date can be made of."""
_SHAPE: dict[str, tuple[type, ...]] = {
    "crash": (bool,),
    "call": (str,),
    "files": (list,),
    "written": (bool,),
    "command_line": (str,),
    "unpack": (bool,),
    "on_damage": (str, type(None)),
    "rehearsed": (str, type(None)),
    "uid": (int,),
    "at": (int,),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """One load that was done, in the words in which it was asked for."""

    crash: bool
    call: str
    """The system call that took it."""
    files: tuple[tuple[str, str, int], ...]
    """(absolute path, SHA-256 in hexadecimal, bytes): a kernel and perhaps its initrd, or a plan,
    whose digest is the one that it says of itself."""
    written: bool
    """It is a plan, what `rehearse --write` left."""
    command_line: str
    unpack: bool
    on_damage: str | None
    """What its purgatory does; None where it has none."""
    rehearsed: str | None
    """What its rehearsal said; None where there was none."""
    uid: int
    at: int
    """Seconds since 1970."""


def read(files: Files, *, crash: bool, folders: Sequence[str] = ()) -> Kept | None:
    """The last load of that kind; None where none was kept, or nobody may read it.

    `folders` are FOLDERS where none are given, here and below.
    """
    for folder in folders or FOLDERS:
        data = files(os.path.join(folder, NAMES[crash]))
        if data is not None:
            return _kept(data, crash)
    return None


def write(kept: Kept, folders: Sequence[str] = ()) -> str | None:
    """Keep it in the place of the last one of its kind; None, or a clause why it could not be.

    What was kept before is gone in either case: it is not what is loaded.
    """
    import json

    folders = folders or FOLDERS
    forget(crash=kept.crash, folders=folders)
    folder = next((each for each in folders if os.path.isdir(each)), None)
    if folder is None:
        return f"there is no {' and no '.join(folders)}"
    path = os.path.join(folder, NAMES[kept.crash])
    made = f"{path}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with open(os.open(made, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump(asdict(kept), file)
        os.rename(made, path)
    except OSError as err:
        with contextlib.suppress(OSError):
            os.unlink(made)
        return f"{path}: {reason(err)}"
    return None


def forget(*, crash: bool, folders: Sequence[str] = ()) -> None:
    """Nothing of that kind is loaded any more."""
    for folder in folders or FOLDERS:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, NAMES[crash]))


def _kept(data: bytes, crash: bool) -> Kept | None:
    import json

    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or set(said) != set(_SHAPE):
        return None
    if not all(type(said[name]) in kinds for name, kinds in _SHAPE.items()):
        return None
    rows = said["files"]
    whole = all(
        isinstance(row, list) and [type(each) for each in row] == [str, str, int] for row in rows
    )
    if said["crash"] is not crash or not rows or not whole or not 0 <= said["at"] < LATEST:
        return None
    return Kept(**{**said, "files": tuple(map(tuple, rows))})
