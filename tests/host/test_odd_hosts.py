"""Hosts that are odd and legal: each is planned and holds, or what cannot be placed is said.

Documents are the example with its memory or its registers as public reports have them: grub2-bhyve#6,
libkrun#821, Limine#413 (maps), VirtualBox#784 (FRED), nixos-anywhere#651 (what KHO keeps).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from tests.makers.bzimage import bzimage
from tests.makers.hosts import document, read_image, write
from tests.rehearse.runs import shipped_kernel
from tightrope import host
from tightrope.cli import main
from tightrope.deeds.rehearse import rehearse
from tightrope.errors import HostError, PlanError
from tightrope.memory import Extent
from tightrope.model import Host, Outcome, Verdict
from tightrope.plan import Request, prepare

MIB, GIB = 1 << 20, 1 << 30
RESERVED = [(0x9_FC00, 0x400, "reserved"), (0xF_0000, 0x1_0000, "reserved")]
Row = tuple[int, int, str]


def read(**changes: Any) -> Host:
    """The example with some tables replaced; `rows` are those of the memory map."""
    table = document()
    if rows := changes.pop("rows", None):
        table["memory"] = [{"start": s, "size": n, "kind": kind} for s, n, kind in sorted(rows)]
        table["busy"] = []
    for name, fields in changes.items():
        table[name] = table.get(name, {}) | fields if isinstance(fields, dict) else fields
    return host.read(write(table), "an odd host")


def holds(old: Host) -> Verdict:
    got = rehearse(shipped_kernel(), old, Request())
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())
    return got


def written(got: Verdict, name: str) -> bytes:
    """A segment of the plan, byte for byte."""
    [data] = [bytes(e.data) for e in got.handover.plan.segments if e.name == name]
    return data


E820 = {1: "ram", 2: "reserved"}


def told(got: Verdict) -> list[Row]:
    """The memory map that the new kernel is handed, read at its offsets (zero-page.rst)."""
    page = written(got, "boot_params")
    rows = [struct.unpack_from("<QQI", page, 0x2D0 + 20 * n) for n in range(page[0x1E8])]
    return [(start, size, E820[kind]) for start, size, kind in rows]


def ram(*extents: tuple[int, int]) -> list[Row]:
    return [(start, end - start, "ram") for start, end in extents]


@pytest.mark.parametrize(
    ("register", "value"),
    [
        pytest.param("cr4", 0x1_0037_06F0, id="FRED"),
        pytest.param("cr4", 0x837_06F0, id="LASS"),
        pytest.param("cr4", 0x1_08F7_0EF0, id="all that Linux 7.3 sets on a new Intel"),
        pytest.param("efer", 0x20_1D01, id="SVME and AIBRSE"),
        pytest.param("efer", 0x20_8D01, id="TCE and AIBRSE"),
    ],
)
def test_a_bit_that_some_cpu_has_is_legal(register: str, value: int) -> None:
    old = read(registers={register: value})
    assert getattr(old, register) == value
    # The walk begins with it: what is legal is also what was walked, and not a value near it.
    assert getattr(holds(old).handover.registers, register) == value


def test_a_bit_that_no_cpu_has_is_not() -> None:
    with pytest.raises(HostError, match="bits 0x200000000 are reserved"):
        read(registers={"cr4": 0x2_0037_06F0})


@pytest.mark.parametrize("count", [128, 129, 130, 149, 312, 3_500, 4_096])
def test_more_rows_than_boot_params_has_room_for(count: int) -> None:
    """The page has 128, and SETUP_E820_EXT all the others."""
    small = [
        (0xA000_0000 + n * 0x1000, 0x1000, "reserved" if n % 2 == 0 else "ram")
        for n in range(count - 4)
    ]
    old = read(rows=[*ram((0, 0x9_FC00), (MIB, 0xA000_0000)), *RESERVED, *small])
    assert len(old.memory.regions) == count
    got = holds(old)
    plan = got.handover.plan
    [page] = [bytes(each.data) for each in plan.segments if plan.boot_params in each.destination]
    nodes = [bytes(each.data) for each in plan.segments if each.name == "setup_data"]
    assert page[0x1E8] == min(count, 128)
    beyond = [struct.unpack_from("<QQI", nodes[0], 16 + 20 * n) for n in range(count - 128)]
    told_of = told(got) + [(start, size, E820[kind]) for start, size, kind in beyond]
    assert told_of == [(r.extent.start, r.extent.size, r.kind.value) for r in old.memory.regions]
    assert [len(each) for each in nodes] == [16 + 20 * (count - 128)] * (count > 128)


MAPS = {
    "pieces inside a page": [
        *ram((0, 0x9_FC00), (MIB, 0x3EFF_81F0), (0x3EFF_81F0, 0x3EFF_8220), (0x3EFF_8220, 3 * GIB)),
        *RESERVED,
    ],
    "a hole of one page where the kernel would go": [
        *ram((0, 0x9_FC00), (MIB, 16 * MIB), (16 * MIB + 0x1000, 3 * GIB)),
        (16 * MIB, 0x1000, "reserved"),
        *RESERVED,
    ],
    "rows that begin and end at odd bytes": [
        *ram((0, 0x9_FBFF), (MIB + 1, 0x3EFF_81F0), (0x3EFF_8225, 3 * GIB - 7)),
        *RESERVED,
    ],
    "a row of one byte": [
        *ram((0, 0x9_FC00), (MIB, 3 * GIB), (0xD000_0000, 0xD000_0001)),
        *RESERVED,
    ],
    "low memory that ends one byte early": [
        *ram((0, 0x9_FFFF), (MIB, 3 * GIB)),
        (0xF_0000, 0x1_0000, "reserved"),
    ],
    "a GiB at 70 TiB": [
        *ram((0, 0x9_FC00), (MIB, 3 * GIB), (70 << 40, (70 << 40) + GIB)),
        *RESERVED,
    ],
}


def joined(pages: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same with neighbours made one."""
    out: list[tuple[int, int]] = []
    for start, end in sorted(pages):
        if out and out[-1][1] >= start:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        elif start < end:
            out.append((start, end))
    return out


