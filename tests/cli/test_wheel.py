"""The wheel, installed into an environment that has nothing: the command is there, and says what is not."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


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
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(command), *words], capture_output=True, text=True, check=False, cwd="/"
        )

    assert run("--version").stdout.startswith("tightrope ")
    assert run("glossary", "V").stdout.startswith("V ")
    assert run("status").returncode == 0
    missing = run("doctor")
    assert missing.returncode == 1
    assert missing.stdout.startswith("No rehearsal here: numpy")
    plan = run("plan", "--shipped")
    assert (plan.returncode, plan.stdout) == (2, "")
    assert "numpy" in plan.stderr
    assert "Traceback" not in plan.stderr
