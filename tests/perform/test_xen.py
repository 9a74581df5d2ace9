"""Xen's kexec operations against a hypervisor that is not there: bytes, refusals, errors."""

from __future__ import annotations

import errno
import struct
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.perform.fake import FakeXen, Held
from tightrope.abi.xen import KexecRange, KexecType
from tightrope.cli import main
from tightrope.errors import BadInput, MissingPart, PerformError
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.perform import load_file, xen
from tightrope.perform.load_file import NOTHING, Load, LoadSegment, Taker
from tightrope.perform.xen import XenKexec


def segment(start: int, pages: int, data: bytes = b"") -> LoadSegment:
    return LoadSegment(
        destination=Extent.sized(start, pages * PAGE_SIZE), data=memoryview(data) or NOTHING
    )


KERNEL = segment(0x100_0000, 3, b"kernel" * 1000)
LOAD = Load(
    segments=(segment(0, 0x9F), KERNEL, segment(0x200_0000, 1, b"stub")),
    entry=0x200_0000,
    legacy=False,
    crash=False,
    rehearsed="holds",
    taker=Taker.XEN,
)
CRASH = replace(LOAD, crash=True, segments=(segment(0x2000_0000, 2, b"k"),), entry=0x2000_0000)


def test_a_load_arrives_as_it_was_meant() -> None:
    fake = Held()
    XenKexec(fake).load(LOAD)
    assert fake.loads == [
        (
            *(0, 62, 0x200_0000),
            [
                (None, 0, 0x9F000),
                (b"kernel" * 1000, 0x100_0000, 0x3000),
                (b"stub", 0x200_0000, 0x1000),
            ],
        )
    ]


def test_paging_off_and_a_crash_are_said_in_the_structure() -> None:
    fake = Held()
    XenKexec(fake).load(replace(CRASH, legacy=True))
    assert fake.loads[0][:3] == (1, 3, 0x2000_0000)


def test_a_port_that_lets_go_of_memory_is_found_out() -> None:
    with pytest.raises(PerformError, match="EFAULT"):
        XenKexec(FakeXen()).load(LOAD)


def test_the_ranges_are_xens_and_what_it_has_not_is_none() -> None:
    asked = XenKexec(Held())
    assert asked.range(KexecRange.CRASH) == Extent.sized(0x2000_0000, 0x1000_0000)
    assert asked.range(KexecRange.EFI_MEMMAP) is None
    assert asked.cpu_notes() == [Extent.sized(0x1FFF_9700, 500)]
    assert asked.version() == (4, 17)
    assert asked.memory_map()[1] == (Extent.sized(0x10_0000, 0x3FF0_0000), 1)


def test_status_is_what_xen_says_even_where_it_is_wrong() -> None:
    asked = XenKexec(Held())
    said = [asked.status(KexecType.DEFAULT)]
    for _ in range(2):
        asked.load(LOAD)
        said.append(asked.status(KexecType.DEFAULT))
    assert said == [False, True, False]


MANY = replace(LOAD, segments=tuple(segment(n << 20, 1, b"x") for n in range(2, 18)), entry=2 << 20)
BAD = {
    "16 segments": (MANY, FakeXen(), "16 segments are more than a v2 load takes (limit 0xf)"),
    "overlap": (
        replace(LOAD, segments=(*LOAD.segments, segment(0x100_1000, 1, b"x"))),
        FakeXen(),
        "overlap",
    ),
    "not RAM": (
        replace(LOAD, segments=(*LOAD.segments, segment(0x4000_0000, 1, b"x"))),
        FakeXen(),
        "[0x40000000, 0x40001000) is not RAM in the memory map that Xen reports",
    ),
    "entry": (replace(LOAD, entry=0x300_0000), FakeXen(), "entry: 0x3000000 is in no segment"),
    "outside": (replace(LOAD, crash=True), FakeXen(), "outside the crash region that Xen reports"),
    "no region": (CRASH, FakeXen(crash=None), "none: boot Xen with crashkernel="),
    "too small": (CRASH, FakeXen(crash=(0x2000_0000, 0x1000)), "is outside the crash region"),
    "too old": (LOAD, FakeXen(version=(4, 3)), "Xen 4.3 has no v2: it came with 4.4"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_loads_are_one_line_and_nothing_is_loaded(name: str) -> None:
    load, fake, says = BAD[name]
    held = Held(version=fake.version, crash=fake.crash)
    with pytest.raises(BadInput) as caught:
        XenKexec(held).load(load)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not held.loads
    assert all(call[:2] != (37, 4) for call in held.calls)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EBUSY, "KEXEC_CMD LOAD (xen_kexec_load, 24 bytes): EBUSY: a kexec is in progress"),
        (errno.ENOMEM, "ENOMEM: the hypervisor has no memory left"),
        (errno.EPERM, "EPERM: this domain may not do it"),
        (errno.EIO, "EIO"),
    ],
)
def test_what_xen_refuses_has_its_command_its_structure_and_its_errno(
    number: int, says: str
) -> None:
    with pytest.raises(PerformError) as caught:
        XenKexec(Held(refuse=number)).load(LOAD)
    assert says in str(caught.value)
    assert caught.value.number == number


