"""What an exception leaves for a handler of the old kernel: which gates there are, and the frame
pushed.

A machine that cannot report an exception stops at the handlers that the idt leads to; there the
stack says what the CPU was doing.

Rules: memory is only looked at; frames are those of an exception in ring 0, without a stack switch
(SDM 6.12, 6.14).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tightrope.errors import MachineError
from tightrope.model import Registers
from tightrope.observe.mmu import WatchedMmu
from tightrope.x86.cpu import EFER_LMA, Gate
from tightrope.x86.walk import Access, Refused

EXCEPTIONS = range(32)
INFERRED = ("the exception that came first: it is inferred from where the CPU stood",)
"""What a machine is blind to whose faults are told from here."""


def handlers(
    mmu: WatchedMmu, registers: Registers, vectors: Iterable[int] = EXCEPTIONS
) -> tuple[int, ...]:
    """Where the gates of some vectors lead to, each once: a fault that is delivered is seen
    there."""
    base, limit = registers.idt
    size = Gate.size(long_mode=bool(registers.efer & EFER_LMA))
    out: dict[int, None] = {}
    for vector in vectors:
        if size * vector + size - 1 > limit:
            break
        raw = mmu.look_before(base + size * vector, size)
        if raw is not None:
            out[Gate.decode(raw).handler] = None
    return tuple(out)


def interrupted(mmu: WatchedMmu, registers: Registers) -> tuple[Registers, int | None]:
    """The CPU as it was before a handler that it stands at, and the error code that was pushed.

    Raises MachineError where the frame cannot be read.
    """
    long = bool(registers.efer & EFER_LMA)
    word = 8 if long else 4
    stack = registers.general["rsp"]
    raw = mmu.look(stack, 6 * word, Access.READ)
    if isinstance(raw, Refused):
        raise MachineError(f"a handler's frame at {stack:#x} cannot be read")
    words = [int.from_bytes(raw[n * word : n * word + word], "little") for n in range(6)]
    code = None
    # In long mode the frame's start is aligned; a 32-bit one has CS where an error code moves it
    # from.
    if stack % 16 == 0 if long else words[1] != registers.segments["cs"]:
        code = words.pop(0)
    rip, _cs, flags, *rest = words
    general = dict(registers.general)
    general["rsp"] = rest[0] if long else stack + (12 if code is None else 16)
    return replace(registers, rip=rip, rflags=flags, general=general), code
