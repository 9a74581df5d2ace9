"""More rules at their edges, asked alone: a purgatory's list, an idt of its own, a map that grows, numbers of
Xen's.

Rules: as in test_narrowly.
"""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from tests.check.test_narrowly import having
from tests.makers.elf import Segment, elf, note, pvh_note
from tests.makers.hosts import small_host
from tightrope import image
from tightrope.check.digest import _odd_region
from tightrope.check.programs import _rows
from tightrope.check.switching import _own_idt
from tightrope.check.told.handed_on import hop_keeps_memory
from tightrope.check.told.memory_map import _matters
from tightrope.check.xen import numbers
from tightrope.deeds.rehearse import rehearse
from tightrope.memory import Extent
from tightrope.model import Participant, Protocol
from tightrope.model.entered import Entered
from tightrope.model.p2m import P2m
from tightrope.plan import Request

MIB = 1 << 20


def gates(limit: int, base: int) -> bool:
    """Whether an idt of three gates at 0x80 of the page 0x5000 is the contract's own."""
    case = having(
        contract=SimpleNamespace(gates=SimpleNamespace(idt="table", count=3)),
        intent=SimpleNamespace(control_page=0x5000),
        handover=SimpleNamespace(code=SimpleNamespace(symbols={"table": 0x80})),
    )
    return _own_idt(case, base << 16 | limit)


def test_an_idt_of_its_own_has_just_its_gates() -> None:
    assert gates(47, 0x5080)
    assert not any(gates(limit, base) for limit, base in ((46, 0x5080), (49, 0x5080), (47, 0x5090)))


def row(start: int, size: int, digest: bytes = b"") -> bytes:
    return struct.pack("<QQ", start, size) + digest


def test_a_purgatorys_list_ends_with_the_row_of_no_bytes() -> None:
    digests = [bytes([n]) * 32 for n in range(3)]
    rows = [row(0x1000 * n, size, digests[n]) for n, size in ((1, 0x20), (0, 0), (2, 0x30))]
    code = SimpleNamespace(code=SimpleNamespace(symbols={"rows": 8}))
    data = bytes(8) + b"".join(rows)
    assert dict(_rows(cast(Participant, code), data)) == {0x1000: (0x20, digests[1])}


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ([(0x8000, 0x1000), (0x9000, 0x2000)], ""),
        ([(0x9000, 0x2000)], "its list does not name all of them"),
        ([(0x8000, 0x1000), (0x9000, 0x1000)], "its list has 0x1000 bytes at 0x9000, which is not"),
        ([(0x8000, 0x1000), (0x9008, 0x2000)], "its list has 0x2000 bytes at 0x9008, which is not"),
    ],
)
def test_a_row_that_is_no_segments_is_named(listed: list[tuple[int, int]], said: str) -> None:
    where = Extent.sized(0x4000, 0x1000)
    places = [where, Extent.sized(0x8000, 0x1000), Extent.sized(0x9000, 0x2000)]
    held = bytes(0x20) + b"".join(row(*each) for each in listed) + bytes(where.size)
    case = having(
        intent=SimpleNamespace(
            purgatory=where, segments=[SimpleNamespace(destination=each) for each in places]
        ),
        run=SimpleNamespace(
            memory=SimpleNamespace(read=lambda place: memoryview(held[: place.size]))
        ),
    )
    program = SimpleNamespace(code=SimpleNamespace(symbols={"regions": 0x20}))
    got = _odd_region(case, cast(Participant, program))
    assert got.startswith(said) if said else got == ""


@pytest.mark.parametrize(("rows", "hops"), [(126, 2), (127, 1), (128, 0), (130, 0)])
def test_how_many_hops_a_map_that_grows_by_a_row_has_left(rows: int, hops: int) -> None:
    def told(count: int) -> Entered:
        places = tuple((Extent.sized(n << 20, 1 << 20), 1) for n in range(count))
        return Entered(rows=places, setup_data=(), rsdp=0, screen=b"", efi=b"", command_line=b"")

    case = having(host=SimpleNamespace(entered=told(rows - 1)), once=lambda _work: told(rows))
    (found,) = hop_keeps_memory.search(case)
    assert f"behind {hops} more hops" in found.message


