"""host.notes: what lies at a host's crash notes, read by the note readers of pyelftools and vmcore."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from tests.crash.hosts import LEGACY, example
from tests.makers.hosts import PAGE, document, write
from tests.vmcore.cores import elf_core
from tightrope import host as host_room
from tightrope import world as world_room
from tightrope.errors import HostError
from tightrope.host.examples import PAGE_OFFSETS
from tightrope.memory import Extent
from tightrope.model import Code, Host, Named, Paging, World

MODES = pytest.mark.parametrize("paging", list(Paging))
CODE = Code(name="code", data=b"\x90" * 64, symbols={})


def world_of(old: Host) -> World:
    return world_room.lay(old, CODE)


def bytes_at(world: World, extent: Extent) -> bytes:
    """What the pieces put into an extent."""
    out = bytearray(extent.size)
    for piece in world.pieces:
        if extent.covers(piece.extent):
            at = piece.phys - extent.start
            out[at : at + len(piece.data)] = piece.data
    return bytes(out)


def notes_of(old: Host) -> list[dict[str, Any]]:
    """The notes as an ELF reader sees them, of each place those before one without a name.

    So does Linux, fs/proc/vmcore.c, update_note_header_size_elf64: zeros fill each place up, and behind them a
    described kernel may have more.
    """
    world = world_of(old)
    bits = 32 if old.paging in LEGACY else 64
    found: list[dict[str, Any]] = []
    for place in old.crash_notes:
        data = bytes_at(world, place.extent)
        elf: Any = ELFFile(io.BytesIO(elf_core([], data, bits=bits)))
        (segment,) = elf.iter_segments("PT_NOTE")
        found += itertools.takewhile(lambda note: note["n_name"], segment.iter_notes())
    return found


def lines_of(old: Host) -> dict[str, str]:
    (note,) = [each for each in notes_of(old) if each["n_name"] == "VMCOREINFO"]
    text = note["n_descdata"].decode()
    assert text.endswith("\n")
    return dict(line.split("=", 1) for line in text.splitlines())


@MODES
def test_the_example_leaves_a_cpu_and_vmcoreinfo(paging: Paging) -> None:
    found = notes_of(example(paging))
    assert [each["n_name"] for each in found] == ["CORE", "VMCOREINFO"]
    assert found[0]["n_type"] in ("NT_PRSTATUS", 1)
    assert found[0]["n_descsz"] == (144 if paging in LEGACY else 336)


@MODES
def test_vmcoreinfo_says_where_the_tables_are_and_in_which_format(paging: Paging) -> None:
    old = example(paging)
    lines = lines_of(old)
    pgd = world_of(old).pgd
    assert lines["OSRELEASE"]
    assert lines["PAGESIZE"] == "4096"
    # A 64-bit kernel has its pgd in its image; an i386's image is in the direct map.
    beside = old.direct_map.virt if paging in LEGACY else old.text.virt - old.text.phys
    assert int(lines["SYMBOL(swapper_pg_dir)"], 16) == beside + pgd
    assert int(lines["SYMBOL(_stext)"], 16) == old.text.virt
    assert ("CONFIG_X86_PAE" in lines) == (paging is Paging.PAE)
    if paging in LEGACY:
        assert "NUMBER(phys_base)" not in lines
        return
    base = int(lines["NUMBER(phys_base)"])
    assert old.text.virt - 0xFFFF_FFFF_8000_0000 + base == old.text.phys
    assert lines["NUMBER(pgtable_l5_enabled)"] == str(int(paging is Paging.LA57))
    assert int(lines["KERNELOFFSET"], 16) == old.text.virt - 0xFFFF_FFFF_8100_0000


@given(start=st.integers(0x500_0000, 0x600_0000), size=st.integers(0x170, 3 * PAGE))
def test_a_note_may_lie_anywhere_and_is_laid_page_by_page(start: int, size: int) -> None:
    place = Extent.sized(start, size)
    old = replace(example(), crash_notes=(Named(extent=place, what="CPU 0"),))
    world = world_of(old)
    pieces = [each for each in world.pieces if each.what.endswith("CPU 0")]
    assert [frame for each in pieces for frame in each.extent.pages] == list(place.pages)
    assert sum(len(each.data) for each in pieces) == size
    elsewhere = replace(
        old, crash_notes=(Named(extent=Extent.sized(0x500_0000, size), what="CPU 0"),)
    )
    other = bytes_at(world_of(elsewhere), Extent.sized(0x500_0000, size))
    assert bytes_at(world, place) == other


def test_every_cpu_but_the_first_has_zeros() -> None:
    cpus = tuple(
        Named(extent=Extent.sized(0x500_0000 + n * PAGE, 0x200), what=f"CPU {n}") for n in range(3)
    )
    found = notes_of(replace(example(), crash_notes=cpus))
    assert [each["n_name"] for each in found] == ["CORE"] * 3
    world = world_of(replace(example(), crash_notes=cpus))
    data = [bytes_at(world, each.extent)[20:] for each in cpus]
    assert any(data[0])
    assert not any(data[1])
    assert not any(data[2])


@MODES
@pytest.mark.parametrize("number", [0, 1])
def test_a_note_without_room_is_refused(paging: Paging, number: int) -> None:
    old = example(paging)
    notes = list(old.crash_notes)
    place = notes[number].extent
    notes[number] = replace(notes[number], extent=Extent.sized(place.start, 0x40))
    with pytest.raises(HostError, match=r"needs 0x[0-9a-f]+ bytes") as caught:
        world_of(replace(old, crash_notes=tuple(notes)))
    assert caught.value.field == f"crash_note[{number}].size"


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (0xC_0000, "is not all RAM"),
        (0xBFFD_8F00, "is not all RAM"),
        (0x2E20_0000, "overlaps the kernel text"),
        (0x31FF_FF00, "overlaps private"),
        (0x32FF_FF00, "overlaps the crash region"),
        (0x500_0100, "overlaps crash_note[0]"),
    ],
)
def test_a_note_that_lies_in_what_is_somebodys_is_refused(start: int, what: str) -> None:
    table = document()
    table["crash_region"] = {"start": 0x3300_0000, "size": 0x1000_0000}
    good = {"start": 0x500_0000, "size": 0x200, "what": "CPU 0"}
    table["crash_note"] = [good]
    assert len(host_room.read(write(table), "a.toml").crash_notes) == 1
    table["crash_note"] = [good, good | {"start": start}]
    with pytest.raises(HostError) as caught:
        host_room.read(write(table), "a.toml")
    assert caught.value.field == "crash_note[1]"
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("region", "notes"),
    [
        (Extent.sized(0x3300_0000, 0x1000_0000), 0x210_0000),
        (Extent.sized(0x100_0000, 0x200_0000), 0x6000_0000),
        (Extent.sized(0x210_1000, 0x100_0000), 0x6000_0000),
    ],
)
def test_the_examples_notes_keep_out_of_the_region(region: Extent, notes: int) -> None:
    old = example(Paging.X86_64, region)
    assert [each.extent.start for each in old.crash_notes] == [notes, notes + PAGE]
    assert any(busy.extent.covers(old.crash_notes[0].extent) for busy in old.busy)


@pytest.mark.parametrize("paging", LEGACY)
@pytest.mark.parametrize("split", PAGE_OFFSETS)
def test_notes_are_there_with_every_split(paging: Paging, split: int) -> None:
    assert len(notes_of(example(paging, split=split))) == 2


def test_an_example_without_a_region_has_no_notes() -> None:
    assert example(region=None).crash_notes == ()
