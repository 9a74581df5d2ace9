"""Commands that load a kernel, recorded: what they hand over, whoever makes the call, and nothing loaded.

Rules: the commands are Python in kexec's place, so that every call and every byte is known; kexec itself is
in tests/kexec_tools.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.segments import segments_file
from tightrope.deeds.record import record
from tightrope.errors import BadInput
from tightrope.memory import Extent
from tightrope.model.recording import FilesCall, SegmentsCall
from tightrope.record import file

CALL = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    said = libc.syscall(*[ctypes.c_long(each) for each in arguments])
    return said if said >= 0 else -ctypes.get_errno()
def load(start, data, size, flags=0, entry=0x100000):
    buffer = ctypes.create_string_buffer(data, len(data))
    row = (ctypes.c_ulong * 4)(ctypes.addressof(buffer), len(data), start, size)
    return call(246, entry, 1, ctypes.addressof(row), flags)
"""


def recorded(script: str) -> tuple[bytes, str, int]:
    """The segments file of a script's last load, what it printed, and how it ended."""
    out = io.BytesIO()
    with tempfile.TemporaryFile() as said:
        done = record([sys.executable, "-c", CALL + script], out, said=said)
        said.seek(0)
        return out.getvalue(), said.read().decode(), done.status


def test_a_load_is_recorded_and_the_command_is_told_that_it_went_well() -> None:
    raw, said, status = recorded("print(load(0x200000, b'kernel', 0x2000, 1 << 16, 0x200010))")
    held = file.read(raw, "it")
    assert (said, status) == ("0\n", 0)
    assert isinstance(held.call, SegmentsCall)
    (row,) = held.call.segments
    assert (row.destination, bytes(row.data)) == (Extent(0x20_0000, 0x20_2000), b"kernel")
    assert (held.call.entry, held.call.flags, held.crash) == (0x20_0010, 1 << 16, False)
    assert held.machine == "x86_64"
    assert held.loader == os.path.basename(os.path.realpath(sys.executable))


def test_files_are_recorded_with_their_bytes_wherever_they_stand(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(b"the kernel")
    raw, _, _ = recorded(
        f"k = os.open({str(kernel)!r}, os.O_RDONLY); os.read(k, 4)\n"
        "i = os.memfd_create('initrd'); os.write(i, b'the initrd')\n"
        "line = ctypes.create_string_buffer(b'quiet')\n"
        "assert call(320, k, i, 6, ctypes.addressof(line), 2) == 0"
    )
    held = file.read(raw, "it")
    assert isinstance(held.call, FilesCall)
    assert held.call.initrd is not None
    assert (held.call.kernel.path, bytes(held.call.kernel.data)) == (str(kernel), b"the kernel")
    assert bytes(held.call.initrd.data) == b"the initrd"
    assert (held.call.command_line, held.crash) == (b"quiet", True)


@pytest.mark.parametrize(
    "way",
    [
        "pid = os.fork()\nif not pid: os._exit(load(0x200000, b'child', 0x1000))\nos.waitpid(pid, 0)",
        "import subprocess as s; s.run([sys.executable, '-c', {call!r} + \"load(0x200000, b'child', 0x1000)\"])",
        "import threading as t; x = t.Thread(target=load, args=(0x200000, b'child', 0x1000)); x.start(); x.join()",
        "os.setsid() if os.fork() else load(0x200000, b'child', 0x1000)",
    ],
    ids=["a fork", "a program of its own", "a thread", "a session of its own"],
)
def test_whoever_the_command_starts_is_held_as_well(way: str) -> None:
    raw, _, status = recorded(way.format(call=CALL) if "{call" in way else way)
    held = file.read(raw, "it")
    assert isinstance(held.call, SegmentsCall)
    assert bytes(held.call.segments[0].data) == b"child"
    assert status == 0


def test_the_last_of_several_loads_is_kept_and_no_unload_or_jump_reaches_the_kernel() -> None:
    raw, said, _ = recorded(
        "print(call(246, 0, 0, 0, 0), call(169, 0xfee1dead, 0x28121969, 0x45584543, 0))\n"
        "load(0x200000, b'first' * 1000, 0x2000); load(0x300000, b'second', 0x1000)"
    )
    assert said == "0 -1\n"
    held = file.read(raw, "it")
    assert isinstance(held.call, SegmentsCall)
    assert [bytes(each.data) for each in held.call.segments] == [b"second"]


def test_a_32_bit_call_out_of_a_64_bit_process_is_no_way_around() -> None:
    """int $0x80 with number 283 is i386's kexec_load; in 64-bit code 283 is timerfd_create."""
    raw, said, _ = recorded(
        "import mmap\n"
        "low = 0x40  # MAP_32BIT\n"
        "page = mmap.mmap(-1, 4096, flags=34 | low, prot=7)\n"
        "at = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "import struct\n"
        "page[256:272] = struct.pack('<4I', at + 512, 4, 0x200000, 0x1000); page[512:516] = b'four'\n"
        "code = b'\\x53\\xb8' + struct.pack('<I', 283) + b'\\xbb' + struct.pack('<I', 0x200000)\n"
        "code += b'\\xb9' + struct.pack('<I', 1) + b'\\xba' + struct.pack('<I', at + 256)\n"
        "code += b'\\xbe\\0\\0\\0\\0\\xcd\\x80\\x5b\\xc3'\n"
        "page[:len(code)] = code\n"
        "print(ctypes.CFUNCTYPE(ctypes.c_int)(at)())"
    )
    assert said == "0\n"
    held = file.read(raw, "it")
    assert isinstance(held.call, SegmentsCall)
    assert (held.machine, bytes(held.call.segments[0].data)) == ("i686", b"four")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["true"], "true: ended with status 0 and asked for no load"),
        (["sh", "-c", "kill -9 $$"], "sh: was ended by signal 9 and asked for no load"),
        (["/nowhere/kexec"], "/nowhere/kexec: No such file or directory"),
        ([sys.executable, "-c", CALL + "call(246, 0, 17, 0, 0)"], "17 segments are more than 16"),
        ([sys.executable, "-c", CALL + "call(246, 0, 1, 1, 0)"], "cannot be read"),
        ([sys.executable, "-c", CALL + "call(320, 99, 98, 0, 0, 0)"], "cannot be read"),
    ],
)
def test_what_loads_nothing_is_one_line(words: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=said.replace("/", ".")):
        record(words, io.BytesIO())


