"""What is unpacked beside the walk: a corrupt payload or initrd is a finding, a whole one is not."""

from __future__ import annotations

import gc
import gzip
from dataclasses import replace

import numpy as np
import pytest

from tests.makers import cpio
from tests.makers.bzimage import bzimage, packed_gzip, vmlinux, with_checksum
from tests.makers.multiboot import flat_kernel
from tests.makers.screens import facts, screen
from tests.rehearse.runs import example_host, shipped_kernel
from tests.unpacked_once import LARGE, remembered_of_image
from tightrope import image as image_room
from tightrope.deeds import unpacking
from tightrope.deeds.beside import Beside
from tightrope.deeds.rehearse import rehearse
from tightrope.deeds.unpacking import Unpacking
from tightrope.image import payload_contents
from tightrope.machine.unicorn import Emulator
from tightrope.model import Buffer, Contents, Image, Outcome, Step, Verdict
from tightrope.plan import Request
from tightrope.views.rehearsal import VIEW

GOOD = cpio.archive()


@pytest.fixture(scope="module")
def machine() -> Emulator:
    return Emulator()


def read_image() -> Image:
    return image_room.read(bzimage(), "vmlinuz")


def walked(machine: Emulator, image: Image, initrd: Buffer | None = None) -> Verdict:
    return rehearse(image, example_host(), Request(initrd=initrd), machine=machine)


def damaged_payload() -> bytes:
    packed = bytearray(packed_gzip(vmlinux()))
    packed[len(packed) // 2] ^= 1
    return bytes(packed)


def test_a_payload_and_an_initrd_that_are_whole_are_no_findings(machine: Emulator) -> None:
    got = walked(machine, read_image(), gzip.compress(GOOD))
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())
    assert [each.what for each in got.contents] == [
        "the gzip payload, an ELF file of 0x1388 bytes",
        "the initrd, a cpio archive of 4 entries (gzip)",
    ]
    text = screen(VIEW, got)
    assert f"Unpacked as well, and whole: {got.contents[0].what}; {got.contents[1].what}." in text


def test_one_flipped_bit_of_the_payload_is_a_finding(machine: Emulator) -> None:
    got = walked(machine, image_room.read(bzimage(payload=damaged_payload()), "vmlinuz"), GOOD)
    assert got.outcome is Outcome.FALLS
    (finding,) = got.findings
    assert (finding.rule, finding.step) == ("payload-unpacks", Step.PREPARE)
    assert finding.message.startswith("the payload does not unpack: gzip: is corrupt: ")
    assert finding.evidence["where"] == "payload at offset 0x810"
    assert "payload-unpacks" in screen(VIEW, got)


@pytest.mark.parametrize(
    ("initrd", "words"),
    [
        (b"a text file, as an initrd\n", "a text file"),
        (bzimage(), "a Linux kernel"),
        (GOOD[:-150], "breaks off"),
        (gzip.compress(GOOD)[:-9], "breaks off"),
    ],
)
def test_an_initrd_that_linux_does_not_unpack_is_a_finding(
    machine: Emulator, initrd: bytes, words: str
) -> None:
    got = walked(machine, read_image(), initrd)
    assert got.outcome is Outcome.FALLS
    (finding,) = got.findings
    assert (finding.rule, finding.step) == ("initrd-unpacks", Step.PREPARE)
    assert words in finding.message


def test_a_kernel_whose_own_checksum_does_not_fit_is_a_finding(machine: Emulator) -> None:
    sound = with_checksum(bzimage())
    assert not walked(machine, image_room.read(sound, "vmlinuz")).findings
    changed = sound[:0x1000] + bytes([sound[0x1000] ^ 0x20]) + sound[0x1001:]
    unpacked = replace(image_room.read(changed, "vmlinuz"), payload=None)
    got = walked(machine, unpacked)
    assert [each.rule for each in got.findings] == ["kernel-unchanged"]
    assert got.outcome is Outcome.FALLS
    assert "the last 4 bytes of the kernel" in got.findings[0].evidence["where"]


def test_the_initrd_of_a_unified_image_is_looked_at(machine: Emulator) -> None:
    for carried, rules in ((GOOD, []), (b"carried", ["initrd-unpacks"])):
        read = replace(read_image(), initrd=memoryview(carried))
        got = walked(machine, read)
        assert [each.rule for each in got.findings] == rules
        assert not walked(machine, read, GOOD).findings


