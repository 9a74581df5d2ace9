"""What kdump is given and should not be: one line and status 2, or an answer that says what it cannot tell.

A region outside RAM, as a host file or a machine has it; cores that `kdump capture` and `dump info` cannot trust.
Formats that `pgd` reads are cut short and bent in tests/vmcore/test_formats.py.
"""

from __future__ import annotations

import hashlib
import os
import resource
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import debian_kernel
from tests.host.test_capture import IOMEM, as_root, captured
from tests.vmcore import logs
from tests.vmcore.cores import BASE, MIB, Load, crashed, elf_core, prstatus, vmcoreinfo
from tests.vmcore.logs import Said
from tightrope import host
from tightrope.cli import main
from tightrope.errors import CoreError
from tightrope.kdump.capture import Wanted, capture
from tightrope.memory import Extent

GIB = 1 << 30
REGION = Extent.sized(0x3300_0000, 0x1000_0000)


def without_ram(start: int, *, second: bool = False) -> str:
    """The example's host file, whose region (or a second one) begins at `start`."""
    text = host.example(crash=REGION)
    if second:
        return f'{text}\n[[crash_memory]]\nstart = {start:#x}\nsize = 0x400_0000\nwhat = "low"\n'
    found = text.index("[crash_region]")
    head, tail = text[:found], text[found:]
    return head + tail.replace("start = 0x3300_0000", f"start = {start:#x}", 1)


@pytest.mark.parametrize("command", ["host check", "plan", "rehearse", "kdump check"])
@pytest.mark.parametrize(
    ("start", "second"),
    [(36 * GIB, False), (0xB800_0000, False), ((1 << 63) - MIB, False), (36 * GIB, True)],
    ids=["outside", "its end outside", "near 2^63", "a second one outside"],
)
def test_a_region_outside_ram_is_refused_wherever_it_is_read(
    command: str,
    start: int,
    second: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "host.toml"
    path.write_text(without_ram(start, second=second))
    kernel = str(debian_kernel("cloud-amd64"))
    words = {
        "host check": ["host", "check", str(path)],
        "plan": ["plan", kernel, "--crash", "--host", str(path)],
        "rehearse": ["rehearse", kernel, "--crash", "--host", str(path)],
        "kdump check": ["kdump", "check", "--host", str(path), "--kernel", kernel],
    }[command]
    assert main(words) == 2
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert ("crash_memory" if second else "crash_region") in line
    assert shown.out == ""
    path.write_text(host.example(crash=REGION))
    if command in ("host check", "plan"):
        assert main(words) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    "row", ["  900000000-90fffffff : Crash kernel", "  7f000000-8effffff : Crash kernel"]
)
def test_a_region_outside_its_machines_ram_is_left_out_and_said_before_a_load(row: str) -> None:
    """load --crash surveys the machine by these files, and then has no region to load into."""
    lines = [each for each in IOMEM.splitlines() if "Crash kernel" not in each]
    files = as_root() | {"/proc/iomem": "\n".join((*lines, row)) + "\n"}
    machine, notes, _ = captured(files)
    assert machine.crash_region is None
    (said,) = [note for note in notes if "a crash region at" in note]
    assert said.startswith("left out: ")
    assert said.endswith("which is not all RAM")
    right = "  6f000000-7effffff : Crash kernel"
    old, _, _ = captured(files | {"/proc/iomem": "\n".join((*lines, right)) + "\n"})
    assert old.crash_region == Extent(0x6F00_0000, 0x7F00_0000)


# ------------------------------------------------------------------------------------ kdump capture


def core(info: dict[str, str] | None = None, *, mode: str = "x86_64") -> bytes:
    """A crashed kernel's, with a log; `info` is what its VMCOREINFO says otherwise."""
    dead = crashed(mode)
    logs.ring(dead, [Said("Kernel panic - not syncing: made")])
    dead.info.update(info or {})
    return dead.core()


