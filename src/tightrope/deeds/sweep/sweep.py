"""All hosts against all new kernels, one rehearsal a class.

    files --batches--> Sort --> class known?  yes: its answer is this host's too
                                being walked: wait for it
                                new: Walk

Rules: what is done is told at once (`row`), so that a run which ends early has lost nothing; what
is told in `known` is not done again.  One host that cannot be told is a row and never the end.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice

from tightrope import check
from tightrope.deeds.sweep.cargo import Cargo
from tightrope.deeds.sweep.flight import Flight, Lost
from tightrope.deeds.sweep.pools import Pool
from tightrope.deeds.sweep.work import HostText, Sort, Sorted, Walk
from tightrope.machine.port import Progress, no_progress
from tightrope.model.sweep import Answer, Sweep, Swept

BATCH = 16
"""Hosts of one Sort: some 50 ms."""
AHEAD = 3
"""Tasks that are out for each worker, so that none waits for us."""

Case = tuple[int, bool, str]
"""Which new kernel, whether a crash, which class."""


def sweep(
    hosts: Iterable[HostText | Swept],
    cargo: Cargo,
    pool: Pool,
    *,
    row: Callable[[Swept], None],
    known: Iterable[Swept] = (),
    total: int = 0,
    progress: Progress = no_progress,
) -> Sweep:
    """Every host against every kernel of the cargo.

    A host that could not be read is a row already.  `known` are rows of a run that ended early:
    what they have answered is neither asked nor told again.  `row` is called for each new row.
    """
    return _Sweeping(cargo, pool, row, known, total, progress).run(iter(hosts))


class _Sweeping:
    def __init__(
        self,
        cargo: Cargo,
        pool: Pool,
        row: Callable[[Swept], None],
        known: Iterable[Swept],
        total: int,
        progress: Progress,
    ) -> None:
        self._cargo = cargo
        self._flight = Flight(pool)
        self._most = pool.size * AHEAD
        self._tell = row
        self._total = total * len(cargo.news) * len(cargo.kinds)
        self._progress = progress
        self._rows: list[Swept] = list(known)
        self._before = len(self._rows)
        self._told = {(each.host, each.digest, each.new, each.crash) for each in self._rows}
        self._answers = dict(self._known_answers())
        self._waiting: dict[Case, list[Sorted]] = defaultdict(list)
        self._judged = 0
        self._asked: Counter[str] = Counter()

    def _known_answers(self) -> Iterator[tuple[Case, Answer]]:
        numbers = {each.name: number for number, each in enumerate(self._cargo.news)}
        for each in self._rows:
            if each.group is not None and each.new in numbers:
                yield (numbers[each.new], each.crash, each.group), each.answer

    def run(self, hosts: Iterator[HostText | Swept]) -> Sweep:
        started = time.perf_counter()
        left = True
        while left or len(self._flight):
            while left and len(self._flight) < self._most:
                batch = list(islice(hosts, BATCH))
                left = bool(batch)
                self._begin(batch)
            if len(self._flight):
                for task, result in self._flight.land():
                    self._landed(task, result)
        return Sweep(
            rows=tuple(self._rows),
            seconds=time.perf_counter() - started,
            before=self._before,
            judged=self._judged,
            asked={
                rule.criterion(): self._asked[rule.id]
                for rule in check.RULES
                if rule.id in self._asked
            },
        )

    def _begin(self, batch: list[HostText | Swept]) -> None:
        texts: list[HostText] = []
        for each in batch:
            if isinstance(each, Swept):
                for new in self._cargo.news:
                    for crash in self._cargo.kinds:
                        self._add(replace(each, new=new.name, crash=crash))
            elif not self._has(each):
                texts.append(each)
        if texts:
            self._flight.send(Sort(hosts=tuple(texts)))

    def _has(self, host: HostText) -> bool:
        return all(
            (host.name, host.digest, new.name, crash) in self._told
            for new in self._cargo.news
            for crash in self._cargo.kinds
        )

    def _landed(self, task: Sort | Walk, result: object) -> None:
        if isinstance(task, Walk):
            answer = self._counted(result) if isinstance(result, Answer) else _lost()
            case = (task.new, task.crash, task.group)
            self._answers[case] = answer
            first, *others = self._waiting.pop(case)
            self._answered(first, answer, walked=True)
            for each in others:
                self._answered(each, answer, walked=False)
            return
        if result is Lost.LOST:
            self._narrowed(task)
            return
        assert isinstance(result, tuple)
        for each in result:
            self._sorted(each)

    def _counted(self, answer: Answer) -> Answer:
        """The rules of a rehearsal are counted, and not kept with each of its hosts."""
        self._judged += bool(answer.asked)
        self._asked.update(answer.asked)
        return replace(answer, asked=())

    def _narrowed(self, task: Sort) -> None:
        """One of these hosts ends its worker: each by itself, until it is known which."""
        if len(task.hosts) > 1:
            for host in task.hosts:
                self._flight.send(Sort(hosts=(host,)))
            return
        for new in range(len(self._cargo.news)):
            for crash in self._cargo.kinds:
                alone = Sorted(host=task.hosts[0], new=new, crash=crash, assumed=())
                self._answered(alone, _lost(), walked=False)

    def _sorted(self, host: Sorted) -> None:
        if host.group is None:
            assert host.answer is not None, "either a class or an answer"
            self._answered(host, host.answer, walked=False)
            return
        case = (host.new, host.crash, host.group)
        if case in self._answers:
            self._answered(host, self._answers[case], walked=False)
            return
        self._waiting[case].append(host)
        if len(self._waiting[case]) == 1:
            self._flight.send(
                Walk(host=host.host, new=host.new, crash=host.crash, group=host.group)
            )

    def _answered(self, host: Sorted, answer: Answer, *, walked: bool) -> None:
        self._add(
            Swept(
                host=host.host.name,
                digest=host.host.digest,
                new=self._cargo.news[host.new].name,
                crash=host.crash,
                group=host.group,
                walked=walked,
                assumed=host.assumed,
                answer=answer,
            )
        )

    def _add(self, row: Swept) -> None:
        at = (row.host, row.digest, row.new, row.crash)
        if at in self._told:
            return
        self._told.add(at)
        self._rows.append(row)
        self._tell(row)
        self._progress("hosts", len(self._rows), self._total)


def _lost() -> Answer:
    return Answer(outcome=None, detail=f"the rehearsal {Lost.LOST.value}")
