"""The witness in an initramfs: an archive that Linux unpacks, and words that survive a crash."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tightrope import image
from tightrope.kdump import witness

TOKEN = "f00d"


def test_it_is_an_archive_behind_any_initrd() -> None:
    archive = witness.archive(TOKEN)
    for first in (b"", archive, archive + b"\0" * 3):
        contents = image.initrd_contents(witness.behind(first, archive))
        assert (contents.flaw, contents.untold) == (None, None), contents


def test_its_script_is_one(tmp_path: Path) -> None:
    archive = witness.archive(TOKEN, "/sbin/other")
    script = archive[archive.index(b"#!/bin/sh") : archive.index(b'exec /sbin/other "$@"\n') + 22]
    (tmp_path / "init").write_bytes(script)
    done = subprocess.run(["sh", "-n", tmp_path / "init"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert b"TOKEN" not in script


def said(head: bytes) -> bytes:
    lines = (
        b"f00d init 180000 120000\nf00d modules nvme ext4 virtio-blk\nf00d head\n",
        head,
        b"f00d end\nf00d least 90000\nf00d least 80000\n",
    )
    return b"".join(lines).replace(b"\n", b"\r\n")


@given(st.binary(max_size=300).filter(lambda data: b"f00d" not in data))
def test_what_it_says_is_heard(head: bytes) -> None:
    got = witness.heard(said(head), TOKEN)
    assert (got.there, got.total, got.least) == (True, 180000 << 10, 80000 << 10)
    assert got.modules == {"nvme", "ext4", "virtio_blk"}
    assert (got.head, got.vmcore, got.done) == (head, True, True)


@given(st.integers(0, 400))
def test_a_word_that_breaks_off_is_no_word(at: int) -> None:
    whole = said(b"\x7fELF" + bytes(200))
    got = witness.heard(whole[:at], TOKEN)
    assert got.head in (b"", b"\x7fELF" + bytes(200))
    assert got.least in (None, 120000 << 10, 90000 << 10, 80000 << 10, 0) or at < len(whole)


@given(st.binary(max_size=300))
def test_any_bytes_are_heard(data: bytes) -> None:
    witness.heard(b"f00d " + data, TOKEN)


def test_without_a_vmcore() -> None:
    got = witness.heard(b"f00d init 1 1\r\nf00d none\r\n", TOKEN)
    assert (got.vmcore, got.done, got.head) == (False, True, b"")