def test_the_files_of_another_machine_are_shown(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "iomem").write_text("of another machine\n")
    script = (
        "print(open('/proc/iomem').read(), end='', file=sys.stderr)\n"
        "print(os.path.exists('/sys/firmware/memmap'), os.path.exists('/proc/self'), file=sys.stderr)\n"
        "load(0x200000, b'', 0x1000)"
    )
    with tempfile.TemporaryFile() as said:
        words = [sys.executable, "-c", CALL + script]
        record(words, io.BytesIO(), said=said, machine=str(tmp_path))
        said.seek(0)
        assert said.read() == b"of another machine\nFalse True\n"


# ------------------------------------------------------------------------------------ the file

SOUND = segments_file(
    [(0x10_0000, 0x1000, b"first"), (0x20_0000, 0x3000, b"second" * 1000)], objects=[b"object"]
)


@given(st.integers(0, len(SOUND) - 1), st.integers(1, 255))
def test_a_file_with_one_other_byte_is_refused(at: int, change: int) -> None:
    other = bytearray(SOUND)
    other[at] ^= change
    with pytest.raises(BadInput):
        file.read(bytes(other), "it")


@given(st.integers(0, len(SOUND) - 1))
def test_a_file_that_is_cut_is_refused(at: int) -> None:
    with pytest.raises(BadInput):
        file.read(SOUND[:at], "it")


@given(st.binary(max_size=400))
def test_any_bytes_are_a_typed_error(data: bytes) -> None:
    with pytest.raises(BadInput):
        file.read(data, "it")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
HEADER = json.loads(SOUND.partition(b"\n")[0])


@given(st.sampled_from(sorted(HEADER)), JSON)
def test_any_member_of_the_header_may_be_anything(name: str, value: object) -> None:
    with suppress(BadInput):
        file.read(segments_file(header={**HEADER, name: value}), "it")


def _row(start: int, size: int = 0x1000, data: bytes = b"x") -> list[tuple[int, int, bytes]]:
    return [(start, size, data)]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: segments_file(_row(0x10_0000) + _row(0x10_0000)), "overlap"),
        (lambda: segments_file(_row(0x10_0800)), "whole pages"),
        (
            lambda: segments_file(_row(0x10_0000, 0x1000, b"x" * 0x1001)),
            "has 0x1001 bytes for 0x1000",
        ),
        (lambda: segments_file(_row(1 << 52)), "above all physical memory"),
        (lambda: segments_file([]), "that is an unload"),
        (lambda: segments_file(_row(0x10_0000), machine="aarch64"), "machine: is 'aarch64'"),
        (lambda: segments_file(_row(0x10_0000), version=2), "version: is not 1"),
        (lambda: SOUND + b"more", "does not end in the digest"),
        (lambda: b"[" * 100_000 + b"\n", "is not JSON"),
        (lambda: b"x" * (2 << 20), "first line does not end"),
    ],
)
def test_what_no_kernel_would_take_is_refused(made: Callable[[], bytes], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        file.read(made(), "it")
