"""How files come in: large ones are mapped, endless ones end at a stated limit, kernels are found."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.cli.test_arguments import Shell, refused, tightrope
from tests.conftest import debian_kernel
from tests.makers import cpio
from tests.makers.bzimage import bzimage
from tests.makers.elf import elf, note
from tests.makers.pe import unified
from tightrope.cli import files
from tightrope.cli.parser import parser
from tightrope.deeds import defaults, unpacking
from tightrope.deeds.beside import Beside
from tightrope.deeds.rehearse import CONSOLE_WORDS
from tightrope.errors import BadInput
from tightrope.model import Image

__all__ = ["tightrope"]


@pytest.mark.parametrize(
    ("flavour", "gib", "says"),
    [
        ("cloud-amd64", 3, "no room for 0xc0000000 bytes of initrd"),
        ("cloud-amd64", 6, "no room for 0x180000000 bytes of initrd"),
        # It sums its initrd, and is told the sum on its command line.
        ("", 3, "0xc0000000 bytes are more than the shipped kernel is given to sum"),
        ("", 6, "0x180000000 bytes are more"),
    ],
)
def test_an_initrd_of_some_gib_is_refused_by_its_size_before_it_is_read(
    tmp_path: Path, flavour: str, gib: int, says: str
) -> None:
    large = tmp_path / "initrd"
    with large.open("wb") as file:
        file.truncate(gib << 30)
    kernel = str(debian_kernel(flavour)) if flavour else "--shipped"
    # Of itself: what wait4() tells begins with the memory of whoever forked it.
    told = (
        "import re, sys\n"
        "from tightrope.cli import main\n"
        "status = main(sys.argv[1:])\n"
        "print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])\n"
        "sys.exit(status)"
    )
    command = [sys.executable, "-c", told, "rehearse", kernel, "--initrd", str(large)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert int(done.stdout) < 256 << 10, "in KiB: a page of a file that is read is counted"


@pytest.mark.parametrize("size", [unpacking.LARGE - 1, unpacking.LARGE])
def test_a_kernel_is_unpacked_early_where_its_initrd_is_not_large_and_never_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    begun: list[Image] = []

    def begin(image: Image) -> unpacking.Begun:
        begun.append(image)
        return Beside(dict)

    monkeypatch.setattr(unpacking, "begin", begin)
    monkeypatch.setattr(unpacking, "initrd_contents", lambda initrd: None)
    kernel, initrd = tmp_path / "kernel", tmp_path / "initrd"
    kernel.write_bytes(bzimage())
    with initrd.open("wb") as file:
        file.truncate(size)
    options = parser(["rehearse"]).parse_args(["rehearse", str(kernel), "--initrd", str(initrd)])
    early = files.early(options)
    assert (early is None) == (size == unpacking.LARGE)
    assert begun == ([] if early is None else [early.image])


def test_little_is_loaded_before_a_kernel_begins_to_be_unpacked(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(bzimage())
    told = (
        "import sys\n"
        "from tightrope.cli import files\n"
        "from tightrope.cli.parser import parser\n"
        "options = parser(sys.argv[1:]).parse_args(sys.argv[1:])\n"
        "print(files.early(options).image.source, *sys.modules)"
    )
    command = [sys.executable, "-c", told, "rehearse", str(kernel)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    source, *loaded = done.stdout.split()
    assert source == str(kernel)
    assert "tightrope.deeds.unpacking" in loaded
    late = (
        "numpy",
        "logging",
        "hashlib",
        "tightrope.check",
        "tightrope.plan",
        "tightrope.model.verdict",
    )
    assert not {*late} & {*loaded}


def test_a_large_file_is_mapped_and_a_small_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAPPED", 5000)
    for size, kind in ((4999, bytes), (5000, memoryview)):
        path = tmp_path / str(size)
        path.write_bytes(bytes(size - 1) + b"x")
        got = files.read(str(path))
        assert type(got) is kind
        assert (len(got), got[-1:]) == (size, b"x")


def test_a_large_file_takes_no_memory_before_it_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(8 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(files.read(str(path))) == 8 << 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_what_does_not_end_is_refused_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_POURED", 1 << 20)
    with pytest.raises(BadInput, match=r"/dev/zero: is not a regular file, .* \(limit 0x100000\)"):
        files.read("/dev/zero")
    assert files.read("/dev/null") == b""


@pytest.mark.parametrize(("size", "fits"), [(1 << 20, True), ((1 << 20) + 1, False)])
def test_a_pipe_is_read_up_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, fits: bool
) -> None:
    monkeypatch.setattr(files, "MOST_POURED", 1 << 20)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def pour() -> None:
        try:
            pipe.write_bytes(bytes(size))
        except BrokenPipeError:
            assert not fits

    pouring = threading.Thread(target=pour)
    pouring.start()
    if fits:
        assert len(files.read(str(pipe))) == size
    else:
        with pytest.raises(BadInput, match="does not end where it should"):
            files.read(str(pipe))
    pouring.join()


def test_a_host_file_of_many_megabytes_is_refused_by_its_size(tightrope: Shell) -> None:
    path = tightrope.folder / "host.toml"
    with path.open("wb") as file:
        file.truncate(files.MOST_TEXT + 1)
    refused(tightrope("plan", "--shipped", "--host", str(path)), "more than such a file has")


# ------------------------------------------------------------------------------- what is entered


def test_a_program_is_entered_only_when_asked(tightrope: Shell) -> None:
    path = tightrope.file("busybox", elf(notes=note("GNU", 1, bytes(16))))
    refused(tightrope("rehearse", path), "--entry flat enters it all the same")
    assert tightrope("rehearse", path, "--entry", "flat").status == 0
    assert tightrope("rehearse", path, "--flat", "0x1000000").status == 0


def test_an_initrd_that_is_text_falls_and_an_archive_holds(tightrope: Shell) -> None:
    kernel = tightrope.file("vmlinuz", bzimage())
    text = tightrope.file("notes.txt", "a text file\n" * 40)
    done = tightrope("rehearse", kernel, "--initrd", text)
    assert done.status == 1
    assert "initrd-unpacks" in done.out
    good = tightrope.file("initrd.img", cpio.archive())
    assert tightrope("rehearse", kernel, "--initrd", good).status == 0


def test_what_is_added_for_us_is_added_to_the_images_own_command_line(tightrope: Shell) -> None:
    path = tightrope.file("linux.efi", unified(initrd=None, cmdline=b"quiet carried"))
    done = tightrope("rehearse", path, "--until", "console", "--limit", "1")
    words = f"'quiet carried {CONSOLE_WORDS}'"
    assert done.err.startswith(f"tightrope: the command line is {words}, so that it can be heard")
    again = tightrope("rehearse", path, "--until", "console", "--limit", "1", "--append", "mine")
    assert f"'mine {CONSOLE_WORDS}'" in again.err


def test_a_console_is_added_where_nobody_asked_for_one() -> None:
    from tests.makers.hosts import read_image
    from tightrope.deeds import defaults
    from tightrope.plan import Request

    for asked, line in (
        ("", "console=ttyS0"),
        ("quiet", "quiet console=ttyS0"),
        ("console=tty1 quiet", "console=tty1 quiet"),
        ("noconsole=1", "noconsole=1 console=ttyS0"),
    ):
        got = defaults.with_console(read_image(), Request(command_line=asked))
        assert got.command_line == line


def test_on_a_whole_machine_a_kernel_without_an_early_console_is_asked_for_its_own() -> None:
    from tests.makers.hosts import read_image
    from tests.rehearse.runs import shipped_kernel
    from tightrope.deeds import defaults
    from tightrope.plan import Request

    for asked, early, whole in (
        ("", CONSOLE_WORDS, f"{CONSOLE_WORDS} console=ttyS0"),
        ("quiet console=tty0", f"quiet console=tty0 {CONSOLE_WORDS}", None),
        ("earlyprintk=vga", "earlyprintk=vga", "earlyprintk=vga console=ttyS0"),
    ):
        request = Request(command_line=asked)
        assert defaults.audible(read_image(), request).command_line == early
        assert defaults.audible(read_image(), request, whole=True).command_line == (whole or early)
        # The one that speaks without being asked.
        assert defaults.audible(shipped_kernel(), request, whole=True) == request


def test_a_token_is_added_to_the_images_own_command_line_and_said() -> None:
    from tests.makers.hosts import read_image
    from tightrope import image
    from tightrope.plan import Request

    carried = image.read(unified(cmdline=b"quiet carried"), "linux.efi")
    token, request = defaults.with_token(carried, Request())
    assert request.command_line == f"quiet carried {defaults.TOKEN}{token}"
    token, request = defaults.with_token(read_image(), Request(command_line="mine"))
    assert request.command_line == f"mine {defaults.TOKEN}{token}"


def test_kernels_are_found_in_boot_and_with_their_modules(tmp_path: Path) -> None:
    assert defaults.newest_kernel(tmp_path) is None
    for number, name in enumerate(
        ("boot/vmlinuz-6.1", "usr/lib/modules/7.2.13-amd64/vmlinuz", "boot/vmlinuz-6.12"), 1
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        os.utime(path, (number, number))
        assert defaults.newest_kernel(tmp_path) == str(path)
