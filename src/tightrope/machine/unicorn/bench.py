"""What stays between two runs on the same memory: the engine, its hooks, what it has translated.

A rehearsal of one page takes less time than making a machine.  So the engine and its hooks are made
once, Unicorn keeps its translated code as long as the bytes under it are the same, and the state of
the CPU at the call is restored in one piece when it is the one that was there before.

Rules: nothing of a former run may be seen in a later one.  Memory that a handover does not lay out
holds whatever was there, as on a real machine.
"""

from __future__ import annotations

from contextlib import suppress

from tightrope.machine.port import no_progress
from tightrope.machine.unicorn.at_call import AtCall
from tightrope.machine.unicorn.engine import Engine, Failed
from tightrope.machine.unicorn.ticker import Ticker
from tightrope.model import Handover, Registers, World
from tightrope.observe.familiar import nobody
from tightrope.observe.known_code import KnownCode
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.physical import Ram
from tightrope.observe.unseen import Fence
from tightrope.observe.watch import Watch
from tightrope.x86.walk import Access

IDLE = {0x3FD: 0x60, 0x71: 0}
"""What ports answer: an idle 16550's line status, an RTC without an alarm; nobody at the others:
ones."""
UNSEEN_SECONDS = 600.0
"""How long a loader's program may go round at full speed."""


class Bench:
    """One engine on one memory."""

    def __init__(self, ram: Ram, bits: int) -> None:
        self.ram = ram
        self.engine = Engine(ram, bits)
        self._watch: Watch | None = None
        self._call: AtCall | None = None
        self.code = KnownCode(ram)
        """What was executed since Unicorn's translated code was dropped."""
        self._stale = False
        """What Unicorn has translated may not be what lies there, whatever `code` says."""
        self._at_call: tuple[World, Registers, object] | None = None
        engine = self.engine
        self._fence: Fence | None = None
        self._hooks = [
            engine.on_translation(self._translation),
            *engine.on_hole(lambda phys: self._fence is None and self._watched().hole(phys)),
            engine.on_exception(self._exception),
            engine.on_invalid(lambda: self._watched().invalid()),
            *engine.on_port(
                lambda port, size: IDLE.get(port, 0xFFFF_FFFF >> 32 - 8 * size), self._port
            ),
        ]
        self._watching = self._watch_each()

    def _watch_each(self) -> list[int]:
        """The hooks without which nobody watches."""
        return [self.engine.on_access(), self.engine.on_instruction()]

    def _exception(self, vector: int) -> None:
        if self._fence is None:
            self._watched().exception(vector)
        else:
            self.engine.stop()  # watched, it comes again

    def _watched(self) -> Watch:
        assert self._watch is not None
        return self._watch

    def _port(self, port: int, _size: int, value: int) -> None:
        self._watched().ports.append((port, value))

    def _translation(self, page: int, access: Access) -> int | None:
        """Of the watch during a run; while registers are set up, descriptors are only looked at."""
        if self._fence is not None:
            return self._fence.translation(page, access)
        if self._watch is not None:
            return self._watch.translation(page, access)
        assert self._call is not None
        return self._call.translation(page)

    def forget_changed_code(self) -> None:
        """Drop translated code, but for frames that hold the same bytes as when it was executed."""
        if self._stale:
            self.engine.forget_code()
            self.code.drop()
        for frame in self.code.changed():
            self.engine.forget_code_in(frame)
            self.code.drop_frame(frame)
        # Until the walk is over: one that an exception of ours ends is not to be trusted.
        self._stale = True

    def trust_code(self, watch: Watch) -> None:
        """After a walk: what was translated is what `code` has, unless code was written over."""
        self._stale = watch.code_overwritten

    def load(self, handover: Handover, mmu: WatchedMmu) -> None:
        """Put the CPU where `machine_kexec` calls V."""
        known = self._at_call
        if known and known[1] == handover.registers and known[0] == handover.world:
            self.engine.restore(known[2])
        else:
            self._call = AtCall(self.engine, mmu)
            self._call.put(handover.registers)
            self._at_call = (handover.world, handover.registers, self.engine.saved())
        self.engine.forget_translations()

    def start(self, watch: Watch, rip: int) -> None:
        """Walk, watched.  Raises what Unicorn raises when it stops badly."""
        self._watch = watch
        self.engine.before, self.engine.familiar = watch.instruction, watch.familiar
        self.engine.accessed = watch.access
        try:
            self.engine.start(rip)
            while not watch.over and (rip_after := self._goes_on(watch)) is not None:
                self.engine.start(rip_after)
        finally:
            self._watch = None
            # Nothing leads back to it: it is freed with its last user, not by a search for cycles.
            watch.familiar.meet = nobody
            watch.digests.let_go()

    def _goes_on(self, watch: Watch) -> int | None:
        """Where a walk goes on that was stopped for something to be done; None where it was not."""
        if watch.settled.now:
            return self._unseen(watch)
        resume, watch.digests.resume = watch.digests.resume, None
        return resume

    def _unseen(self, watch: Watch) -> int:
        """Go on without looking, behind a fence, and watch again: see `observe.unseen`.  Where it
        goes on."""
        watch.settled.now = False
        engine = self.engine
        fence = Fence(watch, self.code)
        exits = fence.exits
        # As in `leave`; what is asked of the old kernel's addresses meanwhile is not a part of the
        # walk.
        self._watch = None
        engine.forget_code()
        engine.unhook(*self._watching)
        self._watch = watch
        engine.forget_translations()
        self._fence = fence
        try:
            # A Ctrl-C is for the thread beside: no Python runs here.
            with (
                Ticker(
                    seconds=UNSEEN_SECONDS,
                    progress=no_progress,
                    stop=engine.stop,
                    signs=lambda: fence.asked,
                ) as clock,
                suppress(Failed),
            ):
                engine.start(watch.settled.rip, exits=exits)
        finally:
            self._fence = None
            self._watching = self._watch_each()
            engine.forget_code()
            engine.forget_translations()
        watch.mmu.written()
        watch.settled.stretches.append(fence.stretch())
        watch.settled.again(watch.index)
        watch.over_limit = clock.over or clock.idle
        return engine.read("rip")

    def leave(self) -> None:
        """Take the hooks away: the new kernel runs unwatched."""
        # First: with a hook Unicorn 2.1.4 takes back what it translated for it, block by block, and
        # dies where a block's address is mapped no longer (a kernel's V once paging is off).
        self.engine.forget_code()
        self.engine.unhook(*self._hooks, *self._watching)
        self._hooks.clear()
        self._watching.clear()
