"""Which of the formats a dump is in, told by how its file begins.

    "makedumpfile"        flattened: the file inside it is looked at again, once
    "\\x7fELF"             core
    "KDUMP   ", DISKDUMP  diskdump, all parts of a split one together

Rules: a name decides nothing.  What is no dump is a CoreError that says what was expected.
"""

from __future__ import annotations

from dataclasses import replace

from tightrope.errors import CoreError
from tightrope.model.dump import Core, Data
from tightrope.vmcore import core, diskdump, flattened
from tightrope.vmcore.file import InFile, InMemory
from tightrope.vmcore.parts import join


def read(path: str, *more: str) -> Core:
    """The core in a file, or in all `more` parts of a split one; read where it lies.

    Raises CoreError, also for what is no file.
    """
    found = [_any(InFile(each), each) for each in (path, *more)]
    return join(found) if more else _alone(found[0])


def parse(data: bytes | bytearray | memoryview, source: str) -> Core:
    """The core in these bytes; `source` names it in errors.  Raises CoreError."""
    return _alone(_any(InMemory(data), source))


def _any(data: Data, source: str) -> Core:
    head = data.read(0, min(data.size, 16))
    flat = head.startswith(flattened.SIGNATURE)
    if flat:
        data = flattened.Flattened(data, source)
        head = data.read(0, min(data.size, 16))
    if head.startswith(diskdump.SIGNATURES):
        return diskdump.read(data, source, flattened=flat)
    if not head.startswith(b"\x7fELF"):
        what = "neither an ELF core nor a compressed dump: not an ELF file, and no KDUMP"
        if flat:
            what = (
                f"a flattened dump of something that is {what}; of a whole one"
                f" `makedumpfile -R vmcore < {source}` makes what it was before the pipe"
            )
        raise CoreError(what, source=source, offset=0)
    return core.read(data, source, flattened=flat)


def _alone(found: Core) -> Core:
    part = found.container.part
    if part is None:
        return found
    if not len(found.held.starts):
        raise CoreError(
            f"no page of the memory at {part}, of which it is a part, is in the file",
            source=found.source,
            field="bitmap",
        )
    said = f"one part of a split dump, which has the memory at {part}: name all parts together"
    return replace(found, unused=(said, *found.unused))
