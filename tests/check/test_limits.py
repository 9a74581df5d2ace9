"""mem= and memmap=: what a command line makes of the memory map, and whether that can be lived in.

Rules: what a line leaves is worked out here once more page by page, from Linux's words in
kernel-parameters.txt; that Debian's 6.1 takes each line so was seen in QEMU.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.check.test_crash_region import dying, said, walked
from tests.makers.bzimage import bzimage
from tightrope import host as host_room
from tightrope import image as image_room
from tightrope.check.told.limits import arguments, limited
from tightrope.check.told.memory import Row, Told
from tightrope.deeds.rehearse import rehearse
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent, MemoryMap, Region, RegionKind, union
from tightrope.model import Verdict
from tightrope.plan import Request

MIB = 1 << 20
ROWS = ((0, 0x9F000, 1), (MIB, 512 * MIB, 1), (512 * MIB, 520 * MIB, 2), (1 << 32, 5 << 30, 1))


@pytest.fixture(scope="module")
def machine() -> Emulator:
    return Emulator()


def told(line: bytes) -> Told:
    rows = tuple(Row(extent=Extent(start, end), type=kind) for start, end, kind in ROWS)
    return Told(line=line, modules=(), rows=rows)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", []),
        (b"a b=c  d=", [(b"a", None), (b"b", b"c"), (b"d", b"")]),
        (b'"a=b c" d="e f"', [(b"a", b"b c"), (b"d", b"e f")]),
        (b'a="mem=1M b" c', [(b"a", b"mem=1M b"), (b"c", None)]),
        (b"a -- mem=1M", [(b"a", None)]),
        (b"--=x a=b=c", [(b"--", b"x"), (b"a", b"b=c")]),
        (b'a="b', [(b"a", b"b")]),
        (b"\xa0a\tb\n", [(b"a", None), (b"b", None)]),
    ],
)
def test_a_line_is_split_as_linux_splits_it(
    line: bytes, words: list[tuple[bytes, bytes | None]]
) -> None:
    assert list(arguments(line)) == words


@given(st.binary(max_size=60))
def test_any_line_can_be_split_and_read(line: bytes) -> None:
    for name, value in arguments(line):
        assert b"=" not in name
        assert value is None or name in line
    limited(told(b"mem=" + line + b" memmap=" + line))


EVERYTHING = [(start, end) for start, end, kind in ROWS if kind == 1]


@pytest.mark.parametrize(
    ("line", "ram"),
    [
        ("mem=64M", [(0, 0x9F000), (MIB, 64 * MIB)]),
        ("mem=0400000000", [(0, 0x9F000), (MIB, 64 * MIB)]),  # octal
        ("mem=64Mfoo", [(0, 0x9F000), (MIB, 64 * MIB)]),
        ("mem=1G mem=64M mem=2G", [(0, 0x9F000), (MIB, 64 * MIB)]),
        ("mem=0", EVERYTHING),
        ("mem=nopentium", EVERYTHING),
        ("mem", EVERYTHING),
        ("-- mem=64M", EVERYTHING),
        ("xmem=64M memx=64M", EVERYTHING),
        ('x="y mem=64M"', EVERYTHING),
        ('"mem=64M"', [(0, 0x9F000), (MIB, 64 * MIB)]),
        ('mem="64M"', [(0, 0x9F000), (MIB, 64 * MIB)]),
        ("memmap=64M", [(0, 0x9F000), (MIB, 64 * MIB)]),
        ("memmap=0", []),
        ("memmap=foo", EVERYTHING),
        ("memmap=exactmap", []),
        ("memmap=exactmap memmap=640K@0K memmap=96M@16M", [(0, 640 << 10), (16 * MIB, 112 * MIB)]),
        ("memmap=exactmap,640K@0K,96M@16M", [(0, 640 << 10), (16 * MIB, 112 * MIB)]),
        ("memmap=96M@16M memmap=exactmap", []),
        ("memmap=10M$32M", [(0, 0x9F000), (MIB, 32 * MIB), (42 * MIB, 512 * MIB), (1 << 32, 5 << 30)]),
        ("memmap=10M#32M", [(0, 0x9F000), (MIB, 32 * MIB), (42 * MIB, 512 * MIB), (1 << 32, 5 << 30)]),
        ("memmap=1G!4G", [(0, 0x9F000), (MIB, 512 * MIB)]),
        ("memmap=8M@512M", EVERYTHING),  # it is reserved, which is the higher type
        ("memmap=8M%512M-2+1", [(0, 0x9F000), (MIB, 520 * MIB), (1 << 32, 5 << 30)]),
        ("memmap=8M%512M-5+1", EVERYTHING),  # nothing there is of type 5
        ("memmap=8M%504M", [(0, 0x9F000), (MIB, 504 * MIB), (1 << 32, 5 << 30)]),
        ("memmap=8M%504M-1", [(0, 0x9F000), (MIB, 504 * MIB), (1 << 32, 5 << 30)]),
        ("memmap=8M%504M+12", [(0, 0x9F000), (MIB, 504 * MIB), (1 << 32, 5 << 30)]),
        ("memmap=8M%504M-1+12x", EVERYTHING),  # it does not end there: passed over
        ("memmap=1G@6G", [*EVERYTHING, (6 << 30, 7 << 30)]),
    ],
)  # fmt: skip
def test_what_a_line_makes_of_the_map(line: str, ram: list[tuple[int, int]]) -> None:
    found = limited(told(line.encode()))
    assert [(each.start, each.end) for each in found.ram] == ram
    if ram != EVERYTHING:
        assert line.partition("=")[0].strip('"') in found.said


PIECES = st.tuples(
    st.sampled_from(["mem", "@", "$", "#", "!", "%-1+2", "%-2+1", "%", "exactmap", ""]),
    st.integers(0, 12),
    st.integers(0, 12),
)


@given(st.lists(PIECES, max_size=6))
def test_page_by_page_it_is_the_same(pieces: list[tuple[str, int, int]]) -> None:
    """Sixteen pages, each with the types that lie there."""
    rows = [(0, 4, 1), (4, 6, 2), (6, 14, 1)]
    pages: list[set[int]] = [
        {kind for start, end, kind in rows if start <= at < end} for at in range(32)
    ]
    words = []
    for sign, size, start in pieces:
        place = range(start, start + size)
        if sign == "mem":
            words.append(f"mem={size * 4}K")
            for at in range(size, 32) if size else ():
                pages[at].discard(1)
        elif sign == "exactmap":
            words.append("memmap=exactmap")
            pages = [set() for _ in pages]
        elif not sign:
            words.append(f"memmap={size * 4}K")
            for at in range(size, 32):
                pages[at].discard(1)
        elif sign[0] == "%":
            words.append(f"memmap={size * 4}K%{start * 4}K{sign[1:]}")
            for at in place:
                if sign == "%":
                    pages[at].clear()
                elif int(sign[2]) in pages[at]:
                    pages[at] ^= {int(sign[2])}
                    pages[at].add(int(sign[4]))
        else:
            words.append(f"memmap={size * 4}K{sign}{start * 4}K")
            for at in place:
                pages[at].add({"@": 1, "$": 2, "#": 3, "!": 12}[sign])
    given_rows = tuple(Row(extent=Extent(a << 12, b << 12), type=kind) for a, b, kind in rows)
    found = limited(Told(line=" ".join(words).encode(), modules=(), rows=given_rows))
    wanted = union(
        Extent.sized(at << 12, 1 << 12) for at, types in enumerate(pages) if types == {1}
    )
    assert found.ram == wanted


def kexeced(machine: Emulator, line: str) -> Verdict:
    """A kernel with 32 MiB of init_size on the default host, whose RAM is [1 MiB, 3 GiB) and more."""
    kernel = image_room.read(bzimage(init_size=32 * MIB), "vmlinuz")
    old = host_room.read(host_room.example(), "the default host")
    return rehearse(kernel, old, Request(command_line=line), machine=machine)


@pytest.mark.parametrize(
    ("line", "findings", "advice"),
    [
        ("quiet", [], []),
        ("mem=1M", ["memory-room"], []),
        ("memmap=0", ["memory-room"], []),
        ("memmap=exactmap memmap=640K@0K memmap=10M@1G", [], ["memory-room"]),
        ("memmap=exactmap memmap=1023M@1M", ["memory-room"], []),
        ("memmap=640K$0", ["memory-room"], []),
        ("memmap=300K$0,312K$324K", ["memory-room"], []),
        ("memmap=300K$0,312K$327K", ["memory-room"], []),
        ("memmap=300K$0,312K$328K", [], []),
        ("memmap=548K$92K", [], []),
        ("memmap=548K$92K,64K$0", [], []),
        ("memmap=548K$91K", ["memory-room"], []),
        ("mem=300M", [], []),
        ("mem=1G", [], []),
        ("memmap=64K$1G", [], []),
        ("memmap=512M!2G", [], []),
        ("memmap=exactmap memmap=640K@0K memmap=1023M@1M", [], []),
        ("memmap=1G@1024G", ["memory-limited"], []),
        ("memmap=exactmap memmap=640K@0 memmap=1G@1M memmap=1G@1024G", ["memory-limited"], []),
    ],
)
def test_a_plain_kexec_is_held_to_what_its_line_leaves(
    machine: Emulator, line: str, findings: list[str], advice: list[str]
) -> None:
    got = kexeced(machine, line)
    assert (said(got.findings), said(got.advice)) == (findings, advice)


@pytest.mark.parametrize(
    ("line", "rules"),
    [
        ("memmap=exactmap memmap=10M@1G", ["memory-limited", "memory-room", "crash-region-room"]),
        ("memmap=exactmap memmap=90M@816M", ["memory-room"]),
        ("memmap=10M@1G", ["memory-limited"]),
        ("memmap=exactmap memmap=640K@0K memmap=96M@816M", ["memory-limited"]),
        ("memmap=exactmap memmap=640K@0K", ["crash-region-room"]),
        ("memmap=exactmap memmap=640K@0K memmap=90M@816M", []),
        ("memmap=64K$1G", []),
        ("memmap=1G!4G", []),
        ("memmap=92M$820M", ["crash-region-room"]),
    ],
)
def test_a_crash_kernel_is_given_its_region_and_nothing_of_the_old_kernels(
    machine: Emulator, line: str, rules: list[str]
) -> None:
    """The region is [0x33000000, 0x39000000), 816 to 912 MiB; what the dump is found by lies at its
    end."""
    got = walked(machine, dying(96), line=line)
    assert (said(got.findings), said(got.advice)) == (rules, [])


@pytest.mark.parametrize(("sixty_four", "least"), [(True, 28), (False, 12)])
@pytest.mark.parametrize("crash", [False, True])
def test_a_machine_without_low_memory_is_none_for_a_linux_that_needs_its_trampoline(
    machine: Emulator, sixty_four: bool, least: int, crash: bool
) -> None:
    """Whatever the map is: [64 KiB, 64 KiB + N) is all there is below 1 MiB."""
    flags = 0b0111_1111 if sixty_four else 0
    kernel = image_room.read(bzimage(init_size=32 * MIB, xloadflags=flags), "vmlinuz")
    for low, rules in ((0, ["memory-room"]), (least - 4, ["memory-room"]), (least, [])):
        text = host_room.example(crash=Extent(0x3300_0000, 0x4300_0000) if crash else None)
        old = host_room.read(text, "the default host")
        rows = [each for each in old.memory if each.extent.start >= MIB]
        first = Extent.sized(64 << 10, low << 10)
        more = [Region(extent=first, kind=RegionKind.RAM)] if low else []
        old = replace(old, memory=MemoryMap((*more, *rows)))
        got = rehearse(kernel, old, Request(crash=crash), machine=machine)
        told = {"memory-room"} & {each.rule for each in got.findings}
        assert sorted(told) == rules
