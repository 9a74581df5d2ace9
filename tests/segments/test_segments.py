"""Somebody else's segments and their purgatory: walked, damaged, and told whose they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.makers.bzimage import bzimage
from tests.makers.segments import segments_file
from tests.segments import made
from tests.segments.made import Made, loaded, walked
from tightrope import host, image
from tightrope.deeds import segments
from tightrope.errors import BadInput, PlanError
from tightrope.machine.unicorn import Emulator, ticker
from tightrope.memory import PAGE_SHIFT
from tightrope.model import Outcome, Paging, SegmentRole, Stop, Verdict
from tightrope.observe import settled
from tightrope.plan import Request, prepare
from tightrope.record import file
from tightrope.views import segments as view


def rules(verdict: Verdict) -> list[str]:
    return [each.rule for each in verdict.findings]


@pytest.fixture(scope="module")
def sound() -> Verdict:
    return walked(loaded())


def test_a_loaders_segments_hold_and_are_known_by_what_they_hold(sound: Verdict) -> None:
    assert (sound.outcome, rules(sound), sound.advice) == (Outcome.HOLDS, [], ())
    names = [each.role for each in sound.handover.intent.segments]
    assert names == [
        SegmentRole.KERNEL, SegmentRole.INITRD, SegmentRole.OTHER, SegmentRole.BOOT_PARAMS,
        SegmentRole.PURGATORY,
    ]  # fmt: skip
    assert sound.handover.intent.inputs.command_line == made.LINE
    assert bytes(sound.handover.intent.inputs.initrd or b"") == made.INITRD


def test_the_report_says_whose_segments_and_whose_purgatory(sound: Verdict) -> None:
    said = dict(view.lines(sound))
    assert said["segments"].startswith("5 of a made loader 1.0, ")
    assert said["purgatory"].startswith("a purgatory of a made loader 1.0: digests ")
    facts = view.facts(sound)
    others = sum(each.destination.size for each in sound.handover.intent.segments[:-1])
    assert (facts["by"], facts["digested"]) == ("a made loader 1.0", others)


@pytest.mark.parametrize(
    ("role", "at"),
    [
        (SegmentRole.KERNEL, 5000),
        (SegmentRole.INITRD, 0),
        (SegmentRole.BOOT_PARAMS, 0x1000 - 1),
        (SegmentRole.OTHER, 3),
    ],
)
def test_one_flipped_bit_does_not_arrive_and_is_told_with_its_segment(
    role: SegmentRole, at: int
) -> None:
    got = walked(loaded(), (role, at))
    assert got.run.stop is Stop.HALT
    assert rules(got) == ["digest-agrees", "arrived"]
    name = "segment 1" if role is SegmentRole.OTHER else role.value
    place = next(each for each in got.handover.intent.segments if each.role is role)
    assert f"the {name} is not what was loaded, byte {at:#x}" in got.findings[0].message
    assert f"{place.destination.start + at:#x}" in got.findings[0].message


@pytest.mark.parametrize(
    ("what", "rule", "says"),
    [
        (Made(total=1), "digest-agrees", "its digest is not that of what it looks at"),
        (Made(params=0x1000), "entry-boot-params", "rsi is"),
        (Made(entry=0x1000), "fetch-owned", "where no program of the walk lies"),
    ],
    ids=["a wrong digest", "wrong registers", "a wrong entry"],
)
def test_what_a_loader_has_filled_in_wrong_is_told(what: Made, rule: str, says: str) -> None:
    got = walked(loaded(what))
    assert rules(got)[0] == rule
    assert says in got.findings[0].message


def test_what_no_digest_looks_at_is_an_advice() -> None:
    got = walked(loaded(Made(digests=False)))
    assert (got.outcome, [each.rule for each in got.advice]) == (Outcome.HOLDS, ["digest-covers"])
    assert "nothing that was loaded" in got.advice[0].message
    short = walked(loaded(Made(left_out=True)))
    assert (short.outcome, len(short.advice)) == (Outcome.HOLDS, 1)
    assert "does not look at the boot_params" in short.advice[0].message
    assert dict(view.lines(got))["purgatory"].endswith(": it digests nothing")


# ---------------------------------------------------------------------- what has been seen, unseen


def test_what_ran_unseen_ends_as_what_was_watched(
    sound: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sound.run.stretches
    monkeypatch.setattr(settled, "SETTLED", 1 << 40)
    watched = walked(loaded(), on=Emulator(instruction_limit=3_000_000))
    monkeypatch.undo()
    quick = walked(loaded(), on=Emulator(instruction_limit=3_000_000))
    assert watched.run.stretches == ()
    assert (watched.outcome, watched.findings) == (quick.outcome, quick.findings)
    assert watched.run.registers == quick.run.registers
    for each in watched.handover.intent.segments:
        one, other = (run.memory.read(each.destination) for run in (watched.run, quick.run))
        assert one == other, each.name
    count = quick.run.instructions + sum(each.instructions for each in quick.run.stretches)
    assert count == pytest.approx(watched.run.instructions, rel=0.01)
    seen = np.unique(watched.run.loads[:, 2] >> PAGE_SHIFT)
    unseen = [quick.run.loads[:, 2] >> PAGE_SHIFT, *(each.reads for each in quick.run.stretches)]
    assert seen.tolist() == np.unique(np.concatenate(unseen)).tolist()
    assert view.facts(watched)["digested"] == view.facts(quick)["digested"]


def test_a_stretch_touches_what_it_says(sound: Verdict) -> None:
    mine = sound.handover.intent.purgatory
    assert mine is not None
    for each in sound.run.stretches:
        assert each.rip in mine
        assert set(each.writes.tolist()) <= set(mine.pages)
        assert each.instructions > 0


def test_going_round_for_ever_is_no_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    """mov $1, %ecx; 1: mov %ecx, %eax; nop; jmp 1b: nothing new, and nothing that ends it."""
    monkeypatch.setattr(ticker, "IDLE_SECONDS", 0.3)
    monkeypatch.setattr(ticker, "PERIOD", 0.05)
    what = loaded()
    *others, last = what.segments
    endless = type(last)(
        destination=last.destination, data=bytes.fromhex("b901000000 89c8 90 ebfb")
    )
    got = walked(replace(what, segments=(*others, endless)))
    assert got.run.stop is Stop.LIMIT
    assert rules(got) == ["digest-agrees", "arrived"]


# ------------------------------------------------------------------------------------- bad input


def test_segments_of_another_kernel_are_refused() -> None:
    other = image.read(bzimage(kernel_size=20_000, init_size=0x1_0000), "another")
    with pytest.raises(PlanError, match=r"another: is in none of the segments of made\.segments"):
        prepare(other, made.old(), segments.request(loaded(), Request()))


def test_segments_for_another_machine_are_refused() -> None:
    for paging in (Paging.I386, Paging.PAE):
        small = host.read(host.example(paging), "narrow")
        with pytest.raises(PlanError, match="was recorded for a 64-bit kernel"):
            prepare(made.kernel(), small, segments.request(loaded(), Request()))


def test_files_that_linux_would_place_are_no_segments() -> None:
    raw = segments_file(
        call="kexec_file_load",
        command_line="",
        kernel={"path": "k", "bytes": 0},
        initrd=None,
        segments=None,
    )
    with pytest.raises(BadInput, match="see --loader file-load"):
        segments.recorded(file.read(raw, "it"))
