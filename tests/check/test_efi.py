"""EFI is handed on: what the plan wrote, a reader of its own takes apart, and each field that is wrong is told.

Rules: bytes are looked up by the offsets of bootparam.h and asm/efi.h; a field is broken in plan, segment and
memory alike, so that only whoever asks the host can see it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.check.breaking_told import planned
from tests.check.efi_walk import KERNEL, sound, walked, with_efi
from tests.makers.bzimage import put
from tests.makers.efi import EFI
from tightrope import check
from tightrope.memory import Extent, MemoryMap, Phys, Region, RegionKind
from tightrope.model import (
    Efi,
    EfiLoader,
    EfiRange,
    Habits,
    Handover,
    Intent,
    Loaded,
    Loader,
    Run,
    SecureBoot,
    SegmentRole,
)

MIB = 1 << 20


def told(made: Handover, run: Run) -> list[str]:
    return [each.rule for each in check.check(made, run)]


def segment(made: Handover, role: SegmentRole) -> bytes:
    return next(bytes(each.data) for each in made.intent.segments if each.role is role)


def many_rows() -> MemoryMap:
    low = [
        Region(Extent(0, 0x9_F000), RegionKind.RAM),
        Region(Extent(MIB, 128 * MIB), RegionKind.RAM),
    ]
    small = [
        Region(Extent.sized(128 * MIB + n * 0x2000, 0x1000), RegionKind.RESERVED)
        for n in range(140)
    ]  # fmt: skip
    return MemoryMap((*low, *small))


@pytest.mark.parametrize("rows", [False, True], ids=["no more rows", "more rows than fit"])
def test_the_new_kernel_finds_what_the_firmware_left(rows: bool) -> None:
    host = with_efi(EFI)
    if rows:
        host = replace(host, memory=many_rows())
    made, run = walked(host)
    assert not told(made, run)
    page = segment(made, SegmentRole.BOOT_PARAMS)
    loader, table, size, version, low, length, table_high, high = struct.unpack_from(
        "<4s7I", page, 0x1C0
    )
    assert (loader, table | table_high << 32) == (b"EL64", 0x1_7F00_0018)
    assert (size, version, length, page[0x1EC]) == (48, 1, 96, 3)
    assert not (low | high << 32) % 8
    node = struct.unpack_from("<Q", page, 0x250)[0]
    kinds = []
    while node:
        node_at = node
        node, kind, _ = struct.unpack("<QII", run.memory.read(Extent.sized(node_at, 16)))
        kinds.append(kind)
    assert kinds == ([1, 4] if rows else [4])
    body = run.memory.read(Extent.sized(node_at + 16, 96))
    assert struct.unpack_from("<4Q", body) == (0x7F00_1234, 0, 0x7F9E_E018, 0x7F9F_0000)
    told_of = run.memory.read(Extent.sized(low | high << 32, 96))
    for number, each in enumerate(EFI.runtime):
        assert struct.unpack_from("<I4xQQQQ", told_of, number * 48) == (
            each.type, each.phys, each.virt, each.pages, each.attribute,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("efi", "kernel"),
    [
        pytest.param(EFI, put(KERNEL, "xloadflags", 0b0011), id="a kernel that does not ask for it"),
        pytest.param(replace(EFI, loader=EfiLoader.EL32), KERNEL, id="firmware of 32 bits"),
        pytest.param(replace(EFI, runtime=()), KERNEL, id="no runtime services"),
        pytest.param(None, KERNEL, id="no EFI"),
    ],
)  # fmt: skip
def test_where_nothing_can_be_handed_on_nothing_is(efi: Efi | None, kernel: bytes) -> None:
    made, run = walked(with_efi(efi), kernel)
    assert not told(made, run)
    page = segment(made, SegmentRole.BOOT_PARAMS)
    assert not any(page[0x1C0:0x1E0])
    assert not any(page[0x250:0x258])
    assert not page[0x1EC]


Change = Callable[[bytearray, Intent], None]


def at(where: int, bit: int = 0) -> Change:
    def change(data: bytearray, _plan: Intent) -> None:
        data[where] ^= 1 << bit

    return change


@pytest.mark.parametrize(
    ("name", "where"),
    [
        *[("boot_params", where) for where in (*range(0x1C0, 0x1E0), 0x1EC)],
        # The node's type, length and words, and the two descriptors without what nobody reads.
        *[("setup_data", where) for where in (8, 12, *range(16, 24), *range(32, 48))],
        *[("setup_data", 112 + 48 * n + w) for n in (0, 1) for w in (*range(4), *range(8, 40))],
    ],
)
def test_a_field_that_is_wrong_is_told(name: str, where: int) -> None:
    broken, run = planned(name, at(where, where % 8))(*sound())
    assert set(told(broken, run)) & {"efi-told", "boot-params-told"}, hex(where)


@pytest.mark.parametrize("where", [24, 48, 111, 112 + 4, 112 + 40, 112 + 95])
def test_what_nobody_reads_may_hold_anything(where: int) -> None:
    """The word that was runtime's, the reserved ones, a descriptor's padding."""
    assert not told(*planned("setup_data", at(where))(*sound()))


def test_a_kernel_that_is_told_nothing_of_efi_is_found() -> None:
    """As a loader that forgets: efi_info and the list empty."""

    def forget(data: bytearray, _plan: Intent) -> None:
        data[0x1C0:0x1E0] = bytes(32)

    assert "efi-told" in told(*planned("boot_params", forget)(*sound()))


def by_another_loader(handover: Handover) -> Handover:
    plan = handover.plan
    loaded = Loaded(
        loader=Loader.KEXEC_TOOLS,
        by="kexec-tools",
        source="a test",
        segments=(),
        entry=plan.entry,
        crash=False,
        narrow=False,
        purgatory=None,
        habits=Habits(fields={}, setup_data=frozenset({4})),
    )
    return replace(handover, intent=replace(plan, loaded=loaded))


@pytest.mark.parametrize(
    ("name", "where", "size", "value", "habit"),
    [
        pytest.param("boot_params", 0x1EC, 1, 0, True, id="no word of secure boot"),
        pytest.param("boot_params", 0x1EC, 1, 1, False, id="secure boot is unknown"),
        pytest.param("setup_data", 40, 8, (1 << 64) - 1, True, id="no SMBIOS table"),
        pytest.param("setup_data", 40, 8, 0, False, id="an SMBIOS table at 0"),
        pytest.param("boot_params", 0x1CC, 4, 0, False, id="no version of descriptors"),
        pytest.param("setup_data", 16, 8, (1 << 64) - 1, False, id="no vendor"),
    ],
)
def test_what_another_loader_always_writes_is_no_fault_of_its(
    name: str, where: int, size: int, value: int, habit: bool
) -> None:
    """kexec-tools knows nothing of secure boot, kexec_file_load says in its own way that a table is
    not there; anything else is as wrong as it is in a load of ours."""

    def change(data: bytearray, _plan: Intent) -> None:
        data[where : where + size] = value.to_bytes(size, "little")

    broken, run = planned(name, change)(*sound())
    assert "efi-told" in told(broken, run)
    assert ("efi-told" in told(by_another_loader(broken), run)) is not habit
    assert "efi-told" not in told(by_another_loader(sound()[0]), sound()[1])


def test_a_load_that_enters_the_new_kernel_itself_has_no_digest_to_ask_for() -> None:
    handover, run = sound()
    assert not {"digest-agrees", "digest-covers"} & set(told(by_another_loader(handover), run))


ADDRESS = st.integers(1, (1 << 46) - 1)
RANGES = st.builds(
    EfiRange,
    type=st.integers(0, 0xFFFF_FFFF),
    phys=st.integers(0, 1 << 30).map(lambda page: Phys(page << 12)),
    virt=st.integers(0, (1 << 52) - 1).map(lambda page: page << 12),
    pages=st.integers(1, 1 << 20),
    attribute=st.integers(0, (1 << 64) - 1),
)


@settings(max_examples=25, deadline=None)
@given(
    st.builds(
        Efi,
        loader=st.sampled_from(EfiLoader),
        system_table=ADDRESS.map(Phys),
        descriptor_version=st.integers(0, 0xFFFF_FFFF),
        descriptor_size=st.integers(5, 64).map(lambda words: 8 * words),
        config_table=ADDRESS.map(Phys),
        fw_vendor=ADDRESS.map(Phys),
        smbios=st.none() | ADDRESS.map(Phys),
        secure_boot=st.sampled_from(SecureBoot),
        runtime=st.lists(RANGES, max_size=40).map(tuple),
    )
)
def test_whatever_a_firmware_left_is_read_back_as_it_is(efi: Efi) -> None:
    made, run = walked(with_efi(efi))
    assert not told(made, run)
