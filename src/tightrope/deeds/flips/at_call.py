"""A bit flipped in what the CPU holds at the call: there alone, or in the old kernel that calls.

Rules: as `in_memory`.  rip apart: who calls somewhere else calls something else.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tightrope.deeds.flips.subjects import Broken
from tightrope.model import Handover, Registers

CONTROL = ("rflags", "cr0", "cr3", "cr4", "efer")


def registers(handover: Handover, random: Random) -> Broken:
    """At the call only: the old kernel had something else there."""
    name, bit, _ = _drawn(handover, random)
    changed = _with(handover.registers, name, bit, _bits(handover))
    return Broken(handover=replace(handover, registers=changed), says=f"bit {bit} of {name}")


def old_registers(handover: Handover, random: Random) -> Broken:
    """In the old kernel, which calls with what it has; arguments are made for the call."""
    name, bit, argument = _drawn(handover, random)
    bits = _bits(handover)
    world = replace(handover.world, registers=_with(handover.world.registers, name, bit, bits))
    changed = handover.registers if argument else _with(handover.registers, name, bit, bits)
    return Broken(
        handover=replace(handover, world=world, registers=changed),
        says=f"bit {bit} of the old kernel's {name}",
    )


def _bits(handover: Handover) -> int:
    return 64 if handover.world.host.paging.long_mode else 32


def _drawn(handover: Handover, random: Random) -> tuple[str, int, bool]:
    """A register by its name, a bit of it, and whether the contract hands something over in it."""
    now, bits = handover.registers, _bits(handover)
    general = [name for name in now.general if bits == 64 or not name[1:].isdigit()]
    name = random.choice([*general, *CONTROL, *now.segments, "gdt", "idt"])
    if name in general or name in ("cr3", "cr4"):
        width = bits
    elif name in now.segments:
        width = 16
    else:
        width = bits + 16 if name in ("gdt", "idt") else 32
    handed = name in handover.relocation_code.contract.arguments
    return name, random.randrange(width), handed


def _with(now: Registers, name: str, bit: int, bits: int) -> Registers:
    """The registers with one bit turned over; of a table first its base's `bits`, then the
    limit's."""
    one = 1 << bit
    if name in now.general:
        return replace(now, general={**now.general, name: now.general[name] ^ one})
    if name in now.segments:
        return replace(now, segments={**now.segments, name: now.segments[name] ^ one})
    if name in ("gdt", "idt"):
        base, limit = now.gdt if name == "gdt" else now.idt
        table = (base ^ one, limit) if bit < bits else (base, limit ^ one >> bits)
        return replace(now, gdt=table) if name == "gdt" else replace(now, idt=table)
    match name:
        case "rflags":
            return replace(now, rflags=now.rflags ^ one)
        case "cr0":
            return replace(now, cr0=now.cr0 ^ one)
        case "cr3":
            return replace(now, cr3=now.cr3 ^ one)
        case "cr4":
            return replace(now, cr4=now.cr4 ^ one)
        case _:
            return replace(now, efer=now.efer ^ one)
