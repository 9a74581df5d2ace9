"""Turns of a loop over a page list done many at a time, with all that a watch would have recorded
of each.

    the CPU stands at a loop's head ->  the words that follow, as far as all of them take one path
                                    ->  the instructions, loads and copies of these turns, as rows
                                    ->  the pages copied, the registers as they are behind the last turn

A turn is done here only where nothing but that can happen in it: its path is known (`loops`), every
page it touches can be translated by tables that no turn writes, is memory, and is neither code that
was executed nor the page of the list that is being read.  All others, and the turn that leaves the
loop, are the CPU's.

Rules: what a walk records is the same, byte for byte, whether a turn is done here or by the CPU.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tightrope.memory import PAGE_SHIFT, PAGE_SIZE
from tightrope.model import Buffer
from tightrope.observe.columns import Column, Places, column
from tightrope.observe.known_code import KnownCode
from tightrope.observe.loops import WINDOW, WORD, Loop, Path, loop
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.observed import ObservedCpu
from tightrope.observe.pages import copy_in_order
from tightrope.observe.series import Series, answered, run, steps, value
from tightrope.x86.cpu import GENERAL, RFLAGS_DF
from tightrope.x86.flags import flags_after
from tightrope.x86.walk import Access, Translated

FEW = 8
"""Turns one after the other that are worth it: fewer the CPU has done in less time."""
SHORT = 8
"""Turns that are looked at together at first, and again where they did not go together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class News:
    """A first question to the MMU: in which turn, by which instruction of the path."""

    turn: int
    at: int
    virt: int
    access: Access
    got: Translated


@dataclass(frozen=True, kw_only=True, slots=True)
class Turns:
    """Turns that all take one path: how often, and what they did."""

    head: int
    path: Path
    count: int
    reads: int
    """The physical address of the first word; the others follow it."""
    word: int
    pages: tuple[tuple[Places, Places], ...]
    """Destination and source of each copy of the path, turn by turn."""
    news: tuple[News, ...]
    """What was asked of the MMU for the first time, in order."""

    @property
    def instructions(self) -> int:
        """How many were gone over."""
        return self.count * len(self.path.where)

    @property
    def instructions_at(self) -> Iterator[int]:
        """The address of each instruction of one turn."""
        return (self.head + offset for offset in self.path.where)

    def questions(self, first: int) -> Iterator[tuple[int, News]]:
        """What was asked of the MMU, each with the number of its instruction."""
        return ((first + each.turn * len(self.path.where) + each.at, each) for each in self.news)

    def record(self, trace: array[int], loads: array[int], copies: array[int], step: int) -> None:
        """Write the turns down, as a watch does one instruction after the other."""
        first = len(trace)
        trace.frombytes(self.trace())
        loads.frombytes(self.loads(first, step))
        copies.frombytes(self.copies(first))

    def trace(self) -> Buffer:
        """The address of each instruction, as the trace has them."""
        if self.count == 1:
            return array("Q", self.instructions_at).tobytes()
        once = np.array(self.path.where, np.uint64) + np.uint64(self.head)
        return _as_bytes(np.tile(once, self.count))

    def loads(self, first: int, step: int) -> Buffer:
        """The rows of the loads; `first` is the number of the first instruction."""
        if self.count == 1:
            row = (first + self.path.read_at, step, self.reads, self.word)
            return array("q", row).tobytes()
        rows = np.empty((self.count, 4), np.int64)
        turns = np.arange(self.count)
        rows[:, 0] = first + len(self.path.where) * turns + self.path.read_at
        rows[:, 1] = step
        rows[:, 2] = self.reads + self.word * turns
        rows[:, 3] = self.word
        return _as_bytes(rows)

    def copies(self, first: int) -> Buffer:
        """The rows of the copies."""
        if not self.pages:
            return b""
        rows = np.empty((self.count, len(self.pages), 4), np.int64)
        turns = first + len(self.path.where) * np.arange(self.count)
        for number, (copy, (to, of)) in enumerate(zip(self.path.copies, self.pages, strict=True)):
            rows[:, number, 0] = turns + copy.at
            rows[:, number, 1] = to
            rows[:, number, 2] = of
        rows[:, :, 3] = PAGE_SIZE
        return _as_bytes(rows)


