"""The hooks of a crash kernel: a dump is saved by the command, and by the distribution's own where that fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.vmcore import logs
from tests.vmcore.cores import crashed
from tests.vmcore.logs import Said

TOOLS = REPOSITORY / "contrib" / "kdump-tools" / "tightrope-save"
UTILS = REPOSITORY / "contrib" / "kdump-utils" / "tightrope-collector"
REAL = f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; from tightrope.cli import main; sys.exit(main(sys.argv[1:]))" "$@"\n'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a core, the real command, and stand-ins that write down that they were called."""
    dead = crashed("x86_64")
    logs.ring(dead, [Said("Kernel panic - not syncing: here")])
    (tmp_path / "core").write_bytes(dead.core())
    (tmp_path / "config").write_text(f"KDUMP_COREDIR={tmp_path}/crash\n")
    folder = tmp_path / "bin"
    folder.mkdir()
    said = f'#!/bin/sh\necho "$(basename "$0") $*" >> {tmp_path}/said\n'
    for name, text in {
        "tightrope": REAL,
        "reboot": said,
        "kdump-config": said,
        "sync": said,
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return tmp_path


def run(place: Path, *words: str, cwd: Path | None = None, **more: str) -> int:
    environment = {
        **os.environ,
        "PATH": f"{place}/bin:{os.environ['PATH']}",
        "KDUMP_CONFIG": f"{place}/config",
    }
    done = subprocess.run(
        ["sh", *words], env={**environment, **more}, capture_output=True, check=False, cwd=cwd
    )
    return done.returncode


def test_kdump_tools_crash_kernel_saves_and_restarts(place: Path) -> None:
    assert run(place, str(TOOLS), VMCORE=f"{place}/core") == 0
    (saved,) = (place / "crash").iterdir()
    assert saved.name.isdigit()
    assert (saved / "vmcore").read_bytes() == (place / "core").read_bytes()
    assert "Kernel panic" in (saved / "vmcore-dmesg.txt").read_text()
    assert (place / "said").read_text() == "sync \nreboot -f\n"


def test_where_it_fails_kdump_tools_own_way_is_taken(place: Path) -> None:
    (place / "core").write_bytes(b"no core at all")
    assert run(place, str(TOOLS), VMCORE=f"{place}/core") == 0
    assert (place / "said").read_text() == "kdump-config savecore\nsync \nreboot -f\n"


def test_a_dump_whose_tables_are_not_whole_is_saved_once(place: Path) -> None:
    dead = crashed("x86_64")
    dead.memory[0x1_0000:0x1_1000] = b"\xff" * 4096
    (place / "core").write_bytes(dead.core())
    assert run(place, str(TOOLS), VMCORE=f"{place}/core") == 0
    assert (place / "said").read_text() == "sync \nreboot -f\n"


def test_kdump_utils_collector_writes_the_file_that_it_was_given(place: Path) -> None:
    (place / "out").mkdir()
    assert run(place, str(UTILS), f"{place}/core", f"{place}/out/vmcore-incomplete") == 0
    assert {each.name for each in (place / "out").iterdir()} == {
        "vmcore-incomplete",
        "vmcore.sha256",
        "vmcore-dmesg.txt",
    }
    assert (place / "out" / "vmcore-incomplete").read_bytes() == (place / "core").read_bytes()
    assert run(place, str(UTILS), f"{place}/nothing", f"{place}/out/other") == 2
    assert not (place / "out" / "other").exists()


def test_kdump_utils_collector_without_a_file_writes_nothing(place: Path) -> None:
    """As it is called for `raw` and `ssh`: its folder would be the initramfs, in a few MiB of memory."""
    before = set(place.iterdir())
    assert run(place, str(UTILS), f"{place}/core", cwd=place) == 2
    assert set(place.iterdir()) == before


@pytest.mark.parametrize("line", ["SSH=kdump@there", 'NFS="there:/dumps"', "FTP=there"])
def test_a_dump_that_goes_to_another_machine_goes_there(place: Path, line: str) -> None:
    with (place / "config").open("a") as config:
        config.write(f"{line}\n")
    assert run(place, str(TOOLS), VMCORE=f"{place}/core") == 0
    assert (place / "said").read_text() == "kdump-config savecore\nsync \nreboot -f\n"
    assert not (place / "crash").exists()
