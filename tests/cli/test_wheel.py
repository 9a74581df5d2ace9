"""The wheel, installed into an environment that has nothing: the command is there, and says what is not."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.makers.bzimage import bzimage


def pip(*words: str) -> None:
    """uv_build looks for its program on the PATH."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--no-input", *words],
        check=True,
        capture_output=True,
        env=os.environ | {"PATH": path},
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    alone = ("--no-deps", "--no-index", "--no-build-isolation")
    pip("wheel", *alone, "--wheel-dir", str(folder), str(REPOSITORY))
    [made] = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    venv.create(home, with_pip=False)
    pip(f"--python={home / 'bin' / 'python'}", "install", "--no-deps", "--no-index", str(wheel))
    return home / "bin" / "tightrope"


@pytest.fixture(scope="module")
def whole(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and the packages of its extras: those that lie here, by a
    path, because no network is asked.  Our own source is not among them: pip installs it here by a
    .pth, and a folder that a .pth names has none of its own read (the module site).
    """
    home = tmp_path_factory.mktemp("whole")
    venv.create(home, with_pip=False)
    pip(f"--python={home / 'bin' / 'python'}", "install", "--no-deps", "--no-index", str(wheel))
    [packages] = home.glob("lib/python*/site-packages")
    (packages / "extras.pth").write_text(sysconfig.get_path("purelib"))
    return home / "bin"


def run(command: Path, *words: str, cwd: Path = Path("/")) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(command), *words], capture_output=True, text=True, check=False, cwd=cwd
    )


def test_every_command_that_the_wheel_installs_answers(wheel: Path, command: Path) -> None:
    """Those that its metadata names, and `python -m tightrope`."""
    archive = zipfile.ZipFile(wheel)
    [entries] = [each for each in archive.namelist() if each.endswith("/entry_points.txt")]
    found = configparser.ConfigParser()
    found.read_string(archive.read(entries).decode())
    names = [*found["console_scripts"]]
    assert names == ["tightrope"]
    for name in names:
        done = run(command.parent / name, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("usage: tightrope")
    done = run(command.parent / "python", "-m", "tightrope", "--version")
    assert done.stdout == run(command, "--version").stdout


def test_with_its_extras_the_wheel_rehearses_and_draws(whole: Path, tmp_path: Path) -> None:
    where = run(whole / "python", "-c", "import tightrope; print(tightrope.__file__)").stdout
    assert where.startswith(str(whole.parent))
    (tmp_path / "kernel").write_bytes(bzimage())
    page = ("--html", "page.html", "-q")
    done = run(whole / "tightrope", "rehearse", "kernel", *page, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("It holds: kernel")
    assert "It holds" in (tmp_path / "page.html").read_text()
    fell = run(whole / "tightrope", "rehearse", "--shipped", "--sabotage", "no-v", "-q")
    assert (fell.returncode, fell.stderr) == (1, "")


def test_the_wheel_has_what_is_no_python(wheel: Path) -> None:
    """Each file of the package that git knows, and nothing that it does not."""
    listed = subprocess.run(
        ["git", "ls-files", "src/tightrope"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    inside = {each for each in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in each}
    assert {each.removeprefix("src/") for each in listed} <= inside
    assert all(not each.endswith(".pyc") for each in inside)


def test_without_any_package_the_command_answers_and_says_what_is_missing(command: Path) -> None:
    assert run(command, "--version").stdout.startswith("tightrope ")
    assert run(command, "glossary", "V").stdout.startswith("V ")
    assert run(command, "status").returncode == 0
    missing = run(command, "doctor")
    assert missing.returncode == 1
    assert missing.stdout.startswith("No rehearsal here: numpy")
    plan = run(command, "plan", "--shipped")
    assert (plan.returncode, plan.stdout) == (2, "")
    assert "numpy" in plan.stderr
    assert "Traceback" not in plan.stderr
