"""kdump capture: what is on the disk is what the core had, whatever ended it the first time."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vmcore import logs
from tests.vmcore.cores import BASE, MIB, Load, crashed, elf_core, vmcoreinfo, xen
from tests.vmcore.kdumps import makedumpfile, told, told_core
from tests.vmcore.logs import Said
from tightrope import vmcore
from tightrope.cli import main
from tightrope.errors import CoreError, MissingPart, PerformError
from tightrope.kdump import filtering, saving
from tightrope.kdump.capture import Wanted, capture
from tightrope.kdump.core import Vmcore
from tightrope.kdump.ring import Digest, Ring

PANIC = "Kernel panic - not syncing: sysrq triggered crash"


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernel that died with a log; most of its memory is zeros, some is noise."""
    dead = crashed("x86_64")
    end = Said(f"---[ end {PANIC} ]---", 5 * 10**9)
    logs.ring(dead, [Said("Linux version"), Said(PANIC, 5 * 10**9), end])
    dead.memory[12 * MIB : 14 * MIB] = np.random.default_rng(3).bytes(2 * MIB)
    path = tmp_path_factory.mktemp("core") / "vmcore"
    path.write_bytes(dead.core())
    return path


def test_what_is_saved_is_the_core_with_its_digest_log_and_verdict(
    core: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    done = capture(
        Wanted(vmcore=str(core), folder=str(tmp_path / "out")),
        progress=lambda at, whole, seconds: seen.append((at, whole)),
    )
    data = core.read_bytes()
    saved = tmp_path / "out" / "vmcore"
    assert saved.read_bytes() == data
    assert done.copied.sha256 == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "out" / "vmcore.sha256").read_text() == f"{done.copied.sha256}  vmcore\n"
    assert done.taken < len(data) // 2, "zeros take no room"
    said = (tmp_path / "out" / "vmcore-dmesg.txt").read_text()
    assert (
        said
        == f"[    0.000000] Linux version\n[    5.000000] {PANIC}\n[    5.000000] ---[ end {PANIC} ]---\n"
    )
    assert (done.whole, done.verdict, done.panic, done.no_log) == (
        True,
        "whole",
        f"[    5.000000] {PANIC}",
        "",
    )
    assert seen[-1] == (len(data), len(data))
    assert [at for at, _ in seen] == sorted(at for at, _ in seen)
    names = {each.name for each in (tmp_path / "out").iterdir()}
    assert names == {"vmcore", "vmcore.sha256", "vmcore-dmesg.txt"}
    # The log and the memory are nobody else's to read, whatever the umask.
    modes = {each.stat().st_mode & 0o7777 for each in (tmp_path / "out").iterdir()}
    assert modes == {0o600}


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 4095), st.integers(1, 9000)), max_size=6),
    st.integers(0, 4095),
)
def test_whatever_is_zero_the_bytes_are_the_same_and_takes_no_room(
    runs: list[tuple[int, int, int]], tail: int
) -> None:
    memory = bytearray(40 * 4096)
    for page, at, size in runs:
        first = page * 4096 + at
        memory[first : first + size] = b"x" * min(size, max(0, len(memory) - first))
    data = elf_core([Load(BASE, memory + bytes(tail))], vmcoreinfo({"OSRELEASE": "6"}))
    held = b"".join(data[a:b] if w else bytes(b - a) for a, b, w in _filled(data))
    assert held == data
    written = {at for a, b, w in _filled(data) if w for at in range(a, b, 4096)}
    assert written == {at for at in range(0, len(data), 4096) if any(data[at : at + 4096])}


def _filled(data: bytes) -> list[tuple[int, int, bool]]:
    """The runs that are written, and the gaps between them."""
    out, at = [], 0
    for start, end in saving._held(data, len(data)):
        out += [(at, start, False), (start, end, True)]
        at = end
    return [*out, (at, len(data), False)]


