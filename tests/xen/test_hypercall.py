"""kexec_op from both ends: what a plan hands over, and what a hypervisor makes of it."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rehearse.runs import example_host, shipped_kernel
from tests.stand_ins.hypervisor import Hypervisor
from tests.xen.runs import (
    CRASH_REGION,
    KINDS,
    NEW_WAYS,
    V1_WAYS,
    Way,
    hypervisor,
    identifier,
    loaded_by_v2,
    request,
    walk,
)
from tightrope.abi import xen as abi
from tightrope.abi.xen import KexecCommand, KexecRange
from tightrope.errors import PlanError
from tightrope.memory import Extent
from tightrope.model import Named, Plan, XenCrash
from tightrope.plan import Request, load_call, prepare
from tightrope.plan.xen import refuse_segments

EINVAL, EFAULT, ENOENT, EOPNOTSUPP, EADDRNOTAVAIL = -22, -14, -2, -95, -99
ARRAY = 0x7000_0000
BUFFER = 0x1_0000_0000


class Memory:
    """dom0's own memory: a few buffers, and nothing else."""

    def __init__(self) -> None:
        self.buffers: dict[int, bytes] = {}

    def read(self, at: int, size: int) -> bytes | None:
        data = self.buffers.get(at)
        return None if data is None or len(data) < size else data[:size]


def planned(way: Way, kind: XenCrash | None = None) -> Plan:
    return prepare(shipped_kernel(), hypervisor(way), request(way, kind))


def loaded(way: Way, kind: XenCrash | None) -> tuple[Plan, Hypervisor, Memory]:
    plan, memory = planned(way, kind), Memory()
    xen = Hypervisor(plan.host, memory.read)
    buffers = []
    for number, segment in enumerate(plan.segments):
        buffers.append(BUFFER + number * 0x1000_0000)
        memory.buffers[buffers[-1]] = bytes(segment.data)
    call = load_call(plan, buffers=buffers, segments_at=ARRAY)
    memory.buffers[ARRAY] = call.segments
    assert xen.kexec_op(call.command, bytearray(call.argument)) == 0
    return plan, xen, memory


def status(xen: Hypervisor, kind: int) -> int:
    return xen.kexec_op(KexecCommand.STATUS, bytearray([kind]))


@pytest.mark.parametrize("way", NEW_WAYS, ids=identifier)
@pytest.mark.parametrize("kind", KINDS, ids=identifier)
def test_a_plan_is_loaded_found_by_status_executed_and_unloaded(
    way: Way, kind: XenCrash | None
) -> None:
    plan, xen, _memory = loaded(way, kind)
    which = abi.KexecType.DEFAULT if kind is None else abi.KexecType.CRASH
    assert [status(xen, each) for each in (0, 1)] == [int(which == 0), int(which == 1)]
    image = xen.loaded(which)
    assert image is not None
    assert image.entry == plan.entry
    assert image.arch == (abi.EM_386 if way[2] == 32 else abi.EM_X86_64)
    wanted = [(each.destination, bytes(each.data)) for each in plan.segments]
    assert list(image.segments) == wanted + [
        (each.extent, None) for each in loaded_by_v2(plan).mapped
    ]
    assert xen.kexec_op(KexecCommand.KEXEC, bytearray(abi.KEXEC_EXEC.pack(type=which))) == 0
    other = bytearray(abi.KEXEC_EXEC.pack(type=1 - which))
    assert xen.kexec_op(KexecCommand.KEXEC, other) == ENOENT
    assert xen.kexec_op(KexecCommand.UNLOAD, bytearray([which])) == 0
    assert status(xen, which) == 0
    assert xen.loaded(which) is None


@pytest.mark.parametrize("way", V1_WAYS, ids=identifier)
@pytest.mark.parametrize("kind", KINDS, ids=identifier)
def test_v1_hands_over_what_the_hypervisor_then_keeps_with_its_fixmaps(
    way: Way, kind: XenCrash | None
) -> None:
    """The even slots of the argument are those that the world has, the odd ones are not dom0's."""
    verdict = walk(way, kind)
    plan, memory = verdict.handover.plan, Memory()
    xen = Hypervisor(plan.host, memory.read)
    call = load_call(plan)
    assert len(call.argument) == (160 if way[2] == 64 else 80)
    assert xen.kexec_op(call.command, bytearray(call.argument)) == 0
    image = xen.loaded(abi.KexecType.DEFAULT if kind is None else abi.KexecType.CRASH)
    assert image is not None
    assert not any(image.page_list[1:16:2])
    kept = next(p for p in verdict.handover.world.pieces if "copy of page_list" in p.what)
    code = "Q" if way[2] == 64 else "I"
    words = struct.unpack(f"<19{code}", kept.data)
    assert image.page_list[::2] == words[:17:2]
    assert (image.indirection_page, image.entry) == words[17:]
    unload = bytearray(call.argument)
    assert xen.kexec_op(KexecCommand.UNLOAD_V1, unload) == 0


