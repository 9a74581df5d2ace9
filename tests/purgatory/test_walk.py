"""The purgatory on the emulator: what is right is entered, what is damaged is named and is not."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cache

import pytest

from tests.rehearse.runs import (
    crash_host,
    example_host,
    mode_host,
    shared,
    shipped_kernel,
    shipped_request,
)
from tightrope import check
from tightrope.deeds.rehearse import build, prepare, rehearse
from tightrope.errors import PlanError
from tightrope.machine.unicorn import Emulator
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import (
    Handover,
    OnDamage,
    Outcome,
    Paging,
    Run,
    Segment,
    SegmentRole,
    Stop,
    Verdict,
    with_code,
)
from tightrope.participants import OURS
from tightrope.plan import Request
from tightrope.plan.purgatory import SHORTER, spoken
from tightrope.sabotage import SABOTAGES

COM1, RTC_DATA = 0x3F8, 0x71


def asked(damage: OnDamage = OnDamage.HALT, *, crash: bool = False) -> Request:
    return replace(shipped_request(crash=crash), verify=damage)


@cache
def sound() -> Verdict:
    return rehearse(shipped_kernel(), example_host(), asked(), machine=Emulator())


def handover(damage: OnDamage = OnDamage.HALT) -> Handover:
    return build(prepare(shipped_kernel(), example_host(), asked(damage)), design=OURS)


def damaged(built: Handover, role: SegmentRole) -> Handover:
    """One bit in the middle of a segment's bytes is another when they are loaded."""

    def changed(data: bytes) -> bytes:
        return (
            data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :]
        )

    segments = tuple(
        replace(each, data=changed(bytes(each.data))) if each.role is role else each
        for each in built.segments
    )
    return replace(built, segments=segments)


def digest_of_nine(data: bytes) -> bytes:
    """Eight stripes of as many whole blocks as there are for each, and what is left."""
    stripe = len(data) // 512 * 64
    seen = hashlib.sha256()
    for start in range(8):
        seen.update(hashlib.sha256(data[start * stripe :][:stripe]).digest())
    seen.update(hashlib.sha256(data[8 * stripe :]).digest())
    return seen.digest()


def said(run: Run) -> str:
    return bytes(value & 0xFF for port, value in run.ports if port == COM1).decode()


def crumbs(run: Run) -> list[tuple[int, int]]:
    """(step, segment) of each breadcrumb, as the RTC's two bytes hold them."""
    bytes_ = [value for port, value in run.ports if port == RTC_DATA]
    return list(zip(bytes_[::2], bytes_[1::2], strict=True))


def test_what_was_loaded_is_entered_and_every_segment_has_its_row() -> None:
    verdict = sound()
    assert verdict.outcome is Outcome.HOLDS
    assert verdict.run.stop is Stop.ENTRY
    assert said(verdict.run) == ""
    plan = verdict.handover.plan
    verified = [each for each in plan.segments if each.role is not SegmentRole.PURGATORY]
    numbers = [0xA0 + n for n in range(len(verified))]
    assert crumbs(verdict.run) == [
        (0xA1, 0xA0),
        *((0xA2, n) for n in numbers),
        (0xA4, numbers[-1] + 1),
    ]
    assert plan.entry == plan.purgatory.start if plan.purgatory else False


@pytest.mark.parametrize("paging", [Paging.X86_64, Paging.LA57])
@pytest.mark.parametrize("crash", [False, True])
def test_it_holds_in_long_mode_and_in_a_crash(paging: Paging, crash: bool) -> None:
    old = crash_host(paging) if crash else mode_host(paging)
    verdict = rehearse(shipped_kernel(), old, asked(crash=crash), machine=shared())
    assert verdict.outcome is Outcome.HOLDS, verdict.findings


@pytest.mark.parametrize(
    ("role", "name"),
    [
        (SegmentRole.KERNEL, "kernel"),
        (SegmentRole.INITRD, "initrd"),
        (SegmentRole.COMMAND_LINE, "command line"),
        (SegmentRole.BOOT_PARAMS, "boot_params"),
        (SegmentRole.ENTRY_STUB, "entry stub"),
    ],
)
def test_a_flipped_bit_is_named_and_the_new_kernel_is_not_entered(
    role: SegmentRole, name: str
) -> None:
    run = shared().run(damaged(handover(), role))
    assert run.stop is Stop.HALT
    assert said(run) == f"\r\ntightrope: {name} is damaged\r\n"
    segments = [each.role for each in handover().intent.segments]
    assert crumbs(run)[-1] == (0xA3, 0xA0 + segments.index(role))
    assert (0xCF9, 6) not in run.ports


@pytest.mark.parametrize("role", SegmentRole)
def test_every_kind_of_segment_has_a_name_that_is_said_whole(role: SegmentRole) -> None:
    segment = Segment(role=role, destination=Extent.sized(0, 4096), data=b"", why="", number=12)
    name = spoken(segment)
    assert len(name) <= 16
    assert name == segment.name or role in SHORTER


def test_where_it_is_asked_to_the_machine_is_reset() -> None:
    halted = shared().run(damaged(handover(), SegmentRole.INITRD))
    # An emulator's machine does not reset, and the purgatory goes on asking for it.
    enough = Emulator(instruction_limit=halted.instructions + 10_000)
    run = enough.run(damaged(handover(OnDamage.RESET), SegmentRole.INITRD))
    assert run.stop is Stop.LIMIT
    after = run.ports[[port for port, _ in run.ports].index(0xCF9) :]
    assert after[:2] == ((0xCF9, 6), (0x64, 0xFE))


