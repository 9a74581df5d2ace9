"""Our plan against kexec-tools' plan for the same kernel, initrd, command line and machine.

Each difference has its row in docs/kexec-tools.md, with its reason; a row that is not found is as much
of a failure as a difference that has none.  The host is this very machine, captured.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import REPOSITORY, debian_kernel
from tests.kexec_tools import side_by_side, watched
from tests.kexec_tools.watched import CAP_SYS_BOOT, KEXEC, KEXEC_LOAD
from tests.makers.bzimage import bzimage
from tightrope import host, image
from tightrope.host.capture.tree import read_tree
from tightrope.model import Host, Plan, Protocol
from tightrope.plan import Request, prepare

INITRD = random.Random("initrd").randbytes(5_000_001)
LINE = "console=ttyS0 root=/dev/vda1 -- quiet"
WAYS = {
    "cloud-amd64": ("cloud-amd64", "64", ()),
    "cloud-amd64 by its 32-bit entry": ("cloud-amd64", "64 by 32", ("--entry-32bit",)),
    "686": ("686", "32", ()),
    "686-pae": ("686-pae", "32", ()),
}
"""Which of Debian's kernels, the way as the table names it, and what kexec has to be told for it."""
PAGE = REPOSITORY / "docs" / "kexec-tools.md"
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \| [^|]+ \| [^|]+ \| [^|]+ \|$", re.MULTILINE)


@cache
def this_machine() -> Host:
    return host.read(host.capture(read_tree()).toml, "this machine")


def explained(entry: str) -> tuple[set[str], set[str]]:
    """The names in the table's rows for a way: those that have to be found, and those that may be."""
    rows = dict(ROW.findall(PAGE.read_text()))
    must = {name for name, where in rows.items() if where == "all" or entry in where.split(", ")}
    return must, {name for name, where in rows.items() if where == "some machines"}


class Pair:
    """One kernel planned by both."""

    def __init__(
        self,
        kernel: bytes,
        folder: Path,
        initrd: bytes,
        line: str,
        entry: str,
        words: tuple[str, ...],
    ) -> None:
        (folder / "vmlinuz").write_bytes(kernel)
        (folder / "initrd").write_bytes(initrd)
        self.watched = watched.run(
            "-c",
            "-d",
            "-l",
            str(folder / "vmlinuz"),
            f"--initrd={folder / 'initrd'}",
            f"--command-line={line}",
            *words,
        )
        protocol = Protocol.LINUX_64 if entry == "64" else Protocol.LINUX_32
        request = Request(initrd=initrd, command_line=line, protocol=protocol)
        self.plan: Plan = prepare(image.read(kernel, "kernel"), this_machine(), request)
        (self.call,) = self.watched.calls
        mine = side_by_side.ours(self.plan)
        other = side_by_side.theirs(self.call, mine.kernel.data, initrd)
        entered, _params = side_by_side.hands_over(self.call, other.kernel)
        self.ours = side_by_side.described(mine, self.plan.kernel_entry)
        self.theirs = side_by_side.described(other, entered)

    @property
    def differences(self) -> Mapping[str, tuple[str, str]]:
        return side_by_side.differences(self.ours, self.theirs)


@pytest.fixture(scope="module", params=WAYS)
def way(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Pair]:
    flavour, entry, words = WAYS[request.param]
    kernel = debian_kernel(flavour).read_bytes()
    return entry, Pair(kernel, tmp_path_factory.mktemp("kexec"), INITRD, LINE, entry, words)


def test_every_difference_is_explained_and_every_explanation_is_needed(
    way: tuple[str, Pair],
) -> None:
    entry, pair = way
    must, may = explained(entry)
    found = set(pair.differences)
    assert found - must - may == set(), {name: pair.differences[name] for name in found - must}
    assert must - found == set()


