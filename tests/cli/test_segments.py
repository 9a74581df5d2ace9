"""`rehearse --loader`, `--segments` and `record`: what goes with what, in one line each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.makers.bzimage import bzimage
from tests.makers.segments import segments_file
from tests.segments import made
from tightrope.cli import main


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(words)
    out = capsys.readouterr()
    return status, out.out, out.err


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    kernel, segments = tmp_path / "kernel", tmp_path / "made.segments"
    kernel.write_bytes(bzimage(kernel_size=9000, init_size=0x1_0000))
    segments.write_bytes(made.load())
    cut = tmp_path / "cut.segments"
    cut.write_bytes(made.load()[:-900])
    other = {
        "ARM": segments_file([(0x10_0000, 0x1000, b"a")], machine="aarch64"),
        "NARROW": segments_file([(0x10_0000, 0x1000, b"a")], machine="i686"),
        "OVER": segments_file([(0x10_0000, 0x2000, b"a"), (0x10_1000, 0x1000, b"b")]),
        "SOURCE": b"no instruction at all\n",
        "CALLS": b"call somewhere_else\n",
        "RETURNS": b"ret\n",
    }
    for name, data in other.items():
        (tmp_path / f"{name}.S").write_bytes(data)
    return {
        "K": str(kernel), "S": str(segments), "CUT": str(cut), "NEW": str(tmp_path / "new"),
        **{name: str(tmp_path / f"{name}.S") for name in other},
    }  # fmt: skip


def test_recorded_segments_are_walked_and_said_whose_they_are(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = said(["rehearse", files["K"], "--segments", files["S"]], capsys)
    assert status == 0
    assert "segments        5 of a made loader 1.0" in out
    assert "purgatory       a purgatory of a made loader 1.0: digests" in out


def test_a_report_without_them_says_how_to_ask(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = said(["rehearse", files["K"]], capsys)
    assert status == 0
    assert "segments        Tightrope's own; --loader kexec-tools or" in out
    assert "purgatory       none: Tightrope's entry stub stands in its place" in out


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("rehearse K --segments CUT", "cut.segments: "),
        ("rehearse K --segments ARM", "machine: is 'aarch64', and not one of x86_64, i686"),
        ("rehearse K --segments NARROW", "was recorded for a 32-bit kernel, and the default host"),
        ("rehearse K --segments OVER", "[0x100000, 0x102000) and [0x101000, 0x102000) overlap"),
        ("rehearse K --relocation SOURCE --contract two-tables", "GNU as refuses it: line 1: "),
        ("rehearse K --relocation CALLS --contract two-tables", "its .text has relocations"),
        ("rehearse K --relocation RETURNS --contract nosuch", "nosuch"),
        ("rehearse K --from /bin/ls", "is not a Linux kernel: there is no banner in it"),
        (
            "rehearse K --segments S --append x",
            "--initrd, --append and --crash cannot be given with it",
        ),
        (
            "rehearse K --segments S --crash",
            "--initrd, --append and --crash cannot be given with it",
        ),
        ("rehearse K --segments S --loader kexec-tools", "--loader cannot be given with it"),
        ("rehearse K --segments S --scatter 1", "places the segments itself"),
        ("rehearse K --segments S --on kvm", "walk it on the emulator"),
        ("rehearse K --segments S --mode pae", "was recorded for a 64-bit kernel"),
        ("rehearse K --segments K", "no segments file"),
        ("rehearse --shipped --segments S", "is in none of the segments"),
        ("rehearse --shipped --loader file-load", "needs the KERNEL to be named"),
        ("rehearse K --loader file-load", "name it, --from VMLINUZ"),
        ("rehearse K --loader file-load --from K", "kernel"),
        ("record -o NEW --", "names no command to run"),
        ("record -o NEW -- true", "asked for no load"),
        ("record -o S -- true", "exists: say --force"),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_leaves_nothing(
    words: str, wrong: str, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = said([files.get(word, word) for word in words.split()], capsys)
    assert (status, out) == (2, "")
    assert wrong in err
    assert len([line for line in err.splitlines() if line.startswith("tightrope: ")]) >= 1
    assert len(err.splitlines()) == 1 or words.startswith("record"), err
    assert not Path(files["NEW"]).exists()


@pytest.mark.parametrize("line", ["", "quiet"])
def test_a_crash_load_whose_line_nobody_gave_has_only_the_loaders_words(
    line: str, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"rehearse K --loader kexec-tools --crash --append={line} -q"
    status, out, err = said([files.get(word, word) for word in words.split()], capsys)
    assert (status, err) == (0, "")
    assert out.startswith("It holds: ")
