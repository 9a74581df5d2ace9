"""Old kernels' own code into new kernels: Debian's all hold, what falls is told, exit codes fit a bisect."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest

from tests.cli.test_arguments import Shell, tightrope
from tests.conftest import debian_kernel
from tests.makers.bzimage import bzimage
from tightrope import image
from tightrope.deeds import old_kernel
from tightrope.deeds.pairs import Old, pairs, read
from tightrope.machine.port import Machine
from tightrope.machine.unicorn import Emulator
from tightrope.model import Image, Outcome, Paging
from tightrope.model.pairs import Pair
from tightrope.participants.linux import Convention

__all__ = ["tightrope"]
"""The fixture, which pytest finds here."""

WIDE = ("amd64", "amd64-6.12", "amd64-7.2", "amd64-7.3")
CLOUD = tuple(f"cloud-{each}" for each in WIDE)
NARROW = ("686", "686-pae")


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Emulator()


@cache
def old(flavour: str) -> Old:
    return read(debian_kernel(flavour).read_bytes(), flavour)


@cache
def new(flavour: str) -> Image:
    return image.read(debian_kernel(flavour).read_bytes(), flavour)


@pytest.fixture(scope="module")
def small() -> Image:
    return image.read(bzimage(), "made")


def test_the_four_kernels_into_each_other_hold(machine: Machine) -> None:
    found = pairs([old(each) for each in WIDE], [new(each) for each in WIDE], machine=machine)
    assert [
        (each.old, each.new, each.detail) for each in found if each.outcome is not Outcome.HOLDS
    ] == []
    assert len(found) == 4 * 4 * 2
    assert {each.paging for each in found} == {Paging.X86_64, Paging.LA57}


def test_the_cloud_kernels_hold_in_a_crash_too(machine: Machine, small: Image) -> None:
    found = pairs([old(each) for each in CLOUD], [small], kinds=(False, True), machine=machine)
    assert {each.outcome for each in found} == {Outcome.HOLDS}
    assert len(found) == 4 * 2 * 2


def test_32_bit_kernels_hold_with_and_without_pae(machine: Machine) -> None:
    news = [new("686-pae"), new("cloud-amd64")]
    found = pairs([old("686")], news, kinds=(False, True), machine=machine)
    assert {each.outcome for each in found} == {Outcome.HOLDS}, found
    assert {each.paging for each in found} == {Paging.I386, Paging.PAE}
    assert len(found) == 2 * 2 * 2


def broken(flavour: str) -> Old:
    """Its code with one word less in each copy."""
    own = old_kernel.read(debian_kernel(flavour).read_bytes(), flavour)
    assert isinstance(own, old_kernel.OldKernel)
    code = own.participant.code
    data = code.data.replace(bytes.fromhex("b900020000"), bytes.fromhex("b9ff010000"))
    assert data != code.data
    participant = replace(own.participant, code=replace(code, data=data))
    return Old(source="broken", code=replace(own, participant=participant))


def test_a_pair_that_falls_is_told_with_its_rule_beside_those_that_hold(
    machine: Machine, small: Image
) -> None:
    found = pairs([old("amd64-6.12"), broken("amd64-6.12")], [small], machine=machine)
    assert {(each.old, each.outcome) for each in found} == {
        ("amd64-6.12", Outcome.HOLDS),
        ("broken", Outcome.FALLS),
    }
    assert all("step 6" in each.detail for each in found if each.outcome is Outcome.FALLS)


def test_what_is_no_old_kernel_is_a_pair_that_cannot_be_told(
    machine: Machine, small: Image
) -> None:
    none = read(b"nothing" * 1000, "none")
    found = pairs([none, old("amd64")], [small], machine=machine)
    assert [each.outcome for each in found] == [None, Outcome.HOLDS, Outcome.HOLDS]
    assert found[0].paging is None
    assert "none" in found[0].detail


def test_every_convention_has_its_modes() -> None:
    for flavour in (*WIDE, *CLOUD, *NARROW):
        code = old(flavour).code
        assert code is not None
        narrow = code.found.convention is Convention.LINUX_I386
        assert all(mode.long_mode is not narrow for mode in old(flavour).modes)


# ----------------------------------------------------------------------------- the command


def words(tightrope: Shell, *more: str) -> tuple[str, ...]:
    tightrope.file("new", bzimage())
    return ("pairs", "--from", str(debian_kernel("amd64-7.3")), *more, "--to", "new")


def test_the_table_and_the_document_say_the_same(tightrope: Shell) -> None:
    done = tightrope(*words(tightrope))
    assert (done.status, done.err) == (0, "")
    assert "2 of 2 pairs hold" in done.out
    document = json.loads(tightrope(*words(tightrope), "--json").out)
    assert document["schema"] == "tightrope/pairs/1"
    assert [(each["mode"], each["outcome"]) for each in document["pairs"]] == [
        ("x86_64", "holds"),
        ("la57", "holds"),
    ]


def test_a_pair_is_written_as_soon_as_it_is_told(tightrope: Shell) -> None:
    path = tightrope.folder / "rows"
    done = tightrope(*words(tightrope), "--lines", str(path), "--json")
    rows = [json.loads(each) for each in path.read_text().splitlines()]
    assert rows == json.loads(done.out)["pairs"]
    again = tightrope(*words(tightrope), "--lines", str(path))
    assert (again.status, "say --force" in again.err) == (2, True)


def test_a_pair_is_told_before_the_next_is_begun(machine: Machine, small: Image) -> None:
    events: list[int | Pair] = []
    found = pairs(
        [old("amd64-7.3")],
        [small],
        machine=machine,
        progress=lambda _what, done, _total: events.append(done),
        told=events.append,
    )
    assert events == [0, found[0], 1, found[1]]


@pytest.mark.parametrize(("more", "status"), [((), 2), (("--bisect",), 125)])
def test_what_cannot_be_told_has_its_status(
    tightrope: Shell, more: tuple[str, ...], status: int
) -> None:
    tightrope.file("no", b"no kernel")
    done = tightrope(*words(tightrope, "no"), *more)
    assert done.status == status
    assert "2 of 2 pairs hold" in done.out
    assert "1 cannot be told" in done.out


@pytest.mark.parametrize("which", ["--from", "--to"])
def test_a_build_that_left_no_image_is_skipped_by_a_bisect(tightrope: Shell, which: str) -> None:
    tightrope.file("kernel", bzimage())
    given = {"--from": str(debian_kernel("amd64")), "--to": "kernel", which: "not-there"}
    arguments = [each for pair in given.items() for each in pair]
    done = tightrope("pairs", *arguments, "--bisect")
    assert (done.status, done.out) == (125, "")
    assert done.err == "tightrope: not-there: No such file or directory\n"
    assert tightrope("pairs", *arguments).status == 2


def test_what_falls_is_bad_for_a_bisect(tightrope: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from tightrope.deeds import pairs as deed

    monkeypatch.setattr(deed, "read", lambda _data, _source: broken("amd64-6.12"))
    assert tightrope(*words(tightrope), "--bisect").status == 1
