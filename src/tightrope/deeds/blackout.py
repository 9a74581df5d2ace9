"""The blackout budget of a plan: what is done after the jump, in bytes, instructions and seconds.

    old kernel        copies what is not in its place
    crash, CMA        waits for DMA into the memory that it lent out
    purgatory         SHA-256 of what was loaded
    new kernel        unpacks itself

Instructions are counted in the routines' bytes, seconds follow from rates: stated ones, or
`calibrated`.

Rules: what is not known is not guessed: how long devices take to stop and to come back is nobody's
here.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from tightrope import image
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Handover, Host, Plan, Run, SegmentRole, Sight, Step
from tightrope.model.blackout import Blackout, DigestBy, Item, Rates, Saving

COPY_INSTRUCTIONS = 16
"""For each page, one of them a rep movs: the loop of routines/relocate_x86_64.S."""
BLOCK = 64
INSTRUCTIONS = {DigestBy.PORTABLE: (3049, 1), DigestBy.SHA: (305, 1), DigestBy.AVX2: (3859, 8)}
"""For so many blocks of SHA-256, in routines/purgatory_64.S."""
PORTABLE = 2e8
"""Bytes a second of a digest in general registers."""
CMA_SECONDS = 10.0
"""CMA_DMA_TIMEOUT_SEC, kernel/crash_core.c of Linux 6.17: crash_cma_clear_pending_dma()."""
CMA = "CMA memory"
STATED = Rates(
    copy=5e9,
    digest=1e9,
    by=DigestBy.AVX2,
    unpack={
        "xz": 6e7,
        "lzma": 6e7,
        "bzip2": 4e7,
        "gzip": 3e8,
        "lzo": 5e8,
        "zstd": 6e8,
        "lz4": 1.5e9,
    },
    source="round figures for one core of a server of the 2020s; plan --calibrate measures this machine's",
)
SAMPLE = 32 << 20
ROUNDS = 3


def budget(plan: Plan, rates: Rates = STATED) -> Blackout:
    """What a plan's jump costs, and what the options would save."""
    items = tuple(_items(plan, rates))
    return Blackout(items=items, savings=tuple(_savings(plan, items, rates)), rates=rates)


def walked(built: Handover, run: Run, rates: Rates = STATED) -> Blackout | None:
    """The same of a walk: bytes that were copied and instructions that ran, where the machine sees
    them.  None where there is no plan."""
    if not isinstance(built.intent, Plan):
        return None
    items = tuple(_seen(each, built.intent, run, rates) for each in _items(built.intent, rates))
    return Blackout(items=items, savings=(), rates=rates)


def _seen(item: Item, plan: Plan, run: Run, rates: Rates) -> Item:
    if item.what == "copy" and Sight.COPIES in run.sees:
        start = next((at for at, step in run.step_starts if step is Step.COPY), run.instructions)
        mine = run.copies[run.copies[:, 0] >= start]
        size = int(mine[mine[:, 1] != mine[:, 2], 3].sum())
        page = Extent.sized(plan.control_page, PAGE_SIZE)
        return replace(
            item,
            bytes=size,
            instructions=_ran(run, page),
            seconds=size / rates.copy,
            why="what was not in its place",
        )
    if item.what == "digest" and plan.purgatory is not None:
        count = _ran(run, plan.purgatory)
        if count is not None:
            count += sum(each.instructions for each in run.stretches)
        return replace(item, instructions=count, why="SHA-256 of what was loaded")
    return item


def _ran(run: Run, where: Extent) -> int | None:
    """Instructions that were watched there; None where the machine shows none."""
    if Sight.INSTRUCTIONS not in run.sees:
        return None
    return int(((run.trace >= where.start) & (run.trace < where.end)).sum())


def waits_for_dma(host: Host) -> float:
    """Seconds that a crash waits before it enters its crash kernel: for devices that may still
    write into memory of CMA that was lent out."""
    return CMA_SECONDS if any(each.what.startswith(CMA) for each in host.crash_memory) else 0.0


