"""A plan that nobody walks: its places are those that the whole survey leads to, and its digests hashlib's."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import lacking
from tests.makers import trees
from tests.perform.test_load_command import SMALL
from tightrope import host, image
from tightrope.abi import boot
from tightrope.deeds import unrehearsed
from tightrope.deeds.loading import Files
from tightrope.model import Host, OnDamage
from tightrope.perform.linux import digest
from tightrope.perform.linux.state import State, read_state
from tightrope.perform.load_file import Load
from tightrope.plan.destinations import destinations
from tightrope.plan.purgatory import digest as by_hashlib
from tightrope.plan.request import Request

MIB, GIB = trees.MIB, trees.GIB
KINDS = {"System RAM": 1, "Reserved": 2, "ACPI Tables": 3}
OVERLAPPING = (*trees.FIRMWARE, (0xA_0000, MIB, "Reserved"), (0xF_0000, MIB, "Reserved"))
"""As Linux has it that was entered by its PVH note."""


def page(rows: Iterable[trees.Row], *, efi: bytes = b"", rsdp: int = 0x7FF0_0014) -> str:
    """/sys/kernel/boot_params/data with a memory map."""
    data = bytearray(trees.boot_params(rsdp=rsdp, screen=b"\x01\x02").encode("latin-1"))
    listed = list(rows)
    data[0x1E8] = len(listed)
    for number, (start, end, kind) in enumerate(listed):
        struct.pack_into("<QQI", data, 0x2D0 + 20 * number, start, end - start, KINDS[kind])
    data[0x1C0 : 0x1C0 + len(efi)] = efi
    return data.decode("latin-1")


def machine(rows: Iterable[trees.Row] = trees.FIRMWARE, **parts: str) -> trees.Tree:
    """The ordinary machine, whose loader told it its memory."""
    listed = tuple(rows)
    tree = trees.machine(boot_params=page(listed), **parts)
    return {
        **{name: text for name, text in tree.items() if "memmap" not in name},
        **trees.memmap(*listed),
    }


def told(tree: trees.Tree) -> tuple[State, Host | None]:
    """What Linux says there, and what is known of its memory by that."""

    def read(path: str) -> bytes | None:
        return tree[path].encode("latin-1") if path in tree else None

    state = read_state(read)
    return state, unrehearsed.known(state, read)


REQUESTS = [
    Request(command_line="quiet", from_top=True, verify=OnDamage.HALT),
    Request(command_line="quiet", from_top=True, initrd=bytes(3 * MIB + 5)),
]


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize(
    "tree",
    [
        machine(),
        machine(OVERLAPPING),
        machine(iomem=trees.iomem(crash=[(GIB, GIB + 256 * MIB)])),
        machine(
            iomem=trees.iomem(ram=((0x1000, 0xA_0000), (MIB, GIB))),  # mem=1G
            meminfo="MemTotal: 1000000 kB\nMemAvailable: 900000 kB\nDirectMap2M: 1048576 kB\n",
        ),
        machine(cpuinfo=trees.cpuinfo(f"{trees.FLAGS} la57", 52)),
    ],
    ids=["plain", "rows that overlap", "a crash region", "mem=", "5 levels"],
)
def test_places_and_bytes_are_those_of_the_whole_survey(
    tree: trees.Tree, request_: Request
) -> None:
    _, old = told(tree)
    assert old is not None
    whole = host.read(host.capture(tree).toml, "the same machine")
    new = image.read(SMALL.read_bytes(), SMALL.name)
    one, other = (destinations(new, each, request_).placed for each in (old, whole))
    assert one.entry == other.entry
    assert [(s.destination, bytes(s.data)) for s in one.segments] == [
        (s.destination, bytes(s.data)) for s in other.segments
    ]


@pytest.mark.parametrize(
    "tree",
    [
        machine() | {unrehearsed.BOOT_PARAMS: page(trees.FIRMWARE, efi=b"EL64")},
        machine() | {unrehearsed.BOOT_PARAMS: page(trees.FIRMWARE[:1] * boot.E820_MAX_ENTRIES)},
        machine() | {unrehearsed.BOOT_PARAMS: "short"},
        trees.machine(),
        machine(iomem="00000000-00000000 : System RAM\n"),
    ],
    ids=["EFI", "a map that may go on", "a page that is none", "no map", "hidden addresses"],
)
def test_where_two_files_do_not_tell_all_the_survey_is_asked(tree: trees.Tree) -> None:
    _, old = told(tree)
    assert old is None


def test_the_survey_is_asked_for_a_crash_kernel_without_its_symbols(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tree = machine(iomem=trees.iomem(crash=[(GIB, GIB + 256 * MIB)]))
    asked: list[bool] = []

    def read_tree(*, symbols: bool) -> trees.Tree:
        asked.append(symbols)
        return {name: text for name, text in tree.items() if "kallsyms" not in name}

    monkeypatch.setattr(host, "read_tree", read_tree)
    state, _ = told(tree)
    load = loaded(state, crash=True)
    assert asked == [False]
    assert load.crash
    region = state.crash_region
    assert region is not None
    assert all(region.covers(each.destination) for each in load.segments)
    assert "core header" in {each.name for each in load.segments}


def loaded(state: State, *, crash: bool) -> Load:
    files = Files(
        kernel=SMALL.read_bytes(),
        kernel_name=SMALL.name,
        initrd=None,
        initrd_name="",
        command_line="quiet",
        crash=crash,
    )
    return unrehearsed.load(files, state, lambda _: None, unpack=False, verify=OnDamage.HALT)


@pytest.fixture(scope="module")
def own_code() -> Callable[[bytes | memoryview], bytes]:
    if "avx2" not in Path("/proc/cpuinfo").read_text(encoding="ascii").split():
        lacking("this CPU has no AVX2")
    made = digest.eight_at_once({"avx2"})
    assert made is not None
    return made


@given(st.integers(0, 5000), st.binary(min_size=1, max_size=64), st.integers(0, 70))
def test_the_purgatorys_code_and_hashlib_make_the_same_digest(
    own_code: Callable[[bytes | memoryview], bytes], size: int, piece: bytes, after: int
) -> None:
    data = (piece * (size // len(piece) + 1))[:size]
    assert own_code(data) == by_hashlib(data)
    within = memoryview(bytes(after) + data)[after:]
    assert own_code(within) == by_hashlib(data)


def test_it_is_offered_where_it_is_faster_and_where_code_may_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert digest.eight_at_once({"sse2"}) is None
    assert digest.eight_at_once({"avx2", "sha_ni"}) is None

    def denied(*_: object) -> mmap.mmap:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(mmap, "mmap", denied)
    assert digest.eight_at_once({"avx2"}) is None