def asked(xen: Hypervisor, which: int, number: int = 0) -> tuple[int, int, int]:
    argument = bytearray(abi.KEXEC_RANGE.pack(range=which, nr=number))
    answer = xen.kexec_op(KexecCommand.GET_RANGE, argument)
    _which, _number, size, start = struct.unpack("<iiQQ", argument)
    return answer, start, size


def test_of_several_notes_with_its_name_xen_tells_the_first() -> None:
    host = hypervisor(NEW_WAYS[0])
    [info] = [each for each in host.crash_notes if each.what.startswith("vmcoreinfo")]
    other = replace(info, extent=Extent.sized(info.extent.start + 0x1000, info.extent.size))
    xen = Hypervisor(replace(host, crash_notes=(*host.crash_notes, other)), Memory().read)
    assert asked(xen, KexecRange.VMCOREINFO) == (0, info.extent.start, info.extent.size)


def test_get_range_tells_the_crash_region_xen_and_the_notes() -> None:
    host = hypervisor(NEW_WAYS[0])
    xen = Hypervisor(host, Memory().read)
    assert asked(xen, KexecRange.CRASH) == (0, CRASH_REGION.start, CRASH_REGION.size)
    assert asked(xen, KexecRange.XEN) == (0, host.text.phys, host.text.size)
    cpu, info = (each.extent for each in host.crash_notes)
    assert asked(xen, KexecRange.CPU) == (0, cpu.start, cpu.size)
    assert asked(xen, KexecRange.VMCOREINFO) == (0, info.start, info.size)
    assert asked(xen, KexecRange.CPU, 1)[0] == -34
    assert [asked(xen, each)[0] for each in (3, 4, 5, 7, -1)] == [EINVAL] * 5
    plain = Hypervisor(replace(host, crash_notes=(), crash_region=None), Memory().read)
    assert asked(plain, KexecRange.CRASH) == (0, 0, 0)
    assert asked(plain, KexecRange.CPU)[0] == EINVAL


def test_status_answers_a_slot_and_not_whether_it_is_full() -> None:
    """As the code of 4.22 reads: a second load makes it 0, an unload of nothing 1."""
    plan, xen, memory = loaded(NEW_WAYS[0], None)
    call = load_call(plan, buffers=sorted(set(memory.buffers) - {ARRAY}), segments_at=ARRAY)
    assert xen.kexec_op(call.command, bytearray(call.argument)) == 0
    assert xen.loaded(abi.KexecType.DEFAULT) is not None
    assert status(xen, 0) == 0
    assert xen.kexec_op(KexecCommand.UNLOAD, bytearray([1])) == 0
    assert xen.loaded(abi.KexecType.CRASH) is None
    assert status(xen, 1) == 1


@pytest.mark.parametrize(
    ("version", "command", "answer"),
    [
        ((4, 23), KexecCommand.LOAD_V1, EOPNOTSUPP),
        ((4, 23), KexecCommand.UNLOAD_V1, EOPNOTSUPP),
        ((4, 22), KexecCommand.UNLOAD_V1, 0),
        ((4, 3), KexecCommand.STATUS, EOPNOTSUPP),
        ((4, 3), KexecCommand.LOAD, EOPNOTSUPP),
        ((4, 17), 7, EOPNOTSUPP),
    ],
)
def test_a_version_knows_the_commands_of_its_time(
    version: tuple[int, int], command: int, answer: int
) -> None:
    host = hypervisor(NEW_WAYS[0])
    assert host.xen is not None
    xen = Hypervisor(replace(host, xen=replace(host.xen, version=version)), Memory().read)
    size = 160 if command in (1, 2) else 24 if command == 4 else 1
    assert xen.kexec_op(command, bytearray(size)) == answer