def test_what_cannot_be_told_is_said_and_no_finding(machine: Emulator) -> None:
    kernel = image_room.read(bzimage(payload=packed_gzip(vmlinux())), "vmlinuz")
    got = walked(machine, kernel, b"hsqs" + bytes(5000))
    assert got.outcome is Outcome.HOLDS
    text = screen(VIEW, got)
    assert "Not told of the initrd: it looks like the image of a file system (squashfs)" in text
    assert [each["untold"] is not None for each in facts(VIEW, got)["unpacked"]] == [False, True]


def test_an_lzo_payload_that_does_not_unpack_is_a_finding(machine: Emulator) -> None:
    lzo = image_room.read(bzimage(payload=b"\x89LZO\0\r\n\x1a\n" + bytes(40)), "vmlinuz")
    got = walked(machine, lzo, None)
    assert [each.rule for each in got.findings] == ["payload-unpacks"]


def test_who_does_not_unpack_an_initrd_may_be_handed_any_bytes(machine: Emulator) -> None:
    assert not walked(machine, shipped_kernel(), b"any bytes").findings
    multiboot = image_room.read(flat_kernel(), "kernel")
    assert Unpacking(multiboot, b"any bytes").contents() == ()


def test_in_these_tests_what_large_bytes_unpack_to_is_remembered_for_these_bytes_alone() -> None:
    remembered = remembered_of_image(lambda image: [payload_contents(image)])
    noise = np.random.default_rng(1).bytes(LARGE)
    payload = packed_gzip(vmlinux() + noise)
    changed = payload[:-9] + bytes([payload[-9] ^ 1]) + payload[-8:]
    whole, broken, small = (
        image_room.read(bzimage(payload=each), "vmlinuz")
        for each in (payload, changed, packed_gzip(vmlinux()))
    )
    for image in (whole, broken, small):
        assert remembered(image) == [payload_contents(image)]
    assert remembered(broken)[0].flaw is not None
    assert remembered(whole) is remembered(whole)
    assert remembered(small) is not remembered(small)


def test_an_error_of_the_thread_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Image) -> None:
        raise RuntimeError("as a bug of ours would")

    monkeypatch.setattr("tightrope.deeds.unpacking.payload_contents", broken)
    with pytest.raises(RuntimeError, match="as a bug of ours would"):
        Unpacking(read_image(), None).contents()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Image]:
    """The images whose payload is unpacked from now on."""
    seen: list[Image] = []

    def unpack(image: Image) -> Contents:
        seen.append(image)
        return payload_contents(image)

    monkeypatch.setattr("tightrope.deeds.unpacking.payload_contents", unpack)
    return seen


def test_a_kernel_is_unpacked_once_however_many_hosts_it_is_rehearsed_on(
    machine: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = counted(monkeypatch)
    one, other = read_image(), read_image()
    said = [walked(machine, one, each).contents[0] for each in (GOOD, None, gzip.compress(GOOD))]
    assert [len(seen), len(set(said))] == [1, 1]
    walked(machine, other)
    assert len(seen) == 2


def test_an_initrd_is_looked_at_each_time_and_a_corrupt_kernel_is_told_each_time(
    machine: Emulator,
) -> None:
    bad = image_room.read(bzimage(payload=damaged_payload()), "vmlinuz")
    for _ in range(2):
        assert [each.rule for each in walked(machine, bad, GOOD).findings] == ["payload-unpacks"]
    image = read_image()
    assert walked(machine, image, GOOD).outcome is Outcome.HOLDS
    assert [each.rule for each in walked(machine, image, b"no archive").findings] == [
        "initrd-unpacks"
    ]


def test_bytes_that_can_change_are_looked_at_each_time() -> None:
    held = bytearray(bzimage())
    image = image_room.read(held, "vmlinuz")
    assert image.payload is not None
    assert [each.flaw for each in Unpacking(image, None).contents()] == [None]
    place = held.index(b"\x1f\x8b") + image.payload.size // 2
    held[place] ^= 1
    assert [each.flaw for each in Unpacking(image, None).contents()] != [None]


def test_what_was_found_goes_with_its_image() -> None:
    image = read_image()
    Unpacking(image, None).contents()
    number = id(image)
    assert number in unpacking._FOUND
    del image
    gc.collect()
    assert number not in unpacking._FOUND


def test_work_beside_gives_one_answer_as_often_as_it_is_asked() -> None:
    asked: list[None] = []
    work = Beside(lambda: asked.append(None))
    assert [work.result(), work.result()] == [None, None]
    assert asked == [None]


def test_what_work_beside_raises_is_raised_where_its_answer_is_asked_for() -> None:
    empty: dict[str, int] = {}
    work = Beside(lambda: empty["gone"])
    for _ in range(2):
        with pytest.raises(KeyError, match="gone"):
            work.result()