@pytest.mark.parametrize("name", MAPS)
def test_a_map_that_is_odd_is_a_map(name: str) -> None:
    old = read(rows=MAPS[name], cpu={"physical_bits": 52})
    rows = sorted(MAPS[name])
    known = [(r.extent.start, r.extent.size, r.kind.value) for r in old.memory.regions]
    assert known == rows
    got = holds(old)
    assert told(got) == rows
    # Nothing lies outside of the whole pages of RAM.
    pages = [(-(-s // 4096) * 4096, (s + n) // 4096 * 4096) for s, n, k in rows if k == "ram"]
    for each in got.handover.plan.segments:
        first, last = each.destination.start, each.destination.end
        assert any(start <= first and last <= end for start, end in joined(pages)), each.name


def test_rows_that_overlap_are_refused_by_name() -> None:
    for second in ((GIB, GIB, "ram"), (2 * GIB - 1, 0x1000, "reserved")):
        with pytest.raises(HostError, match="below the end of the entry before it") as caught:
            read(rows=[*ram((0, 0x9_FC00), (MIB, 2 * GIB)), *RESERVED, second])
        assert caught.value.field == "memory[4].start"


def test_a_machine_whose_memory_is_above_4_gib() -> None:
    rows = [*ram((0, 0x9_FC00), (4 * GIB, 8 * GIB)), *RESERVED]
    old = read(rows=rows, text={"phys": 0x1_2E20_0000}, private={"start": 0x1_3100_0000})
    assert (old.text.phys, old.private.start) == (0x1_2E20_0000, 0x1_3100_0000)
    got = holds(old)
    assert got.handover.intent.kernel_entry > 4 * GIB
    assert told(got) == sorted(rows)


# ------------------------------------------------------------------- memory that is kept for the new

KEPT = Extent(0x100_0000, 0x200_0000)
ROW = {"start": KEPT.start, "size": KEPT.size}


@pytest.mark.parametrize(
    "tables",
    [
        {"preserved": [ROW | {"what": "kept by KHO"}]},
        {"busy": [ROW | {"what": "handed over: kept by KHO for the next kernel"}]},
    ],
    ids=["its own table", "a busy place that is handed over"],
)
def test_what_is_kept_for_the_new_kernel_is_nobodys_destination(tables: dict[str, Any]) -> None:
    old = read(**tables)
    assert [each.extent for each in old.preserved] == [KEPT]
    segments = holds(old).handover.segments
    assert not any(each.destination.overlaps(KEPT) for each in segments)
    # The right twin: what is merely busy is written over by the copy.
    busy = holds(read(busy=[ROW | {"what": "slab and page cache"}])).handover.segments
    assert any(each.destination.overlaps(KEPT) for each in busy)
    # A kernel that cannot be moved away is refused.
    fixed = read_image(relocatable=False, pref_address=KEPT.start)
    with pytest.raises(PlanError, match="0x1000000"):
        prepare(fixed, old, Request())


def test_an_rsdp_and_tables_in_ram_are_written_over_by_nobody() -> None:
    place = Extent(0x1234_5000, 0x1234_6000)
    old = read(rsdp=place.start + 0x14)
    got = holds(old)
    assert not any(place.overlaps(each.destination) for each in got.handover.segments)
    # acpi_rsdp_addr (zero-page.rst)
    assert struct.unpack_from("<Q", written(got, "boot_params"), 0x70) == (place.start + 0x14,)
    lowest = read(rsdp=0x100_0014)
    assert not any(0x100_0014 in each.destination for each in holds(lowest).handover.segments)
    tables = read(firmware=[ROW | {"what": "EFI memory map"}])
    assert not any(each.destination.overlaps(KEPT) for each in holds(tables).handover.segments)


# ----------------------------------------------------------------------------- what it rests on


def test_a_fact_is_one_of_three_and_names_a_field_that_there_is() -> None:
    for fact, says in (
        ({}, "one of read, derived and assumed, and only one"),
        ({"read": "a", "assumed": "b"}, "and only one"),
        ({"read": "a", "settle": "b"}, "goes with what is assumed"),
    ):
        with pytest.raises(HostError, match=says):
            read(facts={"relocation": fact})
    with pytest.raises(HostError, match=r"facts\.text\.end: a host file has no such field"):
        read(facts={"text.end": {"read": "a"}})
    assert read(facts={"text.virt": {"read": "a"}}).assumed() == ()


@pytest.mark.parametrize(
    ("assumed", "condition"),
    [
        ([], "It holds: from V to"),
        (["busy"], "It holds, if busy is as assumed: from V to"),
        (["busy", "private"], "It holds, if busy and private are as assumed: from V to"),
        (["busy", "private", "rsdp"], "It holds, if busy, private and rsdp are as assumed: from V"),
    ],
)
def test_a_verdict_says_what_it_rests_on_and_strictly_that_is_none(
    assumed: list[str], condition: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {name: {"assumed": f"how {name} is", "settle": "a look"} for name in assumed}
    path = tmp_path / "host.toml"
    path.write_text(write(document() | {"facts": facts | {"cpu": {"read": "/proc/cpuinfo"}}}))
    assert main(["rehearse", "--shipped", "--host", str(path), "-v"]) == 0
    said = capsys.readouterr().out
    assert condition in said
    for name in assumed:
        assert f"    {name}: how {name} is; it would be settled by a look" in said
    assert main(["rehearse", "--shipped", "--host", str(path), "--strict"]) == (2 if assumed else 0)


def test_what_falls_falls_strictly_too(tmp_path: Path) -> None:
    path = tmp_path / "host.toml"
    path.write_text(write(document() | {"facts": {"busy": {"assumed": "nothing"}}}))
    arguments = ["rehearse", "--shipped", "--host", str(path), "--sabotage", "no-v", "--strict"]
    assert main(arguments) == 1


def test_a_kernel_file_is_none_of_these(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(bzimage())
    assert main(["host", "check", str(path)]) == 2


@pytest.mark.parametrize(
    ("registers", "field", "problem"),
    [
        (
            {"cr0": 0x8004_0033, "cr4": 0x80_06F0},
            "cr0",
            "CR0.WP cannot be cleared while CR4.CET is set",
        ),
        ({"cr0": 0xA005_0033}, "cr0", "CR0.NW needs CR0.CD"),
        ({"cr4": 0x100_0037_06F0}, "cr4", "bits 0x10000000000 are reserved"),
    ],
)
def test_registers_that_no_cpu_can_have_together_are_refused(
    registers: dict[str, int], field: str, problem: str
) -> None:
    with pytest.raises(HostError, match=problem) as caught:
        read(registers=registers)
    assert caught.value.field == f"registers.{field}"
    right = {"cr0": 0x8005_0033, "cr4": registers.get("cr4", 0x37_06F0) & 0xFFFF_FFFF}
    assert read(registers=right).cr0 == right["cr0"]


def test_a_register_that_a_confidential_guest_cannot_have_is_refused() -> None:
    plain = {"cr0": 0x8005_0013}
    assert read(registers=plain).cr0 == plain["cr0"]
    with pytest.raises(HostError, match="NE cannot be cleared in a TDX guest") as caught:
        read(confidential="TDX", registers=plain)
    assert caught.value.field == "registers.cr0"
    assert read(confidential="TDX").efer == 0xD01


@pytest.mark.parametrize("name", ["pge", "pse"])
def test_a_bit_that_this_cpu_lacks_is_not_set(name: str) -> None:
    bit = {"pge": 0x80, "pse": 0x10}[name]
    small = {"direct_map": {"page_size": 0x1000}, "private": {"size": 0x400_0000}}
    with pytest.raises(
        HostError, match=f"{name.upper()} is set, and cpu.{name} is false"
    ) as caught:
        read(cpu={name: False}, busy=[], **small)
    assert caught.value.field == "registers.cr4"
    right = read(cpu={name: False}, registers={"cr4": 0x37_06F0 & ~bit}, busy=[], **small)
    assert getattr(right.cpu, name) is False


@pytest.mark.parametrize("kind", ["TDX", "SEV-SNP", "SEV-ES", "SEV"])
def test_what_is_not_known_of_a_confidential_guest_is_in_the_verdict_whoever_wrote_the_file(
    kind: str,
) -> None:
    (assumed,) = holds(read(confidential=kind)).assumed
    assert (assumed.field, kind in assumed.source) == ("confidential", True)
    assert assumed.settle
    settled = {"confidential": {"read": "the guest's own kernel, asked by hand"}}
    assert not holds(read(confidential=kind, facts=settled)).assumed