def test_a_rehearsal_of_what_is_damaged_falls_and_says_what_the_purgatory_said() -> None:
    verdict = rehearse(
        shipped_kernel(),
        example_host(),
        asked(),
        sabotage=SABOTAGES["initrd-byte"],
        machine=shared(),
    )
    assert verdict.outcome is Outcome.FALLS
    (arrived,) = [each for each in verdict.findings if each.rule == "arrived"]
    assert arrived.evidence["it said"] == "tightrope: initrd is damaged"
    assert "digests-right" in {each.rule for each in verdict.findings}


def test_zeros_behind_the_bytes_are_not_looked_at() -> None:
    plan = sound().handover.plan
    (purgatory,) = [each for each in plan.segments if each.role is SegmentRole.PURGATORY]
    for each in plan.segments:
        if each.role is not SegmentRole.PURGATORY:
            assert digest_of_nine(bytes(each.data)) in bytes(purgatory.data)
            zeros = bytes(each.destination.size - len(each.data))
            assert not zeros or digest_of_nine(bytes(each.data) + zeros) not in bytes(
                purgatory.data
            )


@pytest.mark.parametrize("paging", [Paging.I386, Paging.PAE])
def test_where_its_code_cannot_run_a_plan_says_so(paging: Paging) -> None:
    with pytest.raises(PlanError, match="64-bit code"):
        prepare(shipped_kernel(), mode_host(paging), asked())


@pytest.mark.parametrize(
    ("offset", "rule"), [(0x40, "purgatory-as-known"), (None, "digests-right")]
)
def test_another_byte_of_it_is_found_by_its_rule(offset: int | None, rule: str) -> None:
    good = sound()
    built = good.handover
    (purgatory,) = [each for each in built.segments if each.role is SegmentRole.PURGATORY]
    row = built.chain[1].code.symbols["rows"]
    data = bytearray(purgatory.data)
    data[row + 20 if offset is None else offset] ^= 1
    segments = tuple(
        replace(each, data=bytes(data)) if each is purgatory else each for each in built.segments
    )
    found = check.check(replace(built, segments=segments), good.run)
    assert rule in {each.rule for each in found}
    assert rule not in {each.rule for each in check.check(built, good.run)}


def test_instruction_by_instruction_it_does_what_it_does_in_one_step() -> None:
    """The digest's own instructions, watched until they are familiar: the same end, stores in its third page."""
    built = handover()
    small = [
        each
        for each in built.intent.segments
        if each.role in (SegmentRole.BOOT_PARAMS, SegmentRole.COMMAND_LINE)
    ]
    (purgatory,) = [each for each in built.segments if each.role is SegmentRole.PURGATORY]
    code = built.chain[1].code
    # The kernel and the initrd are many blocks: rows of them are left out.
    data, at = bytearray(purgatory.data), code.symbols["rows"]
    rows = [bytes(data[n : n + 64]) for n in range(at, at + 16 * 64, 64)]
    wanted = {each.destination.start for each in small}
    kept = [row for row in rows if int.from_bytes(row[:8], "little") in wanted]
    data[at : at + 16 * 64] = b"".join(kept).ljust(16 * 64, b"\0")
    segments = tuple(
        replace(each, data=bytes(data)) if each is purgatory else each for each in built.segments
    )
    changed = replace(built, segments=segments, chain=with_code(built.chain, built.code))
    slow = replace(
        changed,
        chain=tuple(
            replace(each, contract=replace(each.contract, digest=None)) for each in built.chain
        ),
    )
    quick, whole = Emulator().run(changed), Emulator().run(slow)
    assert quick.stop is whole.stop is Stop.ENTRY
    assert whole.instructions > quick.instructions + 1000 * len(kept)
    assert quick.registers == whole.registers
    place = purgatory.destination
    stores = whole.stores[whole.stores[:, 2] >= place.start]
    mine = stores[stores[:, 2] < place.end]
    assert len(mine) > 500
    assert bool((mine[:, 2] >= place.start + 2 * PAGE_SIZE).all())
    copies = {row[1] for row in whole.copies.tolist() if place.start <= row[1] < place.end}
    assert all(each >= place.start for each in copies)
    bad = [f for f in check.check(slow, whole) if f.rule == "stores-owned"]
    assert bad == []


def test_where_the_cpu_has_sha_the_new_kernel_is_entered_in_the_same_state() -> None:
    """CR4.OSFXSR goes on for the digest and off before the stub; the CPUID of the emulator has no SHA, so
    that the question is answered here by other bytes."""
    built = handover()
    (purgatory,) = [each for each in built.segments if each.role is SegmentRole.PURGATORY]
    symbols = built.chain[1].code.symbols
    at = symbols["look_at_cpu"]
    told = symbols["has_sha"] - (at + 11)
    yes = (
        b"\x48\xc7\x05" + told.to_bytes(4, "little") + b"\1\0\0\0\xc3"
    )  # movq $1, has_sha(%rip); ret
    data = bytearray(purgatory.data)
    data[at : at + len(yes)] = yes
    segments = tuple(
        replace(each, data=bytes(data)) if each is purgatory else each for each in built.segments
    )
    own = replace(built.intent, segments=segments)
    changed = replace(built, intent=own, segments=segments)
    run = shared().run(changed)
    assert run.stop is Stop.ENTRY
    osfxsr = 1 << 9
    writes = [each for each in run.register_writes if each.register == "cr4"][-2:]
    assert [bool(each.after & osfxsr) for each in writes] == [True, False]
    assert {each.rule for each in check.check(changed, run)} == {"purgatory-as-known"}