def _items(plan: Plan, rates: Rates) -> Iterator[Item]:
    pages = 0 if plan.crash else len(plan.destinations)
    if pages:
        yield Item(
            what="copy",
            bytes=pages * PAGE_SIZE,
            instructions=pages * COPY_INSTRUCTIONS,
            seconds=pages * PAGE_SIZE / rates.copy,
            why="at most: which pages are in their place already the old kernel decides at the load",
        )
    if plan.crash and waits_for_dma(plan.host):
        yield Item(
            what="wait for DMA",
            bytes=0,
            instructions=None,
            seconds=waits_for_dma(plan.host),
            why="crashkernel=...,cma: devices may still write into memory that was lent out",
        )
    if plan.purgatory is not None:
        size = _digested(plan)
        each, blocks = INSTRUCTIONS[rates.by]
        yield Item(
            what="digest",
            bytes=size,
            instructions=size // (BLOCK * blocks) * each,
            seconds=size / rates.digest,
            why=f"SHA-256 of what was loaded, by {rates.by.value}",
        )
    if plan.image.payload is not None:
        out = unpacked_size(plan)
        compression = plan.image.payload.compression
        rate = rates.unpack.get(compression)
        if out and rate:
            yield Item(
                what="unpack",
                bytes=out,
                instructions=None,
                seconds=out / rate,
                why=f"the new kernel's decompressor, {compression}",
            )


def _savings(plan: Plan, items: tuple[Item, ...], rates: Rates) -> Iterator[Saving]:
    spent = {each.what: each.seconds for each in items}
    payload = plan.image.payload
    if "unpack" in spent and payload is not None:
        more = max(0, unpacked_size(plan) - payload.size)
        costs = more / rates.digest if plan.purgatory is not None else 0.0
        why = "it is unpacked at the load" + (
            f", and {more:,} bytes more are digested" if costs else ""
        )
        yield Saving(option="--unpack", seconds=spent["unpack"] - costs, why=why)
    if "digest" in spent:
        why = "what was damaged since the load is entered"
        yield Saving(option="--no-verify", seconds=spent["digest"], why=why)
    if "wait for DMA" in spent:
        why = "memory is reserved and not lent out"
        yield Saving(option="crashkernel= without ,cma", seconds=CMA_SECONDS, why=why)


def _digested(plan: Plan) -> int:
    return sum(len(each.data) for each in plan.segments if each.role is not SegmentRole.PURGATORY)


def unpacked_size(plan: Plan) -> int:
    """Bytes that come out of a payload: its last four say so (z_output_len, scripts/Makefile.lib,
    size_append); 0 where there is none."""
    payload = plan.image.payload
    if payload is None or payload.size < 4:
        return 0
    data = plan.image.parts[0].data
    return int.from_bytes(data[payload.offset + payload.size - 4 :][:4], "little")


def calibrated(plan: Plan) -> Rates:
    """This machine's rates, measured in a second or two; of unpacking, the plan's own payload's."""
    block = bytearray(SAMPLE)
    into = bytearray(SAMPLE)

    def copy() -> None:
        into[:] = block

    by = _digest_by(Path("/proc/cpuinfo").read_text(encoding="latin-1", errors="replace"))
    digest = SAMPLE / _best(lambda: hashlib.sha256(block).digest())
    unpack = dict(STATED.unpack)
    payload = plan.image.payload
    if payload is not None and unpacked_size(plan):
        unpack[payload.compression] = unpacked_size(plan) / _best(
            lambda: image.unpack(plan.image), rounds=1
        )
    return replace(
        STATED,
        copy=SAMPLE / _best(copy),
        # hashlib has no eight stripes: with AVX2 its rate is a lower bound.
        digest=min(digest, PORTABLE) if by is DigestBy.PORTABLE else digest,
        by=by,
        unpack=unpack,
        source="measured on this machine",
    )


def _digest_by(cpuinfo: str) -> DigestBy:
    words = set(cpuinfo.split())
    if "sha_ni" in words:
        return DigestBy.SHA
    return DigestBy.AVX2 if {"avx2", "xsave"} <= words else DigestBy.PORTABLE


def _best(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Seconds of the quickest of a few."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return max(min(times), 1e-9)
