"""The finished values that flow between rooms.  Nouns only: nothing here does anything.

    bytes -> Image -+
                    +-> Plan -> Handover -> Run -> Findings -> Verdict
    file  -> Host  -+-> World -----^

Rules: everything is frozen, keyword-only and slotted.  Addresses are bytes, `Phys` or `Virt`;
extents are [start, end); frame numbers are address >> 12.  Arrays are numpy, read-only by custom.
Whoever needs a new fact adds a field here, not a side channel.

Whoever adds a noun puts it beside its like; what many rooms use is named here too.  What needs numpy or
is made by one deed alone has a door of its own: `p2m`, `dump`, `pgd`, `proof`, `comparison`, `matrix`,
`agreement`.

May import: errors, memory, x86
"""

from __future__ import annotations

from tightrope.model.handover import Code, Handover, Tables
from tightrope.model.host import (
    Basis,
    Cpu,
    DirectMap,
    Fact,
    Host,
    KernelText,
    LowMapping,
    Named,
    Registers,
)
from tightrope.model.image import Buffer, Contents, EntryPoint, Image, Part, Payload, Protocol
from tightrope.model.inputs import Inputs, Module
from tightrope.model.plan import ZERO_FRAME, Backup, Plan, Segment
from tightrope.model.run import (
    EVERYTHING,
    Console,
    Fault,
    Memory,
    RegisterWrite,
    Run,
    Sight,
    Stale,
    Stop,
    Translation,
)
from tightrope.model.verdict import Finding, Outcome, Verdict
from tightrope.model.walk import PAGING_OFF, STEP_NAMES, Paging, Step
from tightrope.model.world import Piece, WayOut, World
from tightrope.model.xen import Dom0, Xen, XenCrash, XenInterface, XenLoad, XenPage

__all__ = [
    "EVERYTHING",
    "PAGING_OFF",
    "STEP_NAMES",
    "ZERO_FRAME",
    "Backup",
    "Basis",
    "Buffer",
    "Code",
    "Console",
    "Contents",
    "Cpu",
    "DirectMap",
    "Dom0",
    "EntryPoint",
    "Fact",
    "Fault",
    "Finding",
    "Handover",
    "Host",
    "Image",
    "Inputs",
    "KernelText",
    "LowMapping",
    "Memory",
    "Module",
    "Named",
    "Outcome",
    "Paging",
    "Part",
    "Payload",
    "Piece",
    "Plan",
    "Protocol",
    "RegisterWrite",
    "Registers",
    "Run",
    "Segment",
    "Sight",
    "Stale",
    "Step",
    "Stop",
    "Tables",
    "Translation",
    "Verdict",
    "WayOut",
    "World",
    "Xen",
    "XenCrash",
    "XenInterface",
    "XenLoad",
    "XenPage",
]
