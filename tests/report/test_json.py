"""Every document names its schema, and is what the exported schema says; an error is a document, too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.test_arguments import Shell, tightrope
from tests.conftest import debian_kernel
from tests.makers.bzimage import bzimage
from tests.makers.elf import elf
from tests.perform.fake import FakeXen
from tests.perform.fake_linux import FakeLinux
from tests.rehearse.runs import sound
from tests.vmcore.cores import crashed
from tightrope.cli.parser import parser
from tightrope.cli.shells import actions
from tightrope.errors import BadInput, MissingPart
from tightrope.host import example
from tightrope.memory import Extent, Virt
from tightrope.model import Step
from tightrope.model.watched import Heard, Passed, Watched
from tightrope.perform import privcmd
from tightrope.perform.linux import calls, state
from tightrope.prove import run
from tightrope.report import json as documents
from tightrope.report.schema import schema
from tightrope.views.every import SHAPES

__all__ = ["tightrope"]
"""The fixture, which pytest finds here."""

TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def breaches(
    value: object, rule: dict[str, Any], top: dict[str, Any], at: str = ""
) -> Iterator[str]:
    """Where a value is not what a schema says: as much of draft 2020-12 as ours use."""
    known = {"type", "properties", "required", "additionalProperties", "items", "anyOf", "$ref"}
    assert set(rule) <= known | {"const", "$schema", "$id", "title", "$defs"}, rule
    if "$ref" in rule:
        rule = top["$defs"][rule["$ref"].removeprefix("#/$defs/")]
    if "anyOf" in rule:
        if all(any(breaches(value, each, top, at)) for each in rule["anyOf"]):
            yield f"{at}: none of the shapes"
        return
    if "const" in rule:
        if value != rule["const"]:
            yield f"{at}: not {rule['const']!r}"
        return
    right = TYPES[rule["type"]]
    if not isinstance(value, right) or (isinstance(value, bool) and bool not in right):
        yield f"{at}: {value!r} is no {rule['type']}"
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from breaches(each, rule["items"], top, f"{at}[{number}]")
    elif isinstance(value, dict):
        yield from (f"{at}.{key}: missing" for key in rule.get("required", ()) if key not in value)
        for key, each in value.items():
            inner = rule.get("properties", {}).get(key, rule["additionalProperties"])
            if inner is False:
                yield f"{at}.{key}: not in the schema"
            else:
                yield from breaches(each, inner, top, f"{at}.{key}")


def exported(tightrope: Shell, name: str) -> dict[str, Any]:
    """The schema that the command prints."""
    done = tightrope("schema", *name.split())
    assert (done.status, done.err) == (0, "")
    found: dict[str, Any] = json.loads(done.out)
    return found


THEOREMS: dict[str, tuple[str, ...]] = {
    "tables": ("--mode", "i386"),
    "designs": ("--mode", "i386"),
    "split": ("--mode", "i386"),
    "switch": ("--mode", "i386"),
    "copy": ("--mode", "i386"),
    "code": ("code.bin", "--mode", "x86_64"),
    "plan": ("--shipped",),
}
COMMANDS: dict[str, tuple[str, ...]] = {
    "rehearse": ("rehearse", "--shipped"),
    "rehearse heard": ("rehearse", "--shipped", "--until", "console"),
    "rehearse broken": ("rehearse", "--shipped", "--sabotage", "no-v"),
    "rehearse by xen": ("rehearse", "--shipped", "--xen", "v1"),
    "rehearse by segments": ("rehearse", "--shipped", "--xen", "v2"),
    "rehearse without tables": ("rehearse", "--shipped", "--mode", "i386"),
    "plan": ("plan", "--shipped"),
    "compare": ("compare", "--shipped"),
    "compare where one cannot be": ("compare", "--shipped", "--mode", "pae"),
    "agree": ("agree", "--count", "3", "--on", "emulator,unicorn"),
    "tables": ("tables", "--shipped"),
    "rules": ("rules",),
    "rule": ("rules", "table-a-rights"),
    "glossary": ("glossary",),
    "doctor": ("doctor",),
    "contracts": ("contracts",),
    "pairs": ("pairs", "--from", "kernel", "--to", "kernel"),
    "sweep": ("sweep", "--hosts", "host.toml", "--kernel", "kernel", "--workers", "1"),
    "hops": ("rehearse", "kernel", "--from", "old", "--hops", "1"),
    "sabotages": ("rehearse", "--sabotage", "list"),
    "inspect": ("inspect", "kernel"),
    "inspect elf": ("inspect", "vmlinux"),
    "explain": ("explain", "console"),
    "pgd": ("pgd", "core", "--print", "--diff", "core"),
    "dump info": ("dump", "info", "core", "--host", "host.toml"),
    "kdump capture": ("kdump", "capture", "core", "-o", "saved"),
    "kdump check": (
        *("kdump", "check", "--host", "crash.toml", "--kernel", "old"),
        *("--from", "old", "--append", "root=/dev/sda1"),
    ),
    "host check": ("host", "check", "host.toml"),
    "load": ("load", "written"),
    "exec": ("exec",),
    "unload": ("unload",),
    "status": ("status",),
    "refusals": ("refusals", "kernel"),
    "perform xen": ("perform", "xen"),
    "watch": ("watch", "--qmp", "no-socket", "--gdb", "no-socket"),
    "matrix": ("matrix", "kernel"),
    "prove mutants": ("prove", "--mutants"),
    **{f"prove {word}": ("prove", word, *more) for word, more in THEOREMS.items()},
    "error": ("plan", "no-such-kernel"),
}


def name_of(what: str) -> str:
    """The schema of one of them: the longest name that it begins with."""
    return max((each for each in (*SHAPES, "error") if what.startswith(each)), key=len)


IOMEM = b"""\
00001000-0009fbff : System RAM
00100000-bfffffff : System RAM
100000000-13fffffff : System RAM
"""


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these commands ask of a machine is answered by machines that are not there."""
    linux, xen = FakeLinux(), FakeXen()
    linux.files |= {"/sys/kernel/kexec_loaded": b"1\n", "/proc/iomem": IOMEM}
    monkeypatch.setattr(calls, "Linux", lambda: linux)
    monkeypatch.setattr(state, "machine_file", linux.file)
    dom0 = {"/sys/hypervisor/type": "xen\n", "/proc/xen/capabilities": "control_d\n"}
    monkeypatch.setattr(privcmd, "Privcmd", lambda: nullcontext(xen))
    monkeypatch.setattr("tightrope.cli.files.text_or_none", dom0.get)
    # A guest that was watched: what is said of it is the shipped kernel's rehearsal.
    monkeypatch.setattr("tightrope.deeds.watch.attached", lambda *_: nullcontext(None))
    monkeypatch.setattr("tightrope.deeds.watch.watch", lambda *_, **__: watched())
    # The first few of each kind: that all of them are killed is shown elsewhere.
    some = next(iter(run.MUTANTS))
    monkeypatch.setattr(run, "MUTANTS", (lambda: islice(some(), 2),))


