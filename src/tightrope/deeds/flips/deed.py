"""Flip, walk and judge.

                       it is told      it is silent
    changes the end    SEEN            UNSEEN: a defect
    changes nothing    ALARM           HARMLESS
      that anybody     (the rule has   (OPEN where something differs, with the
      was promised     its reason)      reason why nobody is bound by it)

Rules: machines are the caller's, and stay the caller's to close.  An oracle that cannot be this
old kernel, or does not come to an end, is not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain, islice
from random import Random

from tightrope import check
from tightrope.deeds.flips import at_call, in_memory, planned
from tightrope.deeds.flips.bases import Base
from tightrope.deeds.flips.ends import Difference, End, Open, end_of, first
from tightrope.deeds.flips.subjects import Broken, Subject
from tightrope.errors import BadInput, MachineError, MissingPart, TightropeError
from tightrope.machine.port import Machine
from tightrope.model import Handover, SegmentRole, Stop
from tightrope.observe.physical import Ram

OURS_GIVES_UP, UNICORN_GIVES_UP = 20_000, 300_000
"""Instructions: a sound base takes some hundreds; Unicorn counts each word of a copy."""
OURS_TIRES, UNICORN_TIRES = 2_000, 40_000
"""The same at first: who goes in circles is let go on only where it would make a difference."""
KVM_GIVES_UP = 0.5
"""Seconds."""
ALONE = "unicorn"

FLIPS: Mapping[Subject, Callable[[Handover, Random], Broken]] = {
    Subject.CONTROL_PAGE: in_memory.control_page,
    Subject.CODE: in_memory.code,
    Subject.AT_V: in_memory.at_v,
    Subject.TABLE_A: in_memory.table_a,
    Subject.TABLE_A_ENTRIES: in_memory.table_a_entries,
    Subject.TABLE_B: in_memory.table_b,
    Subject.TABLE_B_ENTRIES: in_memory.table_b_entries,
    Subject.LIST: in_memory.page_list,
    Subject.LIST_PLANNED: planned.page_list,
    Subject.LOADED: in_memory.loaded,
    Subject.BOOT_PARAMS: planned.segment(SegmentRole.BOOT_PARAMS),
    Subject.COMMAND_LINE: planned.segment(SegmentRole.COMMAND_LINE),
    Subject.INITRD: planned.segment(SegmentRole.INITRD),
    Subject.KERNEL: planned.segment(SegmentRole.KERNEL),
    Subject.STUB: planned.segment(SegmentRole.ENTRY_STUB),
    Subject.CORE_HEADER: planned.segment(SegmentRole.CORE_HEADER),
    Subject.REGISTERS: at_call.registers,
    Subject.OLD_REGISTERS: at_call.old_registers,
    Subject.OLD_TABLES: in_memory.old_tables,
    Subject.OLD_GDT: in_memory.gdt,
    Subject.OLD_IDT: in_memory.idt,
    Subject.HANDED: in_memory.handed,
    Subject.WAY_OUT: in_memory.way_out,
    Subject.DOM0: in_memory.dom0,
    Subject.NOTES: in_memory.notes,
}
"""How each subject is flipped."""


class Fate(StrEnum):
    """What became of a flip."""

    SEEN = "it changes the end, and is told"
    HARMLESS = "it changes nothing, and holds"
    OPEN = "it changes what nobody is promised, and holds"
    ALARM = "it changes nothing that anybody is promised, and is told"
    UNSEEN = "it changes the end, and holds"
    UNASKED = "no oracle can be in this state, or comes to an end in it"
    ERROR = "our machine gave up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flipped:
    """One flip and its fate."""

    base: str
    subject: Subject
    says: str
    fate: Fate
    rules: tuple[str, ...]
    """The ids of the findings, each once."""
    differs: str
    """What an oracle finds otherwise, and which oracle; empty if nothing."""
    open: Open | None = None
    """Why nobody is bound by what differs, where that is so."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Walkers:
    """Our emulator and the oracles; who counts instructions is there twice, soon tired and
    patient."""

    ours: Machine
    ours_patient: Machine
    oracles: tuple[Machine, ...]
    patient: Mapping[str, Machine]
    """Oracles by name, for an end that is a limit."""


@contextmanager
def walkers() -> Iterator[Walkers]:
    """All of them soon tire of going in circles."""
    from tightrope.machine.unicorn import Emulator
    from tightrope.machine.unicorn.alone import Alone

    with ExitStack() as stack:

        def kept(machine: Machine) -> Machine:
            stack.callback(machine.close)
            return machine

        oracles = [kept(Alone(instruction_limit=UNICORN_TIRES))]
        with suppress(MissingPart):
            from tightrope.machine.kvm import Kvm, Pace

            oracles.append(kept(Kvm(Pace.FREE, seconds=KVM_GIVES_UP)))
        yield Walkers(
            ours=kept(Emulator(instruction_limit=OURS_TIRES)),
            ours_patient=kept(Emulator(instruction_limit=OURS_GIVES_UP)),
            oracles=tuple(oracles),
            patient={ALONE: kept(Alone(instruction_limit=UNICORN_GIVES_UP))},
        )