def start(
    core: Path,
    folder: Path,
    *words: str,
    before: str = "",
    environment: dict[str, str] | None = None,
) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    code = f"import sys\n{before}\nfrom tightrope.cli import main\nsys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, "kdump", "capture", str(core), "-o", str(folder), *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})},
    )  # fmt: skip


SLOWLY = """
import time
from tightrope.kdump import saving
saving.CHUNK, saving.JOURNAL_SECONDS = 1 << 20, 0.0
plain = saving.Part.note
def slow(part, **numbers):
    plain(part, **numbers)
    time.sleep(0.1)
saving.Part.note = slow
"""


def test_what_ctrl_c_ended_twice_goes_on_where_it_was(core: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    journal = folder / "vmcore.part.json"
    for least in (2 * MIB, 13 * MIB):
        one = start(core, folder, before=SLOWLY)
        limit = time.monotonic() + 120
        while not (journal.exists() and json.loads(journal.read_text())["saved"] >= least):
            assert one.poll() is None, one.communicate()
            assert time.monotonic() < limit
            time.sleep(0.02)
        one.send_signal(signal.SIGINT)
        _, said = one.communicate(timeout=120)
        assert one.returncode == 130, said
        assert "interrupted; the same command goes on with what it has saved" in said
        assert not (folder / "vmcore").exists()
        assert (folder / "vmcore-dmesg.txt").exists(), "the log is saved first"
    # The noise that was saved is not read again from the core: a part that differs is found by the digest.
    done = capture(Wanted(vmcore=str(core), folder=str(folder)))
    assert 13 * MIB <= done.copied.resumed < core.stat().st_size
    assert (folder / "vmcore").read_bytes() == core.read_bytes()
    assert done.copied.sha256 == hashlib.sha256(core.read_bytes()).hexdigest()
    assert not journal.exists()


def test_a_part_of_another_crash_is_begun_anew(core: Path, tmp_path: Path) -> None:
    (tmp_path / "vmcore.part").write_bytes(b"x" * 8192)
    for journal in (json.dumps({"core": "of another", "saved": 8192}), "{", "[]", '{"core": 1}'):
        (tmp_path / "vmcore.part").write_bytes(b"x" * 8192)
        (tmp_path / "vmcore.part.json").write_text(journal)
        done = capture(Wanted(vmcore=str(core), folder=str(tmp_path), force=True))
        assert done.copied.resumed == 0
        assert (tmp_path / "vmcore").read_bytes() == core.read_bytes()


def test_without_room_nothing_is_begun_and_a_full_disk_is_gone_on_with(
    core: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)
    few = os.statvfs_result(
        (real.f_bsize, real.f_frsize, real.f_blocks, 10, 10, *tuple(real)[5:10])
    )
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda path: few)
        with pytest.raises(PerformError, match=r"MiB left.*say --anyway"):
            capture(Wanted(vmcore=str(core), folder=str(tmp_path / "out")))
        assert list((tmp_path / "out").iterdir()) == []
    plain, written = os.pwrite, 0

    def full(out: int, data: bytes, at: int) -> int:
        nonlocal written
        written += len(data)
        if written > MIB:
            raise OSError(28, "No space left on device")
        return plain(out, data, at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda path: few)
        patch.setattr(os, "pwrite", full)
        patch.setattr(saving, "JOURNAL_SECONDS", 0.0)
        patch.setattr(saving, "CHUNK", MIB)
        with pytest.raises(PerformError, match=r"out/vmcore\.part: No space left") as caught:
            capture(Wanted(vmcore=str(core), folder=str(tmp_path / "out"), anyway=True))
    assert caught.value.number == 28
    assert not (tmp_path / "out" / "vmcore").exists()
    done = capture(Wanted(vmcore=str(core), folder=str(tmp_path / "out")))
    assert done.copied.resumed > 0
    assert (tmp_path / "out" / "vmcore").read_bytes() == core.read_bytes()


