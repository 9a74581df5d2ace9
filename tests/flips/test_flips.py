"""Single bits flipped, from a seed: nothing that an oracle sees may hold unseen, and no machine may give up.

Rules: the oracles are Unicorn by itself and, where there is one, this computer's CPU.  A few for each
subject; `make bench` has a hundred thousand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import pytest

from tightrope.deeds import machines
from tightrope.deeds.flips import Fate, Flipped, flip
from tightrope.deeds.flips.bases import base
from tightrope.deeds.flips.subjects import SEGMENTS, Subject
from tightrope.errors import BadInput
from tightrope.machine.port import Machine
from tightrope.machine.unicorn import Emulator
from tightrope.model import Paging
from tightrope.participants import OURS

SEED = 11
EACH = 6
KNOWN_ALARMS = {
    Subject.CONTROL_PAGE: {"same-bytes"},
    Subject.TABLE_A_ENTRIES: {"table-a-nothing-else", "table-a-rights", "accessed-dirty-preset"},
}
"""Rules that want it so although nothing changes: the state is forbidden, not its effect."""


@pytest.fixture(scope="module")
def walkers() -> Iterator[Sequence[Machine]]:
    """Ours, that soon tires of going in circles, and the oracles."""
    with machines.present() as present:
        ours = Emulator(instruction_limit=200_000)
        yield [ours, *present[1:]]
        ours.close()


def flipped(
    walkers: Sequence[Machine], subject: Subject, paging: Paging, *, crash: bool = False,
    pairs: bool = False, seed: int = 0, ours: bool = False,
) -> list[Flipped]:  # fmt: skip
    """A few flips of a subject, on the first base that is sound."""
    for number in range(20):
        made = base(SEED, number, paging, crash=crash)
        if ours and made.design != OURS:
            continue
        randoms = [Random(f"{subject}:{paging}:{seed}:{at}") for at in range(EACH)]
        try:
            return list(flip(walkers[0], walkers[1:], made, subject, randoms, pairs=pairs))
        except BadInput:
            continue  # this base is not sound, or has nothing of the kind
    raise AssertionError(f"no base for {subject}")


def nothing_unseen(found: Sequence[Flipped]) -> None:
    bad = [each for each in found if each.fate in (Fate.UNSEEN, Fate.ERROR)]
    assert not bad, "\n".join(f"{each.base}: {each.says}: {each.differs}" for each in bad)


PLAIN = [each for each in Subject if each is not Subject.CORE_HEADER]
MODES = (Paging.I386, Paging.PAE, Paging.X86_64)


@pytest.mark.parametrize("paging", MODES, ids=lambda each: each.value)
@pytest.mark.parametrize("subject", PLAIN, ids=lambda each: each.name)
def test_no_flip_that_changes_the_end_holds(
    walkers: Sequence[Machine], subject: Subject, paging: Paging
) -> None:
    if paging is not Paging.X86_64 and subject in (Subject.TABLE_B, Subject.TABLE_B_ENTRIES):
        with pytest.raises(AssertionError, match="no base"):
            flipped(walkers, subject, paging)
        return
    nothing_unseen(flipped(walkers, subject, paging))


@pytest.mark.parametrize("subject", list(SEGMENTS), ids=lambda each: each.name)
def test_a_segment_that_was_planned_wrong_is_always_told(
    walkers: Sequence[Machine], subject: Subject
) -> None:
    """The oracles cannot know better than the plan: whoever asks what was given can."""
    found = flipped(walkers, subject, Paging.X86_64, crash=True, seed=1)
    nothing_unseen(found)
    assert all(each.fate in (Fate.SEEN, Fate.ALARM) for each in found), found


@pytest.mark.parametrize("subject", [Subject.REGISTERS, Subject.TABLE_A_ENTRIES, Subject.LIST])
def test_pairs_of_flips_do_not_hide_one_another(
    walkers: Sequence[Machine], subject: Subject
) -> None:
    nothing_unseen(flipped(walkers, subject, Paging.X86_64, pairs=True))


def test_a_flip_in_a_crash_kexec_is_told(walkers: Sequence[Machine]) -> None:
    for subject in (Subject.CODE, Subject.TABLE_B_ENTRIES, Subject.OLD_TABLES):
        nothing_unseen(flipped(walkers, subject, Paging.X86_64, crash=True, seed=2))


def test_every_alarm_on_what_changes_nothing_has_a_rule_that_wants_it(
    walkers: Sequence[Machine],
) -> None:
    """The unused bytes of the control page: the walk is the same, and `same-bytes` forbids it."""
    found = flipped(walkers, Subject.CONTROL_PAGE, Paging.X86_64, ours=True)
    alarms = [each for each in found if each.fate is Fate.ALARM]
    assert alarms
    assert {each.rules[0] for each in alarms} <= KNOWN_ALARMS[Subject.CONTROL_PAGE]
