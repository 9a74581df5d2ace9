"""docs/fleet.md shows what the command prints."""

from __future__ import annotations

import doctest
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

from tests.makers.bzimage import bzimage
from tests.makers.fleet import booted
from tightrope import host as host_room

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fleet.md"


def test_the_example_prints_what_it_says(tmp_path: Path) -> None:
    example = re.search(r"^```text\n\$ tightrope (.*?)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert example is not None
    (tmp_path / "vmlinuz").write_bytes(bzimage(init_size=0x10000))
    folder = tmp_path / "hosts"
    folder.mkdir()
    chance = random.Random(3)
    plain = host_room.read(host_room.example(), "the default host")
    for number in range(45):
        text = host_room.write(booted(plain, chance), "a host of a fleet")
        (folder / f"{number:02}.toml").write_text(text)
    (folder / "no-host.toml").write_text("x = ")
    done = subprocess.run(
        [sys.executable, "-m", "tightrope", *example[1].split()],
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.OutputChecker().check_output(example[2], done.stdout, flags), done.stdout


def test_the_page_is_followed_from_nothing(tmp_path: Path) -> None:
    """Collected as it says, of this machine and so without ssh; asked; and asked again."""
    page = PAGE.read_text()
    collect = re.search(r"^```\nssh HOST sudo (.*)\n```$", page, re.MULTILINE)
    ask = re.search(r"^\$ (tightrope sweep .*)$", page, re.MULTILINE)
    assert collect is not None
    assert ask is not None
    (tmp_path / "contrib").symlink_to(PAGE.parents[1] / "contrib")
    (tmp_path / "hosts").mkdir()
    (tmp_path / "vmlinuz").write_bytes(bzimage(init_size=0x10000))
    paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**os.environ, "PATH": paths, "NO_COLOR": "1"},
        )  # fmt: skip

    collected = run(collect[1])
    assert (collected.returncode, collected.stdout, collected.stderr) == (0, "", "")
    assert [each.name for each in (tmp_path / "hosts").iterdir()] == ["HOST.toml"]
    asked = run(ask[1])
    rows = [json.loads(each) for each in (tmp_path / "rows.jsonl").read_text().splitlines()[1:]]
    assert [Path(each["host"]).name for each in rows] == ["HOST.toml"]
    # What this machine answers is its own; that it was read as a host is not.
    told = {"holds": 0, "falls": 1, None: 3}
    assert asked.returncode == told[rows[0]["outcome"]], asked.stderr
    assert "not TOML" not in str(rows[0]["detail"])
    assert asked.stdout.startswith("1 host, ")
    again = run(f"{ask[1]} --resume")
    assert again.returncode == asked.returncode
    assert "; 0 rehearsals in " in " ".join(again.stdout.split())
    assert "1 known from before" in " ".join(again.stdout.split())
