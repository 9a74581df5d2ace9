"""What every worker needs, once: new kernels, an initrd, the old kernel whose code is walked.

    cli --Parcel(name, digest, data?)--> Cargo --pool--> worker --Hold--> images, unpacked once

A worker on this computer maps the files, so their pages are there once for all workers; one
elsewhere is sent the bytes.  Either way it asks for the digest, so that nobody rehearses another
kernel than the others.

Rules: a parcel is opened by its path and nothing else is; what was opened is kept for the next
task.
"""

from __future__ import annotations

import gc
import hashlib
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from tightrope import image
from tightrope.deeds import old_kernel
from tightrope.deeds.machines import emulator
from tightrope.deeds.old_kernel import OldHypervisor, OldKernel
from tightrope.deeds.unpacking import Unpacking
from tightrope.errors import BadInput, reason
from tightrope.machine.port import Machine
from tightrope.model import Buffer, Host, Image, Participant, XenInterface
from tightrope.participants import OURS
from tightrope.plan import Request

WALKS = 64
"""Of one emulator: half a MiB stays behind of each walk at other addresses, and goes with it.  No
objects of Python's grow (tracemalloc); what keeps it is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parcel:
    """A file by its name and the SHA-256 of its bytes, in hex."""

    name: str
    digest: str
    data: bytes | None = None
    """None where the worker opens `name` itself."""

    def opened(self) -> Buffer:
        """Its bytes.  Raises BadInput where they cannot be read, or are others by now."""
        data: Buffer = _mapped(self.name) if self.data is None else self.data
        if hashlib.sha256(data).hexdigest() != self.digest:
            raise BadInput("is not the file that it was when the sweep began", source=self.name)
        return data

    def with_data(self) -> Parcel:
        """The same with its bytes, for a worker that cannot open it."""
        return replace(self, data=bytes(self.opened()))


def parcel(name: str) -> Parcel:
    """The parcel of a file here.  Raises BadInput."""
    return Parcel(name=name, digest=hashlib.sha256(_mapped(name)).hexdigest())


def _mapped(name: str) -> Buffer:
    try:
        with open(name, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return b""
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as err:
        raise BadInput(reason(err), source=name) from err


@dataclass(frozen=True, kw_only=True, slots=True)
class Cargo:
    """What is asked of every host."""

    news: tuple[Parcel, ...]
    initrd: Parcel | None = None
    old: Parcel | None = None
    """The old kernel whose relocation code is walked; None for our own."""
    command_line: str = ""
    xen: XenInterface | None = None
    kinds: tuple[bool, ...] = (False,)
    """Whether it is a crash kexec."""

    def digest(self) -> str:
        """What tells one sweep's question from another's, in hex."""
        parcels = (*self.news, self.initrd, self.old)
        what = (
            [each and each.digest for each in parcels],
            self.command_line,
            self.xen,
            self.kinds,
        )
        return hashlib.sha256(repr(what).encode()).hexdigest()[:16]

    def with_data(self) -> Cargo:
        """The same with all bytes in it."""
        return replace(
            self,
            news=tuple(each.with_data() for each in self.news),
            initrd=self.initrd and self.initrd.with_data(),
            old=self.old and self.old.with_data(),
        )


class Hold:
    """A cargo unloaded: everything read, parsed and unpacked once, and a machine."""

    def __init__(self, cargo: Cargo) -> None:
        self.cargo = cargo
        self._initrd = cargo.initrd.opened() if cargo.initrd else None
        self.images: Sequence[Image] = [image.read(each.opened(), each.name) for each in cargo.news]
        self._old = _code(cargo.old) if cargo.old else None
        self._machine: Machine | None = None
        self._walked = 0

    def machine(self) -> Machine:
        """The emulator for one more walk, a new one now and then.  Raises MissingPart."""
        if self._machine is None or self._walked == WALKS:
            if self._machine is not None:
                self._machine.close()
                self._machine = None
                gc.collect()  # it and what refers to it refer to one another
            self._machine, self._walked = emulator(), 0
        self._walked += 1
        return self._machine

    @cached_property
    def unpackings(self) -> Sequence[Unpacking]:
        """One for each image, begun when the first is asked for."""
        return [Unpacking(each, self._initrd) for each in self.images]

    @property
    def design(self) -> str | Participant:
        """The relocation code."""
        return self._old.participant if self._old else OURS

    def host(self, host: Host) -> Host:
        """The host with V where the old kernel has it.  Raises BadInput."""
        return self._old.host(host) if self._old else host

    def request(self, *, crash: bool) -> Request:
        """What is asked.  Raises BadInput."""
        asked = Request(
            initrd=self._initrd,
            initrd_source=self.cargo.initrd.name if self.cargo.initrd else "no initrd",
            command_line=self.cargo.command_line,
            crash=crash,
            xen=self.cargo.xen,
        )
        return self._old.request(asked) if self._old else asked


def _code(old: Parcel) -> OldKernel | OldHypervisor:
    return old_kernel.code_of(old.opened(), old.name)


@lru_cache(maxsize=1)
def hold(cargo: Cargo) -> Hold:
    """The cargo unloaded, in this process.  Raises BadInput."""
    return Hold(cargo)
