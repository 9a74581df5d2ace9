"""Who executes a PC's instructions: QEMU's own translator (TCG), or this computer's KVM.

    tcg    the same on every computer: the default
    kvm    only where a probe shows that it boots: a PC with our small stage as its kernel, through its
           firmware, within `PROBE_SECONDS`

Rules: nothing is assumed of a KVM: QEMU is started with it, with one CPU model after the other, and
what stands in the way is kept as the reason.  The answer is kept per process.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tightrope import routines
from tightrope.errors import CannotBe, MachineError, MissingPart
from tightrope.machine.qemu import stage
from tightrope.machine.qemu.memory import MIB
from tightrope.machine.qemu.pc import Board, Pc
from tightrope.memory import PAGE_SIZE

PROBE_SECONDS = 15.0
"""SeaBIOS and our stage take 0.2 s on a KVM that is hardware, and 3 to 5 s on one that is emulated.
"""
MODELS = ("max", "qemu64")
"""The first has all that KVM offers; some nested KVMs refuse a register of it, and QEMU ends."""
HARDWARE_BREAKPOINTS = 4
"""DR0 to DR3 (SDM volume 3, 18.2)."""


@dataclass(frozen=True, slots=True)
class Acceleration:
    """`breakpoints`: how many places can be stopped at, None for any number."""

    name: str
    model: str
    breakpoints: int | None


TCG = Acceleration("tcg", "max", None)


@cache
def kvm() -> Acceleration:
    """QEMU's KVM, as it was found to boot.  Raises MissingPart with the reason where it does not.

    Whoever asks has looked for a KVM to be used before.
    """
    reasons: list[str] = []
    for model in MODELS:
        reason = _boots(model)
        if reason is None:
            return Acceleration("kvm", model, HARDWARE_BREAKPOINTS)
        reasons.append(f"as {model}: {reason}")
    raise MissingPart(f"QEMU does not boot with this computer's KVM: {'; '.join(reasons)}")


def _boots(model: str) -> str | None:
    """None when a PC with this CPU came up to our stage, else what happened instead."""
    board = Board(
        size=64 * MIB,
        kernel=routines.read(routines.STAGE_PC).data.ljust(PAGE_SIZE, b"\0"),
        cpu=model,
        accelerator="kvm",
    )
    try:
        with Pc(board) as pc:
            stage.after_firmware(pc, seconds=PROBE_SECONDS)
    except (CannotBe, MissingPart, MachineError) as err:
        return str(err)
    return None
