"""What a command writes: never over what is there unless asked, never over its input, never half."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_arguments import Shell, refused, tightrope
from tests.makers.bzimage import bzimage
from tightrope.cli import outputs
from tightrope.errors import BadInput

__all__ = ["tightrope"]
"""The fixture, which pytest finds here."""


def test_a_trace_does_not_replace_what_is_there_unless_it_is_asked_to(tightrope: Shell) -> None:
    path = tightrope.file("precious", "precious")
    refused(tightrope("rehearse", "--shipped", "--trace", path), "exists", "--force")
    assert Path(path).read_text() == "precious"
    assert tightrope("rehearse", "--shipped", "--trace", path, "--force").status == 0
    assert Path(path).read_text().startswith("0\t1\t0x")


@pytest.mark.parametrize("option", ["--trace", "--write"])
@pytest.mark.parametrize("what", ["kernel", "initrd", "host", "module"])
def test_an_input_is_never_written_over(tightrope: Shell, option: str, what: str) -> None:
    kernel, initrd = tightrope.file("kernel", bzimage()), tightrope.file("initrd", b"x")
    host = tightrope.file("host.toml", tightrope("host", "example", "--xen", "v2").out)
    module = tightrope.file("module", b"m")
    link = tightrope.folder / "link"
    link.symlink_to(tightrope.folder / {"host": "host.toml"}.get(what, what))
    arguments = (kernel, "--initrd", initrd, "--host", host, "--module", f"{module} x")
    done = tightrope("rehearse", *arguments, "--xen", "v2", option, str(link), "--force")
    refused(done, "input of this command")
    assert Path(kernel).read_bytes() == bzimage()


def test_a_folder_that_is_not_there_or_may_not_be_written_is_said_before_anything_runs(
    tightrope: Shell,
) -> None:
    refused(tightrope("rehearse", "--shipped", "--trace", "no/such/trace"), "No such file")
    refused(tightrope("rehearse", "--shipped", "--trace", str(tightrope.folder)), "Is a directory")


def test_scripts_do_not_replace_what_is_there(tightrope: Shell) -> None:
    path = tightrope.file("all.smt2", "; mine")
    command = ("prove", "tables", "--mode", "i386", "--limit", "1")
    refused(tightrope(*command, "--smt", path), "exists", "--force")
    folder = tightrope.folder / "scripts"
    folder.mkdir()
    (folder / "mine").write_text("; mine")
    refused(tightrope(*command, "--smt", str(folder)), "has files in it", "--force")
    assert Path(path).read_text() == "; mine"


def test_a_device_or_a_pipe_is_written_as_it_is(tmp_path: Path) -> None:
    outputs.write(outputs.check(Path("/dev/null"), force=False), b"x")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        outputs.write(outputs.check(pipe, force=False), b"through")
        assert os.read(reading, 100) == b"through"
    finally:
        os.close(reading)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_nothing_half_written_has_the_name(tmp_path: Path) -> None:
    path = tmp_path / "load"
    path.write_bytes(b"before")

    def fails() -> None:
        with outputs.writing(path) as out:
            out.write(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(BadInput, match="No space left on device"):
        fails()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
    outputs.write(path, b"after")
    assert path.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_has_the_mode_that_any_new_file_has(tmp_path: Path) -> None:
    outputs.write(tmp_path / "ours", b"x")
    (tmp_path / "any").write_bytes(b"x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "any").stat().st_mode


# ------------------------------------------------------------------------- as a process of its own


def process(
    tmp_path: Path, *words: str, most: int | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command in a process; `most` is the bytes that a file may have (RLIMIT_FSIZE).

    Such a one writes no bytecode: Python 3.11 would leave it cut short for all that come later.
    """
    limit = None if most is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most,) * 2)
    no_bytecode = {} if most is None else {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "tightrope", *words],
        cwd=tmp_path,
        env=os.environ | no_bytecode | (env or {}),
        preexec_fn=limit,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_page_for_which_there_is_no_room_leaves_nothing_behind(tmp_path: Path) -> None:
    done = process(tmp_path, "plan", "--shipped", "-q", "--html", "page.html", most=4096)
    assert (done.returncode, done.stderr) == (2, "tightrope: page.html: File too large\n")
    assert list(tmp_path.iterdir()) == []
    assert process(tmp_path, "plan", "--shipped", "-q", "--html", "page.html").returncode == 0


@pytest.mark.parametrize("utf8", ["0", "1"])
def test_a_command_line_is_the_bytes_that_were_typed_whatever_the_locale(
    utf8: str, tmp_path: Path
) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": utf8, "PYTHONCOERCECLOCALE": "0"}
    line = os.fsdecode(b"gr\xc3\xbc=\xfc")
    done = process(tmp_path, "plan", "--shipped", "--append", line, "--json", env=plain)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["command_line"].startswith("gr\u00fc=\udcfc ")


def test_twenty_columns_and_a_locale_without_utf_8_are_enough(tmp_path: Path) -> None:
    narrow = {"COLUMNS": "20", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = process(tmp_path, "plan", "--shipped", "--append", "<b>\x1b[31m", env=narrow)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout
    long = [line for line in done.stdout.splitlines() if len(line) > 20]
    assert all(" " not in line.strip() for line in long)
