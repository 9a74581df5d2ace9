"""docs/fleet.md shows what the command prints."""

from __future__ import annotations

import doctest
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
