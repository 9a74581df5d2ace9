"""What stays between two runs on the same memory: the engine, its hooks, what it has translated.

A rehearsal of one page takes less time than making a machine.  So the engine and its hooks are made
once, Unicorn keeps its translated code as long as the bytes under it are the same, and the state of
the CPU at the call is restored in one piece when it is the one that was there before.

Rules: nothing of a former run may be seen in a later one.  Memory that a handover does not lay out
holds whatever was there, as on a real machine.
"""

from __future__ import annotations

from tightrope.errors import MachineError
from tightrope.machine.unicorn.engine import Engine
from tightrope.model import Handover, Registers, World
from tightrope.observe.known_code import KnownCode
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.physical import Ram
from tightrope.observe.watch import Watch
from tightrope.x86.walk import Access


class Bench:
    """One engine on one memory."""

    def __init__(self, ram: Ram, bits: int) -> None:
        self.ram = ram
        self.engine = Engine(ram, bits)
        self._watch: Watch | None = None
        self._mmu: WatchedMmu | None = None
        self.code = KnownCode(ram)
        """What was executed since Unicorn's translated code was dropped."""
        self._stale = False
        """What Unicorn has translated may not be what lies there, whatever `code` says."""
        self._at_call: tuple[World, Registers, object] | None = None
        engine = self.engine
        self._hooks = [
            engine.on_translation(self._translation),
            engine.on_access(self._access),
            *engine.on_hole(lambda phys: self._watched().hole(phys)),
            engine.on_exception(lambda vector: self._watched().exception(vector)),
            engine.on_invalid(lambda: self._watched().invalid()),
            engine.on_instruction(),
        ]

    def _watched(self) -> Watch:
        assert self._watch is not None
        return self._watch

    def _access(self, is_write: bool, phys: int, size: int) -> None:
        self._watched().access(is_write, phys, size)

    def _translation(self, page: int, access: Access) -> int | None:
        """Of the watch during a run; while registers are set up, descriptors are only looked at."""
        if self._watch is not None:
            return self._watch.translation(page, access)
        assert self._mmu is not None
        return self._mmu.before_the_walk(page)

    def forget_changed_code(self) -> None:
        """Drop translated code unless every frame that was executed holds the same bytes again."""
        if self._stale or self.code.changed():
            self.engine.forget_code()
            self.code.drop()
        # Until the walk is over: one that an exception of ours ends is not to be trusted.
        self._stale = True

    def trust_code(self, watch: Watch) -> None:
        """After a walk: what was translated is what `code` has, unless code was written over."""
        self._stale = watch.code_overwritten

    def load(self, handover: Handover, mmu: WatchedMmu) -> None:
        """Put the CPU where `machine_kexec` calls V.  Raises MachineError without a gdt."""
        known = self._at_call
        if known and known[0] is handover.world and known[1] == handover.registers:
            self.engine.restore(known[2])
        else:
            self._mmu = mmu
            gdt, limit = handover.registers.gdt
            # Unicorn reads the descriptors of the selectors, and dies where it cannot.
            for at in (gdt, gdt + limit):
                if mmu.before_the_walk(at) is None:
                    raise MachineError(f"the gdt at {gdt:#x} is not mapped by the current pgd")
            self.engine.load(handover.registers)
            self._at_call = (handover.world, handover.registers, self.engine.saved())
        self.engine.forget_translations()

    def start(self, watch: Watch, rip: int) -> None:
        """Walk, watched.  Raises what Unicorn raises when it stops badly."""
        self._watch = watch
        self.engine.before = watch.instruction
        try:
            self.engine.start(rip)
        finally:
            self._watch = None

    def leave(self) -> None:
        """Take the hooks away: the new kernel runs unwatched."""
        # First: with a hook Unicorn 2.1.4 takes back what it translated for it, block by block, and dies
        # where a block's address is mapped no longer (a kernel's V once paging is off).
        self.engine.forget_code()
        self.engine.unhook(*self._hooks)
        self._hooks.clear()
