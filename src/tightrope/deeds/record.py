"""Recording what a command would load: into a file that a rehearsal takes, with nothing loaded.

Rules: this file knows where a recording goes; how a command is held is `record`'s.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from tightrope.errors import BadInput
from tightrope.record import file, tracer
from tightrope.record.held import Held, Holder
from tightrope.record.shown import Shown


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """What came of a command: how it ended, and how often it asked for what."""

    status: int
    loads: int
    unloads: int
    jumps: int
    asked: int
    """How often it asked another process, init above all, to do something."""


def record(
    command: Sequence[str],
    out: IO[bytes],
    *,
    said: IO[bytes] | None = None,
    machine: str | None = None,
) -> Recorded:
    """Run a command and write the last load that it asks for into `out`, from its beginning.

    `said` takes what it prints; `machine` is a folder with another machine's files, see
    `record.shown`.  Raises BadInput where it loads nothing, MissingPart where nothing can be
    recorded here.
    """

    def load(held: Held) -> None:
        out.seek(0)
        out.truncate()
        file.write(out, held, command, platform.release())

    holder = Holder(load=load)
    if machine is not None:
        holder.before = Shown(machine)
    status = tracer.trace(command, holder, said)
    if not holder.loads:
        how = f"ended with status {status}" if status >= 0 else f"was ended by signal {-status}"
        raise BadInput(f"{how} and asked for no load", source=os.path.basename(command[0]))
    return Recorded(
        status=status,
        loads=holder.loads,
        unloads=holder.unloads,
        jumps=holder.jumps,
        asked=holder.fence.asked,
    )