def test_what_is_there_is_replaced_only_when_asked(
    core: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "vmcore").write_bytes(b"another")
    assert main(["kdump", "capture", str(core), "-o", str(tmp_path)]) == 2
    assert "say --force" in capsys.readouterr().err
    assert (tmp_path / "vmcore").read_bytes() == b"another"
    assert main(["kdump", "capture", str(core), "-o", str(tmp_path), "--force"]) == 0
    assert "saved; the pgd: whole" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "vmcore").read_bytes() == core.read_bytes()


@pytest.mark.parametrize("way", [(), ("--compress", "zlib"), ("--filter", "0")])
def test_without_a_digest_the_same_bytes_are_saved_and_none_of_an_older_dump_is_left(
    core: Path, way: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, source = tmp_path / "out", core
    if "--filter" in way:  # makedumpfile asks for more than a log
        source = tmp_path / "core"
        source.write_bytes(told_core(told("x86_64")))
    words = ["kdump", "capture", str(source), "-o", str(folder), *way]
    assert main([*words, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    kept = (folder / "vmcore").read_bytes()
    assert (folder / "vmcore.sha256").read_text() == f"{first['sha256']}  vmcore\n"
    assert first["sha256"] == hashlib.sha256(kept).hexdigest()
    assert main([*words, "--json", "--force", "--digest", "none"]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] is None
    assert not (folder / "vmcore.sha256").exists()
    again = (folder / "vmcore").read_bytes()
    if way:  # the header has the time
        assert abs(len(again) - len(kept)) < 4096
    else:
        assert again == kept
    assert main([*words, "--force", "--digest", "none"]) == 0
    assert "sha256   not computed, as asked" in capsys.readouterr().out


def test_a_part_is_gone_on_with_without_a_digest_and_not_read_again(
    core: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    plain = saving._read

    def seen(descriptor: int, buffer: memoryview, at: int, end: int) -> int:
        read.append(at)
        return plain(descriptor, buffer, at, end)

    monkeypatch.setattr(saving, "_read", seen)
    vm = Vmcore(str(core))
    who = {"core": saving.identity(vm), "saved": 13 * MIB}
    vm.close()
    for asked, again in ((Digest.NONE, False), (Digest.SHA256, True)):
        folder = tmp_path / asked
        folder.mkdir()
        (folder / "vmcore.part").write_bytes(core.read_bytes()[: 13 * MIB])
        (folder / "vmcore.part.json").write_text(json.dumps(who))
        read.clear()
        done = capture(Wanted(vmcore=str(core), folder=str(folder), digest=asked))
        assert (done.copied.resumed, bool(read)) == (13 * MIB, again)
        assert (folder / "vmcore").read_bytes() == core.read_bytes()


def test_a_python_alone_is_enough_in_64_mib_more(core: Path, tmp_path: Path) -> None:
    """No numpy, nor anything else that is installed; as an initramfs has it."""
    source = Path(vmcore.__file__).parents[2]
    bare = f"import resource; sys.path[:] = [each for each in sys.path if 'site-packages' not in each]; sys.path.insert(0, {str(source)!r})\n"
    peak = "import atexit; atexit.register(lambda: print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 'numpy' in sys.modules))"
    with_it = start(core, tmp_path / "out", before=bare + peak)
    out, err = with_it.communicate(timeout=300)
    assert with_it.returncode == 0, err
    assert "not judged here: numpy is not installed" in " ".join(out.split())
    assert (tmp_path / "out" / "vmcore").read_bytes() == core.read_bytes()
    assert PANIC in (tmp_path / "out" / "vmcore-dmesg.txt").read_text()
    alone = subprocess.run(
        [
            sys.executable,
            "-c",
            "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    used, numpy = re.search(r"peak (\d+) (\w+)", out).groups()  # type: ignore[union-attr]
    assert numpy == "False"
    assert int(used) - int(alone.stdout) < 64 << 10
    assert re.search(r"17 of 17 MiB|16 of 16 MiB", err), err


def test_a_log_that_is_not_there_does_not_end_it(tmp_path: Path) -> None:
    dead = crashed("x86_64")
    (tmp_path / "xen").write_bytes(
        elf_core([Load(BASE, dead.memory)], xen(cr3=BASE + 0x1_0000, cr4=0x20))
    )
    done = capture(Wanted(vmcore=str(tmp_path / "xen"), folder=str(tmp_path / "out")))
    assert (done.log, done.no_log) == (None, "no VMCOREINFO of Linux in the dump")
    assert (tmp_path / "out" / "vmcore").exists()
    with pytest.raises(PerformError, match="Xen dom0's panic"):
        capture(Wanted(vmcore=str(tmp_path / "xen"), folder=str(tmp_path / "filtered"), level=31))


def test_makedumpfile_filters_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = told("x86_64")
    path = tmp_path / "core"
    path.write_bytes(told_core(dead))
    makedumpfile(path, "-l", "-d", "1", out=tmp_path / "by hand")
    done = capture(Wanted(vmcore=str(path), folder=str(tmp_path / "out"), level=1))
    saved = vmcore.read(str(done.copied.path))
    assert (saved.container.kind.value, done.whole) == ("kdump-compressed", True)
    assert done.copied.sha256 == hashlib.sha256(done.copied.path.read_bytes()).hexdigest()
    assert abs(done.copied.size - (tmp_path / "by hand").stat().st_size) < 4096
    del dead.info["SYMBOL(mem_map)"]
    path.write_bytes(told_core(dead))
    with pytest.raises(PerformError, match="makedumpfile ended with 1: "):
        capture(Wanted(vmcore=str(path), folder=str(tmp_path / "fails"), level=1))
    assert not (tmp_path / "fails" / "vmcore").exists()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingPart, match="apt-get install makedumpfile"):
        filtering.check(Vmcore(str(path)))


@pytest.mark.parametrize("mode", ["i386", "pae", "x86_64", "la57"])
def test_the_log_is_read_through_the_dead_kernels_tables(mode: str, tmp_path: Path) -> None:
    dead = crashed(mode)
    logs.ring(dead, [Said(PANIC)])
    (tmp_path / "core").write_bytes(dead.core())
    done = capture(Wanted(vmcore=str(tmp_path / "core"), folder=str(tmp_path / "out")))
    assert (done.log_lines, done.no_log, done.panic is None) == (1, "", False)


@given(
    st.binary(max_size=200),
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=5),
)
@settings(max_examples=60)
def test_any_bytes_are_a_core_or_a_core_error(data: bytes, changes: list[tuple[int, int]]) -> None:
    good = bytearray(SMALL)
    for at, value in changes:
        good[at % len(good)] = value
    for each in (data, b"\x7fELF\2\1\1" + data, bytes(good)):
        descriptor = os.memfd_create("core", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, each)
            found = Vmcore(f"/proc/self/fd/{descriptor}")
            found.page(BASE)
            found.close()
        except CoreError as err:
            assert err.source  # noqa: PT017 - either is right
        finally:
            os.close(descriptor)


SMALL = elf_core([Load(BASE, bytes(8192))], vmcoreinfo({"OSRELEASE": "6"}))


@given(st.lists(st.binary(min_size=1, max_size=3 * 4096), max_size=9), st.sampled_from(Digest))
@settings(max_examples=30)
def test_what_goes_round_is_digested_in_its_order(pieces: list[bytes], asked: Digest) -> None:
    ring = Ring(3 * 4096, asked)
    whole = hashlib.sha256(b"".join(pieces)).hexdigest()
    try:
        for each in pieces:
            buffer = ring.free()
            buffer[: len(each)] = each
            ring.digest(buffer, len(each))
        assert ring.end() == (whole if asked is Digest.SHA256 else None)
    finally:
        ring.close()
