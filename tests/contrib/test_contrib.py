"""What lies in contrib: the hook says the right words and never fails an installation, the unit is one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tightrope.cli.parser import parser

CONTRIB = REPOSITORY / "contrib"
HOOK = CONTRIB / "kernel-install" / "95-tightrope.install"
STAND_IN = '#!/bin/sh\nfor each in "$@"; do echo "$each" >> "$SAID"; done\nexit $STATUS\n'


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder with a `tightrope` that writes down its words, and an `id` that says root."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (
        ("tightrope", STAND_IN),
        ("id", "#!/bin/sh\necho 0\n"),
        ("systemd-detect-virt", '#!/bin/sh\ncase " $* " in *" $VIRT "*) ;; *) exit 1 ;; esac\n'),
    ):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def run(
    tools: Path, *words: str, status: int = 0, staged: Path | None = None, virt: str = "none"
) -> list[str] | None:
    """The words that `tightrope` got, None where it was not called; the hook itself succeeds."""
    said = tools.parent / "said"
    said.unlink(missing_ok=True)
    environment = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SAID": str(said),
        "STATUS": str(status),
        "VIRT": virt,
        "KERNEL_INSTALL_STAGING_AREA": str(staged or "/nonexistent"),
        "TIGHTROPE_DEFAULTS": str(tools.parent / "defaults"),
    }
    done = subprocess.run(["sh", HOOK, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("was not loaded" in done.stderr) is (status != 0)
    return said.read_text().splitlines() if said.exists() else None


def test_a_kernel_that_was_added_is_loaded_with_its_initrd(tools: Path, tmp_path: Path) -> None:
    (tmp_path / "initrd").write_bytes(b"0")
    words = run(tools, "add", "6.99", "/boot/entry", "/boot/vmlinuz-6.99", staged=tmp_path)
    initrd = str(tmp_path / "initrd")
    assert words == [
        *("load", "/boot/vmlinuz-6.99", "--initrd", initrd),
        *("--reuse-cmdline", "--really"),
    ]
    assert parser(words).parse_args(words).kernel == "/boot/vmlinuz-6.99"


def test_without_an_initrd_none_is_named_and_a_failed_load_fails_nothing(tools: Path) -> None:
    words = run(tools, "add", "6.99", "", "/boot/vmlinuz-6.99", status=2)
    assert words == ["load", "/boot/vmlinuz-6.99", "--reuse-cmdline", "--really"]


def test_the_options_are_those_of_the_unit(tools: Path) -> None:
    (tools.parent / "defaults").write_text('OPTIONS="--on-damage reset --no-rehearsal"\n')
    words = run(tools, "add", "6.99", "", "/boot/vmlinuz-6.99")
    assert words == [
        *("load", "/boot/vmlinuz-6.99", "--reuse-cmdline"),
        *("--on-damage", "reset", "--no-rehearsal", "--really"),
    ]


def test_a_kernel_that_was_removed_is_no_reason_to_load(tools: Path) -> None:
    assert run(tools, "remove", "6.99", "/boot/entry") is None
    assert run(tools) is None


@pytest.mark.parametrize("virt", ["--chroot", "--container"])
def test_nothing_is_loaded_from_where_the_machine_is_somebody_elses(tools: Path, virt: str) -> None:
    assert run(tools, "add", "6.99", "", "/boot/vmlinuz-6.99", virt=virt) is None


def test_the_unit_is_one_and_its_words_are_the_commands() -> None:
    unit = CONTRIB / "systemd" / "tightrope-load.service"
    lines = dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line)
    program, command, *words = lines["ExecStart"].replace("$OPTIONS ", "").split()
    assert (program, command) == ("/usr/bin/env", "tightrope")
    assert parser(words).parse_args(words).really
    # systemd stops it on the way to `systemctl kexec` as well, which would find nothing loaded.
    assert "ExecStop" not in lines
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("no systemd-analyze here")
    done = subprocess.run([tool, "verify", unit], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
