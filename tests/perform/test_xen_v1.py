"""Interface v1 against a hypervisor that is not there: frames, the 160 bytes, refusals."""

from __future__ import annotations

import pytest

from tests.perform.fake import Held
from tests.stand_ins.xen_v1 import Frames, load_v1, unload_v1
from tightrope.abi.xen import KexecType
from tightrope.errors import BadInput, MissingPart, PerformError
from tightrope.memory import PAGE_SIZE
from tightrope.perform.xen import XenKexec


def test_pages_lie_where_their_frames_are() -> None:
    frames = Frames(Held(), 3)
    assert frames.numbers == (0x40000, 0x40003, 0x40006)
    frames.write({0x4000_3000: b"a" * PAGE_SIZE})
    assert bytes(frames.view) == bytes(PAGE_SIZE) + b"a" * PAGE_SIZE + bytes(PAGE_SIZE)


@pytest.mark.parametrize("at", [0x4000_1000, 0x4000_3008])
def test_a_page_that_is_not_dom0s_is_not_written(at: int) -> None:
    with pytest.raises(BadInput, match="none of dom0's pages"):
        Frames(Held(), 3).write({at: bytes(PAGE_SIZE)})


def test_too_few_frames_are_given_back_and_told() -> None:
    fake = Held(most_frames=2)
    with pytest.raises(PerformError, match="Xen gives 2 frames, not 3"):
        Frames(fake, 3)
    assert fake.frames == set()


def test_the_structure_arrives_with_its_17_slots() -> None:
    fake = Held()
    slots = {0: 0x1000, 2: 0x2000, 16: 0x9000}
    load_v1(XenKexec(fake), KexecType.CRASH, slots, 0x5000, 0x7000)
    ((kind, arrived, head, start),) = fake.loads_v1
    assert (kind, head, start) == (1, 0x5000, 0x7000)
    assert arrived == tuple(slots.get(n, 0) for n in range(17))
    assert fake.slots[1]
    unload_v1(XenKexec(fake), KexecType.CRASH)
    assert not fake.slots[1]


def test_a_xen_that_dropped_v1_is_not_asked() -> None:
    fake = Held(version=(4, 23))
    with pytest.raises(MissingPart, match=r"Xen 4.23 has dropped interface v1"):
        load_v1(XenKexec(fake), KexecType.DEFAULT, {}, 0, 0)
    with pytest.raises(MissingPart, match=r"Xen 4.23 has dropped interface v1"):
        unload_v1(XenKexec(fake), KexecType.DEFAULT)
    assert all(call[0] != 37 for call in fake.calls)
