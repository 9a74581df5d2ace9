"""Flip, walk and judge.

                       it is told      it is silent
    changes the end    SEEN            UNSEEN: a defect
    changes nothing    ALARM           HARMLESS
      that anybody     (the rule has   (OPEN where something differs, with the
      was promised     its reason)      reason why nobody is bound by it)

Rules: machines are the caller's, and stay the caller's to close; the first has the rules, the
others are oracles.  An oracle that cannot be this old kernel, or does not come to an end, is not
asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
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


@contextmanager
def walkers() -> Iterator[Sequence[Machine]]:
    """Our emulator, and after it the oracles: all of them soon tire of going in circles."""
    from tightrope.machine.unicorn import Emulator
    from tightrope.machine.unicorn.alone import Alone

    with ExitStack() as stack:
        made: list[Machine] = [
            Emulator(instruction_limit=OURS_GIVES_UP),
            Alone(instruction_limit=UNICORN_GIVES_UP),
        ]
        with suppress(MissingPart):
            from tightrope.machine.kvm import Kvm, Pace

            made.append(Kvm(Pace.FREE, seconds=KVM_GIVES_UP))
        for each in made:
            stack.callback(each.close)
        yield made


class Trial:
    """A sound handover on all machines: where it ends there, and what becomes of flips in it."""

    def __init__(self, machines: Sequence[Machine], base: Base) -> None:
        """Raises BadInput where the base is not sound, MachineError where ours cannot walk it."""
        self.base = base
        self._ours, *self._oracles = machines
        rules, problem = _told(self._ours, base.handover)
        if rules or problem:
            why = ", ".join(rules) or problem
            raise BadInput(f"{base.says} is not sound: {why}", source="flips")
        self._sound = {each.name: _end(each, base.handover) for each in self._oracles}

    def flip(self, subject: Subject, random: Random, second: Subject | None = None) -> Flipped:
        """One bit flipped; with `second` another bit, of that subject, at once.

        Raises BadInput where the base has nothing of the kind.
        """
        it = FLIPS[subject](self.base.handover, random)
        if second is not None:
            it = _both(it, FLIPS[second](it.handover, random))
        rules, problem = _told(self._ours, it.handover)
        found, where, asked = self._differs(it)
        changes = found is not None and found.open is None
        if problem:
            fate = Fate.ERROR
        elif not asked:
            fate = Fate.UNASKED
        elif rules:
            fate = Fate.SEEN if changes else Fate.ALARM
        elif changes:
            fate = Fate.UNSEEN
        else:
            fate = Fate.HARMLESS if found is None else Fate.OPEN
        return Flipped(
            base=self.base.says,
            subject=subject,
            says=it.says,
            fate=fate,
            rules=rules,
            differs=problem or where,
            open=found.open if found else None,
        )

    def _differs(self, it: Broken) -> tuple[Difference | None, str, bool]:
        """What an oracle finds otherwise, as text with its name, and whether any could be asked."""
        found: Difference | None = None
        where, asked = "", False
        for oracle in self._oracles:
            before = self._sound[oracle.name]
            after = _end(oracle, it.handover) if before else None
            if before is None or after is None:
                continue
            asked = True
            seen = first(before, after, it.places)
            if seen is not None and (found is None or seen.open is None):
                found, where = seen, f"{oracle.name}: {seen.says}"
            if found is not None and found.open is None:
                break
        return found, where, asked


def _both(one: Broken, other: Broken) -> Broken:
    return replace(other, says=f"{one.says}, and {other.says}", places=(*one.places, *other.places))


def _end(machine: Machine, handover: Handover) -> End | None:
    """Where a walk ends; None where this machine cannot say."""
    try:
        run = machine.run(handover)
    except TightropeError:
        return None
    end = end_of(handover, run)
    if isinstance(run.memory, Ram):
        run.memory.clear()
    # A limit in seconds tells of this computer's load.
    return None if run.stop is Stop.LIMIT and machine.name != ALONE else end


def _told(machine: Machine, handover: Handover) -> tuple[tuple[str, ...], str]:
    """The rules that are broken, and why the machine gave up where no rule says it."""
    try:
        run = machine.run(handover)
        findings = check.check(handover, run)
        if isinstance(run.memory, Ram):
            run.memory.clear()
        problem = ""
    except MachineError as err:
        findings = check.laid(handover)[1]
        problem = "" if findings else str(err)
    return tuple(dict.fromkeys(each.rule for each in findings if not each.advice)), problem