def test_a_link_that_is_pseudo_physical_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """dom0's frame n is the machine's frame n + 0x100; the list has two pages, at 0x110 and 0x120."""
    p2m = P2m(np.arange(0x100, 0x200))
    monkeypatch.setattr(numbers, "_p2m", lambda _case: p2m)
    monkeypatch.setattr(numbers, "slots", lambda _case: {})
    monkeypatch.setattr(numbers, "owner", lambda _case, phys: f"{phys:#x}")

    def asked(head: int, link: int) -> list[str]:
        none = np.zeros(0, np.int64)
        first = bytes(4088) + struct.pack("<Q", link)
        case = having(
            handover=SimpleNamespace(page_list={0x11_0000: first, 0x12_0000: bytes(4096)}),
            word=8, head=head, list_frames=(0x110, 0x120),
            copies=SimpleNamespace(sources=none, destinations=none),
            intent=SimpleNamespace(crash=True, sources=none, destinations=none, through=None),
        )  # fmt: skip
        return [each.message for each in numbers.list_machine.search(case)]

    assert asked(0x11_0002, 0x12_0002) == []
    for head, link, machine in ((0x1_0002, 0x12_0002, 0x11_0000), (0x11_0002, 0x2_0002, 0x12_0000)):
        (said,) = asked(head, link)
        pseudo = machine - 0x10_0000
        assert said.startswith(
            f"a link of the page list holds {pseudo:#x}, which is pseudo-physical"
        )
        assert said.endswith(f"the machine address is {machine:#x}")


def test_what_a_loader_leaves_out_of_a_map_matters_but_in_a_crash() -> None:
    part = [Extent(0x9_F000, 0x9_FC00), Extent(0x20_0000, 0x20_2000)]
    theirs = SimpleNamespace(narrow=False)
    intents = {crash: SimpleNamespace(crash=crash, segments=()) for crash in (True, False)}
    ram = 1
    for loaded, crash, left in (
        (None, True, part), (None, False, part), (theirs, False, part), (theirs, True, part[1:]),
    ):  # fmt: skip
        case = having(loaded=loaded, intent=intents[crash], host=SimpleNamespace(crash_region=None))
        assert list(_matters(case, ram, part)) == left


def test_a_vmlinux_is_told_the_protocol_that_kexec_tools_writes_for_one() -> None:
    kernel = elf(Segment(16 * MIB), notes=note("Linux", 0x100, b"salt"))
    verdict = rehearse(image.read(kernel, "vmlinux"), small_host(), Request())
    assert "boot-params-told" not in {each.rule for each in verdict.findings}
    page = verdict.handover.intent.boot_params
    version = bytes(verdict.run.memory.read(Extent.sized(page + 0x206, 2)))
    assert version == b"\x06\x02"


@pytest.mark.parametrize("linux", [True, False], ids=["Linux", "another kernel"])
@pytest.mark.parametrize(
    ("line", "rules"),
    [
        ("", []),
        ("mem=1M", ["memory-room"]),
        ("mem=4G", []),
        ("memmap=16M@0x1000000000", ["memory-limited"]),
    ],
)
def test_linux_reads_what_limits_its_memory_through_pvh_too(
    line: str, rules: list[str], linux: bool
) -> None:
    notes = pvh_note(16 * MIB) + (note("Linux", 0x100, b"salt") if linux else b"")
    kernel = image.read(elf(Segment(16 * MIB), notes=notes), "vmlinux")
    request = Request(command_line=line, protocol=Protocol.PVH)
    verdict = rehearse(kernel, small_host(), request)
    assert verdict.handover.intent.protocol is Protocol.PVH
    told = {"memory-room", "memory-limited"} & {each.rule for each in verdict.findings}
    assert told == set(rules if linux else [])