def test_a_jump_to_nothing_and_one_that_comes_back_are_told() -> None:
    asked = XenKexec(Held())
    with pytest.raises(PerformError, match="ENOENT: no image is loaded"):
        asked.kexec(KexecType.DEFAULT)
    asked.load(LOAD)
    with pytest.raises(PerformError, match="returned: Xen did not jump"):
        asked.kexec(KexecType.DEFAULT)


# -------------------------------------------------------------------------------- early refusals

DOM0 = {
    "/sys/hypervisor/type": "xen\n",
    "/proc/xen/capabilities": "control_d\n",
}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"/sys/hypervisor/type": None}, "does not run under Xen"),
        ({"/sys/hypervisor/type": "kvm\n"}, "does not run under Xen"),
        ({"/proc/xen/capabilities": None}, "mount -t xenfs"),
        ({"/proc/xen/capabilities": "\n"}, "not dom0"),
    ],
)
def test_what_is_no_dom0_is_refused(changed: dict[str, str | None], says: str) -> None:
    xen.refuse_outside_dom0(DOM0.get)
    with pytest.raises(MissingPart, match=says):
        xen.refuse_outside_dom0(lambda path: {**DOM0, **changed}.get(path))


@pytest.mark.parametrize(("said", "says"), [("", "was not rehearsed"), ("falls", "said 'falls'")])
def test_what_did_not_hold_is_refused(said: str, says: str) -> None:
    xen.refuse_unrehearsed(LOAD)
    with pytest.raises(BadInput, match=says):
        xen.refuse_unrehearsed(replace(LOAD, rehearsed=said, taker=Taker.XEN))


# ------------------------------------------------------------------------------------- the file


def equal(one: Load, other: Load) -> bool:
    """memoryviews of equal bytes are equal."""
    return one == other


@given(
    pages=st.lists(st.tuples(st.integers(1, 5), st.binary(max_size=PAGE_SIZE)), min_size=1),
    legacy=st.booleans(),
    crash=st.booleans(),
    said=st.text(max_size=20),
    name=st.sampled_from(["", "initrd", "kernel part 2"]),
)
def test_a_load_file_is_read_as_it_was_written(
    pages: list[tuple[int, bytes]], legacy: bool, crash: bool, said: str, name: str
) -> None:
    segments = tuple(
        replace(segment(n << 20, size, data), name=name and f"{name} {n}")
        for n, (size, data) in enumerate(pages[:60])
    )
    load = Load(
        segments=segments, entry=7, legacy=legacy, crash=crash, rehearsed=said, taker=Taker.XEN
    )
    assert equal(load_file.read(load_file.write(load), "it"), load)


def last_byte_of(raw: bytes) -> int:
    """Where the last part ends: the greatest p_offset + p_filesz."""
    count = int.from_bytes(raw[0x38:0x3A], "little")
    rows = [raw[0x40 + n * 56 : 0x40 + (n + 1) * 56] for n in range(count)]
    ends = [sum(struct.unpack_from("<Q", row, at)[0] for at in (8, 32)) for row in rows]
    return int(max(ends))


@given(bit=st.integers(0, 8 * len(load_file.write(LOAD)) - 1))
def test_a_load_of_which_one_bit_is_another_is_refused(bit: int) -> None:
    raw = bytearray(load_file.write(LOAD))
    assert equal(load_file.read(bytes(raw), "it"), LOAD)
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadInput) as caught:
        load_file.read(bytes(raw), "it")
    assert caught.value.source == "it"


def test_what_stands_behind_a_load_is_not_looked_at_and_a_load_without_a_digest_is_old() -> None:
    raw = load_file.write(LOAD)
    assert last_byte_of(raw) == len(raw)
    assert equal(load_file.read(raw + b"signature", "it"), LOAD)
    # The note's type made one that nobody knows.
    at = raw.index(struct.pack("<III", 10, 64, 4))
    with pytest.raises(BadInput, match="has no digest: written by an older --write"):
        load_file.read(raw[: at + 8] + b"\x09" + raw[at + 9 :], "it")


@pytest.mark.parametrize("name", ["kernel\nand more", "kernel\x1b[2J"])
def test_names_are_those_of_the_segments_and_can_be_printed(name: str) -> None:
    named = replace(LOAD, segments=(replace(KERNEL, name=name),))
    with pytest.raises(BadInput, match="the names are not those of its segments"):
        load_file.read(load_file.write(named), "it")


@given(at=st.integers(0, 700), value=st.integers(0, 255), cut=st.integers(0, 20_000))
def test_any_bytes_are_a_load_or_one_line(at: int, value: int, cut: int) -> None:
    raw = bytearray(load_file.write(LOAD))
    raw[at] = value
    for data in (bytes(raw), bytes(raw[:cut])):
        with suppress(BadInput):
            load_file.read(data, "it")


def test_no_dom0_is_exit_status_2(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["perform", "xen"]) == 2
    assert "does not run under Xen" in capsys.readouterr().err