def test_what_cannot_be_read_is_efault_and_nothing_is_loaded() -> None:
    plan, _xen, memory = loaded(NEW_WAYS[0], XenCrash.DOM0)
    fresh = Hypervisor(plan.host, memory.read)
    call = load_call(plan, buffers=[1] * len(plan.segments), segments_at=ARRAY + 1)
    assert fresh.kexec_op(call.command, bytearray(call.argument)) == EFAULT
    memory.buffers[ARRAY + 1] = call.segments
    assert fresh.kexec_op(call.command, bytearray(call.argument)) == EFAULT
    assert fresh.kexec_op(call.command, bytearray(call.argument[:-1])) == EFAULT
    assert fresh.kexec_op(KexecCommand.STATUS, bytearray([2])) == EINVAL
    assert fresh.loaded(abi.KexecType.CRASH) is None


def load_of(rows: list[tuple[int, int, int, int]], *, kind: int, entry: int, arch: int = 62) -> int:
    """(buf, buf_size, dest, size) -> what a v2 load answers."""
    memory = Memory()
    memory.buffers[ARRAY] = b"".join(struct.pack("<4Q", *row) for row in rows)
    memory.buffers[BUFFER] = bytes(0x10_0000)
    xen = Hypervisor(hypervisor(NEW_WAYS[0]), memory.read)
    argument = struct.pack("<BBHIQQ", kind, 0, arch, len(rows), ARRAY, entry)
    return xen.kexec_op(KexecCommand.LOAD, bytearray(argument))


BASE = CRASH_REGION.start


@pytest.mark.parametrize(
    ("rows", "kind", "entry", "answer"),
    [
        ([(BUFFER, 16, BASE, 0x1000)], 1, BASE, 0),
        ([(BUFFER, 16, BASE, 0x1000), (0, 0, 0, 0x1000)], 1, BASE, 0),
        ([(BUFFER, 16, 0x100_0000, 0x1000)], 0, 0x100_0000, 0),
        ([(BUFFER, 16, 0x100_0000, 0x1000)], 1, BASE, EADDRNOTAVAIL),
        ([(BUFFER, 16, BASE, 0x1000)], 1, 0x100_0000, EADDRNOTAVAIL),
        ([(BUFFER, 16, BASE + 1, 0x1000)], 1, BASE, EADDRNOTAVAIL),
        ([(BUFFER, 16, BASE, 0x1000)] * 2, 1, BASE, EINVAL),
        ([(BUFFER, 0x1001, BASE, 0x1000)], 1, BASE, EINVAL),
        ([(BUFFER, 16, BASE + n * 0x1000, 0x1000) for n in range(15)], 1, BASE, 0),
        ([(BUFFER, 16, BASE + n * 0x1000, 0x1000) for n in range(16)], 1, BASE, EINVAL),
        ([(BUFFER, 16, BASE, 0x1000)], 2, BASE, EINVAL),
    ],
)
def test_a_v2_load_is_answered_as_xen_answers_it(
    rows: list[tuple[int, int, int, int]], kind: int, entry: int, answer: int
) -> None:
    assert load_of(rows, kind=kind, entry=entry) == answer


def test_an_architecture_that_is_neither_is_refused() -> None:
    assert load_of([(BUFFER, 16, BASE, 0x1000)], kind=1, entry=BASE, arch=40) == EINVAL


PLACES = st.tuples(
    st.integers(0, 6).map(lambda n: BASE - 0x2000 + n * 0x1000),
    st.sampled_from([0x1000, 0x2000, 0x800]),
    st.booleans(),
)


@given(st.lists(PLACES, max_size=18), st.booleans())
def test_the_plan_refuses_exactly_what_the_hypervisor_would(
    places: list[tuple[int, int, bool]], crash: bool
) -> None:
    rows = [(BUFFER if has else 0, 0, at, size) for at, size, has in places]
    loaded = [Named(extent=Extent.sized(a, s), what="one") for a, s, has in places if has]
    mapped = [Named(extent=Extent.sized(a, s), what="one") for a, s, has in places if not has]
    try:
        refuse_segments(hypervisor(NEW_WAYS[0]), loaded, mapped, crash=crash)
        refused = False
    except PlanError:
        refused = True
    assert refused == (load_of(rows, kind=int(crash), entry=BASE) != 0)


def test_a_plan_that_asks_nobody_has_no_argument() -> None:
    plan = prepare(shipped_kernel(), example_host(), Request())
    with pytest.raises(PlanError, match="the plan asks no hypervisor"):
        load_call(plan)
