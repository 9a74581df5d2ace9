"""Who spoke after the entry, and what the verdict makes of it."""

from __future__ import annotations

import pytest

from tests.makers.hosts import read_image
from tightrope.deeds.spoken import attributed, ends_for, judged
from tightrope.image import read_flat
from tightrope.model import Console, Ending, Image, Protocol, Speaker

BANNER = "[    0.000000] Linux version 7.2.13 (gcc) #1 SMP"


def heard(*lines: str, ending: Ending = Ending.HEARD) -> Console:
    return Console(
        lines=lines,
        seconds=1.0,
        stopped="made up for a test",
        ending=ending,
        rip=0x100_0234,
        exception="exception 6 at 0x1000234" if ending is Ending.FELL else None,
    )


def flat() -> Image:
    """Not Linux: a kernel whose first word counts."""
    return read_flat(b"\xf4", "made", 0x100_0000, 64)


@pytest.mark.parametrize(
    ("lines", "speaker"),
    [
        ((), Speaker.NOBODY),
        (("KASLR disabled: 'nokaslr' on cmdline.",), Speaker.DECOMPRESSOR),
        (("Decompressing Linux... Parsing ELF... done.",), Speaker.DECOMPRESSOR),
        (("RIP: 0010:0xffffffff81000000", "RSP: 0018:0"), Speaker.DECOMPRESSOR),
        (("L",), Speaker.DECOMPRESSOR),
        (("KASLR disabled: 'nokaslr' on cmdline.", BANNER), Speaker.KERNEL),
    ],
)
def test_linux_speaks_by_its_banner_and_its_decompressor_before_it(
    lines: tuple[str, ...], speaker: Speaker
) -> None:
    assert attributed(heard(*lines), read_image()).speaker is speaker


def test_any_other_kernel_speaks_by_its_first_word() -> None:
    assert attributed(heard("L", ending=Ending.HALTED), flat()).speaker is Speaker.KERNEL
    assert ends_for(flat())("anything")


@pytest.mark.parametrize(
    "line", ["\\x00\\x00", "\\x1b[2J\\x1b[1;1H", "\\x1bc \\x07", "\\x1b(B\\x9b"]
)
def test_what_only_a_terminal_obeys_is_no_word(line: str) -> None:
    console = attributed(heard(line, ending=Ending.HALTED), flat())
    assert console.speaker is Speaker.NOBODY
    assert list(judged(console, flat())) == []
    assert not ends_for(flat())(line)
    assert ends_for(flat())(line + "GRUB")
    assert attributed(heard(line, "GRUB"), flat()).speaker is Speaker.KERNEL


def test_a_decompressor_that_gives_up_is_a_finding_with_its_words() -> None:
    console = heard("XZ-compressed data is corrupt", " -- System halted", ending=Ending.HALTED)
    [found] = judged(attributed(console, read_image()), read_image())
    assert found.rule == "decompressor-gives-up"
    assert "XZ-compressed data is corrupt" in found.message
    assert found.evidence["rip"] == "0x1000234"


@pytest.mark.parametrize("image", [read_image(), flat()], ids=["linux", "flat"])
def test_a_partial_line_before_a_crash_is_a_fall_and_no_word(image: Image) -> None:
    [found] = judged(attributed(heard("E", ending=Ending.FELL), image), image)
    assert found.rule == "new-kernel-falls"
    assert found.evidence == {
        "rip": "0x1000234",
        "exception": "exception 6 at 0x1000234",
        "line 1": "E",
    }


@pytest.mark.parametrize("ending", [Ending.WAITS, Ending.TIME, Ending.UNABLE, Ending.HEARD])
@pytest.mark.parametrize("lines", [(), ("KASLR disabled",), (BANNER,)])
def test_what_only_ends_is_no_finding(lines: tuple[str, ...], ending: Ending) -> None:
    console = attributed(heard(*lines, ending=ending), read_image())
    assert list(judged(console, read_image())) == []


def test_a_kernel_that_halts_after_its_banner_has_spoken() -> None:
    console = attributed(heard(BANNER, "done", ending=Ending.HALTED), read_image())
    assert list(judged(console, read_image())) == []
    assert Protocol.LINUX_64 in {entry.protocol for entry in read_image().entries}
