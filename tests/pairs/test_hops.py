"""Several jumps: what one hands over is the next one's world; what grows on the way is told at its hop."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace
from functools import cache

import pytest

from tests.cli.test_arguments import Shell, tightrope
from tests.conftest import debian_kernel
from tests.makers.bzimage import bzimage
from tests.rehearse.runs import sound
from tightrope import host, image
from tightrope.deeds.hops import Left, hops, left
from tightrope.deeds.loaders import By
from tightrope.deeds.pairs import host_of
from tightrope.errors import BadInput
from tightrope.machine.port import Machine
from tightrope.machine.unicorn import Emulator
from tightrope.model import Buffer, Host, Image, Loaded, Loader, Outcome, Paging
from tightrope.model.hops import Hop, Hops
from tightrope.model.recording import HeldSegment
from tightrope.plan import Request
from tightrope.views.hops import VIEW

__all__ = ["tightrope"]
"""The fixture, which pytest finds here."""


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Emulator()


@cache
def kernel(flavour: str) -> Left:
    return left(debian_kernel(flavour).read_bytes(), flavour)


@cache
def small() -> Image:
    return image.read(bzimage(kernel_size=9000, init_size=0x1_0000), "made")


def made(
    machine: Machine, count: int, *, first: str, then: str, by: By | None = None, paging: Paging
) -> Hops:
    return hops(
        small(),
        host_of(paging, crash=False),
        Request(command_line="quiet"),
        count,
        first=kernel(first),
        then=kernel(then),
        by=by,
        machine=machine,
    )


@pytest.mark.parametrize(
    ("first", "then", "paging", "by"),
    [
        ("cloud-amd64", "cloud-amd64-7.3", Paging.X86_64, None),
        ("cloud-amd64-7.3", "cloud-amd64", Paging.LA57, By(loader=Loader.FILE_LOAD)),
        ("686-pae", "cloud-amd64-6.12", Paging.PAE, None),
        ("cloud-amd64-6.12", "686", Paging.X86_64, None),
    ],
)
def test_what_is_handed_on_stays_the_same(
    machine: Machine, first: str, then: str, paging: Paging, by: By | None
) -> None:
    found = made(machine, 3, first=first, then=then, by=by, paging=paging)
    assert [each.verdict.outcome for each in found.made] == [Outcome.HOLDS] * 3, [
        each.verdict.findings for each in found.made
    ]
    told = [each.entered for each in found.made]
    assert None not in told
    assert told[0] == told[1] == told[2]
    assert told[0] is not None
    assert told[0].rows[0][0].start == 0
    assert told[0].setup_data == (((9, 32),) if by else ())


def test_each_hop_leaves_out_of_the_world_that_was_handed_over(machine: Machine) -> None:
    found = made(machine, 2, first="cloud-amd64", then="cloud-amd64-7.3", paging=Paging.X86_64)
    before, after = (each.verdict.handover.host for each in found.made)
    assert [each.old for each in found.made] == ["cloud-amd64", "cloud-amd64-7.3"]
    assert before.entered is None
    assert after.entered == found.made[0].entered
    assert after.memory == before.memory
    assert (after.rsdp, after.screen) == (before.rsdp, before.screen)
    kernel_at = found.made[0].verdict.handover.intent.segments[0].destination
    assert after.text.phys <= kernel_at.start < after.text.phys + after.text.size


def digested(loaded: Loaded, segments: tuple[HeldSegment, ...]) -> tuple[HeldSegment, ...]:
    """The segments with the digest that the purgatory will find of them."""
    assert loaded.purgatory is not None
    words = loaded.purgatory.code.symbols
    first = next(each for each in segments if loaded.entry in each.destination)
    data = bytearray(first.data)
    seen = hashlib.sha256()
    for at, size in struct.iter_unpack("<QQ", data[words["regions"] :][: 16 * 16]):
        for each in segments:
            if size and each.destination.start == at:
                seen.update(bytes(each.data).ljust(size, b"\0"))
    data[words["digest"] : words["digest"] + 32] = seen.digest()
    return tuple(replace(each, data=bytes(data)) if each is first else each for each in segments)


class Grows(By):
    """A loader that hangs its seed on the list that it was handed, as one that copies the old list would."""

    def load(
        self, old: Buffer, source: str, image: Image, request: Request, host: Host
    ) -> Loaded | None:
        loaded = super().load(old, source, image, request, host)
        assert loaded is not None
        count = len(host.entered.setup_data) if host.entered else 0
        segments = tuple(
            self._more(each, count) if bytes(each.data[0x202:0x206]) == b"HdrS" else each
            for each in loaded.segments
        )
        return replace(loaded, segments=digested(loaded, segments))

    def _more(self, params: HeldSegment, count: int) -> HeldSegment:
        """As many nodes more, in the zeros behind what is there, and one row more of the map each."""
        data = bytearray(params.data).ljust(params.destination.size, b"\0")
        at = len(params.data) + 16
        for _ in range(count):
            data[at : at + 8] = data[0x250:0x258]
            data[at + 8 : at + 16] = (9).to_bytes(4, "little") + (4).to_bytes(4, "little")
            data[0x250:0x258] = (params.destination.start + at).to_bytes(8, "little")
            at += 32
        return replace(params, data=bytes(data))


def test_a_list_that_grows_is_told_at_the_hop_where_it_does(machine: Machine) -> None:
    by = Grows(loader=Loader.FILE_LOAD)
    found = made(machine, 4, first="cloud-amd64", then="cloud-amd64", by=by, paging=Paging.X86_64)
    last = found.made[-1]
    assert last.number == 2, "a hop that does not hold is the last"
    assert last.verdict.outcome is Outcome.FALLS
    rules = {each.rule: each.message for each in last.verdict.findings}
    assert (
        "grows: 2 nodes of type 9, where this kernel was handed 1" in rules["hop-keeps-setup-data"]
    )


def test_nobody_jumps_on_out_of_a_crash(machine: Machine) -> None:
    with pytest.raises(BadInput, match="has no further jump"):
        hops(
            small(), host.read(host.example(), "x"), Request(crash=True), 2,
            first=kernel("cloud-amd64"), then=kernel("cloud-amd64"), machine=machine,
        )  # fmt: skip


# ----------------------------------------------------------------------------- the command


def test_the_table_and_the_document_say_the_same(tightrope: Shell) -> None:
    path = str(debian_kernel("cloud-amd64-7.3"))
    words = ("rehearse", path, "--from", str(debian_kernel("cloud-amd64")), "--hops", "2")
    done = tightrope(*words)
    assert (done.status, done.err) == (0, "")
    assert "It holds for 2 hops" in done.out
    document = json.loads(tightrope(*words, "--json").out)
    assert document["schema"] == "tightrope/hops/1"
    assert [each["outcome"] for each in document["hops"]] == ["holds", "holds"]
    assert [each["entered"]["setup_data"] for each in document["hops"]] == [[], []]
    assert document["hops"][1]["old"] == path


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("k", "--hops", "2"), "name the first old kernel, --from"),
        (
            ("k", "--from", "k", "--hops", "2", "--crash"),
            "--crash cannot be given with several jumps",
        ),
        (("k", "--from", "k", "--hops", "2", "--segments", "s"), "--segments cannot be given"),
        (("k", "--from", "k", "--hops", "2", "--until", "console"), "walks to each entry"),
        (("--shipped", "--from", "k", "--hops", "2"), "needs the KERNEL to be named"),
        (
            ("k", "--from", "k", "--hops", "2", "--kexec", "x"),
            "names the program for --loader kexec-tools",
        ),
        (("k", "--from", "k", "--hops", "0"), "is not a number from 1 up"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    tightrope: Shell, words: tuple[str, ...], says: str
) -> None:
    tightrope.file("k", bzimage())
    done = tightrope("rehearse", *words)
    assert (done.status, done.out) == (2, "")
    assert says in done.err


def test_the_page_of_several_hops_has_each_rule_once() -> None:
    hop = Hop(number=1, old="vmlinuz", verdict=sound(), entered=None)
    made = (hop, replace(hop, number=2))
    folded = [each for each in VIEW.sheet(Hops(asked=2, made=made)).sections if each.folded]
    assert [each.title for each in folded] == [f"rules asked: {len(sound().rules)}"]
