"""The shipped image is what its sources say, and a bzImage as boot.rst describes one."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope import shipped

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE = shipped.read()


def field(offset: int, layout: str) -> int:
    (value,) = struct.unpack_from(layout, IMAGE, offset)
    assert isinstance(value, int)
    return value


def test_the_sources_assemble_to_the_shipped_bytes(tmp_path: Path) -> None:
    missing = [tool for tool in ("as", "ld", "objcopy") if shutil.which(tool) is None]
    if missing and "CI" not in os.environ:
        pytest.skip(f"{', '.join(missing)} missing: install binutils (set CI=1 to fail instead)")
    assert not missing
    output = tmp_path / "kernel.bzimage"
    build = REPOSITORY / "scripts" / "build-shipped-kernel"
    subprocess.run([sys.executable, build, output], check=True)
    assert output.read_bytes() == IMAGE


def test_the_last_four_bytes_are_the_sum_of_the_loaded_ones() -> None:
    assert field(len(IMAGE) - 4, "<I") == zlib.adler32(IMAGE[0x400:-4])


def test_the_setup_header_says_what_the_kernel_can_do() -> None:
    assert IMAGE[0x202:0x206] == b"HdrS"
    assert field(0x1FE, "<H") == 0xAA55
    assert 0x202 + field(0x201, "<B") == 0x26C  # protocol 2.15 ends with kernel_info_offset
    assert field(0x206, "<H") == 0x020F
    assert (field(0x1F1, "<B") + 1) * 512 + field(0x1F4, "<I") * 16 == len(IMAGE)
    assert field(0x211, "<B") == 1  # LOADED_HIGH
    assert field(0x234, "<B") == 1  # relocatable
    assert field(0x236, "<H") == 3  # KERNEL_64, CAN_BE_LOADED_ABOVE_4G
    assert (field(0x230, "<I"), 1 << field(0x235, "<B")) == (0x200000, 4096)
    assert (field(0x248, "<I"), field(0x24C, "<I")) == (0, 0)  # no payload
    assert (field(0x258, "<Q"), field(0x260, "<I")) == (0x1000000, 0x10000)
    assert len(IMAGE) - 0x400 <= field(0x260, "<I")


def test_the_version_string_is_where_the_header_says() -> None:
    start = field(0x20E, "<H") + 0x200
    assert IMAGE[start : IMAGE.index(b"\0", start)] == b"tightrope-shipped 1"
    assert start < 0x400


def test_kernel_info_is_where_the_header_says() -> None:
    start = 0x400 + field(0x268, "<I")
    assert IMAGE[start : start + 4] == b"LToP"
    assert (field(start + 4, "<I"), field(start + 8, "<I")) == (16, 16)


@given(st.binary())
def test_the_argument_is_one_word_that_ends_in_the_sum(initrd: bytes) -> None:
    argument = shipped.initrd_argument(memoryview(initrd))
    found = re.fullmatch(r"tightrope\.initrd=([0-9a-f]{8})", argument)
    assert found is not None
    assert int(found[1], 16) == zlib.adler32(initrd)