def test_vmcoreinfo_of_another_kernel_takes_no_byte_from_what_is_saved(tmp_path: Path) -> None:
    """Its names lead elsewhere: no log, no verdict, and every byte of the memory."""
    other = {
        "SYMBOL(swapper_pg_dir)": "ffffffff82a10000",
        "SYMBOL(prb)": "ffffffff82b00000",
        "NUMBER(phys_base)": "16777216",
        "KERNELOFFSET": "1000000",
    }
    for mode in ("x86_64", "la57"):
        data = core(other, mode=mode)
        (tmp_path / mode).write_bytes(data)
        done = capture(Wanted(vmcore=str(tmp_path / mode), folder=str(tmp_path / f"out {mode}")))
        assert (done.log, done.panic, done.whole is True) == (None, None, False)
        assert done.no_log
        assert done.copied.path.read_bytes() == data
        assert done.copied.sha256 == hashlib.sha256(data).hexdigest()


ROW, FIELDS = 56, {"p_offset": 8, "p_vaddr": 16, "p_paddr": 24, "p_filesz": 32, "p_memsz": 40}


@pytest.fixture
def within_a_gibibyte() -> Iterator[None]:
    """More memory than that is refused (RLIMIT_DATA counts what is mapped to be written)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    status = Path("/proc/self/status").read_text()
    (used,) = [int(each.split()[1]) << 10 for each in status.splitlines() if "VmData:" in each]
    resource.setrlimit(resource.RLIMIT_DATA, (used + GIB, hard))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@pytest.mark.usefixtures("within_a_gibibyte")
@pytest.mark.parametrize("field", FIELDS)
def test_sizes_near_2_to_the_63_are_saved_as_they_are_or_refused(
    field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file's own size is what is saved; what its rows say only leads to its log and its verdict."""
    good = core()
    for number, value in enumerate(((1 << 63) - 4096, 1 << 63, (1 << 64) - 1)):
        for row in (0, 1):  # the notes and the memory
            data = bytearray(good)
            struct.pack_into("<Q", data, 64 + row * ROW + FIELDS[field], value)
            path = tmp_path / f"{number} {row}"
            path.write_bytes(data)
            out = tmp_path / f"out {number} {row}"
            status = main(["kdump", "capture", str(path), "-o", str(out)])
            assert (out / "vmcore").read_bytes() == data
            assert status in (0, 1)
            assert main(["dump", "info", str(path)]) in (0, 2)
            assert main(["pgd", str(path)]) in (0, 1, 2)
            assert "Traceback" not in capsys.readouterr().err


def test_a_core_cut_short_in_its_headers_leaves_nothing_with_a_final_name(tmp_path: Path) -> None:
    data = core()
    for size in (0, 63, 64, 100, 64 + ROW, 64 + 2 * ROW - 1):
        (tmp_path / "short").write_bytes(data[:size])
        with pytest.raises(CoreError):
            capture(Wanted(vmcore=str(tmp_path / "short"), folder=str(tmp_path / "out")))
        assert not (tmp_path / "out").exists()


def test_a_core_that_ends_while_it_is_saved_keeps_no_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was as long as its headers say when it was opened."""
    from tightrope.kdump import saving
    from tightrope.kdump.core import Vmcore

    path = tmp_path / "core"
    path.write_bytes(core())
    monkeypatch.setattr(saving, "CHUNK", MIB)
    plain = Vmcore.fill

    def shorter(self: Vmcore, buffer: memoryview, offset: int) -> int:
        if offset == 4 * MIB:
            os.truncate(path, 4 * MIB)
        return plain(self, buffer, offset)

    monkeypatch.setattr(Vmcore, "fill", shorter)
    with pytest.raises(CoreError, match="ends before its size"):
        capture(Wanted(vmcore=str(path), folder=str(tmp_path / "out")))
    assert not (tmp_path / "out" / "vmcore").exists()
    assert not (tmp_path / "out" / "vmcore.sha256").exists()


def test_rows_that_lie_over_one_another_are_saved_and_told(tmp_path: Path) -> None:
    """Memory that two rows name, the same place or another one of the file: no loop, no doubled byte."""
    dead = crashed("x86_64")
    rows = [
        Load(BASE, bytes(dead.memory)),
        Load(BASE, bytes(4 * MIB)),
        Load(BASE + MIB, bytes(MIB)),
    ]
    data = elf_core(rows, prstatus() + vmcoreinfo(dead.info))
    (tmp_path / "core").write_bytes(data)
    done = capture(Wanted(vmcore=str(tmp_path / "core"), folder=str(tmp_path / "out")))
    assert done.copied.path.read_bytes() == data
    assert done.whole is not None