def watched() -> Watched:
    passed = (
        Passed(name="the call", step=Step.CALL, rip=0x1000, cr3=0x2000, seconds=0.0),
        Passed(name="the new kernel's entry", step=None, rip=0x1000, cr3=0x2000, seconds=0.1),
    )
    return Watched(
        verdict=sound(),
        kernel="Linux",
        version="6.1.0 (somebody)",
        text=Virt(0xFFFF_FFFF_8100_0000),
        passed=passed,
        ended=None,
        heard=Heard(line="Linux version 6.1.0", seconds=0.5),
        standing=False,
    )


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("what", COMMANDS)
def test_a_document_is_what_its_schema_says(tightrope: Shell, what: str) -> None:
    tightrope.file("kernel", bzimage())
    tightrope.file("vmlinux", elf())
    tightrope.file("console", b"check_exception old: 0xffffffff new 0xe\n")
    tightrope.file("core", crashed("x86_64").core())
    tightrope.file("host.toml", example())
    tightrope.file("code.bin", b"\xf4")
    tightrope.file("crash.toml", example(crash=Extent.sized(0x3300_0000, 0x200_0000)))
    if "old" in COMMANDS[what]:
        tightrope.file("old", debian_kernel("cloud-amd64-7.3").read_bytes())
    if "written" in COMMANDS[what]:
        assert tightrope("rehearse", "--shipped", "--write", "written").status == 0
    document = json.loads(tightrope(*COMMANDS[what], "--json").out)
    name = name_of(what)
    assert document["schema"] == f"tightrope/{name.replace(' ', '-')}/1"
    rule = exported(tightrope, name)
    assert list(breaches(document, rule, rule)) == []