def test_much_is_compared_and_most_of_it_is_the_same(way: tuple[str, Pair]) -> None:
    _entry, pair = way
    same = set(pair.ours) - set(pair.differences)
    assert {"kernel: bytes", "initrd: bytes", "command line", "entry: from the kernel"} <= same
    assert len(same) >= 55
    assert f"; {len(pair.ours)} things are compared" in PAGE.read_text()
    assert pair.theirs["command line"] == LINE


def test_the_memory_maps_differ_in_the_interrupt_table_alone(way: tuple[str, Pair]) -> None:
    _entry, pair = way
    mine = side_by_side.e820(side_by_side.ours(pair.plan))
    first, *rest = mine
    wanted = [(max(first[0], 0x400), *first[1:]), *rest]
    assert pair.theirs["e820"] == ", ".join(f"{a:#x}-{b:#x} {kind}" for a, b, kind in wanted)


def test_what_kexec_prints_is_what_it_hands_over(way: tuple[str, Pair]) -> None:
    _entry, pair = way
    entry, rows = side_by_side.printed(pair.watched)
    assert entry == pair.call.entry
    assert rows == [(each.start, len(each.data), each.size) for each in pair.call.segments]


def test_nothing_was_loaded_and_nothing_could_have_been(way: tuple[str, Pair]) -> None:
    _entry, pair = way
    assert pair.watched.answers == (-38,)  # ENOSYS, of a call that is none
    assert len(pair.watched.calls) == 1
    assert pair.watched.status == 255
    assert not pair.watched.bounding_set >> CAP_SYS_BOOT & 1


def test_a_call_that_would_load_is_held_whoever_makes_it() -> None:
    """Python in kexec's place: kexec_load(0, 0, NULL, 0) would unload what is loaded."""
    made = watched.watched(
        [
            sys.executable,
            "-c",
            "import ctypes; c = ctypes.CDLL(None, use_errno=True);"
            f"print(c.syscall({KEXEC_LOAD}, 0, 0, None, 0), ctypes.get_errno())",
        ]
    )
    assert made.output == "-1 38\n"
    assert made.answers == (-38,)


def test_a_command_that_is_not_there_is_no_plan() -> None:
    got = watched.watched([str(KEXEC), "-c", "-l", "/nowhere/vmlinuz"])
    assert got.status != 0
    assert got.calls == ()


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    initrd=st.integers(1, 40_000),
    line=st.text("abc= ", max_size=80).map(str.strip).filter(bool),
    kernel_size=st.integers(0, 60_000),
    init_size=st.integers(32, 512).map(lambda pages: pages * 4096),
    load=st.integers(8, 64).map(lambda n: n << 21),
    entry=st.sampled_from(["64", "64 by 32"]),
)
def test_no_made_kernel_differs_in_more(
    initrd: int,
    line: str,
    kernel_size: int,
    init_size: int,
    load: int,
    entry: str,
    tmp_path: Path,
) -> None:
    kernel = bzimage(kernel_size=kernel_size, init_size=init_size, pref_address=load)
    words = ("--entry-32bit",) if entry == "64 by 32" else ()
    pair = Pair(kernel, tmp_path, INITRD[:initrd], line, entry, words)
    must, may = explained(entry)
    assert set(pair.differences) <= must | may, pair.differences


def test_one_changed_byte_of_a_plan_would_be_seen(way: tuple[str, Pair]) -> None:
    _entry, pair = way
    mine = side_by_side.ours(pair.plan)
    for at, name in (
        (0x236, "boot_params: xloadflags"),
        (0x600, "e820"),
        (0xEF0, "boot_params: rest"),
    ):
        page = bytearray(mine.page)
        page[at if name != "e820" else 0x2D0] ^= 1
        changed = tuple(
            each if each.start != mine.params else type(each)(each.start, each.size, bytes(page))
            for each in mine.segments
        )
        other = side_by_side.Where(mine.kernel, mine.initrd, mine.params, changed)
        said = side_by_side.described(other, pair.plan.kernel_entry)
        assert set(side_by_side.differences(pair.ours, said)) == {name}
