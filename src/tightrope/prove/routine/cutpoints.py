"""From one cutpoint to the next: the call, the loop head, the entry.

    call --prologue--> loop head --one word of the list--> loop head ... --IND_DONE--> entry

Rules: the loop head is the first instruction that a path comes to twice; it is found, not told.
What holds there is what held at the first arrival, as far as every way round keeps it (the rest is
forgotten); the word, the cursor and the destination are the list interpreter's.  So each way round
is compared with one step of it, and together with theorem 4 this covers lists of any length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import z3

from tightrope.memory import PAGE_SIZE
from tightrope.prove.isa.machine import Machine
from tightrope.prove.isa.memory import Memory, Stores
from tightrope.prove.isa.semantics import Refused
from tightrope.prove.isa.state import ARITHMETIC, FLAG_BITS
from tightrope.prove.isa.symbolic import ENTRY, OLD, Ends, Obligation, Symbolic
from tightrope.prove.isa.terms import Truth
from tightrope.prove.routine.contract import Contract, ListState
from tightrope.prove.routine.promises import Roles, entered, established, stepped

NO_STEPS: Mapping[int, Step] = {}
LONGEST = 600
"""Instructions of a path between cutpoints; the shipped routines need 60."""
ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Segment:
    """The obligations between two cutpoints, under hypotheses; `list_state` inside the loop."""

    name: str
    hypotheses: tuple[Truth, ...]
    obligations: tuple[Obligation, ...]
    list_state: ListState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """How a routine was walked: `executed` and `head` are offsets."""

    executed: frozenset[int]
    head: int
    roles: Roles
    kept: frozenset[str]
    """What holds at the loop head because every way round keeps it."""
    arrivals: tuple[Symbolic, ...]
    """The states in which the loop head is first reached."""
    ways: tuple[Symbolic, ...]
    """The states at the next cutpoint after the loop head."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step as it went: `after` None where the path ended; `state` is held, so that nothing else
    gets its identity."""

    state: Symbolic
    obligations: tuple[Obligation, ...]
    window: frozenset[int]
    after: list[Symbolic] | None


@dataclass(frozen=True, slots=True)
class Round:
    """Once round the loop from any state at its head."""

    machine: Machine
    state: Symbolic
    at: ListState
    ways: list[Symbolic]
    executed: frozenset[int]


@dataclass(slots=True)
class Walker:
    """Symbolic execution of one image under one contract."""

    contract: Contract
    image: bytes
    walked: Walked | None = None
    """How it went, once all segments were asked for."""
    window: frozenset[int] = frozenset()
    """Offsets of the instructions from the first without the old
    stack to the one that disarms its idt.
    """

    def segments(self) -> Iterator[Segment]:
        """Every segment, one after the other.  Raises Refused where the model cannot follow."""
        machine = self.contract.machine(self.image)
        executed: set[int] = set()
        base = tuple(self.contract.formulas())
        head, arrivals = self._prologue(machine, executed)
        roles, trial = self._roles(arrivals, head)
        for state in arrivals:
            established(self.contract, machine, state, roles)
        self.window = frozenset(machine.window)
        yield Segment("from the call to the list", base, tuple(machine.obligations))
        if not arrivals or head is None:
            return
        first = arrivals[0]
        kept = self._candidates(first, roles)
        for _ in range(ROUNDS):
            once = trial or self._round(first, head, roles, kept)
            trial = None
            executed |= once.executed
            changed = self._changed(first, once.ways, kept)
            if not changed:
                break
            kept -= changed
        else:
            raise Refused("what holds at the loop head was not found")
        machine, state, at, ways = once.machine, once.state, once.at, once.ways
        for way in ways:
            if way.offset == ENTRY:
                entered(self.contract, self.image, machine, way, at, state)
            else:
                stepped(self.contract, self.image, machine, way, at, state, roles)
        promised = tuple(each.formula for each in self.contract.list_hypotheses(at))
        yield Segment(
            "one word of the list, or the entry", (*base, *promised), tuple(machine.obligations), at
        )
        self.walked = Walked(
            executed=frozenset(executed),
            head=head,
            roles=roles,
            kept=frozenset(kept),
            arrivals=tuple(arrivals),
            ways=tuple(ways),
        )

    # ------------------------------------------------------------------------------ the ways

    def called(self) -> Symbolic:
        """The state at the call: the contract's arguments, all else arbitrary."""
        c = self.contract
        names = c.names
        return Symbolic(
            bits=c.bits,
            registers={**c.registers, **c.arguments()},
            flags=dict(c.flags),
            control={
                **{name: names[name] for name in ("cr0", "cr3", "cr4", "efer")},
                **c.at_call(),
            },
            segments=c.selectors()[0],
            hidden=c.selectors()[1],
            tables=c.tables(),
            rip=names["V"],
            memory=c.memory(self.image),
            tables_in_use=OLD,
            stale=z3.BoolVal(False),
            home="V",
            offset=0,
        )

    def _prologue(self, machine: Machine, executed: set[int]) -> tuple[int | None, list[Symbolic]]:
        """The loop head, and the states in which it is first reached."""
        called = self.called()
        scout = self.contract.machine(self.image)
        steps: dict[int, Step] = {}
        head = self._first_twice(scout, called, steps)
        return head, [
            state
            for state in self._run(machine, called, head, executed, steps)
            if state.offset != ENTRY or self._no_list(machine, state)
        ]

    def _no_list(self, machine: Machine, state: Symbolic) -> bool:
        machine.require(
            state, None, "the new kernel is entered before the list was read", z3.BoolVal(False)
        )
        return False

    def _first_twice(
        self, machine: Machine, called: Symbolic, steps: dict[int, Step]
    ) -> int | None:
        """The first offset that some path visits twice; `steps` are those on the way there."""
        work: list[tuple[Symbolic, tuple[tuple[str, int], ...]]] = [(called, ())]
        while work:
            state, seen = work.pop()
            here = (state.home, state.offset)
            if here in seen:
                return state.offset
            if len(seen) > LONGEST:
                raise Refused(f"no loop and no end in {LONGEST} instructions")
            machine.obligations, machine.window = [], set()
            after: list[Symbolic] | None = None
            with suppress(Ends):
                after = machine.step(state)
            owed, window = tuple(machine.obligations), frozenset(machine.window)
            steps[id(state)] = Step(state, owed, window, after)
            work += [(each, (*seen, here)) for each in after or () if each.offset != ENTRY]
        return None

    def _run(
        self,
        machine: Machine,
        state: Symbolic,
        head: int | None,
        executed: set[int],
        steps: Mapping[int, Step] = NO_STEPS,
    ) -> list[Symbolic]:
        """All states at the loop head or the entry behind a state; `steps` were made already."""
        ends: list[Symbolic] = []
        work = [(state, 0)]
        while work:
            state, length = work.pop()
            if length and state.offset in (head, ENTRY):
                ends.append(state)
                continue
            if length > LONGEST:
                raise Refused("a loop inside the loop over the list")
            executed.add(state.offset)
            after: list[Symbolic] | None = None
            step = steps.get(id(state))
            if step is not None:
                machine.obligations += step.obligations
                machine.window |= step.window
                after = step.after
            else:
                with suppress(Ends):
                    after = machine.step(state)
            work += [(each, length + 1) for each in after or ()]
        return ends

    # ------------------------------------------------------------------------- the loop head

    def _round(self, first: Symbolic, head: int, roles: Roles, kept: set[str]) -> Round:
        """Once round.  Raises Refused where the model cannot follow."""
        machine = self.contract.machine(self.image)
        state, at = self._generalised(first, roles, kept)
        executed: set[int] = set()
        ways = self._run(machine, state, head, executed)
        return Round(machine, state, at, ways, frozenset(executed))

    def _roles(self, arrivals: list[Symbolic], head: int | None) -> tuple[Roles, Round | None]:
        """The registers of the list, and the first time round with them, where it was made.

        They are the routines' own ones, unless these are not seen at work and others are.
        """
        usual = Roles()
        if not arrivals or head is None:
            return usual, None
        try:
            once = self._round(arrivals[0], head, usual, self._candidates(arrivals[0], usual))
        except Refused:
            return self._other_roles(arrivals, head), None
        page = z3.simplify(once.at.word & ~(PAGE_SIZE - 1))
        behind = z3.simplify(page + self.contract.bits // 8)
        set_anew = [
            any(z3.eq(way.registers[name], term) for way in once.ways)
            for name, term in ((usual.destination, page), (usual.cursor, behind))
        ]
        roles = usual if all(set_anew) else self._other_roles(arrivals, head)
        return roles, once if roles == usual else None

    def _other_roles(self, arrivals: list[Symbolic], head: int) -> Roles:
        """The registers that a trial from any state at all shows as those of the list."""
        usual = Roles()
        c = self.contract
        fresh = {name: z3.BitVec(f"{name} at the loop head", c.bits) for name in c.registers}
        trial = arrivals[0].copied()
        trial.registers = {**fresh, "rsp": arrivals[0].registers["rsp"]}
        trial.path = ()
        trial.memory = Memory(first=c.first_memory, home=c.names["P"], image=self.image)
        try:
            ways = self._run(c.machine(self.image), trial, head, set())
        except Refused:
            return usual
        size = c.bits // 8
        pages = {word: z3.simplify(held & ~(PAGE_SIZE - 1)) for word, held in fresh.items()}
        # Terms that are the same are one object of the solver's, as long as somebody holds it.
        behind = {word: z3.simplify(page + size) for word, page in pages.items()}
        page_in = {page.get_id(): word for word, page in pages.items()}
        behind_in = {term.get_id(): word for word, term in behind.items()}
        destinations, cursors = set(), set()
        for way in ways:
            for name, value in way.registers.items():
                word = page_in.get(value.get_id())
                if word is not None and word != name:
                    destinations.add((word, name))
                word = behind_in.get(value.get_id())
                if word is not None and word != name:
                    cursors.add((word, name))
        found = {
            Roles(word, cursor, destination)
            for word, cursor in cursors
            for other, destination in destinations
            if other == word and destination != cursor
        }
        if usual in found or not found:
            return usual
        return sorted(found, key=lambda r: (r.word, r.cursor, r.destination))[0]

    def _candidates(self, first: Symbolic, roles: Roles) -> set[str]:
        ghosts = {roles.word, roles.cursor, roles.destination}
        return (
            {name for name in first.registers if name not in ghosts}
            | {name for name in FLAG_BITS if name not in ARITHMETIC}
            | {f"stack {offset}" for offset in first.memory.kept()}
        )

    def _generalised(
        self, first: Symbolic, roles: Roles, kept: set[str]
    ) -> tuple[Symbolic, ListState]:
        """Any state at the loop head: kept things as they were, the list's ones and others free."""
        c = self.contract
        at = ListState(
            word=z3.BitVec("word", c.bits),
            cursor=z3.BitVec("cursor", c.bits),
            destination=z3.BitVec("destination", c.bits),
        )
        state = first.copied()
        state.path, state.turns = (), ()
        for name in state.registers:
            if name not in kept:
                state.registers[name] = z3.BitVec(f"{name} in the loop", c.bits)
        state.registers[roles.word] = at.word
        state.registers[roles.cursor] = at.cursor
        state.registers[roles.destination] = at.destination
        for name in FLAG_BITS:
            if name not in kept:
                state.flags[name] = z3.Bool(f"flag {name} in the loop")
        stack = {
            offset: value
            for offset, value in first.memory.kept().items()
            if f"stack {offset}" in kept
        }
        word = z3.BitVecSort(c.bits)
        memory = Memory(
            first=z3.Array("memory in the loop", word, z3.BitVecSort(8)),
            home=c.names["P"],
            image=self.image,
            layers=(Stores(c.names["P"], stack),) if stack else (),
        )
        state.memory = memory
        state.unserialized = True
        return state, at

    def _changed(self, first: Symbolic, ways: list[Symbolic], kept: set[str]) -> set[str]:
        """What some way round does not keep."""
        out = set()
        for way in ways:
            if way.offset == ENTRY:
                continue
            now = way.memory.kept()
            for name in kept:
                if name.startswith("stack "):
                    offset = int(name[6:])
                    same = z3.eq(now[offset], first.memory.kept()[offset])
                elif name in FLAG_BITS:
                    same = _same_flag(way.flag(name), first.flag(name))
                else:
                    same = z3.eq(way.registers[name], first.registers[name])
                if not same:
                    out.add(name)
        return out


def _same_flag(one: Truth | None, other: Truth | None) -> bool:
    return one is other or (one is not None and other is not None and bool(z3.eq(one, other)))
