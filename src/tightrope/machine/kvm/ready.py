"""A virtual CPU that stands at V with everything laid out: what both ways to walk begin with.

Rules: a value; whoever made it gives the virtual machine back.
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.machine.kvm.vcpu import VirtualCpu
from tightrope.observe.expectations import Expectations
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.physical import Ram


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """See above."""

    cpu: VirtualCpu
    ram: Ram
    expected: Expectations
    """As the virtual CPU has it: with the CR4 that it can hold."""
    mmu: WatchedMmu
    blind: tuple[str, ...]
    seconds: float