class Bulk:
    """The loops of one walk."""

    def __init__(self, cpu: ObservedCpu, mmu: WatchedMmu, code: KnownCode, *, on: bool) -> None:
        """`on`: whether any is done here at all."""
        self.on = on
        self.wanted = False
        """A page was copied, and the next jump backwards may lead to the head of the loop that does
        so."""
        self._cpu = cpu
        self._ram = cpu.ram
        self._mmu = mmu
        self._code = code
        self._names = GENERAL if cpu.bits == 64 else GENERAL[:8]
        self._registers = cpu.batch(*self._names, "rflags")
        self._loops: dict[int, Loop | None] = {}
        self._reach = SHORT
        """How many turns are looked at together: twice as many as went together the last
        time.  Each asks the MMU, and where pages lie scattered few of them are done."""

    def head(self, rip: int) -> bool:
        """Whether a loop begins there."""
        return self._loops.get(rip) is not None

    def forget(self) -> None:
        """Code was written over."""
        self._loops.clear()

    def turns(self, head: int, bits: int, most: int) -> Iterator[Turns]:
        """The turns that the CPU need not do, `most` instructions at the most, as they are done."""
        self.wanted = False
        if head not in self._loops:
            self._loops[head] = self._loop(head, bits)
        found = self._loops[head]
        while found is not None and self._many(found):
            words = self._registers.read()
            state = dict(zip((*self._names, "rflags"), words, strict=True))
            if state["rflags"] & RFLAGS_DF:
                return
            next_ones = self._next(found, head, state)
            if next_ones is None or next_ones.instructions > most:
                return
            most -= next_ones.instructions
            last = self._last(next_ones, state, bits)
            copy_in_order(self._ram, next_ones.pages, next_ones.count)
            for name, term in next_ones.path.after:
                words[self._names.index(name)] = value(term, last, bits)
            by = next_ones.path.flags
            left, right = (value(each, last, bits) for each in (by.left, by.right))
            words[len(self._names)] = flags_after(by.by, left, right, by.bits, state["rflags"])
            self._registers.write()
            yield next_ones

    def _last(self, turns: Turns, state: Mapping[str, int], bits: int) -> dict[str, int]:
        """What the terms of the last turn began with."""
        before, mask = turns.count - 1, (1 << bits) - 1
        last = dict(state)
        for name, step in steps(turns.path, bits).items():
            last[name] = state[name] + (step or 0) * before & mask
        last[WORD] = self._ram.word(turns.reads + turns.word * before, turns.word) or 0
        return last

    def _loop(self, head: int, bits: int) -> Loop | None:
        """The loop at `head`, as far as its bytes lie in the page that they begin in."""
        phys = self._mmu.cached(head, Access.FETCH)
        size = min(WINDOW, PAGE_SIZE - head % PAGE_SIZE)
        view = None if phys is None else self._ram.view(phys, size)
        return None if view is None else loop(bytes(view), bits)

    def _many(self, found: Loop) -> bool:
        """Whether turns that take one path may follow, and not only a few; the rest is not asked
        yet."""
        where, size = found.read_from, found.bits // 8
        if where is None or where.base is None:
            return True
        at = value(where, {where.base: self._cpu.read(where.base)}, found.bits)
        phys = self._mmu.cached(at, Access.READ)
        within = at % size == 0 and at % PAGE_SIZE <= PAGE_SIZE - FEW * size
        view = self._ram.view(phys, FEW * size) if phys is not None and within else None
        words = [] if view is None else view.cast("Q" if size == 8 else "I").tolist()
        # What is not so of the first word needs no look at the others.
        return any(
            words[0] & path.bits == path.set and all(word & path.bits == path.set for word in words)
            for path in (found.paths if words else ())
        )

    def _next(self, found: Loop, head: int, state: Mapping[str, int]) -> Turns | None:
        """The next turns that take one path; None where the CPU has to go on."""
        size = found.bits // 8
        for path in found.paths:
            at = value(path.read_from, state, found.bits)
            phys = self._mmu.cached(at, Access.READ)
            view = None
            if phys is not None and at % size == 0:
                view = self._ram.view(phys, PAGE_SIZE - at % PAGE_SIZE)
            if phys is None or view is None:
                continue
            word = int.from_bytes(view[:size], "little")
            if word & path.bits != path.set:
                continue
            if not answered(path, {**state, WORD: word}, found.bits):
                continue
            one = Turns(head=head, path=path, count=1, reads=phys, word=size, pages=(), news=())
            words = np.frombuffer(view, f"<u{size}").astype(np.uint64)
            return self._turns(one, Series(state, path, found.bits, words))
        return None

    def _turns(self, begun: Turns, series: Series) -> Turns | None:
        """The same turns with their pages, as many as can be done."""
        path, count = begun.path, min(series.count, self._reach)
        self._reach = SHORT
        pages: list[tuple[Places, Places]] = []
        if count > 1:
            count = run(series.words[:count] & np.uint64(path.bits) == np.uint64(path.set))
        for question, yes in path.whether:
            count = run(series.answers(question)[:count] == yes)
        first = Asked(self._mmu)
        for copy in path.copies:
            to, of = (
                first.places(series.pages(term, count), access, copy.at).together(self._ram)
                for term, access in ((copy.to, Access.WRITE), (copy.of, Access.READ))
            )
            count = min(len(to.at), len(of.at))
            for frame in (begun.reads >> PAGE_SHIFT, *self._code.frames):
                if to.low <= frame << PAGE_SHIFT <= to.high:
                    count = run(to.at[:count] != frame << PAGE_SHIFT)
            pages.append((to.at, of.at))
        news = first.in_order(count)
        tables = {visit.at & -PAGE_SIZE for each in news for visit in each.got.visits}
        if any((to[:count] == table).any() for table in tables for to, _ in pages):
            # A turn writes a table that a later one is translated by.
            count, news = news[0].turn, ()
        if not count:
            return None
        self._reach = max(SHORT, 2 * count)
        kept = tuple((_cut(to, count), _cut(of, count)) for to, of in pages)
        return replace(begun, count=count, pages=kept, news=news)


