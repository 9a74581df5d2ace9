"""All that a log says, whoever wrote it, in the order of the log."""

from __future__ import annotations

import mmap

from tightrope.corpse import console, handler, kvm, qemu
from tightrope.corpse.log import Log
from tightrope.model import Buffer
from tightrope.model.corpse import Remains

READERS = (qemu.read, handler.read, kvm.read, console.read)


def read(data: Buffer) -> tuple[Remains, ...]:
    """What is known of a log's words, first to last; nothing for a log of something else."""
    owner = data.obj if isinstance(data, memoryview) else data
    log = Log(owner if isinstance(owner, bytes | mmap.mmap) else bytes(data))
    found = [each for reader in READERS for each in reader(log)]
    return tuple(sorted(found, key=lambda each: each.offset))
