"""Files that a command writes: asked about before anything runs, then written whole or not at all.

Rules: what is there already is replaced only when that is asked for (`--force`), and an input of
the same command never.  A file gets its name when all of it is written, so that nothing half
written ever has it; devices and pipes are written as they are.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import IO, TYPE_CHECKING

from tightrope.errors import BadInput, reason

if TYPE_CHECKING:
    from pathlib import Path

    from tightrope.model import Verdict
    from tightrope.prove.goal import Script


def check(path: Path, *, force: bool, inputs: Iterable[str | Path | None] = ()) -> Path:
    """The path, if it may be written.  Raises BadInput with the reason."""
    with told(path):
        if any(each is not None and _same(path, each) for each in inputs):
            raise BadInput("is an input of this command", source=str(path))
        there = _regular(path)
        if there and not force:
            raise BadInput("exists: say --force to replace it", source=str(path))
        folder = path.parent
        if there is None and not os.access(folder, os.W_OK | os.X_OK):
            folder.stat()  # its own reason, where it has one
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return path


def check_folder(path: Path, *, force: bool) -> Path:
    """The path, if it is a folder that files may be written into, or none yet.  Raises BadInput."""
    with told(path):
        if path.is_dir() and any(path.iterdir()) and not force:
            raise BadInput("has files in it: say --force to add to them", source=str(path))
    return path


def _same(path: Path, other: str | Path) -> bool:
    with suppress(OSError, ValueError):
        return os.path.samefile(path, other)
    return False


def _regular(path: Path) -> bool | None:
    """True for a file, False for a device or a pipe, None for nothing.  A folder is refused."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return stat.S_ISREG(mode)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """The system's reasons as BadInput about this path."""
    try:
        yield
    except (OSError, ValueError) as err:
        raise BadInput(reason(err), source=str(path)) from err


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """The file to write into; it has its name when the block is done.  Raises BadInput."""
    import tempfile

    with told(path):
        if _regular(path) is False:
            with path.open("wb") as out:
                yield out
            return
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as out:
                yield out
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write(path: Path, data: bytes) -> None:
    """All of a file.  Raises BadInput with the system's reason."""
    with writing(path) as out:
        out.write(data)


def write_trace(path: Path, verdict: Verdict) -> None:
    """One line per instruction: number, step, address, text.  Raises BadInput."""
    run = verdict.run
    starts = [*run.step_starts, (len(run.trace), run.step_starts[-1][1])]
    with writing(path) as out:
        for (first, step), (end, _) in pairwise(starts):
            out.writelines(
                f"{first + number}\t{int(step)}\t{rip:#x}\t{run.texts.get(rip, '?')}\n".encode()
                for number, rip in enumerate(run.trace[first:end].tolist())
            )


def write_scripts(path: Path, scripts: Iterable[Script], *, force: bool) -> None:
    """SMT-LIB: all in one file when `path` ends in .smt2, else a file each in a directory.

    Each begins with what a solver has to answer.  Raises BadInput.
    """
    texts = ((each.name, f"; {each.name}: {each.expected}\n{each.text}") for each in scripts)
    if path.suffix == ".smt2":
        write(check(path, force=force), "(reset)\n".join(text for _, text in texts).encode())
        return
    with told(path):
        path.mkdir(parents=True, exist_ok=True)
    for name, text in texts:
        write(check(path / f"{name}.smt2", force=force), text.encode())


@contextmanager
def growing(path: Path, *, whole: bool) -> Iterator[Callable[[str], None]]:
    """What adds text to a file, each at once, so that it stays; `whole` begins anew.

    A last line that was cut is taken away first.  Raises BadInput with the system's reason.
    """
    with told(path):
        out = path.open("wb" if whole else "r+b", buffering=0)
    with out:
        if not whole:
            with told(path):
                out.truncate(_lines_end(out))
                out.seek(0, os.SEEK_END)

        def add(text: str) -> None:
            left = memoryview(text.encode())
            with told(path):
                while left:
                    left = left[out.write(left) :]

        yield add


def _lines_end(file: IO[bytes]) -> int:
    """Where the last whole line ends."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