def with_json() -> set[str]:
    """Every command, by its words, that has an option --json; `prove`'s words are commands too."""
    return {words for words, action in actions(parser()) if "--json" in action.option_strings}


def test_no_command_with_json_is_left_out() -> None:
    """A new command has its row in COMMANDS: which one of them a row is, its first words say."""
    every = with_json()
    assert {"load", "exec", "perform xen", "prove code", "watch"} <= every

    def command_of(words: tuple[str, ...]) -> str:
        return " ".join(words[:2]) if " ".join(words[:2]) in every else words[0]

    assert {command_of(words) for words in COMMANDS.values()} >= every


def test_no_document_is_left_out(tightrope: Shell) -> None:
    names = tightrope("schema").out.splitlines()
    assert set(names) == {*SHAPES, "error"}
    assert {name_of(each) for each in COMMANDS} == set(names)
    for name in names:
        assert exported(tightrope, name)["$id"] == f"tightrope/{name.replace(' ', '-')}/1"


def test_a_document_that_is_none_is_said_so(tightrope: Shell) -> None:
    done = tightrope("schema", "moon")
    assert (done.status, done.out) == (2, "")
    assert "'moon' has no schema; `tightrope schema` lists all" in done.err


# ----------------------------------------------------------------------------------------- errors


def test_an_error_under_json_is_a_document_and_a_line(tightrope: Shell) -> None:
    path = tightrope.file("kernel", b"not a kernel\n" * 100)
    done = tightrope("plan", path, "--json")
    document = json.loads(done.out)
    assert done.status == document["status"] == 2
    error = document["error"]
    assert (error["kind"], error["source"]) == ("ImageError", path)
    assert done.err == f"tightrope: {error['message']}\n"
    assert error["message"].startswith(path)


def test_a_wrong_option_under_json_is_a_document(tightrope: Shell) -> None:
    done = tightrope("rehearse", "--json", "--design", "three-tables")
    document = json.loads(done.out)
    assert done.status == document["status"] == 2
    assert document["error"]["kind"] == "Usage"
    assert "three-tables" in document["error"]["message"]


def test_an_error_without_json_is_no_document(tightrope: Shell) -> None:
    assert tightrope("plan", "no-such-kernel").out == ""


def test_an_error_keeps_its_facts() -> None:
    bad = BadInput("too large", source="it", field="size", offset=8, limit=64)
    got = json.loads(documents.failure(bad, str(bad), 2))["error"]
    assert (got["source"], got["field"], got["offset"], got["limit"]) == ("it", "size", 8, 64)
    other = json.loads(documents.failure(MissingPart("no unicorn"), "no unicorn", 2))["error"]
    assert (other["kind"], other["source"], other["offset"]) == ("MissingPart", None, None)


# ------------------------------------------------------------------------------ schemas, by shape


class Inner(TypedDict):
    size: int
    name: str | None


class Outer(TypedDict):
    inner: Inner
    all: list[Inner]
    words: dict[str, float]
    sure: bool


GOOD: dict[str, Any] = {
    "schema": "tightrope/outer/3",
    "inner": {"size": 1, "name": None},
    "all": [{"size": 2, "name": "two"}],
    "words": {"free": 1.5},
    "sure": True,
}


def faults(document: object) -> list[str]:
    rule = schema("outer", 3, Outer)
    return list(breaches(document, rule, rule))


def test_what_has_the_shape_is_let_pass() -> None:
    assert faults(GOOD) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"schema": "tightrope/outer/2"},
        {"inner": {"size": "1", "name": None}},
        {"inner": {"size": True, "name": None}},
        {"inner": {"size": 1}},
        {"inner": {"size": 1, "name": None, "more": 1}},
        {"all": [{"size": 1, "name": 2}]},
        {"all": {}},
        {"words": {"free": "x"}},
        {"sure": 1},
        {"more": None},
    ],
)
def test_what_has_another_shape_is_found(wrong: dict[str, Any]) -> None:
    assert faults(GOOD | wrong)


@given(st.sampled_from(sorted(set(GOOD) - {"schema"})))
def test_a_key_that_is_absent_is_found(key: str) -> None:
    assert faults({name: value for name, value in GOOD.items() if name != key})


def test_what_has_no_place_in_json_has_no_schema() -> None:
    class Wrong(TypedDict):
        path: Path

    Wrong.__annotations__["path"] = Path
    with pytest.raises(TypeError, match="no place in JSON"):
        schema("wrong", 1, Wrong)
