"""host.read: a document becomes the host it describes, or an error that says which field is wrong.

Documents are the example with one thing changed, written as TOML by the maker.
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.makers.hosts import Document, document, write
from tightrope import host
from tightrope.errors import HostError
from tightrope.memory import Extent, Phys, RegionKind, Virt
from tightrope.model import Host, LowMapping, Named, Paging


def read(table: Document) -> Host:
    return host.read(write(table), "a.toml")


def put(table: Document, path: str, value: object) -> None:
    """Change one field; `busy.0.what` is field `what` of the first `[[busy]]`."""
    *above, last = path.split(".")
    at: Any = table
    for step in above:
        at = at[int(step)] if isinstance(at, list) else at[step]
    at[int(last) if isinstance(at, list) else last] = value


def refused(table: Document) -> HostError:
    with pytest.raises(HostError) as caught:
        read(table)
    assert caught.value.source == "a.toml"
    assert str(caught.value).startswith("a.toml: ")
    assert "\n" not in str(caught.value)
    return caught.value


# -------------------------------------------------------------------------------- what is read


def test_the_example_is_the_host_that_its_comments_describe() -> None:
    read = host.read(host.example(), "example")
    assert read.source == "example"
    assert read.paging is Paging.X86_64
    assert (read.cr0, read.cr4, read.efer) == (0x80050033, 0x3706F0, 0xD01)
    assert read.relocation == 0xFFFF_FFFF_9AC0_1000
    assert (read.text.virt, read.text.phys, read.text.size) == (
        0xFFFF_FFFF_9A20_0000,
        0x2E20_0000,
        0x2E0_0000,
    )
    assert (read.direct_map.virt, read.direct_map.page_size) == (0xFFFF_9A58_4000_0000, 0x20_0000)
    assert read.private == Extent(0x3100_0000, 0x3200_0000)
    assert read.cpu.physical_bits == 46
    assert read.cpu.nx
    assert read.cpu.gbpages
    assert not read.cpu.la57
    assert read.rsdp == 0xF5A40
    assert read.crash_region is None
    assert read.low_mappings == ()
    assert read.memory.ram == (
        Extent(0, 0x9FC00),
        Extent(0x100000, 0xBFFD9000),
        Extent(1 << 32, (1 << 32) + (1 << 30)),
    )
    assert read.memory.kind_at(0xBFFD9000) is RegionKind.ACPI
    assert [each.what for each in read.busy] == ["slab and page cache", "user memory"]
    assert read.firmware == (
        Named(extent=Extent(0xF0000, 0x100000), what="BIOS area with the RSDP"),
    )


def test_a_written_document_is_read_as_the_example_itself() -> None:
    assert read(document()) == host.read(host.example(), "a.toml")


def test_what_is_optional_may_be_there() -> None:
    table = document()
    table["crash_region"] = {"start": 0x3300_0000, "size": 0x1000_0000}
    table["mapping"] = [{"virt": 0x20000, "phys": 0x30000, "size": 0x1000, "global": True}]
    got = read(table)
    assert got.crash_region == Extent(0x3300_0000, 0x4300_0000)
    assert got.low_mappings == (
        LowMapping(virt=Virt(0x20000), phys=Phys(0x30000), size=0x1000, is_global=True),
    )


@pytest.mark.parametrize("key", ["busy", "firmware", "rsdp"])
def test_what_is_optional_may_be_missing(key: str) -> None:
    table = document()
    del table[key]
    assert getattr(read(table), key) in ((), None)


# ----------------------------------------------------------------------------- what is refused

GAPS: dict[str, object] = {"start": 0xC0A0_0000, "size": 0x1000}
CRASH: dict[str, object] = {"start": 0x3300_0000, "size": 0x1000_0000}
MAPPING: dict[str, object] = {"virt": 0x2_0000, "phys": 0x2_0000, "size": 0x1000, "global": False}
FIRMWARE: dict[str, object] = {"start": 0xF_0000, "size": 0x1_0000, "what": "x"}

WRONG: list[tuple[str, object, str, str]] = [
    # wrong type
    ("paging", 64, "paging", "expected text, found a number"),
    ("relocation", "0x1000", "relocation", "expected an address or 'direct map', found '0x1000'"),
    ("relocation", True, "relocation", "expected a whole number, found true or false"),
    ("relocation", 1.5, "relocation", "expected a whole number, found a fraction"),
    ("rsdp", [], "rsdp", "expected a whole number, found an array"),
    ("rsdp", datetime.date(2006, 5, 2), "rsdp", "expected a whole number, found date"),
    ("cpu", 7, "cpu", "expected a table, found a number"),
    ("cpu.nx", 1, "cpu.nx", "expected true or false, found a number"),
    ("cpu.gbpages", "no", "cpu.gbpages", "expected true or false, found text"),
    ("memory", {}, "memory", "expected an array of tables, found a table"),
    ("memory.2", 3, "memory[2]", "expected a table, found a number"),
    ("memory.2.start", {}, "memory[2].start", "expected a whole number, found a table"),
    ("busy", "none", "busy", "expected an array of tables, found text"),
    ("busy.1.what", 5, "busy[1].what", "expected text, found a number"),
    ("firmware.0.what", "two\nlines", "firmware[0].what", "expected printable text on one line"),
    ("private", [], "private", "expected a table, found an array"),
    # unknown fields
    ("colour", 1, "colour", "unknown field"),
    ("two\nlines", 1, "'two\\nlines'", "unknown field"),
    ("", 1, "''", "unknown field"),
    ("cpu.speed", 1, "cpu.speed", "unknown field"),
    ("registers.cr3", 1, "registers.cr3", "unknown field"),
    ("text.end", 1, "text.end", "unknown field"),
    ("direct_map.end", 1, "direct_map.end", "unknown field"),
    ("direct_map.size", 1, "direct_map.size", "0x1 is not a multiple of 0x1000"),
    ("direct_map.size", 0x1000, "private", "is not in the direct map, which ends at 0x1000"),
    ("private.what", "x", "private.what", "unknown field"),
    ("memory.1.what", "x", "memory[1].what", "unknown field"),
    ("busy.0.kind", "ram", "busy[0].kind", "unknown field"),
    ("crash_region", CRASH | {"what": "x"}, "crash_region.what", "unknown field"),
    ("mapping", [MAPPING | {"what": "x"}], "mapping[0].what", "unknown field"),
    ("firmware.0.kind", "acpi", "firmware[0].kind", "unknown field"),
    # wrong choice
    ("paging", "pse36", "paging", "is not one of i386, pae, x86_64, la57"),
    ("paging", "pae", "relocation", "runs past 4 GiB"),
    ("paging", "la57", "registers.cr4", "lacks LA57"),
    ("memory.0.kind", "RAM", "memory[0].kind", "is not one of ram, reserved"),
    # out of bounds
    ("cpu.physical_bits", 31, "cpu.physical_bits", "too small"),
    ("cpu.physical_bits", 53, "cpu.physical_bits", "too large"),
    ("relocation", -1, "relocation", "too small"),
    ("relocation", 1 << 64, "relocation", "too large"),
    ("registers.cr0", 1 << 32 | 0x80050033, "registers.cr0", "too large"),
    ("registers.cr4", 1 << 64 | 0x20, "registers.cr4", "too large"),
    ("registers.cr4", 1 << 33 | 0x20, "registers.cr4", "bits 0x200000000 are reserved"),
    ("registers.efer", 1 << 64 | 0xD01, "registers.efer", "too large"),
    ("registers.efer", 1 << 32 | 0xD01, "registers.efer", "bits 0x100000000 are reserved"),
    ("text.phys", 1 << 52, "text.phys", "too large"),
    ("text.size", 0, "text.size", "too small"),
    ("memory.0.size", 0, "memory[0].size", "too small"),
    ("private.size", 0, "private.size", "too small"),
    (
        "memory.8",
        {"start": (1 << 52) - 1, "size": 2, "kind": "ram"},
        "memory[8].size",
        "beyond any",
    ),
    ("memory.8.size", 1 << 46, "memory[8].size", "beyond cpu.physical_bits"),
    ("firmware.0.start", 1 << 46, "firmware[0]", "beyond cpu.physical_bits"),
    ("rsdp", 1 << 46, "rsdp", "beyond cpu.physical_bits"),
    ("mapping", [MAPPING | {"phys": 1 << 46}], "mapping[0].phys", "beyond cpu.physical_bits"),
    # not aligned
    ("relocation", 0xFFFF_FFFF_9AC0_1010, "relocation", "not a multiple of 0x1000"),
    ("text.virt", 0xFFFF_FFFF_9A20_1000, "text.virt", "not a multiple of 0x200000"),
    ("text.phys", 0x2E20_1000, "text.phys", "not a multiple of 0x200000"),
    ("text.size", 0x2E0_1000, "text.size", "not a multiple of 0x200000"),
    ("direct_map.virt", 0xFFFF_9A58_4000_1000, "direct_map.virt", "not a multiple of 0x200000"),
    ("private.start", 0x3100_0800, "private.start", "not a multiple of 0x1000"),
    ("private.size", 0x100_0800, "private.size", "not a multiple of 0x1000"),
    ("crash_region", CRASH | {"size": 5}, "crash_region.size", "not a multiple of 0x1000"),
    ("mapping", [MAPPING | {"virt": 1}], "mapping[0].virt", "not a multiple of 0x1000"),
    ("mapping", [MAPPING | {"phys": 1}], "mapping[0].phys", "not a multiple of 0x1000"),
    ("mapping", [MAPPING | {"size": 1}], "mapping[0].size", "not a multiple of 0x1000"),
    # page sizes
    ("direct_map.page_size", 0x40_0000, "direct_map.page_size", "is not a page size of this CPU"),
    # not canonical
    ("relocation", 0x8000_0000_0000, "relocation", "not canonical"),
    ("text.virt", 0x8000_0000_0000, "text.virt", "not canonical"),
    ("direct_map.virt", 0xFFFF_0000_0000_0000, "direct_map.virt", "not canonical"),
    ("mapping", [MAPPING | {"virt": 1 << 47}], "mapping[0].virt", "not canonical"),
    ("text.virt", 0xFFFF_FFFF_FFE0_0000, "text.virt", "runs out of the canonical"),
    ("text.virt", 0x7FFF_FFE0_0000, "text.virt", "runs out of the canonical"),
    ("direct_map.virt", 0xFFFF_FFFF_0000_0000, "direct_map.virt", "runs out of the canonical"),
    ("direct_map.virt", 0x7FFF_0000_0000, "direct_map.virt", "runs out of the canonical"),
    (
        "mapping",
        [MAPPING, MAPPING | {"virt": (1 << 47) - 0x1000, "size": 0x2000}],
        "mapping[1].virt",
        "runs out of the canonical",
    ),
    # the map of the memory
    ("memory.1.start", 0x9FBFF, "memory[1].start", "below the end of the entry before it"),
    ("memory.3.start", 0, "memory[3].start", "below the end of the entry before it"),
    ("memory", [], "memory", "there is no RAM"),
    ("memory", [{"start": 0, "size": 1, "kind": "acpi"}], "memory", "there is no RAM"),
    # fields that contradict one another
    ("relocation", 0xFFFF_FFFF_9D00_0000, "relocation", "is not inside the kernel text"),
    ("relocation", 0xFFFF_FFFF_9A1F_F000, "relocation", "is not inside the kernel text"),
    ("text.phys", 0xBFE0_0000, "text", "is not all RAM"),
    ("text.phys", 0x5_0000_0000, "text", "is not all RAM"),
    ("private.start", 0xBFFD_8000, "private", "is not all RAM"),
    ("private.start", 0x30F0_0000, "private", "overlaps the kernel text"),
    ("crash_region", GAPS, "crash_region", "is not all RAM"),
    ("crash_region", CRASH | {"start": 0x2E20_0000}, "crash_region", "overlaps the old kernel"),
    ("crash_region", CRASH | {"start": 0x31FF_F000}, "crash_region", "overlaps the old kernel"),
    ("busy.1.start", 0xBFFD_9000, "busy[1]", "is not all RAM"),
    ("firmware.0.start", 0x2E20_0000, "firmware[0]", "overlaps the kernel text"),
    ("firmware.0.start", 0x30FF_8000, "firmware[0]", "overlaps the kernel text"),
    ("firmware.0.start", 0x31FF_F000, "firmware[0]", "overlaps private"),
    # registers
    ("registers.cr0", 0x0005_0033, "registers.cr0", "lacks PG,"),
    ("registers.cr0", 0x8005_0032, "registers.cr0", "lacks PE,"),
    ("registers.cr4", 0x37_06D0, "registers.cr4", "lacks PAE"),
    ("registers.efer", 0x901, "registers.efer", "lacks LMA,"),
    ("registers.efer", 0xC01, "registers.efer", "lacks LME,"),
    ("registers.cr4", 0x37_16F0, "registers.cr4", "has LA57"),
    ("registers.cr4", 0x37_26F0, "registers.cr4", "VMXE is set"),
    ("registers.cr4", 0x37_86F0, "registers.cr4", "bits 0x8000 are reserved"),
    ("registers.cr4", 0x8037_06F0, "registers.cr4", "bits 0x80000000 are reserved"),
    ("cpu.nx", False, "registers.efer", "cpu.nx is false"),
]


@pytest.mark.parametrize(
    ("path", "value", "field", "problem"),
    WRONG,
    ids=[f"{n}-{row[2]}" for n, row in enumerate(WRONG)],
)
def test_a_wrong_field_is_named(path: str, value: object, field: str, problem: str) -> None:
    table = document()
    read(table)
    put(table, path, value)
    err = refused(table)
    assert err.field == field
    assert problem in str(err)


def every_field() -> list[tuple[str, str]]:
    """(path, how an error names it) of every field of the example that has to be there."""
    found = [(key, key) for key in ("paging", "relocation")]
    for name in ("cpu", "registers", "text", "direct_map", "private"):
        found += [(name, name)]
        found += [(f"{name}.{key}", f"{name}.{key}") for key in document()[name]]
    for name in ("memory", "busy", "firmware"):
        found += [(f"{name}.0.{key}", f"{name}[0].{key}") for key in document()[name][0]]
    return found


@pytest.mark.parametrize(("path", "field"), every_field())
def test_a_missing_field_is_named(path: str, field: str) -> None:
    table = document()
    *above, last = path.split(".")
    at: Any = table
    for step in above:
        at = at[int(step)] if isinstance(at, list) else at[step]
    del at[last]
    err = refused(table)
    assert (err.field, err.problem) == (field, "missing")


def test_a_gib_page_needs_a_cpu_that_has_it() -> None:
    table = document()
    table["direct_map"] = {"virt": 0xFFFF_8880_0000_0000, "page_size": 1 << 30}
    assert read(table).direct_map.page_size == 1 << 30
    table["cpu"]["gbpages"] = False
    assert refused(table).field == "direct_map.page_size"


def test_v_may_be_the_last_page_of_the_text_and_no_further() -> None:
    table = document()
    last = table["text"]["virt"] + table["text"]["size"] - 0x1000
    table["relocation"] = last
    assert read(table).relocation == last
    table["relocation"] = last + 0x1000
    assert refused(table).field == "relocation"


@pytest.mark.parametrize("paging", list(Paging))
def test_a_mapping_may_end_with_the_last_address_and_not_behind_it(paging: Paging) -> None:
    table = tomllib.loads(host.example(paging))
    top = 1 << (64 if paging.long_mode else 32)
    table["mapping"] = [MAPPING | {"virt": top - 0x1000}]
    assert read(table).low_mappings[0].virt == top - 0x1000
    table["mapping"] = [MAPPING | {"virt": top - 0x1000, "size": 0x2000}]
    assert refused(table).field == "mapping[0].virt"


def test_the_limit_is_the_bound_that_was_broken() -> None:
    table = document()
    table["cpu"]["physical_bits"] = 53
    assert refused(table).limit == 52
    table["cpu"]["physical_bits"] = 32
    assert refused(table).limit == 1 << 32


@pytest.mark.parametrize(
    "text",
    [
        "paging = ",
        "paging",
        "paging = 'x86_64'\npaging = 'x86_64'",
        "\0\x01\x02",
        "\x7fELF\x02\x01\x01",
        "a = " + "[" * 100_000,
        "a = " + "{a=" * 100_000,
        "a = " + "9" * 5000,
        "a = 2006-02-31",
        "\ufeff" + host.example(),
    ],
    ids=["cut", "no-value", "twice", "zeros", "elf", "arrays", "tables", "digits", "date", "bom"],
)
def test_what_is_not_toml_is_refused_as_a_whole(text: str) -> None:
    with pytest.raises(HostError, match="not TOML") as caught:
        host.read(text, "a.toml")
    assert (caught.value.source, caught.value.field) == ("a.toml", None)
    assert "\n" not in str(caught.value)


def test_an_empty_document_lacks_its_first_field() -> None:
    with pytest.raises(HostError, match=r"^a\.toml: paging: missing$"):
        host.read("", "a.toml")


# ----------------------------------------------------------------------------- any text, any value


def host_or_error(text: str) -> None:
    error: HostError | None = None
    try:
        assert isinstance(host.read(text, "a.toml"), Host)
    except HostError as err:
        error = err
    if error is not None:
        assert error.source == "a.toml"
        assert str(error).isprintable()


@given(text=st.text() | st.text("abc=[]{}\"'\n.#_0123456789xt-:", max_size=60))
@example('"\\n" = 1')
@example("a = 0x" + "f" * 5000)
def test_any_text_is_a_host_or_a_host_error(text: str) -> None:
    host_or_error(text)


@given(cut=st.integers(0, len(host.example())), insert=st.text(max_size=3), drop=st.integers(0, 9))
def test_the_example_with_any_edit_is_a_host_or_a_host_error(
    cut: int, insert: str, drop: int
) -> None:
    text = host.example()
    host_or_error(text[:cut] + insert + text[cut + drop :])


def leaves(value: object, path: str = "") -> list[str]:
    """The paths of everything in a document, tables and arrays included."""
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))
    found = [path] if path else []
    for key in keys:
        found += leaves(value[key], f"{path}.{key}" if path else str(key))  # type: ignore[index]
    return found


def full_document() -> Document:
    return document() | {"crash_region": dict(CRASH), "mapping": [dict(MAPPING)]}


SCALARS = (
    st.integers(-(1 << 70), 1 << 70)
    | st.integers(0, 64).map(lambda bit: 1 << bit)
    | st.integers(0, 64).map(lambda bit: (1 << 64) - (1 << bit))
    | st.booleans()
    | st.floats()
    | st.text(max_size=8)
    | st.datetimes()
)
ANY_VALUE = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(path=st.sampled_from(leaves(full_document())), value=ANY_VALUE)
def test_the_example_with_any_field_replaced_is_a_host_or_a_host_error(
    path: str, value: object
) -> None:
    table = full_document()
    put(table, path, value)
    host_or_error(write(table))


def at(table: Document, path: str) -> object:
    found: Any = table
    for step in path.split("."):
        found = found[int(step)] if isinstance(found, list) else found[step]
    return found


NUMBERS = [each for each in leaves(full_document()) if type(at(full_document(), each)) is int]


@given(
    path=st.sampled_from(NUMBERS),
    change=st.sampled_from(
        [
            lambda value: value + 1,
            lambda value: value - 1,
            lambda value: value + 0x1000,
            lambda value: value << 21,
            lambda value: value | 1 << 47,
            lambda value: value >> 1,
        ]
    ),
)
def test_a_number_that_is_a_little_off_gives_a_host_that_keeps_the_rules_or_an_error(
    path: str, change: Callable[[int], int]
) -> None:
    table = full_document()
    number = at(table, path)
    assert isinstance(number, int)
    put(table, path, change(number))
    try:
        got = read(table)
    except HostError:
        refused(table)
        return
    text = Extent.sized(got.text.phys, got.text.size)
    assert got.crash_region is not None
    for own in (text, got.private, got.crash_region):
        assert any(ram.covers(own) for ram in got.memory.ram)
    assert not text.overlaps(got.private)
    assert not text.overlaps(got.crash_region)
    assert not got.private.overlaps(got.crash_region)
    assert got.relocation is not None
    assert got.relocation % 4096 == 0
    assert 0 <= got.relocation - got.text.virt <= got.text.size - 4096
