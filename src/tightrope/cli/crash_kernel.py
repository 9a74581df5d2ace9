"""Which crash kernel `kdump check` tries: the one that is named, or the machine's own.

Rules: files are opened here; what a configuration means is `kdump.configuration`'s.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tightrope.cli import files
from tightrope.errors import BadInput, reason

if TYPE_CHECKING:
    from tightrope.kdump.target import Target
    from tightrope.model import Host


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """Files and words; `needed` are the modules of the host's root, where that is known."""

    kernel: str
    initrd: str | None
    command_line: str
    needed: frozenset[str]
    target: str = ""
    """Where its configuration says that a dump is saved; empty where none was read."""


def chosen(options: Namespace) -> Chosen:
    """What is tried.  Raises BadInput where nothing says it."""
    from tightrope.kdump import configuration

    needed = frozenset(each.replace("-", "_") for each in options.needs)
    if options.kernel is not None:
        return Chosen(
            kernel=options.kernel,
            initrd=options.initrd,
            command_line=options.append or "",
            needed=needed,
        )
    if options.host is not None:
        raise BadInput(
            "describes another machine: name its crash kernel, --kernel", source="--host"
        )
    found = configuration.configured(files.text_or_none, os.path.exists)
    mounts = files.text_or_none("/proc/self/mountinfo") or ""
    return Chosen(
        kernel=found.kernel,
        initrd=options.initrd or found.initrd,
        command_line=found.command_line if options.append is None else options.append,
        needed=needed or configuration.needed_modules(_real, mounts, found.target),
        target=_where(found.target),
    )


def _where(target: Target) -> str:
    """In a report: what saves a dump, and where."""
    where = f" {target.where}" if target.where else ""
    return f"{target.place.value}{where}, {target.folder}, by {target.collector}"


def _real(path: str) -> str | None:
    return os.path.realpath(path) if os.path.exists(path) else None


def host(options: Namespace) -> Host:
    """The host file's, or this machine's.  Raises BadInput, HostError."""
    if options.host is not None:
        return files.host_file(options.host)
    from tightrope.deeds import surveyed

    return surveyed.survey().host


@contextmanager
def opened(path: str) -> Iterator[int]:
    """A disk's image, to be read.  Raises BadInput."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError) as err:
        raise BadInput(reason(err), source=path) from err
    try:
        yield descriptor
    finally:
        os.close(descriptor)