class Trial:
    """A sound handover on all machines: where it ends there, and what becomes of flips in it."""

    def __init__(self, machines: Walkers, base: Base) -> None:
        """Raises BadInput where the base is not sound, MachineError where ours cannot walk it."""
        self.base = base
        self._machines = machines
        told = _Told(machines.ours_patient, base.handover)
        broken = told.rules()
        told.forget()
        if broken or told.problem:
            why = ", ".join(broken) or told.problem
            raise BadInput(f"{base.says} is not sound: {why}", source="flips")
        self._sound = {
            each.name: _end(machines.patient.get(each.name, each), base.handover, base.handover)
            for each in machines.oracles
        }

    def flip(self, subject: Subject, random: Random, second: Subject | None = None) -> Flipped:
        """One bit flipped; with `second` another bit, of that subject, at once.

        Raises BadInput where the base has nothing of the kind.
        """
        it = FLIPS[subject](self.base.handover, random)
        if second is not None:
            it = _both(it, FLIPS[second](it.handover, random))
        seen = self._differs(it, patient=False)
        if seen.changes and (foretold := _foretold(it.handover)):
            return self._became(subject, it, seen, Fate.SEEN, foretold)
        told = _Told(self._machines.ours, it.handover)
        if seen.circles and told.holds:
            # Where ours holds, a walk that takes long has to be walked to its end.
            seen = self._differs(it, patient=True)
        if told.tired and not seen.changes:
            told.forget()
            told = _Told(self._machines.ours_patient, it.handover)
        # Of what is told and right one rule is enough.
        rules = told.first if seen.changes else told.rules()
        told.forget()
        if told.problem:
            fate = Fate.ERROR
        elif not seen.asked:
            fate = Fate.UNASKED
        elif rules:
            fate = Fate.SEEN if seen.changes else Fate.ALARM
        elif seen.changes:
            fate = Fate.UNSEEN
        else:
            fate = Fate.HARMLESS if seen.found is None else Fate.OPEN
        return self._became(subject, it, seen, fate, rules, told.problem)

    def _became(
        self, subject: Subject, it: Broken, seen: _Seen, fate: Fate, rules: tuple[str, ...],
        problem: str = "",
    ) -> Flipped:  # fmt: skip
        return Flipped(
            base=self.base.says,
            subject=subject,
            says=it.says,
            fate=fate,
            rules=rules,
            differs=problem or seen.where,
            open=seen.found.open if seen.found else None,
        )

    def _differs(self, it: Broken, *, patient: bool) -> _Seen:
        """What the oracles find otherwise."""
        seen = _Seen()
        for oracle in self._machines.oracles:
            before = self._sound[oracle.name]
            walks = self._machines.patient.get(oracle.name, oracle) if patient else oracle
            after = _end(walks, it.handover, self.base.handover) if before else None
            if before is None or after is None:
                continue
            seen.asked = True
            seen.circles |= after.stop is Stop.LIMIT
            found = first(before, after, it.places)
            if found is not None and (seen.found is None or found.open is None):
                seen.found, seen.where = found, f"{oracle.name}: {found.says}"
            if seen.found is not None and seen.found.open is None:
                break
        return seen


@dataclass(slots=True)
class _Seen:
    """What an oracle finds otherwise, and which."""

    found: Difference | None = None
    where: str = ""
    asked: bool = False
    """Some oracle could say."""
    circles: bool = False
    """One was still walking."""

    @property
    def changes(self) -> bool:
        """It ends otherwise, and somebody promised that it would not."""
        return self.found is not None and self.found.open is None


class _Told:
    """What the rules say of a walk, as far as they were asked."""

    def __init__(self, machine: Machine, handover: Handover) -> None:
        """Raises what is no MachineError."""
        self.problem = ""
        """Why the machine gave up where no rule says it."""
        self.tired = False
        """It was still walking."""
        self._ram: Ram | None = None
        self.first: tuple[str, ...] = ()
        """The first rule that is broken; nothing where it holds."""
        try:
            run = machine.run(handover)
            self._more = check.broken(handover, run)
            self.tired = run.stop is Stop.LIMIT
            self._ram = run.memory if isinstance(run.memory, Ram) else None
            self.first = tuple(islice(self._more, 1))
        except MachineError as err:
            laid = [each.rule for each in check.laid(handover)[1] if not each.advice]
            self._more, self.problem = iter(laid), "" if laid else str(err)
            self.first = tuple(islice(self._more, 1))

    @property
    def holds(self) -> bool:
        """No rule is broken, and the machine did not give up."""
        return not self.first and not self.problem

    def rules(self) -> tuple[str, ...]:
        """All that are broken, each once."""
        found = dict.fromkeys(self.first)
        try:
            found.update(dict.fromkeys(self._more))
        except MachineError as err:
            self.problem = str(err)
        return tuple(found)

    def forget(self) -> None:
        """Give the memory back: no rule can be asked any more."""
        if self._ram is not None:
            self._ram.clear()


def _foretold(handover: Handover) -> tuple[str, ...]:
    """A rule that tells before anybody walks what was loaded or laid wrong; nothing without.

    Three quarters of all flips that are seen: our walk, the dearest part, need not be walked for
    them.
    """
    return tuple(islice(chain(check.read_back(handover), check.foretold(handover)), 1))


def _both(one: Broken, other: Broken) -> Broken:
    return replace(other, says=f"{one.says}, and {other.says}", places=(*one.places, *other.places))


def _end(machine: Machine, handover: Handover, sound: Handover) -> End | None:
    """Where a walk ends, at what the sound one promises; None where this machine cannot say."""
    try:
        run = machine.run(handover)
    except TightropeError:
        return None
    end = end_of(sound, run)
    if isinstance(run.memory, Ram):
        run.memory.clear()
    # A limit in seconds tells of this computer's load.
    return None if run.stop is Stop.LIMIT and machine.name != ALONE else end
