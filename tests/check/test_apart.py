"""What a watched guest has in memory twice: each breach is found by its rule, and its sound twin by none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rehearse.runs import crashed, sound
from tightrope.check import WATCHED, told_apart
from tightrope.memory import Extent
from tightrope.model import Finding, Step
from tightrope.model.watched import Apart

CODE = bytes(range(64))
PAGE = 4096
SOUND = Apart(
    kernels=CODE,
    laid=CODE[:8] + b"\xff" * 8 + CODE[16:] + bytes(PAGE - 64),
    filled=(Extent(8, 16),),
    labels={"relocate_kernel": 0, "word": 8, "identity_mapped": 16},
    segments=(Extent(0x10_0000, 0x10_3000), Extent(0x20_0000, 0x20_1000)),
    destinations=np.array([0x100, 0x101, 0x102, 0x200], np.int64),
    sources=np.array([0x51, 0x50, 0x53, 0x52], np.int64),
    broken=None,
)


def found(apart: Apart) -> tuple[Finding, ...]:
    good = sound()
    return told_apart(good.handover, good.run, apart)


def test_what_a_load_fills_in_and_where_frames_lie_is_free() -> None:
    assert found(SOUND) == ()


def changed(at: int) -> bytes:
    data = bytearray(SOUND.laid)
    data[at] ^= 0x40
    return bytes(data)


@pytest.mark.parametrize(
    ("apart", "rule", "step", "says"),
    [
        (
            replace(SOUND, laid=changed(17)),
            "control-page-is-the-kernels",
            Step.CALL,
            "byte 0x11 (identity_mapped) is 0x51, not 0x11",
        ),
        (
            replace(SOUND, broken="it leads back to 0x5000"),
            "list-is-the-segments",
            Step.COPY,
            "does not end",
        ),
        (
            replace(SOUND, destinations=np.array([0x100, 0x102, 0x101, 0x200], np.int64)),
            "list-is-the-segments",
            Step.COPY,
            "page 1 goes to 0x102000, not to 0x101000",
        ),
        (
            replace(SOUND, destinations=SOUND.destinations[:3], sources=SOUND.sources[:3]),
            "list-is-the-segments",
            Step.COPY,
            "it has 3 pages of 4",
        ),
        (
            replace(SOUND, sources=np.array([0x51, 0x50, 0x51, 0x52], np.int64)),
            "list-is-the-segments",
            Step.COPY,
            "takes frame 0x51 twice, the second time for 0x102000",
        ),
    ],
)
def test_a_breach_is_found_by_its_rule(apart: Apart, rule: str, step: Step, says: str) -> None:
    (one,) = found(apart)
    assert (one.rule, one.step) == (rule, step)
    assert says in one.message
    assert one.mend
    assert one.evidence


def test_a_crash_image_lies_where_it_is_and_needs_no_list() -> None:
    nothing = replace(SOUND, destinations=SOUND.destinations[:0], sources=SOUND.sources[:0])
    crash = crashed()
    assert told_apart(crash.handover, crash.run, nothing) == ()
    assert found(nothing) != ()


@given(at=st.integers(0, PAGE - 1), bit=st.integers(0, 7))
def test_a_bit_is_found_in_the_code_and_nowhere_else(at: int, bit: int) -> None:
    data = bytearray(SOUND.laid)
    data[at] ^= 1 << bit
    in_code = at < len(CODE) and not 8 <= at < 16
    assert bool(found(replace(SOUND, laid=bytes(data)))) is in_code


def test_each_rule_of_a_watch_has_its_breach() -> None:
    assert {each.id for each in WATCHED} == {"control-page-is-the-kernels", "list-is-the-segments"}
    assert all(each.says.endswith(".") and each.source for each in WATCHED)
