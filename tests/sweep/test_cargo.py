"""What a worker holds: each file once and by its digest, and an emulator that is renewed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.makers.bzimage import bzimage
from tightrope.deeds.sweep.cargo import WALKS, Cargo, Hold, parcel
from tightrope.errors import BadInput


def made(folder: Path, init_size: int = 0x10000) -> str:
    path = folder / "vmlinuz"
    path.write_bytes(bzimage(init_size=init_size))
    return str(path)


def test_an_emulator_is_renewed_after_so_many_walks(tmp_path: Path) -> None:
    held = Hold(Cargo(news=(parcel(made(tmp_path)),)))
    first = held.machine()
    assert all(held.machine() is first for _ in range(WALKS - 1))
    assert held.machine() is not first


def test_a_file_that_is_another_by_now_is_told(tmp_path: Path) -> None:
    cargo = Cargo(news=(parcel(made(tmp_path)),))
    assert Hold(cargo.with_data()).images[0].source == str(tmp_path / "vmlinuz")
    kept = cargo.with_data()
    made(tmp_path, init_size=0x20000)
    with pytest.raises(BadInput, match="is not the file that it was when the sweep began"):
        Hold(cargo)
    assert Hold(kept).images[0].source == str(tmp_path / "vmlinuz")