def _as_bytes(rows: NDArray[np.uint64] | NDArray[np.int64]) -> Buffer:
    """The bytes of an array, where they lie."""
    return rows.reshape(-1).view(np.uint8).data


def _cut(places: Places, count: int) -> Places:
    """The first ones; the very array where those are all, since one may stand for two copies."""
    return places if len(places) == count else places[:count]


class Asked:
    """The questions of some turns to the MMU, of which nothing is recorded yet."""

    def __init__(self, mmu: WatchedMmu) -> None:
        self._mmu = mmu
        self._small: dict[tuple[Access, int], News] = {}
        """By page, each as it is asked first."""
        self._large: list[News] = []
        self._asked: list[tuple[Places, Access, int]] = []

    def places(self, virtual: Column, access: Access, at: int) -> Column:
        """Where pages lie, as far as a CPU does not fault."""
        wanted = virtual.at
        self._asked.append((wanted, access, at))
        moved: list[tuple[int, int]] = []
        """Up to which turn, and how far the pages lie from where they are wanted."""
        done = 0
        while done < len(wanted):
            found = self._mapping(int(wanted[done]), access, done, at)
            if found is None:
                break
            first, size, phys = found
            if first <= virtual.low and virtual.high < first + size:
                done = len(wanted)
            elif size > PAGE_SIZE:
                done += run(wanted[done:] & -size == first)
            else:
                done += 1
            moved.append((done, phys - first))
        if done == len(wanted) and len({by for _, by in moved}) == 1:
            return virtual.moved(moved[0][1])
        out, begin = np.empty_like(wanted), 0
        for end, by in moved:
            out[begin:end] = wanted[begin:end] + by
            begin = end
        return column(out[:done])

    def _mapping(
        self, virt: int, access: Access, turn: int, at: int
    ) -> tuple[int, int, int] | None:
        known = self._mmu.mapping(virt, access)
        if known is not None:
            return known
        small = self._small.get((access, virt))
        if small is not None:
            if (turn, at) < (small.turn, small.at):
                self._small[access, virt] = replace(small, turn=turn, at=at)
            return virt, PAGE_SIZE, small.got.phys
        for each in self._large:
            first = each.virt & -each.got.page_size
            if each.access is access and first <= virt < first + each.got.page_size:
                return first, each.got.page_size, each.got.phys & -each.got.page_size
        got = self._mmu.ask(virt, access)
        if got is None:
            return None
        news = News(turn=turn, at=at, virt=virt, access=access, got=got)
        if got.page_size > PAGE_SIZE:
            self._large.append(news)
        else:
            self._small[access, virt] = news
        return virt & -got.page_size, got.page_size, got.phys & -got.page_size

    def in_order(self, turns: int) -> tuple[News, ...]:
        """Those of the first turns, as a CPU would ask them; of one copy the destination's
        first."""
        asked = [*self._small.values(), *(self._first(each, turns) for each in self._large)]
        there = [each for each in asked if each.turn < turns]
        return tuple(
            sorted(there, key=lambda each: (each.turn, each.at, each.access is Access.READ))
        )

    def _first(self, news: News, turns: int) -> News:
        """The same question by who asks it first: another copy of an earlier turn, of the same
        page."""
        size = news.got.page_size
        for virtual, access, at in self._asked:
            inside = np.nonzero(virtual[:turns] & -size == news.virt & -size)[0]
            if access is news.access and len(inside) and (inside[0], at) < (news.turn, news.at):
                virt = int(virtual[inside[0]])
                got = self._mmu.ask(virt, access)
                if got is not None:
                    news = News(turn=int(inside[0]), at=at, virt=virt, access=access, got=got)
        return news
