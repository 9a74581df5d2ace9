"""A trace of the host's KVM: `trace-cmd record -e kvm`, `perf trace`, or tracefs.

    kvm_inj_exception: #PF (0x10)
    kvm_exit: vcpu 0 reason TRIPLE_FAULT rip 0x8005005 info1 0x0 ...      Intel
    kvm_exit: vcpu 0 reason shutdown rip 0x8005005 info1 ...              AMD

Source: arch/x86/kvm/trace.h, kvm_exit and kvm_inj_exception, whose words follow the kernel's
version: before 5.10 without `vcpu N`.

Rules: rip is the guest's linear one; a trace says nothing of its registers or tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tightrope.corpse.log import Log
from tightrope.model.corpse import Ending, LogKind, Phase, Raised, Remains
from tightrope.x86.cpu import VECTORS

EXIT = re.compile(
    rb"kvm_exit:.*?reason (TRIPLE_FAULT|shutdown|SHUTDOWN)(?: rip 0x([0-9a-f]+))?", re.IGNORECASE
)
INJECTED = re.compile(rb"kvm_inj_exception: +(#[A-Z]{2})(?: \(0x([0-9a-f]+)\))?")
PAGE_FAULT = re.compile(rb"kvm_page_fault:.*?address 0x([0-9a-f]+)")
NUMBERS = {name: vector for vector, name in VECTORS.items()}
NEAR = 4096
"""Bytes before the exit in which an injected exception belongs to it."""


def read(log: Log) -> Iterator[Remains]:
    """The last exit of a triple fault."""
    found = log.last(b"reason TRIPLE_FAULT", b"reason shutdown", b"reason SHUTDOWN")
    if found is None:
        return
    at = found[0]
    text = log.line(at)
    exit = EXIT.search(text.encode("latin-1", "replace"))
    if exit is None:
        return
    rip = None if exit[2] is None else int(exit[2], 16)
    before = list(INJECTED.finditer(log.before(at)[-NEAR:]))
    raised: tuple[Raised, ...] = ()
    if before:
        name, code = before[-1][1].decode(), before[-1][2]
        raised = (
            Raised(
                vector=NUMBERS.get(name, -1),
                error_code=None if code is None else int(code, 16),
                rip=rip,
                address=None,
            ),
        )
    elif rip is not None:
        raised = (Raised(vector=-1, error_code=None, rip=rip, address=None),)
    yield Remains(
        kind=LogKind.KVM,
        line=log.number(at),
        offset=at,
        ending=Ending.TRIPLE_FAULT,
        phase=Phase.UNKNOWN,
        words=text,
        raised=raised,
        cut=rip is None,
    )
