"""Every old kernel's own relocation code into every new kernel: one rehearsal each.

    {old images} x {modes that the old one can be in} x {new images} x {kexec, crash}

by segments of ours, of kexec-tools', or of each old kernel's own kexec_file_load.

An old kernel's image says how wide it is: a 64-bit one runs with 4 or 5 levels; the code of a
32-bit one is told at the call whether the CPU has PAE, and is walked in both.

Rules: an old image that has no code, or code that is not known, and a jump that cannot be planned
are pairs that cannot be told, each with its reason; so is a loader that refuses.  Everything else
that is wrong is the caller's.  Hosts are the examples of their modes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tightrope.deeds import defaults, old_kernel
from tightrope.deeds.loaders import By
from tightrope.deeds.machines import emulator
from tightrope.deeds.old_kernel import OldHypervisor, OldKernel
from tightrope.deeds.rehearse import rehearse
from tightrope.deeds.unpacking import Unpacking
from tightrope.deeds.until import ENTRY, Spoken, Until
from tightrope.errors import BadInput, CannotBe, ImageError, MissingPart, PlanError
from tightrope.machine.port import Machine, Progress, no_progress
from tightrope.model import (
    Buffer,
    Criterion,
    Host,
    Image,
    Loaded,
    Loader,
    Outcome,
    Paging,
    Verdict,
)
from tightrope.model.pairs import Pair
from tightrope.participants.linux import Convention
from tightrope.plan import Request

WIDE = (Paging.X86_64, Paging.LA57)
NARROW = (Paging.I386, Paging.PAE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Old:
    """An old kernel's image: its code, or why there is none."""

    source: str
    code: OldKernel | None
    data: Buffer = b""
    reason: str = ""

    @property
    def modes(self) -> tuple[Paging, ...]:
        """Those that it can be in."""
        assert self.code is not None, "asked only where there is code"
        narrow = self.code.found.convention is Convention.LINUX_I386
        return NARROW if narrow else WIDE


def read(data: Buffer, source: str) -> Old:
    """The old kernel in an image, whatever it is."""
    try:
        code = old_kernel.read(data, source)
    except (ImageError, MissingPart) as err:
        return Old(source=source, code=None, reason=str(err))
    if isinstance(code, OldHypervisor):
        return Old(source=source, code=None, reason=f"{source} is a hypervisor and no old kernel")
    return Old(source=source, code=code, data=data)


def pairs(
    olds: Sequence[Old],
    news: Sequence[Image],
    *,
    kinds: Sequence[bool] = (False,),
    request: Request | None = None,
    until: Until = ENTRY,
    by: By | None = None,
    machine: Machine | None = None,
    progress: Progress = no_progress,
    told: Callable[[Pair], None] | None = None,
) -> tuple[Pair, ...]:
    """All pairs, in the order of `olds`; `kinds` has whether it is a crash kexec.

    `request` is what all have in common: an initrd, a command line; `by` is who places; `told` gets
    each pair as soon as it is known.  Raises MissingPart without the emulator.
    """
    by = by or By()
    machine = machine or emulator()
    asked = request or Request()
    unpacked = {new.source: Unpacking(new, asked.initrd) for new in news}
    total = sum(len(old.modes) if old.code else 1 for old in olds) * len(news) * len(kinds)
    found: list[Pair] = []
    for old, paging, new, crash in _each(olds, news, kinds):
        progress("pairs", len(found), total)
        started = time.perf_counter()
        outcome: Outcome | None = None
        advice: tuple[str, ...] = ()
        detail = old.reason
        loaded: Loaded | None = None
        rules: tuple[Criterion, ...] = ()
        mend = ""
        if old.code is not None and paging is not None:
            try:
                verdict = _walked(
                    old, paging, new, replace(asked, crash=crash), until, by, machine, unpacked
                )
            except (PlanError, CannotBe, MissingPart, ImageError) as err:
                detail = str(err)
            except BadInput as err:
                if by.loader is Loader.TIGHTROPE:
                    raise
                detail = str(err)
            else:
                outcome, detail = verdict.outcome, _detail(verdict)
                outcome = None if outcome is Outcome.UNKNOWN else outcome
                loaded = verdict.handover.plan.loaded
                advice = tuple(each.rule for each in verdict.advice)
                rules = verdict.asked
                mend = verdict.findings[0].mend if verdict.findings else ""
        found.append(
            Pair(
                old=old.source,
                old_version=old.code.found.version if old.code else None,
                new=new.source,
                new_version=new.version,
                paging=paging,
                crash=crash,
                outcome=outcome,
                detail=detail,
                advice=advice,
                loader=by.loader,
                by=loaded.by if loaded else None,
                purgatory=loaded.purgatory.name if loaded and loaded.purgatory else None,
                seconds=time.perf_counter() - started,
                mend=mend,
                asked=rules,
            )
        )
        if told is not None:
            told(found[-1])
    return tuple(found)


def _each(
    olds: Sequence[Old], news: Sequence[Image], kinds: Sequence[bool]
) -> Iterator[tuple[Old, Paging | None, Image, bool]]:
    for old in olds:
        for paging in old.modes if old.code else (None,):
            for new in news:
                for crash in kinds:
                    yield old, paging, new, crash


def host_of(paging: Paging, *, crash: bool) -> Host:
    """The example host that an old kernel of this mode is walked on."""
    return defaults.example(paging=paging, crash=crash)


def _walked(
    old: Old,
    paging: Paging,
    new: Image,
    request: Request,
    until: Until,
    by: By,
    machine: Machine,
    unpacked: dict[str, Unpacking],
) -> Verdict:
    code = old.code
    assert code is not None, "asked only where there is code"
    if isinstance(until, Spoken):
        request = defaults.audible(new, request)
    host = host_of(paging, crash=request.crash)
    loaded = by.load(old.data, old.source, new, request, host)
    if loaded is not None:
        request = replace(request, loaded=loaded)
    return rehearse(
        new,
        code.host(host),
        code.request(request),
        design=code.participant,
        until=until,
        machine=machine,
        unpacking=unpacked[new.source],
    )


def _detail(verdict: Verdict) -> str:
    first = verdict.findings[0] if verdict.findings else None
    if first is not None:
        return f"{first.rule}, step {int(first.step)}"
    if verdict.outcome is Outcome.UNKNOWN and verdict.console is not None:
        return verdict.console.stopped
    return verdict.handover.intent.protocol.value
