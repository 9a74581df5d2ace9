"""The finished values that flow between rooms: nouns, and what can be told of one by itself.

    bytes -> Image -+
                    +-> Plan -> Handover -> Run -> Findings -> Verdict
    file  -> Host  -+-> World -----^

    image          what a kernel file is
    host           what the old kernel's machine is
    of_a_host      what follows from a host alone, worked out once
    efi            what an EFI firmware left
    xen            what a hypervisor adds to a host
    vmlinux        an old kernel's own image: bytes by linked address, symbols
    modes          what is particular about a paging mode
    walk           which six steps a walk has
    through        what V is, and who calls it
    intent         what a handover is checked against
    plan           where every byte goes
    inputs         what was given to be handed over, as it came in
    loaded         what somebody else's loader has placed
    participant    what a program on the way is, and what its contract may say
    world          what lies in memory at the call, and what the CPU holds
    handover       all that machine_kexec needs: programs, tables, page list
    run            what a machine saw on the walk
    verdict        what the checks found, and what the answer is
    entered        what a kernel was handed when it was entered
    hops           what several jumps came to
    p2m            where a pseudo-physical address is in the machine
    dump           which memory a core holds
    notes          what a core's notes say
    root           where a dead kernel's pgd is
    pgd            what a dead kernel's tables map, and whether they are whole
    planned        what a crash may write, held against a dump
    dead           what a dump says of the kernel that died
    corpse         what is left of a kexec that failed
    crash_boot     how far a crash kernel came when it was tried
    watched        what was seen of a kexec in a running guest
    recording      which system call was held, and by whom
    blackout       how long nobody answers, item by item
    health         what this computer has, and what each missing part costs
    proof          what a proof leaves behind
    comparison     which rival designs held
    matrix         which modes and splits held
    agreement      what machines agreed on
    pairs          which old kernel got into which new one
    sweep          which of many hosts held
    sheet          what a reader is shown, before anybody says how it looks
    glossary       what the words of reports mean

Rules: everything is frozen, keyword-only and slotted.  Addresses are bytes, `Phys` or `Virt`;
extents are [start, end); frame numbers are address >> 12.  Arrays are numpy, read-only by custom.
Nothing here knows a file, a machine or another room; what takes two values to work out is a room's.
Whoever needs a new fact adds a field here, not a side channel.

Whoever adds a noun puts it beside its like; what many rooms use is named here too.  What needs
numpy or is made by one deed alone has a door of its own: `p2m`, `dump`, `pgd`, `proof`,
`comparison`, `matrix`, `agreement`.

May import: choices, errors, memory, printk, x86
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tightrope.choices import Loader, OnDamage, Paging, Protocol, XenCrash, XenInterface
    from tightrope.model.efi import Efi, EfiLoader, EfiRange, SecureBoot
    from tightrope.model.handover import Handover, Tables
    from tightrope.model.host import (
        Basis,
        Confidential,
        Cpu,
        CpuVendor,
        DirectMap,
        Fact,
        Host,
        KernelText,
        LowMapping,
        Named,
        Registers,
    )
    from tightrope.model.image import (
        Buffer,
        Contents,
        EntryPoint,
        Image,
        Movable,
        Part,
        Payload,
    )
    from tightrope.model.inputs import Inputs, Module
    from tightrope.model.intent import ZERO_FRAME, Backup, Intent, Segment, SegmentRole
    from tightrope.model.loaded import Habits, Loaded
    from tightrope.model.of_a_host import once_a_host
    from tightrope.model.participant import (
        EVERY_PROMISE,
        Code,
        Contract,
        Done,
        Gates,
        Given,
        Kind,
        Old,
        Participant,
        Place,
        Promise,
        Trees,
        relocation_code,
        with_code,
    )
    from tightrope.model.plan import Plan
    from tightrope.model.run import (
        EVERYTHING,
        Console,
        Ending,
        Fault,
        Memory,
        RegisterWrite,
        Run,
        Sight,
        Speaker,
        Stale,
        Stop,
        Stretch,
        Translation,
    )
    from tightrope.model.through import (
        Bare,
        PageList,
        Through,
        UnderXen,
        XenCompat,
        XenV1,
        XenV2,
        called_at,
    )
    from tightrope.model.verdict import Breakage, Criterion, Finding, Outcome, Verdict
    from tightrope.model.walk import PAGING_OFF, STEP_NAMES, Step
    from tightrope.model.world import Piece, PieceRole, WayOut, World
    from tightrope.model.xen import Dom0, Xen, XenPage

__all__ = [
    "EVERYTHING",
    "EVERY_PROMISE",
    "PAGING_OFF",
    "STEP_NAMES",
    "ZERO_FRAME",
    "Backup",
    "Bare",
    "Basis",
    "Breakage",
    "Buffer",
    "Code",
    "Confidential",
    "Console",
    "Contents",
    "Contract",
    "Cpu",
    "CpuVendor",
    "Criterion",
    "DirectMap",
    "Dom0",
    "Done",
    "Efi",
    "EfiLoader",
    "EfiRange",
    "Ending",
    "EntryPoint",
    "Fact",
    "Fault",
    "Finding",
    "Gates",
    "Given",
    "Habits",
    "Handover",
    "Host",
    "Image",
    "Inputs",
    "Intent",
    "KernelText",
    "Kind",
    "Loaded",
    "Loader",
    "LowMapping",
    "Memory",
    "Module",
    "Movable",
    "Named",
    "Old",
    "OnDamage",
    "Outcome",
    "PageList",
    "Paging",
    "Part",
    "Participant",
    "Payload",
    "Piece",
    "PieceRole",
    "Place",
    "Plan",
    "Promise",
    "Protocol",
    "RegisterWrite",
    "Registers",
    "Run",
    "SecureBoot",
    "Segment",
    "SegmentRole",
    "Sight",
    "Speaker",
    "Stale",
    "Step",
    "Stop",
    "Stretch",
    "Tables",
    "Through",
    "Translation",
    "Trees",
    "UnderXen",
    "Verdict",
    "WayOut",
    "World",
    "Xen",
    "XenCompat",
    "XenCrash",
    "XenInterface",
    "XenPage",
    "XenV1",
    "XenV2",
    "called_at",
    "once_a_host",
    "relocation_code",
    "with_code",
]

_HOMES = {
    "choices": "Loader OnDamage Paging Protocol XenCrash XenInterface",
    "model.efi": "Efi EfiLoader EfiRange SecureBoot",
    "model.handover": "Handover Tables",
    "model.host": "Basis Confidential Cpu CpuVendor DirectMap Fact Host KernelText LowMapping Named Registers",
    "model.image": "Buffer Contents EntryPoint Image Movable Part Payload",
    "model.inputs": "Inputs Module",
    "model.intent": "ZERO_FRAME Backup Intent Segment SegmentRole",
    "model.loaded": "Habits Loaded",
    "model.of_a_host": "once_a_host",
    "model.participant": "EVERY_PROMISE Code Contract Done Gates Given Kind Old Participant Place Promise Trees relocation_code with_code",
    "model.plan": "Plan",
    "model.run": "EVERYTHING Console Ending Fault Memory RegisterWrite Run Sight Speaker Stale Stop Stretch Translation",
    "model.through": "Bare PageList Through UnderXen XenCompat XenV1 XenV2 called_at",
    "model.verdict": "Breakage Criterion Finding Outcome Verdict",
    "model.walk": "PAGING_OFF STEP_NAMES Step",
    "model.world": "Piece PieceRole WayOut World",
    "model.xen": "Dom0 Xen XenPage",
}
"""Module -> its names that are named here.  Only what is asked for is imported: a crash kernel's
initramfs asks for little, and waits for each."""
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """One of the names, from its module."""
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f"tightrope.{_HOME[name]}"), name)
        return found
