"""The schema of host files: tables as dataclasses, read, written and exported; any host is read back."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated, Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.crash.hosts import crash_hosts
from tests.makers.hosts import document, hosts, mode_host
from tests.xen.runs import WAYS, Way, identifier
from tests.xen.runs import document as document_of_xen
from tightrope import host as host_room
from tightrope.cli import main
from tightrope.errors import HostError
from tightrope.host import profile
from tightrope.host.document import Document
from tightrope.host.schema import (
    At,
    Choice,
    Comments,
    Number,
    NumberOr,
    Says,
    Text,
    Texts,
    declares,
    json_schema,
    read_table,
    write_table,
)
from tightrope.memory import Extent
from tightrope.model import Basis, Confidential, CpuVendor, Fact, Host, Named, Paging


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    word: Annotated[str, Text("[a-z]*", "a word"), Says("what it says")]
    global_: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    size: Annotated[int, Number(low=4096, high=1 << 20, multiple=4096), Says("in bytes")]
    place: Annotated[int | None, NumberOr(number=Number(high=99), word="here", what="a place")]
    count: Annotated[int | None, Number(decimal=True)] = None
    colour: Annotated[Colour, Choice(Colour)] = Colour.RED
    one: Annotated[Inner | None, Says("a table")] = None
    many: Annotated[tuple[Inner, ...], Says(above="some tables")] = ()
    by_name: Mapping[str, Inner] = field(default_factory=dict)
    texts: Annotated[Mapping[str, str] | None, Texts()] = None

    def verify(self, at: At) -> None:
        if self.count == 13:
            (at / "count").refuse("is unlucky")


@dataclass(frozen=True, kw_only=True, slots=True)
class Open:
    OPEN: ClassVar[bool] = True

    size: Annotated[int, Number()]


GOOD: dict[str, object] = {"size": 4096, "place": "here"}


def read(**fields: object) -> Outer:
    return read_table(Outer, GOOD | fields, At("a.toml"))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"size": 4095}, "a.toml: size: 0xfff is too small (limit 0x1000)"),
        ({"size": 1 << 21}, "a.toml: size: 0x200000 is too large (limit 0x100000)"),
        ({"size": 5000}, "a.toml: size: 0x1388 is not a multiple of 0x1000"),
        ({"size": True}, "a.toml: size: expected a whole number, found true or false"),
        ({"place": "there"}, "a.toml: place: expected a place or 'here', found 'there'"),
        ({"place": 100}, "a.toml: place: 0x64 is too large (limit 0x63)"),
        ({"count": 13}, "a.toml: count: is unlucky"),
        ({"colour": "green"}, "a.toml: colour: 'green' is not one of red, blue"),
        ({"one": {}}, "a.toml: one.word: missing"),
        ({"one": {"word": "A"}}, "a.toml: one.word: 'A' is not a word"),
        ({"many": [{"word": "a"}, 3]}, "a.toml: many[1]: expected a table, found a number"),
        ({"many": {}}, "a.toml: many: expected an array of tables, found a table"),
        ({"by_name": {"x": {"word": 1}}}, "a.toml: by_name.x.word: expected text, found a number"),
        ({"by_name": []}, "a.toml: by_name: expected a table, found an array"),
        ({"texts": {"a\n": 1}}, "a.toml: texts.'a\\n': expected text, found a number"),
        ({"global": 1}, "a.toml: global: unknown field"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_place(
    fields: dict[str, object], says: str
) -> None:
    with pytest.raises(HostError) as caught:
        read(**fields)
    assert str(caught.value) == says


def test_a_table_that_is_open_lets_through_what_it_does_not_know() -> None:
    assert read_table(Open, {"size": 1, "colour": 2}, At("a")).size == 1
    with pytest.raises(HostError, match="size: missing"):
        read_table(Open, {"colour": 2}, At("a"))


WORDS = st.text("abc", max_size=4)
INNERS = st.builds(Inner, word=WORDS, global_=st.booleans())
OUTERS = st.builds(
    Outer,
    size=st.integers(1, 256).map(lambda n: n * 4096),
    place=st.none() | st.integers(0, 99),
    count=st.none() | st.integers(0, 12),
    colour=st.sampled_from(Colour),
    one=st.none() | INNERS,
    many=st.lists(INNERS, max_size=3).map(tuple),
    by_name=st.dictionaries(st.text(max_size=5), INNERS, max_size=3),
    texts=st.none()
    | st.dictionaries(st.text(max_size=4), st.text(max_size=5).filter(str.isprintable), max_size=2),
)
COMMENT = st.text(st.characters(codec="utf-8"), max_size=20)


@given(outer=OUTERS, beside=COMMENT, samples=st.none() | OUTERS)
def test_what_is_written_is_read_back_whatever_its_comments_say(
    outer: Outer, beside: str, samples: Outer | None
) -> None:
    said = Comments(beside={"size": beside, "one": beside, "many[1]": beside})
    text = "\n".join(write_table(outer, "", said, samples)) + "\n"
    assert read_table(Outer, tomllib.loads(text), At("a")) == outer


def test_a_path_is_declared_or_is_not() -> None:
    assert all(declares(Outer, path) for path in ("size", "one", "one.word", "one.global"))
    assert not any(declares(Outer, path) for path in ("", "x", "size.x", "one.x", "many.word"))


# ----------------------------------------------------------------------------------------- hosts


def plain(old: Host) -> Host:
    return replace(old, source="it", xen=None)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(old=hosts() | crash_hosts())
def test_any_host_is_written_and_read_back(old: Host) -> None:
    assert host_room.read(host_room.write(old, ["A host."]), "it") == plain(old)


@pytest.mark.parametrize("paging", list(Paging))
def test_every_field_is_written_and_read_back(paging: Paging) -> None:
    named = (Named(extent=Extent(0x200_0000, 0x200_0801), what='a "quote" and a \\'),)
    made = mode_host(paging)
    old = replace(
        made,
        cpu=replace(made.cpu, vendor=CpuVendor.AMD, guest=Confidential.SNP),
        crash_notes=named,
        crash_memory=(Named(extent=Extent(0x300_0000, 0x400_0000), what="low"),),
        preserved=named,
        firmware=named,
        screen=bytes(range(64)),
        facts=tuple(
            Fact(field=name, basis=basis, source='a "file"', settle=settle)
            for name, basis, settle in (
                ("text.virt", Basis.READ, ""),
                ("busy", Basis.DERIVED, ""),
                ("private", Basis.ASSUMED, "a look"),
                ("confidential", Basis.READ, ""),
            )
        ),
    )
    assert host_room.read(host_room.write(old, ["A host."]), "it") == plain(old)


@pytest.mark.parametrize("way", WAYS, ids=identifier)
def test_a_hypervisor_is_written_and_read_back_with_its_p2m(way: Way) -> None:
    """Frames that lie anywhere are a line each; one dom0 is as large as the example."""
    large = way == WAYS[3]
    text = document_of_xen(way)
    assert text.count("\npages = 0x1_0000 ") == 1
    text = text if large else text.replace("\npages = 0x1_0000 ", "\npages = 0x3100 ")
    old = host_room.read(text, "a hypervisor")
    again = host_room.read(host_room.write(old, ["A hypervisor."]), "it")
    assert plain(again) == plain(old)
    assert old.xen is not None
    assert again.xen is not None
    assert (again.xen.dom0.p2m.frames == old.xen.dom0.p2m.frames).all()
    same = replace(again.xen.dom0, p2m=old.xen.dom0.p2m)
    assert replace(again.xen, dom0=same) == old.xen


def breaches(value: object, rule: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """What of a document JSON Schema forbids, as far as the exported schema uses it."""
    if "anyOf" in rule:
        if all(any(breaches(value, one, path)) for one in rule["anyOf"]):
            yield path
    elif "enum" in rule:
        if value not in rule["enum"]:
            yield path
    elif "const" in rule:
        if value != rule["const"]:
            yield path
    elif rule["type"] == "object":
        assert isinstance(value, dict)
        yield from (f"{path}.{key}" for key in rule.get("required", ()) if key not in value)
        for key, each in value.items():
            inner = rule.get("properties", {}).get(key, rule["additionalProperties"])
            if inner is False:
                yield f"{path}.{key}"
            else:
                yield from breaches(each, inner, f"{path}.{key}")
    elif rule["type"] == "array":
        assert isinstance(value, list)
        for number, each in enumerate(value):
            yield from breaches(each, rule["items"], f"{path}[{number}]")
    elif rule["type"] == "integer":
        low, high, step = rule["minimum"], rule["maximum"], rule.get("multipleOf", 1)
        if type(value) is not int or not low <= value <= high or value % step:
            yield path
    else:
        kinds: dict[str, type] = {"string": str, "boolean": bool}
        if type(value) is not kinds[rule["type"]]:
            yield path


def test_the_exported_schema_takes_every_example_and_no_unknown_field(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rule = host_room.schema()
    for paging in Paging:
        assert not list(breaches(tomllib.loads(host_room.example(paging)), rule))
    assert not list(breaches(tomllib.loads(host_room.xen_example()), rule))
    assert list(breaches(document() | {"colour": 1}, rule)) == [".colour"]
    assert list(breaches(document() | {"rsdp": -1}, rule)) == [".rsdp"]
    assert list(breaches(document() | {"relocation": "there"}, rule)) == [".relocation"]
    assert json_schema(Inner)["properties"] == {
        "word": {"type": "string", "pattern": "^[a-z]*$", "description": "what it says"},
        "global": {"type": "boolean"},
    }
    assert main(["host", "schema"]) == 0
    assert '"https://json-schema.org/draft/2020-12/schema"' in capsys.readouterr().out


# ---------------------------------------------------------------------------- a huge hypervisor


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pages": 1 << 40}, "xen.dom0.pages: 0x10000000000 is too large (limit 0x400000)"),
        (
            {"text_size": 1 << 50, "tables": {"start": 0x20_0000, "size": 0x4_0000}},
            "xen.dom0.text_start: the p2m has a hole at pseudo-physical 0x10000000",
        ),
        (
            {"tables": {"start": 0x300_0000, "size": 1 << 51}},
            "xen.dom0.tables: the p2m has a hole at pseudo-physical 0x10000000",
        ),
        (
            {"hole": [{"start": 1 << 40, "size": 4096}]},
            "xen.dom0.hole: [0x10000000000, 0x10000001000) is beyond dom0's 0x10000 pages",
        ),
    ],
)
def test_a_huge_dom0_is_refused_by_its_field_before_anything_is_made(
    changes: dict[str, Any], says: str
) -> None:
    table = tomllib.loads(host_room.xen_example())
    table["xen"]["dom0"] |= changes
    with pytest.raises(HostError) as caught:
        profile.host_of(read_table(Document, table, At("it")), "it")
    assert says in str(caught.value)


def test_a_p2m_far_away_is_refused_by_its_field() -> None:
    table = tomllib.loads(host_room.xen_example())
    dom0 = table["xen"]["dom0"]
    del dom0["pages"], dom0["seed"], dom0["hole"]
    run = {"pseudo": 1 << 43, "machine": 0x1000_0000, "size": 4096}
    dom0["p2m"] = [run]
    with pytest.raises(HostError, match=r"xen\.dom0\.p2m\[0\]\.pseudo: .* is more than a dom0"):
        read_table(Document, table, At("it"))
